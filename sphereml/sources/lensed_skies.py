"""Whole lensed skies with what a network sees of them, stored sky by sky: features are dear and batches many.

Conventions: a sky is a store (:mod:`sphereml.data.store`) whose inputs are the features of
:class:`~sphereml.lensing.sky_features.SkyFeatures` and whose targets are kappa (to ``lmax_kappa``) and the unlensed E
(to ``lmax_eb``, uK), NEST.  It is a function of (seed, number) and of everything that the folder's hash takes in.
Signal and noise are drawn as a_lm, E and B deconvolved of the beam; Q and U are read at pixel centres.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sphereml import __version__
from sphereml.config.lensing import Cosmology, LensingConfig
from sphereml.data.array_files import read_arrays, write_arrays
from sphereml.data.holdings import refuse_full
from sphereml.data.store import FORMAT_VERSION, Sky, open_dataset, open_store, write_store
from sphereml.data.whole_files import refuse_unwritable
from sphereml.data.work_items import do_items
from sphereml.errors import UserError
from sphereml.harmonics.filters import multiply
from sphereml.harmonics.rings import resize_alm
from sphereml.harmonics.transforms import synthesis
from sphereml.lensing.noise import NoiseModel
from sphereml.lensing.observation import Observation
from sphereml.lensing.reconstruction import Legs
from sphereml.lensing.sky_features import SkyFeatures, feature_fields
from sphereml.lensing.sky_passes import PassCurves, PassEstimator, measure_curves
from sphereml.lensing.sphere_estimator import SphereEstimator
from sphereml.simulate.cmb_spectra import CmbSpectra, load_spectra
from sphereml.simulate.fields import draw_alm
from sphereml.simulate.lensed_sky import LensedSky, draw_sky, lensed_alm
from sphereml.simulate.lensing_store import sky_name, under_way
from sphereml.sky.fields import Field, count_columns
from sphereml.sky.grid import HealpixGrid

TARGETS = {"kappa": Field("kappa"), "e": Field("E", "uK_CMB")}
# Streams of one sky's seed; draw_sky takes those of (seed, sky, 0) and (seed, sky, 1).
_NOISE_STREAM = 2
_RING_MARGIN = 150
_CURVES = "passes.npz"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SkyCampaign:
    """What shapes every whole sky of an experiment; E and B up to ``lmax`` are lensed."""

    nside: int
    form: str
    lmax: int
    lmin: int
    lmax_eb: int
    lmax_kappa: int
    lmin_b: int
    passes: int
    noise: float
    beam: float
    spectra_lmax: int
    seed: int
    cosmology: Cosmology

    @classmethod
    def of(cls, config: LensingConfig, form: str) -> SkyCampaign:
        values = {one.name: getattr(config, one.name) for one in fields(cls) if one.name not in ("form", "lmax_kappa")}
        return cls(form=form, lmax_kappa=config.lmax_kappa or config.lmax_eb, **values)

    def describe(self) -> dict[str, Any]:
        """JSON values: everything the stored values depend on."""
        made_by = {"camb": version("camb"), "code": __version__, "store": FORMAT_VERSION}
        if self.form == "plain" and self.lmin_b:
            made_by["features"] = 2  # 1 held B below lmin_b
        return asdict(self) | made_by

    @property
    def name(self) -> str:
        """Name of the campaign's folder."""
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()
        return f"lensing-sky-{digest[:12]}"


@dataclass(frozen=True, eq=False)
class DrawnSky:
    """A realization, its observed E and B, and the a_lm of its lensed B without noise."""

    sky: LensedSky
    legs: Legs
    b: np.ndarray


