"""The runs below some folders as one table: what they are, which settings differ, how far they are, how they score.

A row is a mapping from the name of a column to a plain value; columns that a run lacks are absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sphereml.config.compose import load, used_settings
from sphereml.config.tasks import dotted_values
from sphereml.data.holdings import lock
from sphereml.data.whole_files import read_sealed_json
from sphereml.errors import UserError

# Facts of the manifest that say how a training went, and scores that a comparison gives a run.
_FACTS = ("epochs", "best_epoch", "val_loss", "seconds_train")
_SCORES = ("r50", "r150", "r_low")
# They say where a run lies, or are columns of their own.
_NOT_SHOWN = (
    *("output", "scheduler", "data.folder", "data.stores", "models", "task", "model.name"),
    *("training.threads", "training.processes", "training.logger"),
)


def list_runs(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """A row for every run at or below the folders, finished or not, ordered by its folder.

    Raises:
        UserError: a folder does not exist, or none of them holds a run.
    """
    found = sorted({path for folder in folders for path in _run_folders(folder)})
    if not found:
        raise UserError("there is no run in these folders", "train first: `sphereml train experiment=NAME`")
    settings = {path: _settings(path) for path in found}
    differing = _differing([one for one in settings.values() if one])
    return [_row(path, settings[path], differing) for path in found]


def _run_folders(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "name a folder of runs, e.g. runs")
    for path in folder.glob("**/config.json"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path.parent


def _settings(path: Path) -> dict[str, Any]:
    """Every setting that a run's task uses, by its dotted key; empty where the configuration cannot be read."""
    try:
        return dict(dotted_values(used_settings(load(path / "config.json"))))
    except UserError:
        return {}


def _differing(settings: list[dict[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for one in settings for key in one if key not in _NOT_SHOWN)
    return [key for key in keys if len({json.dumps(one.get(key)) for one in settings}) > 1]


def _row(path: Path, settings: Mapping[str, Any], differing: Iterable[str]) -> dict[str, Any]:
    row = {"run": str(path), "model": settings.get("model.name"), "task": settings.get("task")}
    manifest = _manifest(path)
    row["state"] = _state(path, settings, manifest)
    row |= {key: settings[key] for key in differing if key in settings}
    row |= {key: manifest[key] for key in _FACTS if manifest.get(key) is not None}
    return row | _scores(path)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        return read_sealed_json(path / "manifest.json")
    except (OSError, ValueError):
        return {}


def _state(path: Path, settings: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    if not settings or not manifest:
        return "damaged"
    if manifest.get("complete"):
        return "finished"
    return "training" if _is_held(path.with_name(f".{path.name}.lock")) else "unfinished"


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock of a run."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not lock(descriptor, wait=False)
    finally:
        os.close(descriptor)


def _scores(path: Path) -> dict[str, float]:
    """Correlations on the held-out sphere that the comparison beside a run gives it."""
    try:
        models = json.loads((path.parent / "comparison.json").read_text())["models"].values()
        own = next(one for one in models if one.get("run") == path.name)
        return {f"sphere {band}": own["sphere"][band] for band in _SCORES if own["sphere"].get(band) is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return {}
