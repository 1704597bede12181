"""Texts of overrides, quoted for Hydra's grammar, so that a path may hold any character.

Hydra reads ``output=a=b`` or ``output=größe`` as syntax and fails.  The values of keys that the schema declares as text
are therefore put in quotes here, unless their user did so, or they are ``null`` for a key that may be absent.  A
leading ``~`` is the home folder, as in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_OVERRIDE = re.compile(r"(?P<key>\+{0,2}(?P<name>[A-Za-z_][\w.]*))=(?P<value>.*)", re.DOTALL)
_QUOTES = "'\""


def quote_texts(overrides: Sequence[str], schema: type) -> list[str]:
    """The same overrides, with the values of the schema's text keys in quotes.

    Example:
        >>> from sphereml.config.schema import ExperimentConfig
        >>> quote_texts(["output=a=b", "training.epochs=3"], ExperimentConfig)
        ["output='a=b'", 'training.epochs=3']
    """
    return [_quoted(word, _text_keys(schema)) for word in overrides]


def _quoted(word: str, keys: dict[str, bool]) -> str:
    match = _OVERRIDE.fullmatch(word)
    if match is None or match["name"] not in keys:
        return word
    value = match["value"]
    if value == "null" and keys[match["name"]]:
        return word
    if len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES:
        return word
    if value.startswith("~"):
        value = str(Path(value).expanduser())
    # In quotes a backslash escapes a quote, and itself only before one or at the end (Hydra's grammar).
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"{match['key']}='{escaped}'"


@lru_cache(maxsize=8)
def _text_keys(schema: type) -> dict[str, bool]:
    """Dotted keys whose values are text -> whether they may be absent (None)."""
    return dict(_walk(schema, ""))


def _walk(kind: Any, prefix: str) -> Iterator[tuple[str, bool]]:
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        inner = next((one for one in allowed if is_dataclass(one)), None)
        if str in allowed and set(allowed) <= {str, NoneType}:
            yield prefix + item.name, NoneType in allowed
        elif inner is not None:
            yield from _walk(inner, f"{prefix}{item.name}.")
