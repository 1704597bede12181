"""The Lightning side of training: trainer, checkpoints, logs, progress, early stopping, resuming."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from sphereml.sources.batch import EpochSeeds
from sphereml.tasks.protocol import STREAMS
from sphereml.training.checkpoints import LAST, KeepLast, WholeCheckpoints, latest_checkpoint, read_checkpoint
from sphereml.training.held_signals import HeldSignals
from sphereml.training.lifecycle import Diverged
from sphereml.training.lightning_cluster import JoinedProcesses
from sphereml.training.loggers import log_score, open_loggers
from sphereml.training.processes import Process, local_device
from sphereml.training.progress import epoch_progress
from sphereml.training.regression import Regression, allow_tf32
from sphereml.training.runs import Run


class EpochOfBatches(Callback):
    """Tells the training batches which epoch it is, also after a resume."""

    def __init__(self, batches: EpochSeeds) -> None:
        self.batches = batches

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.batches.epoch = trainer.current_epoch


# "tf32" is float32 whose products may be rounded to TF32 on a card that can.
PRECISIONS: dict[str, Any] = {"float32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


def train_network(run: Run, module: Regression, validates: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Fit the module's network in place; returns facts for the manifest.

    The best epoch on the validation batches is kept, or without them the last.
    """
    quieten_lightning()
    config, process = run.config.training, module.process
    train = EpochSeeds(config.seed, STREAMS["train"], config.steps_per_epoch)
    validation = EpochSeeds(config.seed, STREAMS["validation"], config.validation_batches) if validates else None
    allow_tf32(config.precision == "tf32")
    keep, best, signals = KeepLast(run.checkpoints), None, HeldSignals()
    judging: list[Callback] = []
    if validates:
        best = ModelCheckpoint(
            run.checkpoints,
            filename="best",
            monitor="val_loss",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        judging = [EarlyStopping("val_loss", patience=config.patience, check_on_train_epoch_end=True), best]
    loggers = open_loggers(run) if process.writes else []
    trainer = lightning.Trainer(
        max_epochs=config.epochs,
        precision=PRECISIONS[config.precision],
        gradient_clip_val=config.clip or None,
        **_devices(process),
        logger=loggers,
        callbacks=[signals, EpochOfBatches(train), epoch_progress(run.name, say), *judging, keep],
        plugins=[WholeCheckpoints(), JoinedProcesses(process)],
        default_root_dir=run.folder,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        deterministic="warn",
    )
    last = latest_checkpoint(run.checkpoints, say)
    with signals.holding(), _interruptible():
        trainer.fit(
            module,
            DataLoader(train, batch_size=None),
            DataLoader(validation, batch_size=None) if validation else None,
            ckpt_path=str(last) if last else None,
        )
    chosen = Path(best.best_model_path) if best is not None else run.checkpoints / LAST
    if not chosen.is_file():  # no epoch had a finite loss
        raise Diverged(f"the training of {run.name} diverged", "lower training.learning_rate")
    state = read_checkpoint(chosen)
    module.load_state_dict(state["state_dict"])
    module.settle()
    if not all(torch.isfinite(value).all() for value in module.network.state_dict().values()):
        raise Diverged(f"the training of {run.name} diverged", "lower training.learning_rate")
    facts = {"epochs": trainer.current_epoch, "best_epoch": state["epoch"], "val_loss": None}
    if best is not None and best.best_model_score is not None:
        facts["val_loss"] = float(best.best_model_score)
        log_score(loggers, run, facts["val_loss"])
    if keep.diverged or not all(torch.isfinite(value) for value in trainer.callback_metrics.values()):
        facts["diverged_after_epoch"] = trainer.current_epoch
        say(f"{run.name}: the training diverged in epoch {trainer.current_epoch}; epoch {state['epoch'] + 1} is kept")
    return facts


def _devices(process: Process) -> dict[str, Any]:
    """One device of this machine, and the strategy that joins the processes of several."""
    if process.count == 1:
        return {"accelerator": "auto", "devices": 1}
    # Running statistics are equal on all: those of the first process need not be sent at every step.
    strategy = DDPStrategy(broadcast_buffers=False)
    devices = [local_device()] if torch.cuda.is_available() else 1
    return {"accelerator": "auto", "devices": devices, "num_nodes": process.count, "strategy": strategy}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lightning turns Ctrl-C into SystemExit; undo that."""
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def quieten_lightning() -> None:
    """Lightning's advice to cluster users (workers, litlogger, seeds) says nothing about this package's runs."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
