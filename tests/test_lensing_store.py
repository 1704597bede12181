"""The store of lensed patches, and `sphereml simulate lensing`: resuming, sharing, refusing."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from fixtures_lensing import toy_spectra as any_toy_spectra

from sphereml.cli.main import main
from sphereml.cli.simulate import parse_skies
from sphereml.config.lensing import Cosmology, LensingConfig
from sphereml.config.schema import PatchConfig
from sphereml.data.whole_files import json_digest, read_sealed_json, sealed_json
from sphereml.errors import UserError
from sphereml.patches.lambert import LambertPatch
from sphereml.simulate import lensing_store
from sphereml.simulate.cmb_spectra import CmbSpectra
from sphereml.simulate.lensed_sky import draw_sky, lensed_patches
from sphereml.simulate.lensing_store import Campaign, LensingStore, campaign_folder, prepare_lensing

PATCHES = PatchConfig(size=12, pixel_arcmin=60)
CONFIG = LensingConfig(skies=3, patches_per_sky=20, lmax=40, spectra_lmax=50)
WORDS = [
    *("lensing.skies=2", "lensing.patches_per_sky=3", "lensing.lmax=30", "lensing.spectra_lmax=40"),
    *("patches.size=12", "patches.pixel_arcmin=60", "lensing.lmin=2", "lensing.lmax_eb=30"),
]


def toy_spectra(lmax: int, cosmology: Cosmology | None = None) -> CmbSpectra:
    return any_toy_spectra(lmax)


@pytest.fixture(autouse=True)
def _no_camb(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lensing_store, "load_spectra", toy_spectra)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return prepare_lensing(CONFIG, PATCHES, tmp_path)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sky_reads_back_what_was_simulated(store: Path):
    opened = LensingStore.open(store)
    assert opened.skies == [0, 1, 2] and opened.patch == LambertPatch(12, 60)
    found = opened.sky(1)
    assert tuple(found) == opened.names
    sky = draw_sky(toy_spectra(50), 40, (CONFIG.seed, 1))
    fields = lensed_patches(sky, opened.patch, found["frames"])
    for name, expected in vars(fields).items():
        assert found[name].dtype == np.float32 and found[name].shape == (20, 12, 12)
        np.testing.assert_array_equal(found[name], expected)
    assert set(opened.sky(2, ["q", "kappa"])) == {"q", "kappa"}
    assert not np.array_equal(opened.sky(2)["e"], found["e"])


def test_a_sky_describes_itself_without_dates(store: Path):
    group = zarr.open_group(store / "sky-0002", mode="r")
    assert group["q"].attrs["units"] == "uK" and group["kappa"].attrs["units"] == "1"
    assert group.attrs["seed"] == [CONFIG.seed, 2] and "COSMO" in str(group.attrs["polarization"])
    assert json.loads(str(group.attrs["campaign"]))["lmax"] == 40
    assert group["q"].chunks == (16, 12, 12)


def test_centres_are_uniform_on_the_sphere():
    frames = Campaign.of(replace(CONFIG, patches_per_sky=4000), PATCHES).frames(0)
    centres = frames[:, :, 2]
    np.testing.assert_allclose(centres.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose((centres**2).mean(axis=0), 1 / 3, atol=0.02)
    # Position angles: y has no preferred direction against north either.
    assert abs(frames[:, 2, 1].mean()) < 0.04


def test_lensed_e_and_b_are_stored_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = Campaign.of(CONFIG, PATCHES)
    monkeypatch.setattr(Campaign, "of", classmethod(lambda cls, config, patches: replace(plain, lensed_eb=True)))
    opened = LensingStore.open(prepare_lensing(replace(CONFIG, skies=1), PATCHES, tmp_path))
    assert opened.folder.name != plain.name
    sky = opened.sky(0)
    assert 0 < sky["b_lensed"].std() < sky["e_lensed"].std()
    np.testing.assert_allclose(sky["e_lensed"].std(), sky["e"].std(), rtol=0.1)


# --- stopping and going on ------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = prepare_lensing(CONFIG, PATCHES, tmp_path / "whole")
    write, made = lensing_store._write, []

    def stop_in_the_middle(folder: Path, campaign: Campaign, sky: int, values: dict[str, np.ndarray]) -> None:
        write(folder, campaign, sky, values)
        made.append(sky)
        if sky == 1:
            (folder / "q" / "c" / "0" / "0" / "0").write_bytes(b"half")
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(lensing_store, "_write", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            prepare_lensing(CONFIG, PATCHES, tmp_path / "cut")
    assert made == [0, 1]
    folder = campaign_folder(CONFIG, PATCHES, tmp_path / "cut")
    assert LensingStore.open(folder).skies == [0] and (folder / ".sky-0001.partial").is_dir()
    told: list[tuple[int, int]] = []
    prepare_lensing(CONFIG, PATCHES, tmp_path / "cut", lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert tree(folder) == tree(whole)


def test_chosen_skies_are_the_same_bytes_and_a_longer_campaign_keeps_the_folder(store: Path, tmp_path: Path):
    before = tree(store)
    longer = replace(CONFIG, skies=5, noise=7.0, beam=3.0, taper=5.0, test_skies=1, validation_skies=1)
    other = prepare_lensing(longer, PATCHES, tmp_path / "elsewhere", only=[1, 4])
    assert other.name == store.name and LensingStore.open(other).skies == [1, 4]
    assert tree(other / "sky-0001") == tree(store / "sky-0001")
    assert prepare_lensing(longer, PATCHES, tmp_path) == store
    after = tree(store)
    assert len(LensingStore.open(store).skies) == 5 and {name: after[name] for name in before} == before


def test_a_sky_under_way_elsewhere_is_left_to_that_process(tmp_path: Path):
    folder = campaign_folder(CONFIG, PATCHES, tmp_path)
    stage = folder / ".sky-0001.partial"
    stage.mkdir(parents=True)
    descriptor = os.open(stage, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    prepare_lensing(CONFIG, PATCHES, tmp_path)
    assert LensingStore.open(folder).skies == [0, 2]
    os.close(descriptor)
    prepare_lensing(CONFIG, PATCHES, tmp_path)
    assert LensingStore.open(folder).skies == [0, 1, 2] and not stage.exists()


@pytest.mark.parametrize(
    "change",
    [
        *({"lmax": 41}, {"spectra_lmax": 51}, {"seed": 2}, {"patches_per_sky": 21}),
        {"cosmology": Cosmology(omch2=0.1085)},
    ],
)
def test_what_shapes_a_sky_names_the_folder(change: dict[str, object]):
    assert Campaign.of(replace(CONFIG, **change), PATCHES).name != Campaign.of(CONFIG, PATCHES).name
    assert Campaign.of(CONFIG, replace(PATCHES, size=14)).name != Campaign.of(CONFIG, PATCHES).name


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"skies": -3}, "skies=-3"),
        ({"patches_per_sky": 0}, "patches_per_sky=0"),
        ({"lmax": 51}, "above lensing.spectra_lmax=50"),
        ({"lmax": 1}, "lmax=1"),
    ],
)
def test_impossible_campaigns_are_refused_before_any_work(tmp_path: Path, change: dict[str, object], said: str):
    with pytest.raises(UserError, match=said):
        prepare_lensing(replace(CONFIG, **change), PATCHES, tmp_path)
    assert not any(tmp_path.iterdir())


def test_patches_beyond_the_projection_and_skies_beyond_the_last_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="larger than the Lambert projection"):
        prepare_lensing(CONFIG, PatchConfig(size=128, pixel_arcmin=90), tmp_path)
    with pytest.raises(UserError, match="no sky 3"):
        prepare_lensing(CONFIG, PATCHES, tmp_path, only=[0, 3])


def test_a_full_disc_is_refused_before_any_work(tmp_path: Path):
    with pytest.raises(UserError, match="of room: free some"):
        prepare_lensing(replace(CONFIG, skies=10**9), PATCHES, tmp_path)
    assert not any(tmp_path.iterdir())


def test_missing_skies_are_named(store: Path):
    with pytest.raises(UserError, match=r"2 of 4 skies are missing in .* \(3, 9\): simulate them"):
        LensingStore.open(store).require([0, 1, 3, 9])
    with pytest.raises(UserError, match="simulate them"):
        LensingStore.open(store).sky(7)


def _remove_a_chunk(sky: Path) -> None:
    (sky / "kappa" / "c" / "1" / "0" / "0").unlink()


def _cut_a_chunk(sky: Path) -> None:
    chunk = sky / "q" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:100])


def _flip_a_bit(sky: Path) -> None:
    chunk = sky / "u" / "c" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[1000] ^= 1
    chunk.write_bytes(bytes(content))


def _remove_a_variable(sky: Path) -> None:
    (sky / "e" / "zarr.json").unlink()


def _empty_the_header(sky: Path) -> None:
    (sky / "zarr.json").write_text("")


def _resize(sky: Path) -> None:
    group = zarr.open_group(sky, mode="r+")
    for name in ("q", "u"):
        group[name].resize((19, 12, 12))


def _swap(sky: Path) -> None:
    other = sky.with_name("sky-0000")
    sky.rename(sky.with_name("old"))
    other.rename(sky)


@pytest.mark.filterwarnings("ignore:Object at e is not recognized")
@pytest.mark.parametrize(
    "damage",
    [_remove_a_chunk, _cut_a_chunk, _flip_a_bit, _remove_a_variable, _empty_the_header, _resize, _swap],
)
def test_a_damaged_sky_is_refused_in_one_line(store: Path, damage):
    damage(store / "sky-0001")
    with pytest.raises(UserError, match="sky-0001 is damaged: remove it and give") as refusal:
        LensingStore.open(store).sky(1)
    assert "\n" not in str(refusal.value)


def test_other_folders_and_versions_are_refused(store: Path, tmp_path: Path):
    with pytest.raises(UserError, match="there are no lensing simulations"):
        LensingStore.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no lensing simulations"):
        LensingStore.open(tmp_path)
    header = store / "campaign.json"
    known = read_sealed_json(header)
    header.write_text(json.dumps(known | {"lmax": 99, "checksum": json_digest(known)}))
    with pytest.raises(UserError, match=r"campaign\.json is damaged"):
        LensingStore.open(store)
    header.write_bytes(sealed_json(known | {"format_version": 99}))
    with pytest.raises(UserError, match="format version 99, not 1"):
        LensingStore.open(store)


# --- the command line -----------------------------------------------------------------------------------------------


def test_simulate_lensing_tells_each_sky_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["simulate", "lensing", *WORDS, f"data.stores={tmp_path}"]
    assert main([*words, "--only", "1"]) == 0
    said = capsys.readouterr().out
    assert "sky 1/1" in said and "1 skies of 3 patches" in said
    assert "note: lensing.lmax=30, but the pixels resolve multipoles up to 180" in said
    assert main(words) == 0
    assert "2 skies of 3 patches" in capsys.readouterr().out
    assert main(words) == 0
    assert "every sky is there" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        *(["lensing.skies=-1"], ["lensing.lmax=7000"], ["patches.pixel_arcmin=90"], ["--only", "2-1"]),
        *(["--only", "7000"], ["experiment=dust_demo"], ["data.stores=/proc/no"], ["lensing.nosuch=1"]),
    ],
)
def test_bad_lines_are_refused_in_one_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "lensing", f"data.stores={tmp_path}", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_only_is_a_list_of_numbers_and_ranges(capsys: pytest.CaptureFixture[str]):
    assert parse_skies("7,0-2, 2") == [0, 1, 2, 7]
    assert main(["simulate", "dust", "--only", "1"]) == 2
    assert "--only chooses skies of lensing" in capsys.readouterr().err
