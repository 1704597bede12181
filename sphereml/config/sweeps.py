"""Sweeps in Hydra's syntax: ``key=a,b``, ``key=choice(a,b)``, ``key=range(1,4)``, and all combinations of several.

Text in quotes, and what stands in brackets, is one value: ``output='a,b'``, ``bands.r50=[15,99]``.  A search takes
``key=interval(1e-4,1e-2)`` as well, even in the logarithm as ``tag(log,interval(1e-4,1e-2))``, whole numbers as
``int(interval(8,64))``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sphereml.config.overrides import check_override
from sphereml.errors import UserError


def swept_words(words: Sequence[str]) -> list[list[str]]:
    """The words of every combination, the last word's values changing fastest; no word swept: one combination.

    Raises:
        UserError: a sweep of many values of nothing, or a value that its key cannot have.

    Example:
        >>> swept_words(["training.seed=1,2", "model=linear"])
        [['training.seed=1', 'model=linear'], ['training.seed=2', 'model=linear']]
    """
    combinations = [list(chosen) for chosen in product(*(_values(word) for word in words))]
    if not combinations:
        raise UserError("a sweep of no values", "give at least one, e.g. training.seed=1,2")
    return combinations


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, whole ones where both are; even in the logarithm with ``log``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class SearchSpace:
    """The words of a search: those that stay, and by key the values or the interval that it chooses from."""

    fixed: tuple[str, ...]
    ranges: Mapping[str, Sequence[str] | Interval]

    @classmethod
    def of(cls, words: Sequence[str]) -> SearchSpace:
        """The space that words name; raises UserError where none leaves a choice, or a value that its key cannot have.

        Example:
            >>> SearchSpace.of(["training.learning_rate=interval(1e-4,1e-2)", "model=linear"]).ranges
            {'training.learning_rate': Interval(low=0.0001, high=0.01, log=False)}
        """
        ranges = {word.partition("=")[0]: found for word in words if (found := _range(word))}
        if not ranges:
            what = "a search of nothing: no key has an interval or several values"
            raise UserError(what, "give one, e.g. training.learning_rate=interval(1e-4,1e-2)")
        return cls(tuple(word for word in words if word.partition("=")[0] not in ranges), ranges)

    @property
    def first(self) -> list[str]:
        """The words of a first combination: lower ends, first values."""
        return self.words({key: one.low if isinstance(one, Interval) else one[0] for key, one in self.ranges.items()})

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """The words of one combination."""
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]


def _values(word: str) -> list[str]:
    found = _range(word)
    if isinstance(found, Interval):
        raise UserError(f"{word} has no end of values", "search in it with --optuna 20, or list some: key=a,b")
    return [f"{word.partition('=')[0]}={one}" for one in found] if found else [word]


def _range(word: str) -> list[str] | Interval | None:
    """The values of a swept word as they are written, or its interval; None for one of a single value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = word.partition("=")
    if not equals or not ("," in value or value.startswith(("choice(", "range(", "glob("))):
        return None
    try:
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            return None
        if override.is_interval_sweep():
            sweep: Any = override.value()
            check_override(f"{key}={sweep.start}")
            return Interval(sweep.start, sweep.end, "log" in sweep.tags)
        found = list(override.sweep_string_iterator())
    except (HydraException, ValueError) as error:
        raise UserError(
            f"{word} is no sweep ({str(error).splitlines()[0]})", "quote a value with commas: key='a,b'"
        ) from None
    for one in found:
        check_override(f"{key}={one}")
    return found
