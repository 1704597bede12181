"""What every key of a configuration means: read from the docstrings of the schema's dataclasses.

A dataclass documents its keys under ``Args``, a line each: ``key [unit]: meaning``; the unit may be left out.  Allowed
values are those that :mod:`sphereml.config.validation` checks.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import yaml

_SECTION = re.compile(r"^Args:\n(?P<lines>(?:    .*\n?)+)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(?P<key>\w+)(?: \[(?P<unit>[^\]]+)\])?: (?P<meaning>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class KeyDocument:
    """One key: what it means, in which unit, and the values it may have (empty: any of its type)."""

    meaning: str
    unit: str = ""
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        unit = f" [{self.unit}]" if self.unit else ""
        choices = f" ({', '.join(self.choices)})" if self.choices else ""
        return f"{self.meaning}{unit}{choices}"


def document_keys(schema: type, choices: Mapping[str, tuple[str, ...]]) -> dict[str, KeyDocument]:
    """Dotted key -> its document, for every key of a schema that has one; keys in lists stand under the list's."""
    return dict(_documents(schema, "", choices))


def _documents(kind: type, start: str, choices: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, KeyDocument]]:
    known, hints = _entries(kind), get_type_hints(kind)
    for item in fields(kind):
        key = f"{start}{item.name}"
        if item.name in known:
            meaning, unit = known[item.name]
            yield key, KeyDocument(meaning, unit, choices.get(key, ()))
        for inner in (hints[item.name], *get_args(hints[item.name])):
            if is_dataclass(inner):
                yield from _documents(inner, f"{key}.", choices)  # type: ignore[arg-type]


def _entries(kind: type) -> dict[str, tuple[str, str]]:
    """Key -> meaning and unit, of a dataclass and of those it is derived from."""
    found: dict[str, tuple[str, str]] = {}
    for one in reversed(kind.__mro__):
        section = _SECTION.search(inspect.cleandoc(one.__dict__.get("__doc__") or "") + "\n")
        for entry in _ENTRY.finditer(section["lines"] if section else ""):
            found[entry["key"]] = (entry["meaning"], entry["unit"] or "")
    return found


def commented_yaml(values: Mapping[str, Any], documents: Mapping[str, KeyDocument], start: str = "") -> str:
    """Nested values as YAML, with the document of each key as a comment above it."""
    lines: list[str] = []
    indent = "  " * start.count(".")
    for name, value in values.items():
        document = documents.get(f"{start}{name}")
        lines += [f"{indent}# {document}"] if document else []
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", commented_yaml(value, documents, f"{start}{name}.")]
        else:
            text = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=10**6).rstrip()
            lines += [f"{indent}{line}" for line in text.splitlines()]
    return "\n".join(lines)
