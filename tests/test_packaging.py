"""What is handed on: wheel and sdist, extras, licences, citation, notebooks, and files that other programs read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import healpy
import numpy as np
import pytest
import xarray
from fixtures_cli import TINY, Place

import sphereml as sm

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


def test_every_dependency_has_its_licence_listed():
    listed = set(re.findall(r"^\| ([\w-]+) \|", (ROOT / "docs" / "licences.md").read_text(), flags=re.MULTILINE))
    needed = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    assert {re.split(r"[^\w.-]", line)[0].lower() for line in needed} <= listed
    assert {"gpu", "cluster", "logging", "namaster", "docs", "dev"} <= set(PROJECT["optional-dependencies"])


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert f"version: {PROJECT['version']}" in text and f"license: {PROJECT['license']}" in text
    assert PROJECT["version"] == sm.__version__ and sm.__version__ in (ROOT / "docs" / "changelog.md").read_text()


def test_the_image_copies_what_the_wheel_needs():
    copied = set(re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    assert {"sphereml", "configs", "data_manifests", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert all((ROOT / name).exists() for name in names)


def test_healpy_reads_a_template_without_glue(tmp_path):
    values = np.random.default_rng(0).normal(size=(3072, 2))
    path = sm.write_map(tmp_path / "qu.fits", sm.SkyMap(values, sm.Field("P", "uK_CMB", spin=2), order="nest"))
    maps, header = healpy.read_map(path, field=(0, 1), h=True, dtype=np.float64)
    np.testing.assert_allclose(healpy.reorder(maps, r2n=True), values.T, rtol=1e-6)
    cards = dict(header)
    assert (cards["ORDERING"], cards["COORDSYS"], cards["POLCCONV"]) == ("RING", "G", "COSMO")
    assert cards["TUNIT1"] == cards["TUNIT2"] == "uK_CMB" and cards["NSIDE"] == 16


def test_xarray_and_csv_readers_read_a_comparison(tmp_path):
    words = ["experiment=dust_demo", *TINY, *Place(tmp_path, "demo").words]
    runs = [sm.train(*words, f"model={name}", say=lambda line: None) for name in ("integrated", "linear")]
    sm.compare(runs).save(tmp_path)
    spectra = xarray.open_dataset(tmp_path / "comparison.nc", engine="scipy")
    assert list(spectra["model"].values) == ["integrated", "linear"]
    both = spectra["cl_target"] + spectra["cl_prediction"] - 2 * spectra["transfer"] * spectra["cl_target"]
    np.testing.assert_allclose(both, spectra["cl_residual"], rtol=1e-6)
    assert np.isfinite(spectra["r_sphere"].sel(model="linear", ell_sphere=slice(2, None))).all()
    table = np.genfromtxt(tmp_path / "comparison.csv", delimiter=",", names=True, dtype=None, encoding="utf8")
    assert list(table["model"]) == ["integrated", "linear"] and np.isfinite(table["r50mean"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("notebook", [*NOTEBOOKS, ROOT / "docs" / "gallery.py"], ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    answer = subprocess.run(
        [sys.executable, notebook],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_the_surface_alone_and_says_its_limits(notebook):
    text = notebook.read_text()
    assert not re.findall(r"^(?:from|import) sphereml\.", text, flags=re.MULTILINE)
    assert set(re.findall(r"\bsm\.(\w+)", text)) <= set(sm.__all__)
    assert "**What this does not show.**" in text


@pytest.mark.slow
def test_wheel_and_sdist_work_in_an_empty_environment(tmp_path):
    """The sdist from the checkout, the wheel from the sdist, installed with its dependencies; then a demo."""
    builder = tmp_path / "builder"
    venv.create(builder, with_pip=True)
    subprocess.run([builder / "bin" / "pip", "install", "--quiet", "build"], check=True)
    subprocess.run([builder / "bin" / "python", "-m", "build", "--outdir", tmp_path / "dist", ROOT], check=True)
    (sdist,), (wheel,) = (tmp_path / "dist").glob("*.tar.gz"), (tmp_path / "dist").glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    assert {"sphereml", "configs", "docs", "tests", "LICENSE", "CITATION.cff", "Dockerfile", "Makefile"} <= names
    place = tmp_path / "empty"
    venv.create(place, with_pip=True)
    constraints = ["--constraint", ROOT / "constraints.txt"]
    install = [place / "bin" / "pip", "install", "--quiet", *constraints]
    subprocess.run([*install, "torch==2.13.0"], check=True)
    subprocess.run([*install, wheel], check=True)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = place / "bin" / "sphereml"
    doctor = subprocess.run([program, "doctor"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    assert "fault" not in doctor.stdout
    subprocess.run([program, "demo", *TINY, "models=[linear,unet_sphere]", "-q"], cwd=tmp_path, env=clean, check=True)
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()
    assert healpy.read_map(tmp_path / "runs" / "demo" / "templates" / "linear.fits").size == 12 * 32**2
