"""Patches of simulated lensed skies on disk: one zarr (version 3) group a sky, in a folder named by what shapes them.

Conventions: ``<stores>/lensing-<12 hex>/sky-0007`` holds float32 ``(patch, y, x)`` images without beam, noise or mask:
``q, u`` (lensed), ``q_unlensed, u_unlensed, e`` (unlensed), all in uK, and ``kappa``, Q and U in the patch's axes
(``patches.lambert``), and float64 ``frames`` ``(patch, axis, component)``, the matrices of ``sky.rotations``.  With
``lensed_eb`` there are ``e_lensed, b_lensed`` too.  The unlensed B is zero and not stored.

The hash takes in everything the values depend on, and neither the number of skies nor anything of the observation, so
a campaign can be made longer.  Sky i is a function of (seed, i): the same sky makes the same bytes, on any machine of
the same libraries.  A sky is there whole or not at all; ``.sky-0007.partial`` is one under way, locked by its process,
so that several processes share a campaign.  Chunks carry a CRC-32C and the attributes the checksums of all
metadata, by which damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from zarr.codecs import Crc32cCodec

from sphereml.config.lensing import Cosmology, LensingConfig
from sphereml.config.schema import PatchConfig
from sphereml.data.group_checksums import CHECKSUM, has_whole_metadata, seal_metadata
from sphereml.data.holdings import lock, refuse_full
from sphereml.data.whole_files import read_sealed_json, refuse_unwritable, sealed_json, tell_rebuilt, write_atomically
from sphereml.data.work_items import do_items
from sphereml.errors import UserError
from sphereml.patches.lambert import LambertPatch
from sphereml.simulate.cmb_spectra import CmbSpectra, load_spectra
from sphereml.simulate.lensed_sky import draw_sky, lensed_eb, lensed_patches
from sphereml.sky.rotations import frame_towards

FORMAT = "sphereml-lensing"
FORMAT_VERSION = 1
UNITS = {"q": "uK", "u": "uK", "q_unlensed": "uK", "u_unlensed": "uK", "e": "uK", "kappa": "1"}
LENSED_EB = {"e_lensed": "uK", "b_lensed": "uK"}
_FRAMES = "frames"
_CAMPAIGN = "campaign.json"
_CHUNK = 16  # patches; 1 MiB at 128 x 128
# Streams of one sky's seed; draw_sky takes those of (seed, sky, 0) and (seed, sky, 1).
_FRAME_STREAM = 2
_CONVENTIONS = {
    "polarization": "COSMO, with respect to the patch's axes: Q > 0 along y",
    "lensing": "X(n + grad phi), kappa = L (L + 1) / 2 phi",
    "projection": "Lambert azimuthal equal-area",
}
# Told how many skies of how many are done.
Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Progress that nobody asked for."""


@dataclass(frozen=True)
class Campaign:
    """What shapes every sky of a campaign: fields up to ``lmax``, spectra up to ``spectra_lmax``.

    ``lensed_eb`` stores the lensed E and B too, for more than twice the time.
    """

    patch: LambertPatch
    patches_per_sky: int
    lmax: int
    spectra_lmax: int
    seed: int
    cosmology: Cosmology
    lensed_eb: bool = False

    @classmethod
    def of(cls, config: LensingConfig, patches: PatchConfig) -> Campaign:
        """The campaign of a configuration.

        Raises:
            UserError: a value that no campaign can have.
        """
        for key, least in (("skies", 1), ("patches_per_sky", 1), ("lmax", 2), ("seed", 0)):
            if getattr(config, key) < least:
                raise UserError(f"lensing.{key}={getattr(config, key)} is impossible", f"give {least} or more")
        if config.lmax > config.spectra_lmax:
            what = f"lensing.lmax={config.lmax} is above lensing.spectra_lmax={config.spectra_lmax}"
            raise UserError(what, "lower lmax or raise spectra_lmax (CAMB is exact well below it)")
        patch = LambertPatch(patches.size, patches.pixel_arcmin)
        skies = (config.patches_per_sky, config.lmax, config.spectra_lmax, config.seed)
        return cls(patch, *skies, config.cosmology, config.lensed_eb)

    def describe(self) -> dict[str, Any]:
        """JSON values: everything the stored values depend on."""
        return asdict(self) | {"camb": version("camb"), "format": FORMAT, "format_version": FORMAT_VERSION}

    @property
    def name(self) -> str:
        """Name of the campaign's folder."""
        digest = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()
        return f"lensing-{digest[:12]}"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.patches_per_sky, self.patch.size, self.patch.size

    @property
    def units(self) -> dict[str, str]:
        """The images that are stored, and their units."""
        return UNITS | (LENSED_EB if self.lensed_eb else {})

    @property
    def bytes_per_sky(self) -> int:
        return 4 * len(self.units) * math.prod(self.shape)

    def frames(self, sky: int) -> np.ndarray:
        """Centres uniform on the sphere, position angles uniform, ``(patches_per_sky, 3, 3)``."""
        rng = np.random.default_rng([self.seed, sky, _FRAME_STREAM])
        centres = rng.standard_normal((self.patches_per_sky, 3))
        angles = rng.uniform(0, 360, self.patches_per_sky)
        return frame_towards(centres / np.linalg.norm(centres, axis=1, keepdims=True), angles)

    def simulate(self, sky: int, spectra: CmbSpectra) -> dict[str, np.ndarray]:
        """All that is stored of a sky, by name."""
        frames, realization = self.frames(sky), draw_sky(spectra, self.lmax, (self.seed, sky))
        values = vars(lensed_patches(realization, self.patch, frames)) | {_FRAMES: frames}
        if self.lensed_eb:
            values |= zip(LENSED_EB, lensed_eb(realization, self.patch.vectors(frames)), strict=True)
        return values


