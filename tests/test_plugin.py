"""A task in one file of its own: trained, compared and predicted through the unchanged command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import healpy
import pytest
from fixtures_cli import done, sphereml

from sphereml.config.tasks import SCHEMAS
from sphereml.tasks import TASKS

PLUGIN = Path(__file__).parent / "plugin" / "haze.py"
WORDS = [
    *(
        "task=haze",
        "name=toy",
        "split.sky_fraction=null",
        "haze.strength=0.4",
        "bands.r50=[4,20]",
        "bands.r150=[20,60]",
    ),
    *("patches.size=16", "patches.pixel_arcmin=93.6", "evaluation.patches=12", "model.form=plain"),
    *("model.width=4", "model.depth=1", "training.epochs=2", "training.steps_per_epoch=4"),
    *("training.batch_size=2", "training.validation_batches=1"),
]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """A plugin is known in the process that named it."""
    yield
    for known in (TASKS, SCHEMAS):
        known.pop("haze", None)


def test_a_toy_task_is_trained_compared_and_predicted(tmp_path: Path):
    runs = tmp_path / "runs" / "toy"
    for model in ("linear", "unet_flat_plain", "unet_sphere_plain"):
        done("train", "--plugin", PLUGIN, *WORDS, f"model={model}", f"output={tmp_path / 'runs'}")
    assert "report:" in done("compare", "--plugin", PLUGIN, runs).out
    content = json.loads((runs / "comparison.json").read_text())
    assert content["target"] == "sum" and set(content["other_targets"]) == {"difference"}
    assert set(content["models"]) == {"linear", "unet_flat_plain", "unet_sphere_plain"}
    assert content["other_targets"]["difference"]["models"]["linear"]["sphere"]["r50"] > 0.999
    assert content["models"]["linear"]["wins_vs_integrated"] is None
    done("predict", "--plugin", PLUGIN, runs)
    maps, cards = healpy.read_map(runs / "templates" / "linear.fits", field=None, h=True)
    assert maps.shape == (2, 12 * 32**2) and dict(cards)["TTYPE2"] == "difference"
    done(
        "study", "--plugin", PLUGIN, *WORDS, "model=linear", f"output={tmp_path / 'runs'}", "--out", tmp_path / "study"
    )
    assert (tmp_path / "study" / "report.html").is_file()


def test_without_its_plugin_the_task_is_not_known(tmp_path: Path):
    assert "no task 'haze'" in sphereml("config", "validate", "task=haze").refusal
    done("train", "--plugin", PLUGIN, *WORDS, "model=linear", f"output={tmp_path}")
    for known in (TASKS, SCHEMAS):
        known.pop("haze")
    assert "--plugin" in sphereml("compare", tmp_path / "toy").refusal


def test_a_key_of_the_plugin_is_a_key(tmp_path: Path):
    assert "haze:" in done("config", "show", "--plugin", PLUGIN, "task=haze").out
    refused = sphereml("config", "validate", "--plugin", PLUGIN, "task=haze", "haze.strenght=1")
    assert "did you mean haze.strength" in refused.refusal
    refused = sphereml("config", "validate", "--plugin", PLUGIN, "task=haze", "data.galaxy.seed=1")
    assert "no use for data.galaxy.seed" in refused.refusal


@pytest.mark.parametrize(
    ("text", "says"),
    [("x = 1", "defines no task"), ("1 / 0", "ZeroDivisionError"), ("def", "SyntaxError"), (None, "no plugin")],
)
def test_plugins_that_are_none(tmp_path: Path, text: str | None, says: str):
    path = tmp_path / "plugin.py"
    if text is not None:
        path.write_text(text)
    assert says in sphereml("config", "list", "--plugin", path).refusal
