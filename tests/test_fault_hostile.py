"""Input that was made to harm: refused in one line, before anything is allocated, and never waited for.

Each trial is a line over one hostile file or setting.  A few cards are harmless where they stand, so that a line may
also end well; what it may not do is crash, hang, or write into places that nobody named.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from fixtures_faults import TINY, Tally, attempt, made_runs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sphereml.data.whole_files import read_sealed_json, sealed_json
from sphereml.sky.fields import Field
from sphereml.sky.maps import SkyMap
from sphereml.templates.products import write_mask, write_sky_map

pytestmark = pytest.mark.filterwarnings("ignore")
Case = tuple[str, list[str | Path]]

# ----------------------------------------------------------------------------------------- headers

CARDS: dict[str, list[object]] = {
    "NAXIS": [0, 1, 3, 999, -1, 10**18],
    "NAXIS1": [0, -8, 10**18, 1, 2**63],
    "NAXIS2": [0, -1, 10**18, 2**63, 767],
    "TFIELDS": [-1, 0, 10**12, 999, 2],
    "PCOUNT": [-1, 10**18, 2880],
    "GCOUNT": [-1, 0, 10**18],
    "BITPIX": [7, 0, -64, 10**9],
    "NSIDE": [0, -1, 3, 2**60, 10**18],
    "TFORM1": ["999999999999E", "-1E", "", "1PE(9)", "QQ", "1048576X", "0E", "1J", "é"],
    "TSCAL1": ["x", 1e308, 0.0],
    "TZERO1": ["x", -1e308],
    "TNULL1": ["x", 2**70],
    "THEAP": [-1, 10**18],
    "TDIM1": ["(10000000000,10000000000)", "x"],
    "ORDERING": ["", "SPIRAL", 3],
    "COORDSYS": ["", "X", 7],
    "INDXSCHM": ["EXPLICIT", 4],
    "TTYPE1": ["", "PIXEL", "Q", 5],
    "TUNIT1": ["", "furlong", 9],
    "XTENSION": ["IMAGE", "TABLE", "x"],
    "ZTABLE": [True],
    "POLCCONV": ["IAU", "x", 5],
    "FIRSTPIX": [-1, 10**18],
    "OBJECT": ["PARTIAL", 5],
}


def with_card(content: bytes, key: str, value: object) -> bytes:
    """The file with one card of its table's header replaced or put before END, its checksum cards blanked."""
    start = content.index(b"XTENSION")
    cards = [content[i : i + 80] for i in range(start, len(content), 80)]
    end = next(i for i, card in enumerate(cards) if card.rstrip() == b"END")
    header, rest = cards[:end], content[start + (-(-80 * (end + 1) // 2880)) * 2880 :]
    text = f"'{value}'" if isinstance(value, str) else ("T" if value is True else str(value))
    card = f"{key:<8}= {text:>20}".ljust(80)[:80].encode("latin-1")
    kept = [one for one in header if not one.startswith((b"CHECKSUM", b"DATASUM"))]
    places = [i for i, one in enumerate(kept) if one[:8].strip() == key.encode()]
    kept = [card if i in places else one for i, one in enumerate(kept)] + ([] if places else [card])
    made = b"".join([*kept, b"END".ljust(80)])
    return content[:start] + made.ljust(-(-len(made) // 2880) * 2880) + rest


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A sky, a template, Q and U and a mask of Nside 8."""
    folder, rng = tmp_path_factory.mktemp("good"), np.random.default_rng(1)
    for name in ("sky", "template"):
        write_sky_map(folder / f"{name}.fits", SkyMap(rng.normal(size=(768, 1)), Field("I", "uK_CMB"), order="nest"))
    write_sky_map(folder / "qu.fits", SkyMap(rng.normal(size=(768, 2)), Field("P", "uK_CMB", spin=2), order="nest"))
    write_mask(folder / "mask.fits", np.arange(768) % 5 > 0)
    return folder


def map_lines(good: Path, bad: Path, out: Path) -> list[list[str | Path]]:
    """Lines that read a map in the place of a good one."""
    sky, mask, template = (good / f"{name}.fits" for name in ("sky", "mask", "template"))
    clean = ["--out", out / "clean", "--overwrite"]
    estimate = ["--noise", "1", "--beam", "1", "--lmax", "10", "--lmax-kappa", "10", "--overwrite"]
    return [
        ["marginalize", "--sky", bad, "--mask", mask, "--template", template, *clean],
        ["marginalize", "--sky", sky, "--mask", bad, "--template", template, *clean],
        ["marginalize", "--sky", sky, "--mask", mask, "--template", bad, *clean],
        ["spectra", bad, "--mask", mask, "--edges", "2,8,16", "--out", out / "cl.json"],
        ["hough", bad, "--length", "3600", "--smoothing", "1800", "--out", out / "hough.fits", "--overwrite"],
        ["lensing", "estimate", "--qu", bad, *estimate, "--out", out / "kappa.fits"],
        ["lensing", "template", "--e", bad, "--kappa", sky, "--out", out / "b.fits", "--overwrite"],
    ]


@pytest.mark.parametrize("examples", [pytest.param(8, id="sample"),
                                      pytest.param(110, id="full", marks=pytest.mark.slow)])  # fmt: skip
def test_headers(good, tmp_path, examples, record_property):
    tally, content = Tally("hostile inputs"), (good / "sky.fits").read_bytes()
    listed = [(key, value) for key, values in CARDS.items() for value in values]

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(listed), st.integers(0, 6))
    def look(card: tuple[str, object], which: int) -> None:
        bad = tmp_path / "bad.fits"
        bad.write_bytes(with_card(content, *card))
        words = map_lines(good, bad, tmp_path)[which]
        tally.add(attempt(*words).verdict(lambda: True), f"{card} in {words[:2]}")

    look()
    tally.finish(record_property)


# ----------------------------------------------------------------------------------------- special files


def special_files(good: Path, place: Path) -> Iterator[Case]:
    """Devices, pipes, folders and loops where a file is expected."""
    fifo, loop = place / "pipe", place / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    clean = good / "sky.fits"
    for bad in (Path("/dev/zero"), Path("/dev/null"), fifo, loop, place):
        for words in map_lines(good, bad, place)[:6]:
            yield f"{bad}", words
        beam = ["spectra", clean, "--mask", good / "mask.fits", "--edges", "2,8,16"]
        yield f"beam {bad}", [*beam, "--beam", bad]
        yield f"guess {bad}", [*beam, "--template", good / "template.fits", "--guess", bad]
        if bad not in (place, loop):
            yield f"workspace {bad}", [*beam, "--workspace", bad]
        yield f"plugin {bad}", ["config", "show", "--plugin", bad]
        yield f"report {bad}", ["report", bad]
        yield f"predict {bad}", ["predict", bad]
        yield f"data info {bad}", ["data", "info", bad]
        if bad == loop:  # at the end of which nothing stands
            continue
        yield f"output {bad}", ["hough", clean, "--length", "3600", "--smoothing", "1800", "--out", bad, "--overwrite"]
    for name in ("comparison.json", "manifest.json", "config.json"):
        folder = place / name.partition(".")[0]
        folder.mkdir()
        os.mkfifo(folder / name)
        yield f"report of a pipe {name}", ["report", folder]
        yield f"predict of a pipe {name}", ["predict", folder]
    (place / "pipe.yaml").symlink_to(fifo)
    (place / "zero.yaml").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        yield f"experiment {name}", ["train", place / f"{name}.yaml"]
        manifests = place / f"manifests-{name}"
        manifests.mkdir()
        (manifests / "a.yaml").symlink_to(place / f"{name}.yaml")
        yield f"manifest {name}", ["data", "list", "--manifests", manifests]


# ----------------------------------------------------------------------------------------- settings

SETTINGS = [
    *(f"data.galaxy.nside={value}" for value in (2**60, 2**29, 2**14, -1, 0, 10**30)),
    *(f"data.galaxy.channels={value}" for value in (10**9, 70000, 2**63)),
    *(f"training.threads={value}" for value in (100000, 2**31, -1)),
    *(f"training.batch_size={value}" for value in (10**9, 10**6, 2**62)),
    *(f"model.width={value}" for value in (10**9, 2**40)),
    *(f"model.depth={value}" for value in (10**9, 40)),
    *(f"model.kernel={value}" for value in (10**9, 1001)),
    *(f"patches.size={value}" for value in (10**9, 10**6)),
    *(f"data.{key}={10**12}" for key in ("nside", "lmax", "iterations")),
    "evaluation.patches=1" + "0" * 5000,
    "training.seed=1e400",
    "split.folds=1000000000",
    *(f"bands.r50=[{','.join(['1'] * count)}]" for count in (20000, 1500)),
    "models=[" + ",".join(["linear"] * 20000) + "]",
    "bands.r50=" + "[" * 4000 + "]" * 4000,
    "name=" + "x" * 100_000,
    "output=\0",
    "bands.r50=${bands.r50}",
    "name=${oc.env:HOME}",
    "name=../../etc",
    "+evil._target_=os.system",
    "model=/etc/passwd",
    "experiment=../../x",
    "data.stores=/proc/1/x",
]


def setting_lines(place: Path) -> Iterator[Case]:
    where = [f"data.stores={place / 'stores'}", f"output={place / 'runs'}", "model=unet_flat"]
    for word in SETTINGS:
        yield word[:60], ["train", *TINY, *where, word]
    for word in SETTINGS[:9]:
        yield f"simulate {word[:60]}", ["simulate", "dust", f"data.stores={place / 'stores'}", word]
    for word in ("lensing.skies=10000000000", "lensing.lmax=1000000000", "lensing.spectra_lmax=1000000000",
                 "lensing.patches_per_sky=10000000000", "patches.size=1000000000"):  # fmt: skip
        yield word, ["simulate", "lensing", f"data.stores={place / 'stores'}", word]


def option_lines(good: Path, place: Path) -> Iterator[Case]:
    """Numbers on the command line that nothing can be made with."""
    sky, mask = good / "sky.fits", good / "mask.fits"
    fit = ["marginalize", "--sky", sky, "--mask", mask, "--template", good / "template.fits", "--out", place / "o"]
    for words in (["--lmax", 10**9], ["--lmin", -5], ["--lmin", 10**18], ["--apodize", 1e300], ["--apodize", "nan"],
                  ["--threshold", "nan"], ["--threshold", -1], ["--field", 10**9], ["--field", -1]):  # fmt: skip
        yield f"marginalize {words}", [*fit, *map(str, words)]
    cl = ["spectra", sky, "--mask", mask]
    for words in (["--edges", ",".join(["2"] * 20000)], ["--edges", "2,1000000000000"], ["--edges", "-5,5"],
                  ["--edges", "nan,5"], ["--edges", "2,8", "--lmax", 10**9], ["--edges", "2,8", "--beam", "nan"],
                  ["--edges", "2,8", "--beam", "1e300"], ["--edges", "2,8", "--jackknife", 10**12]):  # fmt: skip
        yield f"spectra {str(words)[:60]}", [*cl, *map(str, words)]
    ridge = ["hough", sky, "--out", place / "h.fits", "--overwrite"]
    for words in (["--orientations", 10**9], ["--length", "nan"], ["--length", 1e300], ["--subpixels", 2**20],
                  ["--smoothing", -1], ["--field", 10**9]):  # fmt: skip
        yield f"hough {words}", [*ridge, *map(str, words)]
    curve = ["lensing", "n0"]
    for words in (["--noise", "nan", "--beam", 1], ["--noise", 1, "--beam", "inf"],
                  ["--noise", 1, "--beam", 1, "--lmax", 10**9], ["--noise", 1, "--beam", 1, "--lmin", -3],
                  ["--noise", 1, "--beam", 1, "--lmax", 10**9, "--spectra-lmax", 10**9]):  # fmt: skip
        yield f"n0 {words}", [*curve, *map(str, words)]
    estimate = ["lensing", "estimate", "--qu", good / "qu.fits", "--out", place / "k.fits", "--overwrite"]
    for words in (["--noise", "nan", "--beam", 1], ["--noise", 1, "--beam", 1, "--lmax", 10**9],
                  ["--noise", 1, "--beam", 1, "--lmax-kappa", 10**12],
                  ["--noise", 1, "--beam", 1, "--mean-field", 10**12]):  # fmt: skip
        yield f"estimate {words}", [*estimate, *map(str, words)]
    for words in (["conv", "--nside", 2**40], ["conv", "--nside", 0], ["sht", "--lmax", -4]):
        yield f"bench {words}", ["bench", *map(str, words)]
    yield "jobs", ["data", "fetch", "hi4pi", "--offline", "--jobs", "0"]
    yield "an address for a folder", ["data", "prepare", "data=real_sample", "data.folder=file:///etc"]
    yield "skies", ["simulate", "lensing", "--only", "0-" + "9" * 400]


# ----------------------------------------------------------------------------------------- text files

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
TEXTS = {
    "alias bomb": BOMB,
    "bomb of one key": "bands: &a\n  r50: &b [1, 2]\n" + f"models: [{', '.join(['*b'] * 60000)}]\n",
    "endless": "a: &a [*a]\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "deep keys": "".join(" " * i + "a:\n" for i in range(900)),
    "object": "a: !!python/object/apply:os.system [touch harm]\n",
    "target": "model: {_target_: os.system, _args_: [touch harm]}\n",
    "binary": "\x00\x01\x02",
    "tab": "a:\tb\n\tc: d\n",
    "number": f"training: {{epochs: 1{'0' * 6000}}}\n",
    "list": "- a\n- b\n",
    "text": "just words\n",
    "long list": f"models: [{', '.join(['linear'] * 20000)}]\n",
    "infinite": "training: {learning_rate: .inf}\n",
    "not a number": "training: {learning_rate: .nan}\n",
    "many keys": "".join(f"k{i}: 1\n" for i in range(20000)),
}
FILES: list[dict[str, object]] = [
    {"name": "A{1..1000000000000}.fits"},
    {"name": "A{1..9999}{1..9999}{1..9999}.fits"},
    {"name": "A{9..1}.fits"},
    {"name": "A{1.." + "9" * 5000 + "}.fits"},
    {"name": "checksums.json"},
    {"name": "../../etc/passwd"},
    {"name": "/etc/passwd"},
    {"name": ".hidden"},
    {"name": "a\0b"},
    {"name": "a.partial"},
    {"name": ""},
    {"name": 5},
    {"name": "a", "urls": ["file:///etc/passwd"]},
    {"name": "a", "urls": [5]},
    {"name": "a", "urls": "https://x"},
    {"name": "a", "size": -1},
    {"name": "a", "size": 10**30, "urls": ["https://x.invalid/a"]},
    {"name": "a", "checksum": "sha256:zz"},
    {"name": "a", "nside": 3},
    {"name": "a", "fields": {"I": -1}},
    {"name": "a", "fields": [1]},
    {"name": "a", "unit": "furlong"},
    {"name": "a", "surplus": 1},
]


def text_lines(place: Path) -> Iterator[Case]:
    for number, (name, text) in enumerate(TEXTS.items()):
        path = place / f"text{number}.yaml"
        path.write_text(text)
        yield f"experiment: {name}", ["train", path]
        folder = place / f"configs{number}"
        for group in ("experiment", "model"):
            (folder / group).mkdir(parents=True)
            (folder / group / "bad.yaml").write_text("# @package _global_\n" * (group == "experiment") + text)
        yield f"named: {name}", ["config", "show", "experiment=bad", "--config-dir", folder]
        yield f"model: {name}", ["config", "show", "model=bad", "--config-dir", folder]
        manifests = place / f"manifests{number}"
        manifests.mkdir()
        (manifests / "bad.yaml").write_text(text)
        yield f"manifest: {name}", ["data", "list", "--manifests", manifests]
    whole = {"unit": "K"}
    product = {"name": "a", "title": "A", "licence": "x", "citation": "x", "frame": "G", "reader": "healpix"}
    for number, file in enumerate(FILES):
        folder = place / f"products{number}"
        folder.mkdir()
        (folder / "bad.yaml").write_text(json.dumps({"products": [product | {"files": [whole | file]}]}))
        verb = ["fetch", "a", "--offline", "--to", place / "data"] if number == 16 else ["list"]
        yield f"product {str(file)[:50]}", ["data", *verb, "--manifests", folder]


# ----------------------------------------------------------------------------------------- runs with right hashes


def tensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def weights_of(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Safetensors files that lie, made from a whole one."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    first = next(name for name, one in header.items() if one.get("dtype") == "F32" and len(one["shape"]) > 1)
    yield "length", tensors(b"{}", length=2**60)
    yield "negative length", tensors(b"{}", length=2**64 - 1)
    yield "no JSON", tensors(b"{" * 100)
    yield "empty", b""
    yield "short", content[:5]
    changes: dict[str, Callable[[dict], object]] = {
        "shape": lambda one: one.update(shape=[10**9, 10**9]),
        "negative shape": lambda one: one.update(shape=[-1]),
        "scalar": lambda one: one.update(shape=[]),
        "type": lambda one: one.update(dtype="I64"),
        "integers": lambda one: one.update(dtype="I32"),
        "no type": lambda one: one.update(dtype="X9"),
        "offsets": lambda one: one.update(data_offsets=[0, 2**62]),
        "reversed": lambda one: one.update(data_offsets=one["data_offsets"][::-1]),
        "negative": lambda one: one.update(data_offsets=[-4, 4]),
        "text": lambda one: one.update(data_offsets="x"),
    }
    for name, change in changes.items():
        made = json.loads(json.dumps(header))
        change(made[first])
        yield name, tensors(json.dumps(made).encode(), data)
    renamed = {("other" if name == first else name): value for name, value in header.items()}
    yield "renamed", tensors(json.dumps(renamed).encode(), data)
    yield "not finite", content[: 8 + size] + np.full(len(data) // 4, np.nan, np.float32).tobytes()


SCALINGS: list[Callable[[dict], object]] = [
    lambda values: values.update(features="evil"),
    lambda values: values.update(form="evil"),
    lambda values: values.update(gains="evil"),
    lambda values: values.update(guess="evil"),
    lambda values: values.update(surplus=1),
    lambda values: values.pop("feature_mean"),
    lambda values: values.update(feature_mean=[0.0]),
    lambda values: values.update(feature_mean="x"),
    lambda values: values.update(feature_mean=None),
    lambda values: values.update(feature_mean=[None] * len(values["feature_mean"])),
    lambda values: values.update(feature_std=[float("nan")] * len(values["feature_std"])),
    lambda values: values.update(feature_std=["x"] * len(values["feature_std"])),
    lambda values: values.update(target_std=[1.0] * 1000000),
    lambda values: values.update(inputs=[]),
    lambda values: values.update(inputs=[{"name": 5}]),
    lambda values: values.update(outputs=[{"name": "x", "spin": 7}]),
    lambda values: values.update(outputs=5),
    lambda values: values.clear(),
]


def run_lines(root: Path, place: Path) -> Iterator[Case]:
    """Runs whose files lie under the right checksums."""
    (network,) = (root / "runs/test").glob("unet_sphere-*")
    number = 0

    def run(changes: dict[str, bytes], facts: dict[str, object] | None = None) -> list[str | Path]:
        nonlocal number
        number += 1
        folder = place / f"run{number}"
        folder.mkdir()
        for file in network.iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(changes.get(file.name, file.read_bytes()))
        keys = {"model.safetensors": "weights_sha256", "scaling.json": "scaling_sha256", "split.fits": "split_sha256",
                "config.json": "config_sha256"}  # fmt: skip
        known = read_sealed_json(folder / "manifest.json") | (facts or {})
        known |= {keys[name]: hashlib.sha256(content).hexdigest() for name, content in changes.items()}
        (folder / "manifest.json").write_bytes(sealed_json(known))
        return ["predict", folder, "--stores", root / "stores", "--out", place / f"out{number}"]

    for name, content in weights_of((network / "model.safetensors").read_bytes()):
        yield f"weights: {name}", run({"model.safetensors": content})
    for index, change in enumerate(SCALINGS):
        values = json.loads((network / "scaling.json").read_text())
        change(values)
        yield f"scaling {index}", run({"scaling.json": json.dumps(values).encode()})
    yield "scaling no JSON", run({"scaling.json": b"{"})
    yield "scaling deep", run({"scaling.json": b"[" * 100000})
    for name, text in TEXTS.items():
        yield f"config: {name}", run({"config.json": text.encode()})
    split = (network / "split.fits").read_bytes()
    yield "split of 10^18", run({"split.fits": with_card(split, "NAXIS2", 10**18)})
    yield "split of TFIELDS", run({"split.fits": with_card(split, "TFIELDS", 10**12)})


# ----------------------------------------------------------------------------------------- the trials


@pytest.mark.parametrize("share", [pytest.param(20, id="sample"), pytest.param(1, id="full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["special files", "settings", "options", "texts", "runs"])
def test_hostile(kind, share, good, tmp_path, tmp_path_factory, record_property, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    cases = {
        "special files": lambda: special_files(good, place),
        "settings": lambda: setting_lines(place),
        "options": lambda: option_lines(good, place),
        "texts": lambda: text_lines(place),
        "runs": lambda: run_lines(made_runs(tmp_path_factory), place),
    }
    tally = Tally("hostile inputs")
    for number, (name, words) in enumerate(cases[kind]()):
        if number % share == 0:
            start = time.process_time()
            tally.add(attempt(*words).verdict(lambda: False), f"{kind}, {name}")
            if os.environ.get("TELL"):
                print(f"{time.process_time() - start:6.2f} {kind}, {name}")
    assert not (tmp_path / "harm").exists()
    tally.finish(record_property)


def test_headers_are_made_as_meant(good):
    """The cards of the hostile headers stand where a reader looks."""
    made = with_card((good / "sky.fits").read_bytes(), "NSIDE", 4)
    header = fits.Header.fromstring(made[2880:].decode("latin-1"))
    assert header["NSIDE"] == 4 and "CHECKSUM" not in header and len(made) % 2880 == 0
