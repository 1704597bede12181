"""The life of a run: claimed, trained, interrupted and gone on with, finished; whatever is trained."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.tasks.protocol import Provenance
from sphereml.training.runs import Run


@dataclass(frozen=True)
class FitOptions:
    """``resume`` goes on with an unfinished run, ``overwrite`` starts it again; ``say`` takes progress lines."""

    resume: bool = False
    overwrite: bool = False
    say: Callable[[str], None] = print


class Diverged(UserError):
    """A training whose loss or weights are no longer finite."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a finished training leaves: tensors for the weights file, scaling, manifest facts, and the model card."""

    tensors: dict[str, torch.Tensor]
    scaling: dict[str, Any]
    facts: dict[str, Any]
    card: str


def train_once(run: Run, provenance: Provenance, options: FitOptions, fit: Callable[[Run], Fitted]) -> Run:
    """Train with ``fit``, or return the run when it is already complete.

    Raises:
        UserError: an unfinished run stands there and neither resume nor overwrite is asked for, the data changed since
            it was started, its folder cannot be written, or what ``fit`` refuses.
    """
    fresh = options.overwrite or not run.folder.exists()
    if _claim(run, provenance, options):
        options.say(f"{run.name}: already trained in {run.folder}")
        return Run.open(run.folder)
    before, started = run.manifest().get("seconds_train", 0.0), time.monotonic()

    def spent() -> float:
        return round(before + time.monotonic() - started, 2)

    try:
        fitted = fit(run)
    except UserError as error:
        # What could never start leaves nothing behind, nor does what no resuming can save.
        if fresh and (isinstance(error, Diverged) or not run.checkpoints.exists()):
            shutil.rmtree(run.folder)
        else:
            run.update(seconds_train=spent())
        raise
    except BaseException:
        run.update(seconds_train=spent())
        raise
    write_atomically(run.folder / "README.md", fitted.card.encode())
    run.finish(fitted.tensors, fitted.scaling, **fitted.facts, seconds_train=spent())
    return run


def _claim(run: Run, provenance: Provenance, options: FitOptions) -> bool:
    """Make the folder ours; True when there is nothing left to do."""
    manifest = run.manifest()
    if options.overwrite and run.folder.exists():
        shutil.rmtree(run.folder)
        manifest = {}
    if manifest.get("complete"):
        run.check_data(provenance.data)
        return True
    if manifest and not options.resume:
        raise UserError(f"an unfinished training stands in {run.folder}", "add --resume to go on, or --overwrite")
    if manifest:
        run.check_data(provenance.data)
    else:
        run.start(provenance.data, **provenance.facts)
    return False
