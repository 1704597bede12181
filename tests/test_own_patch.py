"""A flat patch of one's own: kappa and E by a network or the estimator, templates of the lensing B, wrong input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from fixtures_lensing import WEAK, lensing_config, seeded, toy_spectra

from sphereml.cli.main import main
from sphereml.data.patch_images import holds_patch, read_patch, write_patch
from sphereml.errors import UserError
from sphereml.sky.plane import SquareGrid
from sphereml.tasks import lensing
from sphereml.tasks.lensing import LensingTask
from sphereml.training.fit import fit
from sphereml.training.lifecycle import FitOptions

GRID = SquareGrid(32, 3.75)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A folder with an observed patch, and a run that has learnt next to nothing."""
    folder = tmp_path_factory.mktemp("patch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lensing, "load_spectra", lambda lmax, cosmology: toy_spectra(lmax, WEAK, first_order=True))
        few = ("training.epochs=1", "training.steps_per_epoch=1", "training.learning_rate=1e-6")
        config = lensing_config("lensing.outputs=[e,kappa]", *few, f"output={folder}")
        task = LensingTask(config)
        sample = task.observe(task.drawn().draw(1, seeded(5)), seeded(6))
        qu = torch.cat([sample.q, sample.u]).numpy() / task.mask.clamp_min(1e-3).numpy()
        write_patch(folder / "qu.fits", {"P": qu}, GRID, {"P": "uK_CMB"}, {})
        run = fit(config, FitOptions(say=lambda line: None))
        run.folder.rename(folder / "run")
        yield folder


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of an error."""
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def done(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def test_a_network_and_the_estimator_see_the_same_patch(place: Path, capsys: pytest.CaptureFixture[str]):
    """A network that has learnt next to nothing gives back the estimator; kappa, E and their templates agree."""
    network, estimator = place / "network.fits", place / "estimator.fits"
    words = ("lensing", "estimate", "--qu", place / "qu.fits")
    capsys.readouterr()
    done(*words, "--run", place / "run", "--out", network, "--mean-field", 24, "-q")
    assert capsys.readouterr().out == f"kappa of the patch, most likely: {network}\n"
    settings = ("--taper", 14, "--lmax", 1900, "--noise", 1)
    done(*words, *settings, "--out", estimator)
    kappas = [read_patch(path, 1, "1", "KAPPA").values[0] for path in (network, estimator)]
    assert np.corrcoef(kappas[0].ravel(), kappas[1].ravel())[0, 1] > 0.99
    with fits.open(network) as file:
        assert [one.name for one in file] == ["KAPPA", "E", "UNLENSED_E", "SIGMA", "CURVES"]
        assert (file["SIGMA"].data > 0).all() and (file["CURVES"].data["N_L"] > 0).all()
        assert file["KAPPA"].header["RUN_ID"] == "run" and file["E"].header["BUNIT"] == "uK_CMB"
    templates = [place / name for name in ("b1.fits", "b2.fits", "b3.fits")]
    files = ("--kappa", network, "--e", f"{network}[E]")
    done("lensing", "template", *files, "--out", templates[0])
    done("lensing", "template", "--run", place / "run", "--qu", place / "qu.fits", "--out", templates[1])
    done("lensing", "template", *files[:3], f"{network}[UNLENSED_E]", "--order", "all", "--out", templates[2])
    made = [read_patch(path, 2, "uK_CMB").values for path in templates]
    np.testing.assert_allclose(made[0], made[1], atol=1e-4 * made[0].std())
    assert np.corrcoef(made[0].ravel(), made[2].ravel())[0, 1] > 0.8


def test_passes_of_a_patch_differ_and_are_said(place: Path):
    out = place / "passes.fits"
    done("lensing", "estimate", "--qu", place / "qu.fits", "--lmax", 1900, "--passes", 2, "--lmin-b", 300, "--out", out)
    header = fits.getheader(out)
    assert (header["PASSES"], header["LMIN_B"], header["NOISE"]) == (2, 300, 1.0)


def test_signs_units_and_directions_of_an_image(tmp_path: Path):
    values = np.arange(2 * 16.0).reshape(2, 4, 4)
    hdu = fits.PrimaryHDU(values)
    hdu.header.update({"CDELT1": -0.05, "CDELT2": 0.05, "BUNIT": "mK_CMB", "POLCCONV": "IAU"})
    hdu.writeto(tmp_path / "iau.fits")
    found = read_patch(tmp_path / "iau.fits", 2, "uK_CMB")
    np.testing.assert_allclose(found.values, 1e3 * values[..., ::-1] * np.array([1, -1])[:, None, None])
    assert found.grid == SquareGrid(4, 3.0) and holds_patch(tmp_path / "iau.fits")
    for change, words in (({"CDELT2": 0}, "CDELT2"), ({"BUNIT": "Jy"}, "Jy")):
        hdu.header.update(change)
        hdu.writeto(tmp_path / "bad.fits", overwrite=True)
        with pytest.raises(UserError, match=words):
            read_patch(tmp_path / "bad.fits", 2, "uK_CMB")
        hdu.header.update({"CDELT2": 0.05, "BUNIT": "uK_CMB"})
    with pytest.raises(UserError, match="4 x 4 x 2 pixels"):
        read_patch(tmp_path / "iau.fits", 1, "uK_CMB")
    fits.PrimaryHDU(np.full((2, 4, 4), np.nan), hdu.header).writeto(tmp_path / "nan.fits")
    with pytest.raises(UserError, match="missing pixels"):
        read_patch(tmp_path / "nan.fits", 2, "uK_CMB")


def test_an_image_without_a_unit_has_that_of_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]):
    silent, stated = place / "silent.fits", read_patch(place / "qu.fits", 2, "uK_CMB").values
    header = fits.Header({"CDELT1": GRID.pixel_arcmin / 60, "CDELT2": GRID.pixel_arcmin / 60})
    fits.PrimaryHDU(1e-6 * stated, header).writeto(silent)
    settings = ("--taper", 14, "--lmax", 1900)
    for name, unit in (("qu", ()), ("silent", ("--unit", "K_CMB"))):
        words = ("--qu", place / f"{name}.fits", *unit, *settings, "--out", place / f"{name}_kappa.fits")
        done("lensing", "estimate", *words)
    both = [read_patch(place / f"{name}_kappa.fits", 1, "1", "KAPPA").values for name in ("qu", "silent")]
    np.testing.assert_allclose(*both, atol=1e-4 * both[0].std())
    wrong = ("--qu", place / "qu.fits", "--unit", "K_CMB", "--out", place / "never.fits")
    assert "K_CMB" in told(capsys, "lensing", "estimate", *wrong)


def test_what_does_not_fit_is_refused_in_one_line(place: Path, capsys: pytest.CaptureFixture[str]):
    write_patch(place / "small.fits", {"P": np.ones((2, 16, 16))}, SquareGrid(16, 3.75), {"P": "uK_CMB"}, {})
    write_patch(place / "e.fits", {"E": np.ones((16, 16))}, SquareGrid(16, 3.75), {"E": "uK_CMB"}, {})
    write_patch(place / "k.fits", {"KAPPA": np.ones((32, 32))}, GRID, {"KAPPA": "1"}, {})
    out = ("--out", place / "never.fits")
    words = ("lensing", "estimate", *out, "--run", place / "run", "--qu")
    assert "16 x 16" in told(capsys, *words, place / "small.fits")
    assert "trained with 1" in told(capsys, *words, place / "qu.fits", "--noise", 2)
    assert "--mask" in told(capsys, *words, place / "qu.fits", "--mask", place / "qu.fits")
    assert "EB" in told(capsys, "lensing", "estimate", "--qu", place / "qu.fits", "--estimator", "EB", *out)
    for flag, value in (("--lmin", 40), ("--lmin-b", 300), ("--lmax", 1800), ("--passes", 2), ("--taper", 20)):
        assert f"{flag} {value}, but the run was trained with" in told(capsys, *words, place / "qu.fits", flag, value)
    assert "--estimator with --run" in told(capsys, *words, place / "qu.fits", "--estimator", "MV")
    for flags in (("--json",), ("--pixel-window",), ("--tolerance", 1e-3), ("--seed", 0)):
        assert f"{flags[0]} is for HEALPix maps" in told(capsys, *words[:4], "--qu", place / "qu.fits", *flags)
    template = ("lensing", "template", *out)
    learnt = (*template, "--run", place / "run", "--qu", place / "qu.fits")
    assert "--kappa with --run" in told(capsys, *learnt, "--kappa", place / "k.fits")
    pair = (*template, "--kappa", place / "k.fits", "--e", place / "k.fits")
    assert "--qu with --kappa" in told(capsys, *pair, "--qu", place / "qu.fits")
    for flags in (("--lmax", 90), ("--filtered",), ("--nside", 64)):
        assert f"{flags[0]} is for HEALPix maps" in told(capsys, *learnt, *flags)
        assert f"{flags[0]} is for HEALPix maps" in told(capsys, *pair, *flags)
    assert "both of a pair" in told(capsys, *template, "--kappa", place / "k.fits")
    assert "of different pixels" in told(capsys, *template, "--kappa", place / "k.fits", "--e", place / "e.fits")
    assert not (place / "never.fits").exists()
