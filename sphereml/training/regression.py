"""Lightning's view of a network that is trained: its steps, optimizer, schedule of the rate, averaging of weights.

Random numbers (dropout, input noise) are a function of the seed and the step, so that a resumed training repeats an
uninterrupted one to the last bit.  Of several processes (:mod:`sphereml.training.processes`) each draws the dropout of
its own samples; everything else is what one process does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from sphereml.config.schema import TrainingConfig
from sphereml.sources.batch import Part, Source, batch_seed
from sphereml.tasks.protocol import Scaling, Task
from sphereml.training.processes import this_process


def allow_tf32(allowed: bool) -> None:
    """Whether products and convolutions of float32 may be rounded to TF32 on a card that can."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


class Regression(lightning.LightningModule):
    """A network of any task, trained on batches that its sources make from seeds.

    With ``training.average_from`` below 1 the weights (and running means) after each step beyond that share of the
    training are averaged with equal weight (Izmailov et al. 2018, arXiv:1803.05407); the average is what is validated
    and kept.
    """

    def __init__(self, network: nn.Module, task: Task, scaling: Scaling, sources: Mapping[Part, Source]) -> None:
        super().__init__()
        self.network, self.task, self.scaling, self.sources = network, task, scaling, sources
        self.training_config, self.loss = task.config.training, task.loss(scaling)
        averages = self.training_config.average_from < 1
        self.averaged = AveragedModel(network, use_buffers=True).requires_grad_(False) if averages else None
        self.process = this_process()

    def training_step(self, seed: int, batch_idx: int) -> torch.Tensor:
        # Gradients are averaged over the processes, and each has that of its own samples.
        return self.process.count * self._step(self.network, "train", seed)

    def validation_step(self, seed: int, batch_idx: int) -> None:
        self._step(self.judged, "validation", seed)

    def _step(self, network: nn.Module, part: Part, seed: int) -> torch.Tensor:
        size = self.training_config.batch_size
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            batch = self.sources[part].batch(int(seed), size, self.device)
        features, noise = batch.features, self.task.config.model.input_noise
        if noise > 0 and part == "train":
            features = features + noise * torch.randn_like(features)
        output = self.process.gathered(network(features[self._own(part, len(features))], batch.domain))
        prediction = self.task.combine(batch, output, self.scaling)
        loss, measures = self.loss(prediction.float(), batch)
        count = len(batch.features)
        if part == "train":
            self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=count, prog_bar=True)
        else:
            for name, value in ({"loss": loss} | measures).items():
                self.log(f"val_{name}", value.float(), batch_size=count, prog_bar=True)
        return loss

    def _own(self, part: Part, size: int) -> slice:
        """This process's samples; in training it then draws random numbers of its own."""
        if self.process.count > 1 and part == "train":
            torch.manual_seed(batch_seed(self.training_config.seed, self.global_step, self.process.rank))
        return self.process.share(size)

    @property
    def judged(self) -> nn.Module:
        """The network as validation sees it."""
        return self.network if self.averaged is None or self.averaged.n_averaged == 0 else self.averaged.module

    def settle(self) -> None:
        """Let the network be what was judged, once the training is over."""
        if self.judged is not self.network:
            self.network.load_state_dict(self.judged.state_dict())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed((self.training_config.seed << 32) + self.global_step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        config = self.training_config
        first = config.average_from * config.epochs * config.steps_per_epoch
        if self.averaged is not None and self.global_step > first:
            self.averaged.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        config = self.training_config
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        return {"optimizer": optimizer, "lr_scheduler": _schedule(optimizer, config)}


@dataclass(frozen=True)
class _Cosine:
    """The share of the full rate at every step: from 1/25 up to 1 over the first twentieth, then down to nothing."""

    steps: int

    def __call__(self, step: int) -> float:
        top, last = max(self.steps / 20 - 1, 0.0), max(self.steps - 1, 1)
        if step < top:
            return 1 - 0.96 * (1 + math.cos(math.pi * step / top)) / 2
        passed = min((step - top) / (last - top), 1.0)
        return (1 + math.cos(math.pi * passed)) / 2


def _schedule(optimizer: torch.optim.Optimizer, config: TrainingConfig) -> dict[str, Any]:
    """``step``: a tenth every ``decay_every`` epochs; ``plateau``: half after ``decay_every`` epochs without a better
    validation loss; ``cosine``: a rise over the first twentieth, then down to zero."""
    if config.schedule == "plateau":
        # torch counts the epochs that it still lets pass.
        plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=config.decay_every - 1)
        return {"scheduler": plateau, "monitor": "val_loss"}
    if config.schedule == "cosine":
        cosine = lr_scheduler.LambdaLR(optimizer, _Cosine(config.epochs * config.steps_per_epoch))
        return {"scheduler": cosine, "interval": "step"}
    return {"scheduler": lr_scheduler.StepLR(optimizer, step_size=config.decay_every, gamma=0.1)}
