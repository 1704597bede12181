"""The program as a user meets it: command lines run in this process, tiny settings, a small sky in FITS files."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import healpy
import numpy as np
import pytest

from sphereml.cli.main import main

ROOT = Path(__file__).parents[1]
REAL_SKY = Path(os.environ.get("SPHEREML_REAL_SKY") or ROOT / "../shared/data/real_sky")
needs_real_sky = pytest.mark.skipif(not REAL_SKY.is_dir(), reason=f"no real-sky sample in {REAL_SKY}")
# Eight channels of 10.2 km/s span the velocities that 64 of 1.29 km/s do; 16 x 93.6' is the paper's patch of 24.96 deg.
GALAXY = ["data.galaxy.nside=32", "data.galaxy.channels=8", "data.galaxy.channel_width=10.2"]
PATCHES = ["patches.size=16", "patches.pixel_arcmin=93.6", "evaluation.patches=12"]
TRAINING = ["training.epochs=2", "training.steps_per_epoch=2", "training.validation_batches=1", "training.batch_size=2"]
NETWORK = ["model.width=4", "model.depth=1"]
TINY = [*GALAXY, *PATCHES, *TRAINING, *NETWORK]
DEMO_MODELS = {"integrated": "none", "linear": "none", "unet_flat": "flat", "unet_sphere": "sphere"}
DEMO = [*TINY, f"models=[{','.join(DEMO_MODELS)}]"]
# Their names and columns are those of configs/data/real_sample.yaml.
RINGS, TOTAL, DUST, MASK = (
    "nhi_rings_n64.fits",
    "nhi_hi4pi_n64.fits",
    "dust_353_iqu_n64.fits",
    "mask_lr71_like_n64.fits",
)


@dataclass(frozen=True)
class Outcome:
    """What a command line left: exit code and the text on both streams."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line of a refusal."""
        assert self.code == 2, self
        assert self.err.startswith("sphereml: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        assert "Traceback" not in self.err
        what, _, mend = self.err.removeprefix("sphereml: ").strip().rpartition(": ")
        assert what and mend, self.err
        return self.err


def sphereml(*words: str | Path) -> Outcome:
    """Run ``sphereml words...`` in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(), _signals_restored():
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def done(*words: str | Path) -> Outcome:
    """The same for a line that must succeed, and say nothing on the error stream."""
    outcome = sphereml(*words)
    assert outcome.code == 0 and not outcome.err, outcome.err
    return outcome


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Lightning leaves Ctrl-C ignored after an interrupted training."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def files_below(folder: Path) -> set[str]:
    """Every file below a folder, relative."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def write_map(path: Path, maps: np.ndarray, unit: str, **header: object) -> None:
    """A Galactic RING file of ``(npix,)`` or ``(n, npix)`` maps."""
    options = {"coord": "G", "nest": False} | header
    healpy.write_map(path, maps, column_units=unit, overwrite=True, dtype=np.float32, **options)


def gas_columns(nside: int = 16, count: int = 4) -> np.ndarray:
    """Smooth positive columns ``(count, npix)`` RING, cm^-2."""
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((count, 12 * nside**2))
    smooth = np.stack([healpy.smoothing(row, fwhm=np.radians(10)) for row in noise])
    return 1e20 * np.exp(smooth / smooth.std())


def write_sky(folder: Path, nside: int = 16) -> Path:
    """The files of ``data=real_sample`` at a small Nside: four gas columns, their sum, dust and a mask."""
    folder.mkdir()
    columns = gas_columns(nside)
    dust = 1e-20 * (np.arange(1, 5) @ columns)
    write_map(folder / RINGS, columns, "cm^-2")
    write_map(folder / TOTAL, columns.sum(axis=0), "cm^-2")
    write_map(folder / DUST, np.stack([dust, 0 * dust, 0 * dust]), "uK_RJ")
    write_map(folder / MASK, np.ones(dust.size), "")
    return folder


@dataclass(frozen=True)
class Place:
    """A folder of runs and stores, and the words that send a command there."""

    root: Path
    experiment: str

    @property
    def words(self) -> list[str]:
        return [f"output={self.root / 'runs'}", f"data.stores={self.root / 'stores'}"]

    @property
    def study(self) -> Path:
        """Where the experiment's runs are."""
        return self.root / "runs" / self.experiment

    def run(self, model: str) -> Path:
        """The one run folder of a model."""
        (folder,) = self.study.glob(f"{model}-????????")
        return folder


_MADE: dict[str, Path] = {}


def demo_place(factory: pytest.TempPathFactory) -> Place:
    """``sphereml demo`` with tiny settings, run once a session; tests read it and do not change it."""
    if "demo" not in _MADE:
        place = Place(factory.mktemp("demo"), "demo")
        done("demo", *DEMO, *place.words)
        _MADE["demo"] = place.root
    return Place(_MADE["demo"], "demo")


def sky_place(factory: pytest.TempPathFactory) -> Path:
    """A good folder of FITS maps, written once a session; tests read it and do not change it."""
    if "sky" not in _MADE:
        _MADE["sky"] = write_sky(factory.mktemp("sky") / "maps")
    return _MADE["sky"]
