"""Checkpoints that hold tensors and plain values alone, are there whole or not at all, and are checked when read.

A checkpoint file is the SHA-256 of what follows (32 bytes) and a file of ``torch.save``, which is read with
``weights_only=True``: whatever stands in it, no code of it runs.  ``last.ckpt`` is of the last finished epoch,
``previous.ckpt`` of the one before.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from sphereml.data.whole_files import seal, unseal, write_atomically
from sphereml.errors import UserError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class WholeCheckpoints(CheckpointIO):
    """How Lightning writes and reads checkpoints."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        stream = io.BytesIO()
        torch.save(checkpoint, stream)
        write_atomically(Path(path), seal(stream.getvalue()), "make room, or choose another output")

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class KeepLast(Checkpoint):
    """Writes ``last.ckpt`` at the end of every epoch and keeps the one before.

    As a checkpoint callback it runs after all others, whose state it must hold (the best epoch so far, the patience).
    Weights that are not finite are not written and end the training: ``diverged`` says so.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.diverged = folder, False

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not all(torch.isfinite(value).all() for value in pl_module.state_dict().values()):
            trainer.should_stop = self.diverged = True  # the last good epoch stays
            return
        if trainer.is_global_zero and (self.folder / LAST).is_file():
            (self.folder / LAST).replace(self.folder / PREVIOUS)
        trainer.save_checkpoint(self.folder / LAST)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        UserError: it is damaged, or is no checkpoint of ours.
    """
    damaged = UserError(f"the checkpoint {path} is damaged", "train again with --overwrite")
    try:
        content = unseal(path.read_bytes())
    except OSError:
        raise damaged from None
    if content is None:
        raise damaged
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch raises whatever its unpickler meets
        raise damaged from None
    return state


def latest_checkpoint(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from: the last one, or where it is damaged the one before; None before the first.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    standing = [folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()]
    for path in standing:
        try:
            read_checkpoint(path)
        except UserError as error:
            say(f"{error.what}: going on from the one before")
            continue
        return path
    if standing:
        raise UserError(f"the checkpoints in {folder} are damaged", "train again with --overwrite")
    return None
