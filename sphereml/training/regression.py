"""The training step: a network on a batch's domain, the correlation loss, Adam with a stepwise rate.

Random numbers (dropout, input noise) are a function of the seed and the step, so that a resumed training repeats an
uninterrupted one to the last bit.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import nn

from sphereml.config.schema import ModelConfig, TrainingConfig
from sphereml.tasks.dust import combine
from sphereml.tasks.losses import CorrelationLoss
from sphereml.training.batches import Batch


def standardized_prediction(network: nn.Module, batch: Batch, gain_limit: float, noise: float = 0.0) -> torch.Tensor:
    """The first guess corrected by the network, on the batch's domain: ``(B, *shape)``."""
    features = batch.features
    if noise > 0:
        features = features + noise * torch.randn_like(features)
    return combine(batch.base, batch.gain, network(features, batch.domain), gain_limit)


class MapRegression(lightning.LightningModule):
    """Lightning's view of a network that regresses one map from others."""

    def __init__(self, network: nn.Module, loss: CorrelationLoss, model: ModelConfig, training: TrainingConfig) -> None:
        super().__init__()
        self.network, self.loss, self.model_config, self.training_config = network, loss, model, training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed((self.training_config.seed << 32) + self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        model = self.model_config
        prediction = standardized_prediction(self.network, batch, model.gain_limit, model.input_noise)
        loss, _ = self.loss(prediction, batch.target, batch.weight, batch.domain)
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(batch.base), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        prediction = standardized_prediction(self.network, batch, self.model_config.gain_limit)
        loss, r = self.loss(prediction, batch.target, batch.weight, batch.domain)
        self.log("val_loss", loss, batch_size=len(batch.base), prog_bar=True)
        for name, value in zip(self.loss.bands, r, strict=True):
            self.log(f"val_{name}", value.float(), batch_size=len(batch.base), prog_bar=True)

    def configure_optimizers(self) -> Any:
        config = self.training_config
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=config.decay_every, gamma=0.1)
        return {"optimizer": optimizer, "lr_scheduler": schedule}
