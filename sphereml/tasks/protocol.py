"""What a task says: what goes in, what comes out, how it is learnt and judged.  Nothing outside asks which task it is.

Conventions: a *scaling* is everything fitted on the training part of the data; it alone knows units.  Networks and
losses see standardized values; ``combine`` makes a standardized prediction of a network's output, and
``Scaling.restore`` brings it to the units of the outputs.  Streams of the training seed: 0 trains, 1 validates, 2 fits
the scaling.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch

from sphereml.config.schema import ExperimentConfig
from sphereml.config.tasks import TaskSchema
from sphereml.domains import Domain
from sphereml.domains.channels import Channels
from sphereml.errors import UserError
from sphereml.models.networks import Network, build
from sphereml.sky.fields import Field
from sphereml.sources.batch import Batch, Part, Source

STREAMS: dict[str, int] = {"train": 0, "validation": 1, "scaling": 2}
Say = Callable[[str], None]
# From a standardized prediction ``(B, *s, O)`` and its batch to the loss and to measures that are logged by their name.
Loss = Callable[[torch.Tensor, Batch], tuple[torch.Tensor, dict[str, torch.Tensor]]]


class Scaling(Protocol):
    """Everything fitted on the training data; JSON-ready, stored beside the weights."""

    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self: ...

    def restore(self, prediction: torch.Tensor) -> torch.Tensor:
        """A standardized prediction ``(..., O)`` in the units of the outputs."""


@dataclass(frozen=True)
class Provenance:
    """What a run is trained on; ``data`` must be the same when it is gone on with, ``facts`` stand beside it."""

    data: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)


class Task(ABC):
    """One task with the configuration of one experiment.

    A task of a plugin derives from this class, or from :class:`~sphereml.tasks.maps.MapTask` when it learns full-sky
    maps from full-sky maps.

    Attributes:
        name: what ``task:`` of a configuration says.
        schema: which keys of a configuration the task uses, and its own settings.
        study: the study that compares its runs (a name of ``sphereml.evaluation.STUDIES``).
        scaling: the class of its scaling, to read one from disk.

    Example:
        >>> import sphereml as sm
        >>> issubclass(sm.MapTask, sm.Task)
        True
    """

    name: ClassVar[str]
    schema: ClassVar[TaskSchema] = TaskSchema()
    study: ClassVar[str] = "maps"
    scaling: ClassVar[type[Scaling]]

    def __init__(self, config: ExperimentConfig, say: Say = print) -> None:
        self.config, self.say = config, say

    @classmethod
    def of(cls, config: ExperimentConfig, say: Say = print, **given: Any) -> Task:
        """The task of a configuration; a class whose domains have little in common chooses another here."""
        return cls(config, say, **given)

    @property
    @abstractmethod
    def outputs(self) -> tuple[Field, ...]:
        """The fields that are predicted, in the order of their columns."""

    def check(self) -> None:
        """Raise UserError for what the data cannot give the experiment, before anything is trained."""
        return

    def warnings(self) -> list[str]:
        """What in the data is allowed but looks wrong, a line each."""
        return []

    def identity(self) -> dict[str, str]:
        """Checksums of files that the configuration names and that decide what is learnt, for the run's hash."""
        return {}

    @abstractmethod
    def provenance(self) -> Provenance:
        """Of the data."""

    def keep(self, folder: Path) -> dict[str, Any]:
        """Write what a run must remember beside its weights into its folder; returns facts for the manifest."""
        return {}

    @abstractmethod
    def fit_scaling(self) -> Scaling:
        """From the training part of the data."""

    @abstractmethod
    def sources(self, scaling: Any) -> Mapping[Part, Source]:
        """Batches to train on, and to validate with where there is something to validate with."""

    @abstractmethod
    def loss(self, scaling: Any) -> Loss:
        """What is minimized."""

    @abstractmethod
    def domain(self, nside: int) -> Domain:
        """A domain of the kind that the network lives on; of maps of ``nside`` where that matters."""

    @abstractmethod
    def channels(self, scaling: Any) -> tuple[Channels, Channels]:
        """What the network takes and gives."""

    def network(self, scaling: Any, nside: int) -> Network:
        """The network of the configuration, its weights drawn from the training seed."""
        torch.manual_seed(self.config.training.seed)
        channels_in, channels_out = self.channels(scaling)
        return build(self.config.model, self.domain(nside), channels_in, channels_out)

    @property
    def closed_form(self) -> bool:
        """Whether the model of the configuration is solved for at once, by :meth:`solve`."""
        return self.config.model.domain == "none"

    def solve(self, network: Network, scaling: Any) -> None:
        """Set the weights of a closed-form model; raises UserError where the task has none."""
        raise UserError(f"the task {self.name} has no closed-form model", "choose a network: model=NAME")

    def combine(self, batch: Batch, output: torch.Tensor, scaling: Any) -> torch.Tensor:
        """Standardized prediction ``(B, *s, O)`` from the network's output: base + sum of gains times outputs."""
        return add_gains(batch.base, batch.gains, output)


def add_gains(base: torch.Tensor, gains: torch.Tensor | None, output: torch.Tensor) -> torch.Tensor:
    """``base + sum_g gains_g output_g``: base ``(..., O)``, gains ``(..., O, G)`` or None, output ``(..., O G)``."""
    return base + (output if gains is None else (gains * output.unflatten(-1, gains.shape[-2:])).sum(dim=-1))
