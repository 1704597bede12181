"""What a configuration of each task holds: the keys it uses, the settings under its own name, what it refuses.

Nothing heavy is imported here, so that a wrong configuration is refused at once; the tasks themselves are in
:mod:`sphereml.tasks`.  A plugin adds its task to both (:func:`sphereml.tasks.register`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sphereml.config.dust_polarization import DustPolarizationConfig, polarization_faults
from sphereml.config.lensing import LENSING_FREE, LensingConfig, lensing_faults
from sphereml.config.maps import GAS_SETTINGS, map_faults, regression_faults
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig


@dataclass(frozen=True)
class TaskSchema:
    """The configuration of one task.

    Args:
        settings: dataclass whose keys stand under the task's own name; None where it has none.
        unused: keys, or dotted beginnings of keys, that the task has no use for; the settings of other tasks are
            unused without being named.
        faults: what a configuration of the right types can still not be.
        choices: allowed values by key.
    """

    settings: type | None = None
    unused: tuple[str, ...] = ()
    faults: Callable[[ExperimentConfig], Iterator[UserError]] = map_faults
    choices: tuple[tuple[str, tuple[str, ...]], ...] = ()


SCHEMAS: dict[str, TaskSchema] = {
    "dust": TaskSchema(
        unused=("evaluation.forecast",), choices=(("evaluation.study", ("", "cross_fit", "dust_paper", "sphere_only")),)
    ),
    "dust_polarization": TaskSchema(
        settings=DustPolarizationConfig,
        unused=("model.guess", "model.gains"),
        faults=polarization_faults,
        choices=(
            ("dust_polarization.base", ("tensor", "hough")),
            ("evaluation.study", ("", "cross_fit", "r_forecast", "sphere_only")),
        ),
    ),
    "maps": TaskSchema(unused=GAS_SETTINGS, faults=regression_faults),
    "lensing": TaskSchema(
        settings=LensingConfig,
        unused=LENSING_FREE,
        faults=lensing_faults,
        choices=(
            ("lensing.simulator", ("flat", "curved")),
            ("lensing.loss", ("pixel", "fourier")),
            ("lensing.features", ("all", "scalars")),
        ),
    ),
}
# A store is where a task keeps its skies, whatever they are.
_ALWAYS_USED = ("data.stores",)


def schema_of(task: str) -> TaskSchema:
    """The schema of a task; raises UserError when there is no such task."""
    if task not in SCHEMAS:
        raise UserError(f"there is no task {task!r}", f"choose {', '.join(SCHEMAS)}, or name its file with --plugin")
    return SCHEMAS[task]


def is_used(task: str, key: str) -> bool:
    """Whether a task has a use for a dotted key (or for a whole group of them)."""
    others = [name for name in SCHEMAS if name != task]
    unused = (*schema_of(task).unused, *others)
    return key in _ALWAYS_USED or not any(key == start or key.startswith(f"{start}.") for start in unused)


def refuse_unused(task: str, key: str) -> None:
    """Raise UserError for a key that would change nothing."""
    if not is_used(task, key):
        raise UserError(f"the task {task} has no use for {key}", "leave it out")


def used_values(task: str, values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """A nested configuration without the keys that the task does not use."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{start}{name}"
        if isinstance(value, Mapping) and value:
            if inner := used_values(task, value, f"{key}."):
                kept[name] = inner
        elif is_used(task, key):
            kept[name] = value
    return kept


def dotted_keys(values: Mapping[str, Any]) -> Iterator[str]:
    """Every innermost key of a nested configuration."""
    return (key for key, _ in dotted_values(values))


def dotted_values(values: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Every innermost key of a nested configuration and its value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from dotted_values(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value