@dataclass(frozen=True, eq=False)
class LensedSkies:
    """The skies of a campaign, made when they are first asked for.

    Args:
        fiducial: spectra that the filters know; CAMB's of the campaign's cosmology when None.
    """

    campaign: SkyCampaign
    stores: Path
    fiducial: CmbSpectra | None = None

    @property
    def folder(self) -> Path:
        return self.stores / self.campaign.name

    @cached_property
    def spectra(self) -> CmbSpectra:
        return self.fiducial or load_spectra(self.campaign.spectra_lmax, self.campaign.cosmology)

    @cached_property
    def observation(self) -> Observation:
        campaign = self.campaign
        return Observation(campaign.noise, campaign.beam, campaign.lmin, campaign.lmax_eb, campaign.lmin_b)

    @cached_property
    def model(self) -> NoiseModel:
        return NoiseModel(self.spectra, self.observation, self.campaign.lmax_kappa)

    @cached_property
    def features(self) -> SkyFeatures:
        return SkyFeatures(PassEstimator(self.model, self._curves), self.campaign.nside, self.campaign.form)

    @cached_property
    def _curves(self) -> PassCurves:
        """Measured on sky 0, which trains, and kept in the folder."""
        if self.campaign.form == "plain":  # its features hold no estimate
            return PassCurves.of_first(self.model, np.full(self.campaign.lmax_kappa + 1, np.inf))
        if self.campaign.passes == 1:
            return PassCurves.of_first(self.model, SphereEstimator(self.model).n0)
        path = self.folder / _CURVES
        if (kept := read_arrays(path)) is not None:
            return PassCurves(**kept)
        drawn, top = self.draw(0), self.campaign.lmax_kappa
        kappa = resize_alm(drawn.sky.kappa, top).astype(np.complex128)
        curves = measure_curves(self.model, drawn.legs, kappa, drawn.b, self.campaign.passes)
        write_arrays(path, vars(curves))
        return curves

    def simulate(self, number: int, spectra: CmbSpectra | None = None) -> Sky:
        """A sky of the fiducial spectra or of others, whose features are those of the fiducial filters all the same."""
        campaign, features = self.campaign, self.features
        drawn = self.draw(number, spectra)
        truth = (drawn.sky.kappa, campaign.lmax_kappa), (drawn.sky.e, campaign.lmax_eb)
        targets = [synthesis(resize_alm(alm, top).astype(complex), campaign.nside, top) for alm, top in truth]
        return Sky(
            HealpixGrid(campaign.nside),
            features(drawn.legs),
            np.stack(targets, axis=1).astype(np.float32),
            features.fields,
            tuple(TARGETS.values()),
            provenance={"kind": "lensing, sphere", "files": campaign.name, "seed": [campaign.seed, number]},
        )

    def draw(self, number: int, spectra: CmbSpectra | None = None) -> DrawnSky:
        """The realization of a sky with its noise; see :meth:`simulate`."""
        campaign, lmax, ee = self.campaign, self.campaign.lmax_eb, self.spectra.ee_lensed
        sky = draw_sky(spectra or self.spectra, campaign.lmax, (campaign.seed, number))
        # Rings enough that what lies between lmax_eb and lmax (and somewhat more) does not alias below lmax_eb.
        lensed = lensed_alm(sky, lmax, _RING_MARGIN - (campaign.lmax - lmax) // 2).astype(np.complex128)
        e, b = lensed + self._noise(number)
        return DrawnSky(sky, Legs(e, b, multiply(e.copy(), self.observation.filtered(ee, ee, 1))), lensed[1])

    def _noise(self, number: int) -> np.ndarray:
        rng = np.random.default_rng([self.campaign.seed, number, _NOISE_STREAM])
        power = self.observation.noise_spectrum()
        return np.stack([draw_alm(power, rng) for _ in range(2)])

    def prepare(
        self, numbers: Sequence[int], progress: Progress = lambda done, total: None, scheduler: str = ""
    ) -> None:
        """Make the skies that are not there yet; those under way in another process are left to it.

        Args:
            scheduler: of the workers that make a sky each (:mod:`sphereml.data.work_items`).

        Raises:
            UserError: no room on the disc, or a folder that cannot be written.
        """
        missing = [number for number in numbers if not (self.folder / sky_name(number)).exists()]
        progress(0, len(missing))
        if not missing:
            return
        refuse_unwritable(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        refuse_full(self.folder, len(missing) * self._bytes, f"simulating {len(missing)} skies", "data.stores=PATH")
        skies = self
        if scheduler:
            _ = self._curves  # measured and kept before the workers, who read them
            skies = replace(self, fiducial=self.spectra)
        do_items(partial(_make_sky, skies), missing, scheduler, lambda done: progress(done, len(missing)))

    @property
    def _bytes(self) -> int:
        columns = count_columns(feature_fields(self.campaign.form, self.campaign.passes)) + len(TARGETS)
        return 4 * columns * HealpixGrid(self.campaign.nside).npix

    def sky(self, number: int) -> Sky:
        """A whole sky, from its store; raises UserError when it is missing or damaged."""
        return open_store(self._path(number))

    def opened(self, number: int) -> StoredSky:
        """A sky that is read tile by tile; raises UserError when it is missing."""
        return StoredSky(self._path(number))

    def _path(self, number: int) -> Path:
        path = self.folder / sky_name(number)
        if not path.exists():
            mend = "give `sphereml simulate lensing` with the same experiment, or wait for the process that makes it"
            raise UserError(f"the sky {path} is missing", mend)
        return path


def _make_sky(skies: LensedSkies, number: int) -> None:
    with under_way(skies.folder, number) as scratch:
        if scratch is not None:
            write_store(scratch, skies.simulate(number))


@dataclass(frozen=True, eq=False)
class StoredSky:
    """A sky on disk, of which a tile takes a few chunks.

    Training reads thousands of tiles: a read takes 1.4 ms where :meth:`SkyOnDisk.at
    <sphereml.data.sky_on_disk.SkyOnDisk.at>`, which opens and checks the store anew, takes 8.
    """

    path: Path

    @cached_property
    def _arrays(self) -> tuple[Any, Any]:
        import zarr

        open_dataset(self.path).close()  # refuses what is no store of ours
        group = zarr.open_group(self.path, mode="r")
        return group["inputs"], group["targets"]

    def read(self, pixels: slice) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets ``(npix, columns)`` of consecutive pixels.

        Raises:
            UserError: values are missing.
        """
        damaged = UserError(f"the store {self.path} is damaged", "remove it and prepare it again")
        try:
            found = tuple(np.asarray(array[pixels]) for array in self._arrays)
        except (KeyError, ValueError, OSError, RuntimeError):
            raise damaged from None
        if not all(np.isfinite(values).all() for values in found):
            raise damaged
        return found[0], found[1]
