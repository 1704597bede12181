"""The life of a run: claimed, trained, interrupted and gone on with, finished; whatever is trained."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphereml.data.holdings import lock
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.tasks.protocol import Provenance
from sphereml.training.runs import Run

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FitOptions:
    """How a run is trained.

    ``resume`` goes on with an unfinished run; ``overwrite`` starts it again, and with ``resume`` goes on with an
    unfinished new one of a finished run.  ``say`` takes progress lines.
    """

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

    A finished run that is trained again stays until the new one is finished, which is made in a folder beside it.

    Raises:
        UserError: an unfinished run stands there and neither resume nor overwrite is asked for, the data changed since
            it was started, another process trains it, its folder cannot be written, or what ``fit`` refuses.
    """
    with _locked(run):
        _recover(run)
        if not options.overwrite or not run.manifest().get("complete"):
            return _train(run, provenance, options, fit)
        fresh = replace(run, folder=_beside(run, "new"))
        _train(fresh, provenance, options, fit)
        old = _beside(run, "old")
        run.folder.rename(old)
        fresh.folder.rename(run.folder)
        shutil.rmtree(old)
        return run


def _beside(run: Run, what: str) -> Path:
    return run.folder.with_name(f".{run.folder.name}.{what}")


def _recover(run: Run) -> None:
    """Finish what a process that was killed between a new run's end and its place left undone."""
    old = _beside(run, "old")
    if old.exists() and not run.folder.exists():
        old.rename(run.folder)
    shutil.rmtree(old, ignore_errors=True)


def _train(run: Run, provenance: Provenance, options: FitOptions, fit: Callable[[Run], Fitted]) -> Run:
    started_here = not run.folder.exists() or (options.overwrite and not options.resume)
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
        if started_here and (isinstance(error, Diverged) or not run.checkpoints.exists()):
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
    if options.overwrite and not options.resume and run.folder.exists():
        shutil.rmtree(run.folder)
        manifest = {}
    if manifest.get("complete"):
        run.check_data(provenance.data)
        return True
    if manifest and not options.resume:
        raise UserError(f"an unfinished training stands in {run.folder}", "add --resume to go on, or --overwrite")
    if manifest:
        run.check_data(provenance.data)
        run.check_config()
    else:
        run.start(provenance.data, **provenance.facts)
    return False


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Hold the run against other processes; raises UserError that names the one that has it."""
    path = _beside(run, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {run.folder} ({error.strerror})", "choose another output=FOLDER") from None
    try:
        if not lock(descriptor, wait=False):
            other = os.read(descriptor, 200).decode(errors="replace") or "another process"
            raise UserError(f"{other} trains in {run.folder}", "wait for it, or stop it")
        os.truncate(descriptor, 0)
        try:
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
