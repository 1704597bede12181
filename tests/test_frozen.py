"""Two tiny seeded studies end to end, held to stored numbers: a change of structure is the same program.

``pytest tests/test_frozen.py --freeze`` writes the stored numbers anew.  That belongs in a commit of its own, which
says why the draws changed and shows the old numbers beside the new ones, within each other's errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_cli import Place, demo_place, done

from sphereml.data.array_files import write_arrays
from sphereml.simulate.cmb import Cosmology
from sphereml.simulate.cmb_spectra import spectra_path

STORED = Path(__file__).parent / "reference"
# Sums over pixels are made in another order on another number of threads: float32 networks then part at this level.
TOLERANCE = 1e-3
# They tell of the machine, or are hundreds of points of a curve whose mean and width are there.
LEFT_OUT = {"seconds_train", "seconds_predict", "run", "likelihood", "grid"}
LENSING = [
    *("experiment=lensing_small", "patches.size=32", "patches.pixel_arcmin=4.6875", "lensing.lmax_eb=2000"),
    *("lensing.spectra_lmax=3000", "model.width=4", "evaluation.patches=24", "training.epochs=2"),
    *("training.steps_per_epoch=2", "training.batch_size=4", "training.validation_batches=1"),
]


def numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON tree under its dotted key."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name not in LEFT_OUT:
                yield from numbers(part, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from numbers(part, f"{key}.{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, float(value)


@lru_cache(maxsize=8)
def toy_file(strength: float) -> dict[str, np.ndarray]:
    """Smooth spectra of about the CMB's size up to ell = 3000, as CAMB's are kept on disk."""
    ell = np.maximum(np.arange(3001.0), 2)
    ee = 3e-4 * (1.2 + np.sin(ell / 45)) * np.exp(-((ell / 900) ** 1.2))
    bb = 2e-6 * strength * np.exp(-((ell / 800) ** 1.2))
    potential = strength * 2e-11 / (ell * (ell + 1)) ** 1.2 / (1 + ell / 60) ** 1.5
    ee[:2] = bb[:2] = potential[:2] = 0
    return {"ee": ee, "ee_lensed": 0.98 * ee, "bb_lensed": bb, "potential": potential}


def keep_toy_spectra() -> None:
    """Put them where CAMB's would be kept, for every omega_c that a study asks for."""
    for step in (-2, -1, 0, 1, 2):
        omega = round(0.1185 + 0.01 * step, 6)
        write_arrays(spectra_path(3000, Cosmology(omch2=omega)), toy_file(omega / 0.1185))


def dust_study(factory: pytest.TempPathFactory) -> dict[str, Any]:
    """``comparison.json`` of the tiny demo."""
    content: dict[str, Any] = json.loads((demo_place(factory).study / "comparison.json").read_text())
    return content


def lensing_study(factory: pytest.TempPathFactory) -> dict[str, Any]:
    """``lensing.json`` of two epochs on 32 x 32 patches."""
    place = Place(factory.mktemp("frozen"), "lensing_small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPHEREML_DATA", str(place.root / "data"))
        keep_toy_spectra()
        done("study", "lensing", *LENSING, *place.words)
    content: dict[str, Any] = json.loads((place.study / "lensing.json").read_text())
    return content


STUDIES = {"dust": dust_study, "lensing": lensing_study}


@pytest.mark.parametrize("name", STUDIES)
def test_the_numbers_are_the_stored_ones(
    name: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
):
    path = STORED / f"frozen_{name}.json"
    found = dict(numbers(STUDIES[name](tmp_path_factory)))
    if request.config.getoption("--freeze"):
        path.write_text(json.dumps({key: float(f"{value:.7g}") for key, value in found.items()}, indent=0) + "\n")
    stored = json.loads(path.read_text())
    assert stored.keys() <= found.keys(), sorted(stored.keys() - found.keys())[:5]
    scale = _scales(stored)
    wrong = {key: (found[key], value) for key, value in stored.items() if abs(found[key] - value) > scale[key]}
    assert not wrong, f"{len(wrong)} of {len(stored)} numbers moved: {dict(list(wrong.items())[:5])}"


def _scales(stored: dict[str, float]) -> dict[str, float]:
    """How far each number may be off: a share of it, or of the largest in its list, whose zeros have no size."""
    largest: dict[str, float] = {}
    for key, value in stored.items():
        parent = key.rpartition(".")[0]
        largest[parent] = max(largest.get(parent, 0.0), abs(value))
    return {key: TOLERANCE * max(abs(value), largest[key.rpartition(".")[0]]) for key, value in stored.items()}


def test_lists_are_flattened_in_order():
    keys = [key for key, _ in numbers({"b": [1, {"a": 2.0}], "run": 3, "s": "x", "t": True})]
    assert keys == ["b.0", "b.1.a"] and all(one < other for one, other in pairwise(keys))