def campaign_folder(config: LensingConfig, patches: PatchConfig, stores: str | Path) -> Path:
    """Where the skies of a configuration are, or would be."""
    return Path(stores).expanduser() / Campaign.of(config, patches).name


def prepare_lensing(
    config: LensingConfig,
    patches: PatchConfig,
    stores: str | Path,
    progress: Progress = _silent,
    only: Sequence[int] | None = None,
    scheduler: str = "",
) -> Path:
    """Simulate the skies that are not there yet; a killed run goes on with the same line.

    Args:
        config: its ``skies`` are numbered from 0.
        stores: the campaign's folder is made in it.
        progress: called before the first sky and after each.
        only: numbers of the skies to make here; skies under way in another process are left to it.
        scheduler: of the workers that make a sky each (:mod:`sphereml.data.work_items`).
    Returns:
        The campaign's folder, for :meth:`LensingStore.open`.
    Raises:
        UserError: an impossible configuration, no room on the disc, or a folder that cannot be written.
    """
    campaign = Campaign.of(config, patches)
    folder = Path(stores).expanduser() / campaign.name
    chosen = range(config.skies) if only is None else sorted(set(only))
    beyond = [sky for sky in (*chosen[:1], *chosen[-1:]) if not 0 <= sky < config.skies]
    if beyond:
        raise UserError(f"there is no sky {beyond[0]} in lensing.skies={config.skies}", "they count from 0")
    here = [sky for sky in _skies_in(folder) if sky in chosen]
    _found(folder, campaign, len(chosen) - len(here))
    missing = [sky for sky in chosen if sky not in here]
    progress(0, len(missing))
    if missing:
        spectra = load_spectra(campaign.spectra_lmax, campaign.cosmology)
        make = partial(_make_sky, folder, campaign, spectra)
        do_items(make, missing, scheduler, lambda done: progress(done, len(missing)))
    return folder


def _make_sky(folder: Path, campaign: Campaign, spectra: CmbSpectra, sky: int) -> None:
    with under_way(folder, sky) as scratch:
        if scratch is not None:
            _write(scratch, campaign, sky, campaign.simulate(sky, spectra))


def sky_name(sky: int) -> str:
    return f"sky-{sky:04d}"


