"""Sweeps in Hydra's syntax: ``key=a,b``, ``key=choice(a,b)``, ``key=range(1,4)``, and all combinations of several.

Text in quotes, and what stands in brackets, is one value: ``output='a,b'``, ``bands.r50=[15,99]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

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


def _values(word: str) -> list[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = word.partition("=")
    if not equals or not ("," in value or value.startswith(("choice(", "range(", "glob("))):
        return [word]
    try:
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            return [word]
        found = [f"{key}={one}" for one in override.sweep_string_iterator()]
    except (HydraException, ValueError) as error:
        raise UserError(
            f"{word} is no sweep ({str(error).splitlines()[0]})", "quote a value with commas: key='a,b'"
        ) from None
    for one in found:
        check_override(one)
    return found
