"""Bits flipped and files cut in everything that is read back: refused by name, rebuilt with a line, or of no effect."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import healpy
import numpy as np
import pytest
from fixtures_cli import Outcome
from fixtures_faults import TINY, Tally, Trial, attempt, damage, made_runs, snapshot
from fixtures_lensing import toy_spectra

from sphereml.cli.main import main
from sphereml.config.lensing import LensingConfig
from sphereml.config.schema import PatchConfig
from sphereml.data.array_files import read_arrays, write_arrays
from sphereml.data.channel_store import StagedMap, StagedMaps
from sphereml.data.split_files import read_split
from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.workspace import Workspace
from sphereml.simulate import cmb_spectra, lensing_store
from sphereml.simulate.lensing_store import LensingStore, prepare_lensing
from sphereml.sky.fields import Field
from sphereml.sky.maps import SkyMap
from sphereml.templates.products import write_mask, write_sky_map
from sphereml.training.checkpoints import LAST, PREVIOUS, latest_checkpoint, read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
TRIALS = [pytest.param(1, id="sample"), pytest.param(40, id="full", marks=pytest.mark.slow)]


@dataclass(frozen=True)
class Subject:
    """Files that a reading goes through.

    Args:
        files: that may be damaged.
        read: gives the trial, and what was read as comparable bytes or text.
    """

    files: Callable[[], list[Path]]
    read: Callable[[], tuple[Trial, object]]


def line(*words: str | Path, product: Callable[[], object] = lambda: None) -> Callable[[], tuple[Trial, object]]:
    """A reading through the command line; what is compared is its product, or its output."""

    def read() -> tuple[Trial, object]:
        trial = attempt(*words)
        return trial, (trial.outcome.out if (found := product()) is None else found)

    return read


def call(work: Callable[[], object]) -> Callable[[], tuple[Trial, object]]:
    """A reading through a function; a UserError is a refusal as the command line's, None one that is rebuilt."""

    def read() -> tuple[Trial, object]:
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                found = work()
            return Trial(Outcome(0, "", said.getvalue())), found
        except UserError as error:
            return Trial(Outcome(2, "", f"sphereml: {error}\n")), None
        except Exception as error:
            return Trial(Outcome(1, "", ""), repr(error)), None

    return read


def maps(root: Path) -> Subject:
    """A sky, a template and a mask that are fitted: FITS with checksums."""
    rng = np.random.default_rng(1)
    names = ("sky", "template")
    for name in names:
        write_sky_map(root / f"{name}.fits", SkyMap(rng.normal(size=(768, 1)), Field("I", "uK_CMB"), order="nest"))
    write_mask(root / "mask.fits", np.arange(768) % 5 > 0)
    out = root / "out"
    words = ["--mask", root / "mask.fits", "--template", root / "template.fits", "--out", out, "--overwrite"]
    read = line("marginalize", "--sky", root / "sky.fits", *words, product=lambda: snapshot(out))
    return Subject(lambda: [root / f"{name}.fits" for name in (*names, "mask")], read)


def prepared_sky(root: Path) -> Subject:
    """The store of a sky, by the line that makes it where it is not there."""
    words = [*TINY[:3], f"data.stores={root / 'stores'}"]
    read = line("simulate", "dust", *words, product=lambda: snapshot(root / "stores"))
    assert read()[0].outcome.code == 0
    return Subject(lambda: [path for path in (root / "stores").rglob("*") if path.is_file()], read)


def stored_sky(root: Path) -> Subject:
    """The store of a sky that a run is predicted from, pixel by pixel, which reads no more of it than it needs."""
    (run,) = (root / "runs/test").glob("linear-*")
    out = root / "out"
    read = line("predict", run, "--stores", root / "stores", "--out", out, "--overwrite", product=lambda: snapshot(out))
    return Subject(lambda: [path for path in (root / "stores").rglob("*") if path.is_file()], read)


def run_files(root: Path) -> Subject:
    """Everything that a run folder holds and that is read again."""
    (run,) = (root / "runs/test").glob("linear-*")
    out = root / "out"
    read = line("predict", run, "--stores", root / "stores", "--out", out, "--overwrite", product=lambda: snapshot(out))
    names = ("config.json", "manifest.json", "scaling.json", "model.safetensors", "split.fits")
    return Subject(lambda: [run / name for name in names], read)


def comparison(root: Path) -> Subject:
    """What a report is made of."""
    folder = root / "runs/test"
    read = line("report", folder, product=lambda: (folder / "report.html").read_bytes())
    figures = [path for path in (folder / "figures").rglob("*") if path.is_file()]
    return Subject(lambda: [folder / "comparison.json", *figures], read)


def camb_cache(root: Path) -> Subject:
    """Spectra that took CAMB 13 s."""
    path = root / "spectra" / "camb-0123456789ab.npz"

    def read() -> tuple[Trial, object]:
        trial = attempt("lensing", "n0", "--noise", "1", "--beam", "1", "--lmin", "30", "--lmax", "300", "--json")
        return trial, json.loads(trial.outcome.out or "{}") | {"seconds": None}

    return Subject(lambda: [path], read)


def mean_field_cache(root: Path) -> Subject:
    """Simulated estimates, as any cache of arrays."""
    rng = np.random.default_rng(2)
    arrays = {"estimate": rng.normal(size=40).astype(np.complex64), "kappa": rng.normal(size=40).astype(np.complex64)}
    write_arrays(root / "sky-0000.npz", arrays)

    def read() -> object:
        found = read_arrays(root / "sky-0000.npz")
        if found is None:
            write_arrays(root / "sky-0000.npz", arrays)
            found = read_arrays(root / "sky-0000.npz")
        assert found is not None
        return {name: values.tobytes() for name, values in found.items()}

    return Subject(lambda: [root / "sky-0000.npz"], call(read))