@dataclass(frozen=True)
class LensingStore:
    """The skies of a campaign's folder; made by :meth:`open`."""

    folder: Path
    description: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> LensingStore:
        """Raises UserError: no such folder, or none of ours, or of another version."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(
                f"there are no lensing simulations {folder}",
                "make them: `sphereml simulate lensing` with the same experiment and settings",
            )
        try:
            description = read_sealed_json(folder / _CAMPAIGN)
        except FileNotFoundError:
            description = {}
        except (OSError, ValueError):
            what = f"{folder / _CAMPAIGN} is damaged"
            raise UserError(what, "remove it and give `sphereml simulate lensing` again") from None
        kind, made = description.get("format"), description.get("format_version")
        if kind != FORMAT:
            raise UserError(f"{folder} holds no lensing simulations", "name a folder of `sphereml simulate lensing`")
        if made != FORMAT_VERSION:
            raise UserError(f"{folder} has format version {made}, not {FORMAT_VERSION}", "remove it and simulate again")
        return cls(folder, description)

    @property
    def skies(self) -> list[int]:
        """Numbers of the skies that are there."""
        return _skies_in(self.folder)

    @cached_property
    def patch(self) -> LambertPatch:
        return LambertPatch(**self.description["patch"])

    def require(self, skies: Sequence[int]) -> None:
        """Raise UserError unless all these skies are there."""
        missing = sorted(set(skies) - set(self.skies))
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise UserError(
                f"{len(missing)} of {len(skies)} skies are missing in {self.folder} ({shown})",
                "simulate them: `sphereml simulate lensing` with the same experiment and settings",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The variables of a sky."""
        return (*UNITS, *(LENSED_EB if self.description["lensed_eb"] else ()), _FRAMES)

    def sky(self, index: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Images ``(patch, y, x)`` float32 by name (see the module), and ``frames`` ``(patch, 3, 3)``; all, or some.

        Raises:
            UserError: the sky is missing or damaged.
        """
        self.require([index])
        path = self.folder / sky_name(index)
        damaged = UserError(f"{path} is damaged", "remove it and give `sphereml simulate lensing` again")
        try:
            with xarray.open_zarr(path, consolidated=False, chunks=None) as dataset:
                # Skies of earlier versions have no checksums of their metadata.
                if CHECKSUM in dataset.attrs and not has_whole_metadata(path):
                    raise damaged
                if dataset.attrs["sky"] != index or dataset.attrs["format_version"] != FORMAT_VERSION:
                    raise damaged
                values = {name: dataset[name].values for name in names or self.names}
        except Exception:  # metadata of an earlier version that changed raise whatever they lead to
            raise damaged from None
        count, size = self.description["patches_per_sky"], self.patch.size
        for name, array in values.items():
            shape = (count, 3, 3) if name == _FRAMES else (count, size, size)
            if array.shape != shape or not np.isfinite(array).all():
                raise damaged
        return values


def _skies_in(folder: Path) -> list[int]:
    return sorted(int(path.name[4:]) for path in folder.glob("sky-*") if path.name[4:].isdigit())


def _found(folder: Path, campaign: Campaign, skies: int) -> None:
    """Make the campaign's folder, if there is room for so many skies more."""
    refuse_unwritable(folder)
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    refuse_full(nearest, skies * campaign.bytes_per_sky, f"simulating {skies} skies", "data.stores=PATH")
    try:
        read_sealed_json(folder / _CAMPAIGN)
    except (OSError, ValueError):
        if (folder / _CAMPAIGN).exists():
            tell_rebuilt(folder / _CAMPAIGN)
        write_atomically(folder / _CAMPAIGN, sealed_json(campaign.describe()))


@contextmanager
def under_way(folder: Path, sky: int) -> Iterator[Path | None]:
    """A path that takes the sky's place at the end; None when the sky is another process's."""
    path, stage = folder / sky_name(sky), folder / f".{sky_name(sky)}.partial"
    try:
        stage.mkdir(exist_ok=True)
        descriptor = os.open(stage, os.O_RDONLY)
        try:
            # Between mkdir and the lock another process may have finished the sky and removed the stage.
            if not lock(descriptor, wait=False) or path.exists():
                if path.exists():
                    shutil.rmtree(stage, ignore_errors=True)
                yield None
                return
            scratch = stage / "new"
            shutil.rmtree(scratch, ignore_errors=True)
            yield scratch
            scratch.replace(path)
            shutil.rmtree(stage, ignore_errors=True)
        finally:
            os.close(descriptor)
    except OSError as error:
        mend = "see to the disc, then give the same line again: it goes on"
        raise UserError(f"writing {path} failed ({error.strerror or error})", mend) from None


def _write(folder: Path, campaign: Campaign, sky: int, values: dict[str, np.ndarray]) -> None:
    units = campaign.units
    images: dict[str, Any] = {name: (("patch", "y", "x"), values[name], {"units": units[name]}) for name in units}
    frames = (("patch", "axis", "component"), values[_FRAMES], {"units": "1"})
    attributes = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "sky": sky,
        "seed": [campaign.seed, sky],
        **_CONVENTIONS,
        "campaign": json.dumps(campaign.describe(), sort_keys=True),
    }
    chunk = (min(_CHUNK, campaign.patches_per_sky), *campaign.shape[1:])
    shapes = dict.fromkeys(units, chunk) | {_FRAMES: values[_FRAMES].shape}
    encoding = {
        name: {"chunks": shape, "fill_value": np.nan, "compressors": [Crc32cCodec()]} for name, shape in shapes.items()
    }
    dataset = xarray.Dataset({**images, _FRAMES: frames}, attrs=attributes)
    dataset.to_zarr(folder, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    seal_metadata(folder)
