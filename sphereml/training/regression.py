"""The training step of dust: a network on a batch's domain under the correlation loss."""

from __future__ import annotations

import torch
from torch import nn

from sphereml.config.schema import ModelConfig, TrainingConfig
from sphereml.tasks.dust import combine
from sphereml.tasks.losses import CorrelationLoss
from sphereml.training.batches import Batch
from sphereml.training.optimization import Regression


def standardized_prediction(network: nn.Module, batch: Batch, gain_limit: float, noise: float = 0.0) -> torch.Tensor:
    """The first guess corrected by the network, on the batch's domain: ``(B, *shape)``."""
    features = batch.features
    if noise > 0:
        features = features + noise * torch.randn_like(features)
    return combine(batch.base, batch.gain, network(features, batch.domain), gain_limit)


class MapRegression(Regression):
    """A network that regresses one map from others under the correlation loss."""

    def __init__(self, network: nn.Module, loss: CorrelationLoss, model: ModelConfig, training: TrainingConfig) -> None:
        super().__init__(network, training)
        self.loss, self.model_config = loss, model

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        model = self.model_config
        prediction = standardized_prediction(self.network, batch, model.gain_limit, model.input_noise)
        loss, _ = self.loss(prediction, batch.target, batch.weight, batch.domain)
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(batch.base), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        prediction = standardized_prediction(self.judged, batch, self.model_config.gain_limit)
        loss, r = self.loss(prediction, batch.target, batch.weight, batch.domain)
        self.log("val_loss", loss, batch_size=len(batch.base), prog_bar=True)
        for name, value in zip(self.loss.bands, r, strict=True):
            self.log(f"val_{name}", value.float(), batch_size=len(batch.base), prog_bar=True)
