"""What ``import sphereml as sm`` offers beside the classes: maps, training, prediction, spectra, cleaning.

Conventions: maps go in and come out as :class:`~sphereml.sky.maps.SkyMap`, which knows its fields and the order of its
pixels; a bare array is taken where its order is said (``order="ring"`` or ``"nest"``), and refused where it is not,
since the wrong order gives a plausible map and a wrong answer.  Paths are strings or ``pathlib.Path``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.maps import Maps, Order, SkyMap, nest_columns

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig
    from sphereml.data.store import Sky
    from sphereml.evaluation.protocol import Result
    from sphereml.harmonics.bandpowers import Bandpowers
    from sphereml.templates.marginalization import Marginalization
    from sphereml.training.predictor import Predictor
    from sphereml.training.runs import Run


def _quiet(line: str) -> None:
    """Takes lines of progress where nobody reads them."""


def load_sky(*overrides: str, say: Callable[[str], None] = _quiet) -> Sky:
    """The sky of a data configuration, simulated or read, from its store when it has been made before.

    Args:
        overrides: words as on the command line, e.g. ``"data=galaxy"``, ``"data.galaxy.nside=64"``.
        say: takes lines of progress.

    Raises:
        UserError: a word is wrong, a file is missing or damaged, or the store cannot be written.

    Example:
        >>> import sphereml as sm
        >>> sm.load_sky("data=galaxy", "data.galaxy.nside=8", "data.galaxy.channels=4").inputs.shape
        (768, 4)
    """
    from sphereml.config.compose import compose
    from sphereml.sources.sky import load_sky as load

    return load(compose(overrides).data, say)


def read_map(path: Path | str, fields: Sequence[int] = (), unit: str = "", nest: bool = True) -> SkyMap:
    """Read columns of a HEALPix FITS file; missing pixels are NaN, U has the COSMO sign whatever the file's.

    Args:
        fields: columns, counted from 0; all when empty.
        unit: where the file states none.
        nest: whether the values come in NEST order, or in RING.

    Raises:
        UserError: the file is missing, damaged, not a full-sky Galactic map, or states no pixel order or unit.

    Example:
        >>> import numpy as np, tempfile, sphereml as sm
        >>> path = tempfile.mkdtemp() + "/dust.fits"
        >>> _ = sm.write_map(path, sm.SkyMap(np.arange(12.0), sm.Field("I", "uK_RJ"), order="ring"))
        >>> sm.read_map(path, nest=False).values[:3, 0].tolist()
        [0.0, 1.0, 2.0]
    """
    from sphereml.data.healpix_fits import read_healpix

    maps = read_healpix(path, fields, unit, allow_missing=True)
    named = _fields(maps.names, maps.unit)
    sky = SkyMap(maps.values, named, order="nest", frame=maps.frame)
    return sky if nest else SkyMap(sky.to_healpy().reshape(len(maps.names), -1).T, named, "ring", maps.frame)


def _fields(names: Sequence[str], unit: str) -> tuple[Field, ...]:
    """Fields of columns; Q and U side by side are one field of spin 2."""
    found: list[Field] = []
    rest = list(names)
    while rest:
        name = rest.pop(0)
        partner = rest[0] if rest else ""
        if name[:1].upper() == "Q" and partner[:1].upper() == "U" and name[1:].upper() == partner[1:].upper():
            rest.pop(0)
            found.append(Field("P", unit, spin=2) if len(name) == 1 else Field(f"P{name[1:]}", unit, spin=2))
        else:
            found.append(Field(name, unit))
    return tuple(found)


def write_map(path: Path | str, maps: SkyMap, overwrite: bool = False) -> Path:
    """Write maps as a FITS file that healpy reads: RING, with units, frame and, for Q and U, ``POLCCONV``.

    Raises:
        UserError: the file exists, cannot be written, or the fields have different units.

    Example:
        >>> import numpy as np, tempfile, sphereml as sm
        >>> maps = sm.SkyMap(np.ones((12, 2)), sm.Field("P", "uK_CMB", spin=2), order="nest")
        >>> sm.write_map(tempfile.mkdtemp() + "/qu.fits", maps).name
        'qu.fits'
    """
    from sphereml.templates.products import write_sky_map

    return write_sky_map(path, maps, overwrite=overwrite)


def train(*overrides: str, resume: bool = False, overwrite: bool = False, say: Callable[[str], None] = print) -> Run:
    """Train the model of a configuration, of any task; a finished run is opened.

    Args:
        overrides: words as on the command line, e.g. ``"experiment=dust_demo"``, ``"model=unet_sphere"``.
        resume: go on with an interrupted training.
        overwrite: train again what is already there.

    Raises:
        UserError: see ``sphereml train``.

    Example:
        >>> import sphereml as sm
        >>> small = ["data.galaxy.nside=8", "data.galaxy.channels=4", "patches.size=8", "patches.pixel_arcmin=180"]
        >>> run = sm.train("model=linear", "bands.r50=[4, 16]", *small, say=lambda line: None)
        >>> run.predict().column_names
        ('I',)
    """
    from sphereml.training.fit import fit
    from sphereml.training.lifecycle import FitOptions

    return fit(_composed(overrides), FitOptions(resume, overwrite, say))


def _composed(overrides: Sequence[str]) -> ExperimentConfig:
    from sphereml.config.compose import compose

    return compose(overrides)


def open_run(folder: Path | str) -> Run:
    """A finished run.

    Raises:
        UserError: no run, unfinished, or not as it was trained.

    Example:
        >>> import sphereml as sm
        >>> sm.open_run("no such folder")
        Traceback (most recent call last):
            ...
        sphereml.errors.UserError: no such folder/config.json does not exist: name a run folder ...
    """
    from sphereml.training.runs import Run

    return Run.open(folder)


def load_model(folder: Path | str) -> Predictor:
    """A trained model without its training data: ``.network``, ``.scaling``, ``.predict(sky)``.

    Raises:
        UserError: as :func:`open_run`.

    Example:
        >>> import sphereml as sm
        >>> model = sm.load_model("runs/demo/unet_sphere-0123abcd")  # doctest: +SKIP
        >>> model.predict(sm.load_sky("data=galaxy", "data.galaxy.seed=7"))  # doctest: +SKIP
        SkyMap(I [uK_RJ]; nside=128, NEST, frame G)
    """
    return open_run(folder).predictor()


def compare(
    runs: Run | Path | str | Sequence[Run | Path | str],
    *,
    patches: int | None = None,
    skip: Sequence[str] = (),
    say: Callable[[str], None] = _quiet,
) -> Result:
    """Measure finished runs of one task side by side, by the study that is the task's own.

    Args:
        runs: runs, run folders, or folders of runs.
        patches: number of held-out patches, where it is not to be that of the configuration.
        skip: sections of the study to leave out.

    Raises:
        UserError: runs of different tasks, data or regions, or settings that cannot be measured.

    Example:
        >>> import sphereml as sm
        >>> sm.compare("runs/demo").to_dataframe()  # doctest: +SKIP
    """
    from sphereml.evaluation.protocol import StudyOptions, open_study
    from sphereml.training.runs import Run, find_runs

    listed = [runs] if isinstance(runs, Run | Path | str) else list(runs)
    found = [one for item in listed for one in ([item] if isinstance(item, Run) else find_runs(Path(item)))]
    if not found:
        raise UserError("there is no run to compare", "train first: sm.train(...)")
    evaluation = found[0].config.evaluation
    evaluation = evaluation if patches is None else replace(evaluation, patches=patches)
    return open_study(found, StudyOptions(say, skip, evaluation)).measure()


def marginalize(
    sky: Maps,
    templates: Maps | Sequence[Maps],
    mask: Maps,
    *,
    order: Order | None = None,
    lmax: int | None = None,
    lmin: int = 2,
    bands: Bands | None = None,
) -> Marginalization:
    """Fit the amplitudes of scalar templates on the masked sky and subtract them.

    The estimator is in :mod:`sphereml.templates.marginalization`.

    Args:
        sky: one map; an amplitude has its unit over that of the template.
        templates: maps; a map of several columns counts as several templates.
        mask: weights in 0..1.
        order: of bare arrays, ``"ring"`` or ``"nest"``.
        lmax: highest multipole of the fit, 2 nside when None.

    Raises:
        UserError: an array without its order, lengths that differ, an unusable mask or template.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> rng = np.random.default_rng(0)
        >>> noise, dust = rng.normal(size=(2, 3072))
        >>> sm.marginalize(noise + 30 * dust, dust, np.ones(3072), order="ring").amplitudes.round().tolist()
        [30.0]
    """
    from sphereml.templates.marginalization import marginalize as fit

    listed = [templates] if isinstance(templates, SkyMap | np.ndarray) else list(templates)
    stack = np.concatenate([nest_columns(one, order, "a template") for one in listed], axis=1).T
    rows = nest_columns(sky, order, "the sky"), nest_columns(mask, order, "the mask")
    if rows[0].shape[1] != 1 or rows[1].shape[1] != 1:
        raise UserError("the sky or the mask has several columns", "choose one: maps['I']")
    return fit(rows[0][:, 0], stack, rows[1][:, 0], lmax=lmax, lmin=lmin, bands=bands)


def spectra(
    maps: Maps | Sequence[Maps],
    mask: Maps | None = None,
    *,
    lmax: int | None = None,
    bins: Bands | Sequence[float] | None = None,
    order: Order | None = None,
    **options: Any,
) -> dict[tuple[int, int], Bandpowers]:
    """All auto and cross spectra C_ell of maps under one mask, freed of its mode coupling, by the pair of their places.

    Args:
        maps: of one sky; every field counts, scalars and polarization.
        mask: weights in 0..1; None keeps the whole sky.
        lmax: 3 nside - 1 when None.
        bins: edges or bands; when None as wide as the multipoles that the mask keeps apart.
        order: of bare arrays, ``"ring"`` or ``"nest"``.
        options: ``beam``, ``purify_b``, ``templates`` and others of :func:`sphereml.harmonics.sky_spectra.spectra`.

    Raises:
        UserError: an array without its order, or an unusable mask or band.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> sm.spectra(np.random.default_rng(0).normal(size=3072), lmax=20, order="nest")[0, 0]["TT"].shape
        (19,)
    """
    from sphereml.harmonics.sky_spectra import spectra as decoupled

    listed = [maps] if isinstance(maps, SkyMap | np.ndarray) else list(maps)
    rows = [row for one in listed for row in _field_rows(one, order)]
    weight = None if mask is None else nest_columns(mask, order, "the mask")[:, 0]
    return decoupled(rows, weight, lmax=lmax, bins=bins, **options)


def _field_rows(maps: Maps, order: Order | None) -> Iterator[np.ndarray]:
    """NEST rows of every field: ``(npix,)``, ``(2, npix)`` for one with a spin; a bare array holds scalars."""
    columns = nest_columns(maps, order, "a map").T
    fields = maps.fields if isinstance(maps, SkyMap) else (Field("map"),) * len(columns)
    first = 0
    for one in fields:
        yield columns[first : first + 2] if one.spin else columns[first]
        first += one.columns


def correlation(
    one: Maps, other: Maps, mask: Maps | None = None, *, bands: Bands, order: Order | None = None
) -> dict[str, float]:
    """Means over bands of ``r_ell = C^ab_ell / sqrt(C^aa_ell C^bb_ell)`` of two scalar maps, by the band's name.

    Args:
        mask: weights in 0..1; None keeps the whole sky.
        bands: r is averaged over the integers of each.
        order: of bare arrays.

    Raises:
        UserError: an array without its order, or an unusable mask.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> a, b = np.random.default_rng(0).normal(size=(2, 3072))
        >>> r = sm.correlation(a, a + 0.01 * b, bands=sm.Bands(all=(2, 20)), order="nest")
        >>> round(r["all"], 2)
        1.0
    """
    from sphereml.harmonics.sky_spectra import correlation as of_rows

    rows = [nest_columns(maps, order, "a map").T for maps in (one, other)]
    if len(rows[0]) != 1 or len(rows[1]) != 1:
        raise UserError("r is of two maps of one column each", "choose columns: maps['I'] with its order")
    weight = None if mask is None else nest_columns(mask, order, "the mask")[:, 0]
    return of_rows(rows[0][0], rows[1][0], weight, bands=bands)


class SHT(nn.Module):
    """Spherical harmonic transforms of full-sky maps in NEST order, differentiable where torch goes in.

    Maps are ``(..., npix)`` for spin 0 and ``(..., 2, npix)`` (Q, U in COSMO sign) for spin 2; coefficients are complex
    ``(..., nalm)`` or ``(..., 2, nalm)`` (E, B) in healpy's triangular order.  numpy in gives numpy out.

    Args:
        nside: of the maps.
        lmax: highest multipole, 2 nside when None (above, an analysis is no inverse of a synthesis).
        spin: 0 or 2.

    Raises:
        UserError: an Nside that does not exist, or a spin other than 0 and 2.

    Example:
        >>> import numpy as np, sphereml as sm
        >>> sht = sm.SHT(nside=16, lmax=20, spin=2)
        >>> qu = np.random.default_rng(0).normal(size=(2, 3072))
        >>> eb = sht.analysis(qu)
        >>> eb.shape, sht.synthesis(eb).shape
        ((2, 231), (2, 3072))
    """

    def __init__(self, nside: int, lmax: int | None = None, spin: int = 0) -> None:
        super().__init__()
        from sphereml.harmonics.autograd import SphericalTransform

        if spin not in (0, 2):
            raise UserError(f"there is no transform of spin {spin}", "choose spin 0 or 2")
        self.nside, self.spin = HealpixGrid(nside).nside, spin
        self.lmax = HealpixGrid(nside).safe_lmax if lmax is None else lmax
        self._transform = SphericalTransform(self.nside, self.lmax, spin=spin)

    def analysis(self, maps: Any, iterations: int = 3) -> Any:
        """Coefficients of maps; ``iterations`` of residual correction as healpy's map2alm."""
        from sphereml.harmonics.autograd import analysis

        given = torch.as_tensor(maps)
        found = analysis(given, self._transform, iterations=iterations)
        return found if isinstance(maps, torch.Tensor) else found.numpy()

    def synthesis(self, alm: Any) -> Any:
        """Maps of coefficients."""
        from sphereml.harmonics.autograd import synthesis

        found = synthesis(torch.as_tensor(alm), self._transform)
        return found if isinstance(alm, torch.Tensor) else found.numpy()

    forward = analysis
