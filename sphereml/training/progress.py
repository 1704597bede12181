"""Progress of a training: a line an epoch with the time left, and a bar over the steps where somebody watches.

Times left are of the whole training, at the pace since it was started or gone on with; early stopping may end it
sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sphereml.progress import BARS, TimeLeft


class EpochLines(Callback):
    """One line an epoch, for logs, pipes and people; the lines stay."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name, self.say, self.left = name, say, TimeLeft(1)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.left = TimeLeft(int(trainer.max_epochs or 1), trainer.current_epoch)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        metrics, done = trainer.callback_metrics, trainer.current_epoch + 1
        shown = "  ".join(f"{key} {float(metrics[key]):.3f}" for key in sorted(metrics))
        self.say(f"{self.name}: epoch {done}/{self.left.total}  {shown}{self.left(done)}")


class StepBar(EpochLines):
    """The same lines above a bar over the steps of the running epoch, in a terminal or a notebook."""

    def __init__(self, name: str, say: Callable[[str], None], console: Console) -> None:
        super().__init__(name, say)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        epoch, steps = trainer.current_epoch, int(trainer.num_training_batches)
        if self._task is None:
            self._bar.start()
            total = steps * int(trainer.max_epochs or 1)
            self._task = self._bar.add_task("", total=total, completed=steps * epoch)
        self._bar.update(self._task, description=f"{self.name}: epoch {epoch + 1}/{trainer.max_epochs}, steps")

    def on_train_batch_end(self, *given: Any, **more: Any) -> None:
        if self._task is not None:
            self._bar.advance(self._task)

    def teardown(self, *given: Any, **more: Any) -> None:
        self._bar.stop()

    # A training that is interrupted is not torn down.
    on_exception = teardown


def epoch_progress(name: str, say: Callable[[str], None]) -> Callback:
    """The progress that fits the place: lines in pipes and logs, a bar beneath them in terminals and notebooks."""
    console = Console()
    # Without ipywidgets rich prints a new bar for every step of a notebook.
    watched = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    return StepBar(name, say, console) if watched and BARS.get() else EpochLines(name, say)
