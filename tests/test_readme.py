"""The README is run: every ``sphereml`` line of its shell blocks, its Python block, and its claims about make."""

import re
import shlex
from pathlib import Path

import healpy
import numpy as np
import pytest
from fixtures_cli import GALAXY, REAL_SKY
from fixtures_lensing import with_toy_spectra

from sphereml.cli.experiment import model_configs
from sphereml.cli.main import _parse, build_parser, main
from sphereml.templates.products import write_mask, write_template

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# What keeps the README's trainings short here; its commands themselves are run as they stand.
SHORT = [
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "training.validation_batches=1",
    "training.batch_size=2",
    "model.width=4",
    "evaluation.patches=12",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands(verb_pattern: str) -> list[list[str]]:
    joined = (block.replace("\\\n", " ") for block in blocks("sh"))
    lines = [line.split("#")[0].strip() for block in joined for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if re.match(rf"sphereml {verb_pattern}\b", line)]


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Of the verbs that docs/performance.md shows at sizes too large for a test.
BENCHES = [
    "bench sht --nside 32 --lmax 64 --maps 4 --runs 2",
    "bench train --experiment lensing_quick --batch 4 --runs 1",
]


@pytest.mark.parametrize(
    "words",
    [*commands("(doctor|completion|info|config|data|simulate|bench)"), ["info"], *map(str.split, BENCHES)],
    ids=" ".join,
)
def test_small_commands(words):
    assert main(words) == 0


HEAVY = (
    "(train|compare|predict|study|demo|simulate|marginalize|bench|data fetch|data prepare|"
    "data info|config new|hough|spectra|lensing)"
)


def documented() -> list[list[str]]:
    """Every ``sphereml`` line of the shell blocks in docs/."""
    found = []
    for page in sorted(page for page in (ROOT / "docs").rglob("*.md") if "generated" not in page.parts):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.S):
            lines = block.replace("\\\n", " ").splitlines()
            words = [shlex.split(line.split("#")[0].split(" && ")[0]) for line in lines]
            found += [one[one.index("sphereml") + 1 :] for one in words if "sphereml" in one]
    return found


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_documented_commands(words):
    """Short ones are run; long ones, and those that need files or the network, are read as the program reads them."""
    if not re.match(HEAVY, " ".join(words)):
        assert main(words) == 0
        return
    options = _parse(build_parser(words[0]), [word.replace("NAME", "dust_demo") for word in words])
    if words[0] in ("train", "study", "demo"):
        chosen = [word for word in options.overrides if "=" in word]
        assert model_configs(chosen)


def test_real_sky_commands(monkeypatch, tmp_path):
    if not REAL_SKY.is_dir():
        pytest.skip(f"no real-sky sample at {REAL_SKY}")
    monkeypatch.setenv("SPHEREML_REAL_SKY", str(REAL_SKY.resolve()))
    (train,) = commands("train")
    compare, predict = commands("compare")[0], commands("predict")[0]
    assert main([*train, *SHORT]) == 0
    assert main(compare) == 0
    assert main(predict) == 0
    study = tmp_path / "runs" / "dust_real_sample"
    assert (study / "report.html").is_file()
    assert sorted(path.stem for path in (study / "templates").glob("*.fits")) == sorted(
        path.name.rsplit("-", 1)[0] for path in study.glob("*-*") if path.is_dir()
    )


def test_study_command(monkeypatch, tmp_path):
    with_toy_spectra(monkeypatch)
    words = next(words for words in commands("study") if "experiment=lensing_quick" in words)
    assert main([*words, *SHORT, "lensing.spectra_lmax=3000", "--skip", "nulls", "omega_c"]) == 0
    study = tmp_path / "runs" / "lensing_quick"
    assert (study / "report.html").is_file() and (study / "lensing.json").is_file()


def test_marginalize_command():
    (words,) = commands("marginalize")
    place = {words[index]: words[index + 1] for index in range(1, len(words), 2)}
    template = np.random.default_rng(0).normal(size=12 * 16**2)
    cmb = 0.1 * np.random.default_rng(1).normal(size=template.size)
    Path(place["--template"]).parent.mkdir(parents=True)
    write_template(place["--template"], {"I": template}, "uK_RJ")
    write_template(place["--sky"], {"I": cmb + 2 * template}, "uK_CMB")
    write_mask(place["--mask"], np.arange(template.size) > template.size // 3)
    assert main(words) == 0
    assert (Path(place["--out"]) / "cleaned.fits").is_file()


def test_cross_fit_command(tmp_path):
    words = commands("predict")[-1]
    assert main([*words, *GALAXY]) == 0
    assert (tmp_path / "runs/demo/templates/linear_cross_fitted.fits").is_file()


def test_python_block():
    (code,) = blocks("python")
    names: dict = {}
    exec(code, names)
    assert names["template"].values.shape == (12 * 32**2, 1)
    assert np.isfinite(names["template"].values).all() and abs(names["r"]["r50"]) < 1


def own_maps(nside: int = 32) -> None:
    """The files that the first hour names, in the working folder."""
    rng, b = np.random.default_rng(1), healpy.pix2ang(nside, np.arange(12 * nside**2), lonlat=True)[1]
    hi, warm = (np.exp(healpy.smoothing(rng.normal(size=b.size), 0.1) * 6) for _ in range(2))
    regions = np.select([b > 20, b > 9, b < -9], [1.0, 2.0, 3.0], 0.0)
    files = {"hi": (hi, "K km/s"), "dust100um": (hi * warm, "MJy/sr"), "target": (hi + hi * warm, "MJy/sr")}
    files |= {"mask": (1.0 * (abs(b) > 6), ""), "regions": (regions, ""), "sky": (hi * (3 + warm), "uK_CMB")}
    for name, (values, unit) in files.items():
        healpy.write_map(f"{name}.fits", values, coord="G", column_units=unit, dtype=np.float64)


@pytest.mark.slow
def test_the_first_hour_on_maps_of_ones_own(tmp_path):
    """Every line of the page from the headers to the cleaned map, with a shorter training on coarser maps."""
    own_maps()
    page = (ROOT / "docs" / "first_hour.md").read_text()
    lines = [line for block in re.findall(r"```text\n(.*?)```", page, flags=re.S) for line in block.splitlines()]
    coarse = ["patches.size=16", "patches.pixel_arcmin=93.6", "bands.r50=[14.4, 64]"]
    done = []
    for line in (line for line in lines if line.startswith("sphereml ")):
        words = shlex.split(line)[1:]
        assert main([*words, *SHORT, *coarse] if words[0] == "train" else words) == 0
        done.append(words[0])
    assert done == ["config", "train", "predict", "compare", "marginalize"]
    assert healpy.read_map(tmp_path / "runs/mine/templates/unet_sphere_plain.fits").shape == (12 * 32**2,)
    assert (tmp_path / "marginalized" / "cleaned.fits").is_file()


HOW_TO = [page for folder in ("howto", "reference") for page in sorted((ROOT / "docs" / folder).glob("*.md"))]


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_python_of_the_how_tos(page):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S):
        exec(code, {})


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_pictures_exist():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)|\]\((docs/[^)]+)\)", README):
        assert (ROOT / next(filter(None, path))).is_file(), path