def workspace(root: Path) -> Subject:
    """The coupling of a mask."""
    mask = (np.arange(192) % 7 > 0).astype(float)
    Workspace(mask, Bands(one=(2, 5), two=(5, 9)), spins=(0, 0)).save(root / "ws.npz")
    return Subject(lambda: [root / "ws.npz"], call(lambda: Workspace.load(root / "ws.npz").rows.tobytes()))


def stage(root: Path) -> Subject:
    """A finished map of a survey whose preparation was stopped."""
    staged = StagedMap(np.linspace(0, 1, 192, dtype=np.float32), np.arange(3), 0.5)
    maps = StagedMaps(root)
    maps.put("channel-0000", staged)

    def read() -> object:
        if "channel-0000" not in maps:
            maps.put("channel-0000", staged)
        found = maps.get("channel-0000")
        return found.values.tobytes(), found.gaps.tobytes(), found.mean

    return Subject(lambda: sorted(root.glob("channel*")), call(read))


def checkpoints(root: Path) -> Subject:
    """The two last ones of a training."""
    (run,) = (root / "runs/test").glob("unet_sphere-*")
    folder = run / "checkpoints"
    known = {name: read_checkpoint(folder / name)["epoch"] for name in (LAST, PREVIOUS)}

    def read() -> object:
        found = latest_checkpoint(folder, lambda said: print(said, file=sys.stderr))
        assert found is not None
        return read_checkpoint(found)["epoch"] == known[found.name]

    return Subject(lambda: [folder / name for name in (LAST, PREVIOUS)], call(read))


def lensed_skies(root: Path) -> Subject:
    """A stored sky of lensed patches, and the description of its campaign."""
    config = LensingConfig(skies=1, patches_per_sky=2, lmax=30, spectra_lmax=40)
    folder = prepare_lensing(config, PatchConfig(8, 60.0), root)

    def read() -> object:
        store = LensingStore.open(folder)
        return store.patch, {name: values.tobytes() for name, values in store.sky(0).items()}

    return Subject(lambda: [path for path in folder.rglob("*") if path.is_file()], call(read))


def split(root: Path) -> Subject:
    """The regions of a run, as a split of another one."""
    (run,) = (root / "runs/test").glob("linear-*")

    def read() -> object:
        found = read_split(run / "split.fits")
        return found.name, found.margin, found.parts.tobytes()

    return Subject(lambda: [run / "split.fits"], call(read))


def pins(root: Path) -> Subject:
    """The checksums of files that came from an archive."""
    (root / "manifests").mkdir()
    entry = {"name": "a.fits", "unit": "K", "urls": ["https://example.org/a.fits"]}
    product = {"name": "a", "title": "A", "files": [entry], "licence": "x", "citation": "x", "frame": "G",
               "reader": "healpix"}  # fmt: skip
    (root / "manifests/a.yaml").write_text(json.dumps({"products": [product]}))
    (root / "copy").mkdir()
    healpy.write_map(root / "copy/a.fits", np.arange(12.0), column_units="K", coord="G", dtype=np.float64)
    where = ["--manifests", root / "manifests"]
    assert main([str(w) for w in ("data", "fetch", "a", *where, "--to", root / "data", "--from", root / "copy")]) == 0
    read = line("data", "verify", "a", "--in", root / "data", *where)
    return Subject(lambda: [root / "data/a.fits", root / "data/checksums.json"], read)


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    one.__name__: one
    for one in (
        *(maps, stored_sky, run_files, comparison, camb_cache, mean_field_cache, workspace, stage, checkpoints),
        *(lensed_skies, split, pins, prepared_sky),
    )
}
_OF_RUNS = ("stored_sky", "run_files", "comparison", "checkpoints", "split")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No CAMB, and caches of the test's own."""
    monkeypatch.setenv("SPHEREML_DATA", str(tmp_path))
    path = tmp_path / "spectra" / "camb-0123456789ab.npz"
    monkeypatch.setattr(cmb_spectra, "spectra_path", lambda *_, **__: path)
    monkeypatch.setattr(lensing_store, "load_spectra", lambda lmax, cosmology: toy_spectra(lmax))
    monkeypatch.setattr(cmb_spectra, "compute_spectra", lambda lmax, cosmology=None: toy_spectra(lmax))
    yield


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_damage(name, trials, tmp_path, tmp_path_factory, toy, record_property):
    root = tmp_path / "place"
    if name in _OF_RUNS:
        shutil.copytree(made_runs(tmp_path_factory), root)
    else:
        root.mkdir()
    subject, tally = SUBJECTS[name](root if name != "camb_cache" else tmp_path), Tally(f"flips and cuts of {name}")
    trial, expected = subject.read()
    assert trial.outcome.code == 0, trial
    for number in range(trials):
        rng = np.random.default_rng([len(name), number])
        whole = {path: path.read_bytes() for path in subject.files()}
        what = damage(list(whole)[int(rng.integers(len(whole)))], rng)
        trial, found = subject.read()
        tally.add(trial.verdict(lambda found=found: found == expected), f"{name} {number}: {what}")
        for path, content in whole.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    tally.finish(record_property)
