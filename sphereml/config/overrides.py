"""The words of a command line that change a configuration, ``key=value``, checked before Hydra sees them.

Hydra's own messages do not say which names exist or which key was meant; these do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sphereml.config.bounds import refuse_bomb, refuse_long
from sphereml.config.experiment_files import read_experiment, read_text
from sphereml.config.resources import config_folders, resource_folder
from sphereml.config.schema import ExperimentConfig
from sphereml.config.tasks import SCHEMAS, dotted_keys
from sphereml.errors import UserError, meant

_OVERRIDE = re.compile(r"(?P<added>\+{0,2})(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)
# So many names of a section are listed where none is close.
_FEW = 8


def check_override(word: str) -> None:
    """Raise UserError unless ``word`` is ``group=NAME`` with a known name, or ``key=value`` with a known key."""
    refuse_long(word)
    match = _OVERRIDE.fullmatch(word)
    if match is None:
        group = next((group for group, names in config_names().items() if word in names), None)
        hint = f"did you mean {group}={word}? or " if group else ""
        raise UserError(f"{word!r} is no override", f"{hint}write key=value, such as training.epochs=3")
    key, value = match["key"], match["value"].strip().strip("'\"")
    names = config_names().get(key)
    if names is None:
        if key not in schema_keys():
            raise unknown_key(key)
    elif value not in names and not (key == "experiment" and value == "null"):
        raise UserError(f"there is no {key} {value!r}", f"{meant(value, names)}choose {', '.join(names)}")
    elif value in names:
        file = _files(key)[value]
        refuse_bomb(read_text(file), file)


def unknown_key(key: str) -> UserError:
    """The refusal of a key that the schema does not have, with the likely one."""
    plain = re.sub(r"\[\d+\]", "", key)
    return UserError(f"unknown configuration key {key!r}", f"{_meant(plain)}see `sphereml config show` for the keys")


def _meant(key: str) -> str:
    """The likely key: a close name in its own section, else its name in another one, else a close section.

    OmegaConf names a key inside of a list without its section, so that a name alone is looked for everywhere.
    """
    keys = (*config_names(), *schema_keys())
    section, _, name = key.rpartition(".")
    elsewhere = [one for one in keys if one.rpartition(".")[2] == name]
    if elsewhere and section not in keys:
        return meant(key, elsewhere, 0.0)
    names = {one.rpartition(".")[2]: one for one in reversed(keys) if not section or one.rpartition(".")[0] == section}
    if close := get_close_matches(name, names, n=1, cutoff=0.6):
        return f"did you mean {names[close[0]]}? or "
    if section in keys:  # whole keys of one section are alike whatever their names
        return f"choose {', '.join(reversed(names))}; " if len(names) <= _FEW else ""
    return meant(key, keys, 0.8)


def config_names() -> dict[str, list[str]]:
    """The names to choose from in each group, of all the folders that are searched."""
    groups = sorted(path.name for path in resource_folder("configs").iterdir() if path.is_dir())
    return {group: sorted(_files(group)) for group in groups}


def _files(group: str) -> dict[str, Path]:
    """Name -> file of a group; the folder that is searched first wins."""
    return {
        path.stem: path
        for folder in reversed(config_folders())
        for path in (folder / group).glob("*.yaml")
        if not path.name.startswith(".")
    }


def names_in(folder: Path) -> dict[str, list[str]]:
    """The names that one folder brings, by group."""
    found = {group: sorted(path.stem for path in (folder / group).glob("*.yaml")) for group in config_names()}
    return {group: names for group, names in found.items() if names}


def experiment_schema() -> type[ExperimentConfig]:
    """The schema of an experiment, with the settings of every task that a plugin added."""
    known = {item.name for item in fields(ExperimentConfig)}
    added = {name: schema.settings for name, schema in SCHEMAS.items() if schema.settings and name not in known}
    return _extended(tuple(added.items()))


@lru_cache(maxsize=8)
def _extended(added: tuple[tuple[str, type], ...]) -> type[ExperimentConfig]:
    if not added:
        return ExperimentConfig
    sections = [(name, kind, field(default_factory=kind)) for name, kind in added]
    return make_dataclass("ExperimentConfig", sections, bases=(ExperimentConfig,))


def given_keys(overrides: Sequence[str]) -> Iterator[str]:
    """Keys and groups that these words set, with those that the experiment they choose sets in its own file."""
    for word in overrides:
        if match := _OVERRIDE.fullmatch(word):
            yield match["key"]
            if match["key"] == "experiment" and match["value"] != "null":
                yield from _experiment_keys(match["value"].strip().strip("'\""))


def _experiment_keys(name: str) -> Iterator[str]:
    content = read_experiment(_files("experiment")[name])
    for choice in content.pop("defaults", None) or []:
        if isinstance(choice, dict):
            yield from (group.removeprefix("override").strip(" /") for group in choice)
    yield from dotted_keys(content)


def schema_keys() -> tuple[str, ...]:
    """Every key of the schema, dotted; those of the items of a list stand under the list's key."""
    return tuple(_keys(experiment_schema(), ""))


def _keys(kind: Any, prefix: str) -> Iterator[str]:
    hints = get_type_hints(kind)
    for item in fields(kind):
        yield prefix + item.name
        # X, X | None and list[X] hold the keys of X.
        for inner in (hints[item.name], *get_args(hints[item.name])):
            if is_dataclass(inner):
                yield from _keys(inner, f"{prefix}{item.name}.")
