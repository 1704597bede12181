"""``sphereml spectra``: NaMaster's numbers through the command line, files of every kind, refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import healpy
import numpy as np
import pytest
import xarray
from astropy.io import fits

from sphereml.harmonics.mode_projection import ModeProjection, degrade
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import regrade_mask
from sphereml.sky.ordering import ring_to_nest
from tests.fixtures_cli import done, sphereml
from tests.test_workspace import LARGEST, REFERENCE, guess_spectra

pytestmark = pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
EDGES = ",".join(str(edge) for edge in [*REFERENCE["bin_lo"], REFERENCE["bin_hi"][-1] + 1])
NPIX = REFERENCE["mask"].size


def write(path: Path, maps: np.ndarray, **header: object) -> Path:
    """RING maps with or without what a header may say; float64, as 1e-6 of the reference is asked."""
    healpy.write_map(path, maps, overwrite=True, dtype=np.float64, **header)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    stated = {"coord": "G", "column_units": "uK_CMB"}
    write(folder / "iqu.fits", REFERENCE["data"], **stated)
    write(folder / "qu.fits", REFERENCE["data"][1:])  # says neither unit nor frame
    write(folder / "mask.fits", REFERENCE["mask"])
    for i, template in enumerate(REFERENCE["templates"]):
        write(folder / f"t{i}.fits", template, **stated)
    np.savetxt(folder / "bl.txt", REFERENCE["beam"])
    np.savetxt(folder / "guess_I.txt", guess_spectra((0, 0)).T)
    np.savetxt(folder / "guess_QU.txt", guess_spectra((2, 2)).T)
    return folder


def line(folder: Path, name: str, field: str, *more: str | Path) -> list[str | Path]:
    return [
        "spectra", folder / name, "--field", field, "--mask", folder / "mask.fits", "--edges", EDGES, "--beam",
        folder / "bl.txt", *more,
    ]  # fmt: skip


def spectra(*words: str | Path) -> dict:
    return json.loads(sphereml(*words, "--json").out)


KINDS = ("plain", "purified_b", "deprojected", "deprojected_purified")


@pytest.mark.parametrize("field, spins, kind", [
    *(("I", "00", kind) for kind in KINDS[::2]), *(("QU", "22", kind) for kind in KINDS),
])  # fmt: skip
def test_the_command_line_meets_the_reference(folder, field, spins, kind):
    more: list[str | Path] = ["--purify-b"] if "purified" in kind else []
    if "deprojected" in kind:
        more += ["--template", folder / "t0.fits", folder / "t1.fits", "--guess", folder / f"guess_{field}.txt"]
    result = spectra(*line(folder, "iqu.fits", field, *more))
    expected = REFERENCE[f"{kind}_{spins}"]
    assert result["lo"] == REFERENCE["bin_lo"].tolist()
    assert result["hi"] == (REFERENCE["bin_hi"] + 1).tolist()
    assert list(result["cl"]) == (["TT"] if field == "I" else ["EE", "EB", "BE", "BB"])
    found = np.array(list(result["cl"].values()))
    tolerance = LARGEST["purified" if "purified" in kind else "plain"] * np.abs(expected).max()
    assert np.abs(found - expected).max() < tolerance
    if "deprojected" in kind:
        bias = np.array(list(result["bias"].values()))
        assert np.abs(bias - REFERENCE[f"{kind}_{spins}_bias"]).max() < tolerance


def test_the_covariance_and_windows_through_the_command_line(folder):
    more = ["--guess", folder / "guess_I.txt", "--covariance", "--windows"]
    result = spectra(*line(folder, "iqu.fits", "I", *more))
    covariance = np.array(result["covariance"]["TTTT"])
    np.testing.assert_allclose(np.diag(covariance), np.diag(REFERENCE["covariance_00"]), rtol=0.01)
    assert np.abs(covariance - REFERENCE["covariance_00"]).max() < 0.01 * REFERENCE["covariance_00"].max()
    np.testing.assert_allclose(result["windows"]["TTTT"], REFERENCE["plain_00_window"][0, :, 0], atol=1e-7)


def test_a_file_that_states_little_gives_the_same_numbers(folder):
    stated, silent = (spectra(*line(folder, name, "QU")) for name in ("iqu.fits", "qu.fits"))
    assert silent["cl"] == stated["cl"]
    assert (silent["unit"], stated["unit"]) == ("", "uK_CMB^2")


def test_columns_of_templates_are_chosen_by_name(folder):
    both = np.concatenate(REFERENCE["templates"])
    names = [f"{name}_{letter}" for name in ("near", "far") for letter in ("I", "Q", "U")]
    write(folder / "both.fits", both, coord="G", column_units="uK_CMB", column_names=names)
    guess = ["--guess", folder / "guess_QU.txt"]
    one = spectra(*line(folder, "qu.fits", "QU", "--template", folder / "t1.fits", *guess))
    for column in ("far", "far_Q", "#4"):
        chosen = spectra(*line(folder, "qu.fits", "QU", "--template", f"{folder / 'both.fits'}[{column}]", *guess))
        assert chosen["cl"] == one["cl"]
    every = spectra(*line(folder, "qu.fits", "QU", "--template", folder / "both.fits", *guess))
    assert every["amplitudes"][0]["names"] == ["both:near_Q", "both:far_Q"]
    np.testing.assert_allclose(every["cl"]["EE"], REFERENCE["deprojected_22"][0], rtol=1e-6)


def test_explicit_amplitudes_have_names_errors_and_units(folder):
    write(folder / "t0_K.fits", 1e-6 * REFERENCE["templates"][0], coord="G", column_units="K_CMB")
    words = line(folder, "iqu.fits", "QU", "--template", folder / "t0_K.fits", folder / "t1.fits", "--explicit")
    result = spectra(*words)
    (fit,) = result["amplitudes"]
    assert (fit["names"], fit["units"]) == (["t0_K", "t1"], ["uK_CMB per K_CMB", ""])
    offsets = (np.array(fit["values"][0]) - [0.02e6, -0.01]) / fit["errors"][0]
    assert np.abs(offsets).max() < 4 and result["templates"] == "explicit"
    assert "± " in done(*words).out and "uK_CMB per K_CMB (explicit)" in done(*words).out
    # What is left of the templates is far below the sky: the clean one's spectrum comes out.
    write(folder / "clean.fits", REFERENCE["sky"], coord="G", column_units="uK_CMB")
    np.testing.assert_allclose(
        result["cl"]["EE"][2:], spectra(*line(folder, "clean.fits", "QU"))["cl"]["EE"][2:], rtol=0.05
    )


def test_missing_pixels_get_mask_zero_and_it_is_said(folder):
    holed = REFERENCE["data"].copy()
    lost = np.flatnonzero(REFERENCE["mask"] == 1)[:7]
    holed[1, lost[:4]], holed[2, lost[4:]] = healpy.UNSEEN, np.nan
    write(folder / "holed.fits", holed, coord="G", column_units="uK_CMB")
    punched = REFERENCE["mask"].copy()
    punched[lost] = 0
    write(folder / "punched.fits", punched)
    outcome = sphereml(*line(folder, "holed.fits", "QU"), "--json")
    assert outcome.code == 0 and "7 pixels are missing that the mask keeps" in outcome.err
    words = line(folder, "iqu.fits", "QU")
    words[words.index("--mask") + 1] = folder / "punched.fits"
    assert json.loads(outcome.out)["cl"] == spectra(*words)["cl"]


def test_splits_and_all_of_iqu(folder):
    rng = np.random.default_rng(3)
    for i in range(3):
        noisy = REFERENCE["data"] + 0.01 * rng.standard_normal((3, NPIX))
        write(folder / f"split{i}.fits", noisy, coord="G", column_units="uK_CMB")
    splits = ["--cross", folder / "split1.fits", folder / "split2.fits"]
    result = spectra(*line(folder, "split0.fits", "QU", *splits, "--covariance"))
    assert result["cl"]["EB"] == pytest.approx(result["cl"]["BE"])
    assert (np.array(result["errors"]["EE"]) > 0).all()
    whole = spectra(*line(folder, "iqu.fits", "IQU"))
    assert list(whole["cl"]) == ["TT", "TE", "TB", "EE", "EB", "BE", "BB"]
    np.testing.assert_allclose(whole["cl"]["TE"], REFERENCE["plain_02"][0], rtol=1e-6)


def test_every_format_holds_values_errors_and_units(folder, tmp_path):
    words = line(folder, "iqu.fits", "QU", "--covariance")
    expected = spectra(*words)
    for ending in ("fits", "csv", "json", "nc"):
        done(*words, "--out", tmp_path / f"cl.{ending}")
    with fits.open(tmp_path / "cl.fits", checksum=True) as hdus:
        table = hdus["BANDPOWERS"]
        assert table.columns["EE"].unit == "uK_CMB^2"
        np.testing.assert_array_equal(table.data["EE"], expected["cl"]["EE"])
        np.testing.assert_array_equal(table.data["BB_ERR"], expected["errors"]["BB"])
        assert hdus["WINDOWS"].data.shape == (4, 11, 4, 96)
    rows = np.genfromtxt(tmp_path / "cl.csv", delimiter=",", names=True)
    np.testing.assert_array_equal(rows["EE"], expected["cl"]["EE"])
    assert json.loads((tmp_path / "cl.json").read_text())["cl"] == expected["cl"]
    with xarray.open_dataset(tmp_path / "cl.nc", engine="scipy") as data:
        np.testing.assert_array_equal(data["values"].sel(spectrum="EE"), expected["cl"]["EE"])
        assert data["errors"].attrs["units"] == "uK_CMB^2"


def test_a_kept_workspace_is_used_and_guarded(folder, tmp_path):
    words = line(folder, "iqu.fits", "QU", "--workspace", tmp_path / "ws.npz")
    first, second = spectra(*words), spectra(*words)
    assert first["cl"] == second["cl"]
    assert "of another mask" in sphereml(*words, "--purify-b").refusal
    (tmp_path / "ws.npz").write_bytes(b"nonsense")
    assert "damaged" in sphereml(*words).refusal


def test_equal_widths_d_ell_and_the_jackknife(folder):
    words = ["spectra", folder / "iqu.fits", "--mask", folder / "mask.fits", "--lmax", "64", "--width", "31"]
    cl, dl = spectra(*words, "--jackknife", "1"), spectra(*words, "--dl", "--beam", "30", "--pixel-window")
    assert cl["lo"] == [2, 33] and cl["hi"] == [33, 64]
    assert list(dl["dl"]) == ["TT"] and min(cl["errors"]["TT"]) > 0


@pytest.mark.parametrize(
    "words, says",
    [
        (["--edges", "2,10,200"], "the maps 95"),
        (["--edges", "10,2"], "do not increase"),
        (["--edges", "2,x"], "no integers"),
        (["--width", "8", "--beam", "no_such.txt"], "cannot read"),
        (["--width", "8", "--purify-b"], "nothing to purify"),
        ([], "no bands"),
        (["--width", "8", "--out", "cl.txt"], "no format"),
        (["--width", "8", "--lmax", "96"], "lmax=96"),
        (["--width", "8", "--mask", "no_such.fits"], "no file"),
        (["--width", "8", "--template", "no_such.fits"], "no file"),
        (["--width", "8", "--jackknife", "1", "--field", "QU", "--purify-b"], "hard edges"),
    ],
)
def test_wrong_input_is_refused_in_one_line(folder, words, says):
    assert says in sphereml("spectra", folder / "iqu.fits", *words).refusal


def test_a_short_beam_and_a_wrong_guess_are_refused(folder, tmp_path):
    np.savetxt(tmp_path / "short.txt", np.ones(50))
    words = ["spectra", folder / "iqu.fits", "--width", "8"]
    assert "lower --lmax" in sphereml(*words, "--beam", tmp_path / "short.txt").refusal
    assert "columns" in sphereml(*words, "--covariance", "--guess", folder / "guess_QU.txt").refusal
    (tmp_path / "words.txt").write_text("a b\n")
    assert "no table" in sphereml(*words, "--beam", tmp_path / "words.txt").refusal


def test_mode_projection_has_a_flag(folder):
    """The command line degrades map, mask and templates, and finds what the estimator does; the template is gone."""
    words = ["--mode-projection", "8", "--guess", folder / "guess_I.txt", "--template", folder / "t0.fits"]
    given = ["spectra", folder / "iqu.fits", "--field", "I", "--mask", folder / "mask.fits", "--edges", "2,8,16,24"]
    found = spectra(*given, "--beam", folder / "bl.txt", *words)
    beam, grid = REFERENCE["beam"][:25], HealpixGrid(8)
    sky, smoothing = degrade(ring_to_nest(REFERENCE["data"][0]), 8, 24)
    mask = regrade_mask(ring_to_nest(REFERENCE["mask"]) > 0, grid)
    templates = degrade(ring_to_nest(REFERENCE["templates"][0][0]), 8, 24)[0][None]
    fiducial = guess_spectra((0, 0))[:, :25] / beam**2
    expected = ModeProjection(mask, [2, 8, 16, 24], fiducial, None, templates, beam * smoothing).estimate(sky)
    np.testing.assert_allclose(found["cl"]["TT"], expected["TT"], rtol=1e-6)
    assert (expected.errors > 0).all()
    assert "with --mode-projection" in sphereml(*given, *words, "--covariance").refusal
    assert "without --guess" in sphereml(*given, "--mode-projection", "8").refusal
    assert "--apodize with --mode-projection" in sphereml(*given, *words, "--apodize", "2").refusal
    assert "--mode-projection 0" in sphereml(*given, *words, "--mode-projection", "0").refusal
    plain = spectra(*given, "--beam", folder / "bl.txt", *words[:4])
    (note,) = plain["notes"]
    assert "weights are not used" in note
