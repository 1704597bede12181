"""What no machine and no experiment has room for, refused before anything is allocated: sizes, counts, texts, files.

Nothing heavy is imported here.  Sizes are estimates from below: what is refused could not have worked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig

# No list of a configuration is longer, and no YAML file of ours holds more values.
_MOST_ITEMS, _MOST_VALUES = 1000, 100_000
_LONGEST_WORD = 20_000
# Largest whole numbers, by the key's last part.
_LARGEST = {
    **dict.fromkeys(("nside", "tile_nside", "block_nside"), 8192),
    **dict.fromkeys(("batch_size", "width", "max_width", "size", "channels"), 65536),
    **dict.fromkeys(("lmax", "spectra_lmax", "lmin", "lmax_eb"), 100_000),
    **dict.fromkeys(("threads", "iterations", "folds"), 1024),
    **dict.fromkeys(("kernel", "convs_per_level"), 101),
    "depth": 13,
}
_MOST = 2**31 - 1
_FLOAT = 4  # bytes


def bound_faults(values: Any, key: str = "") -> Iterator[UserError]:
    """Numbers and lists of nested dicts and lists that are beyond all sense."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from bound_faults(value, f"{key}.{name}" if key else name)
    elif isinstance(values, list):
        if len(values) > _MOST_ITEMS:
            yield UserError(f"{key} lists {len(values)} values", f"give {_MOST_ITEMS} at most")
        for value in values[:_MOST_ITEMS]:
            yield from bound_faults(value, key)
    elif isinstance(values, int) and abs(values) > (most := _LARGEST.get(key.rpartition(".")[2], _MOST)):
        yield UserError(f"{key}={values} is beyond what can be computed", f"give {most} at most")


def memory_faults(config: ExperimentConfig) -> Iterator[UserError]:
    """A simulated sky, a layer's output or its weights that this machine cannot hold."""
    galaxy, model, training = config.data.galaxy, config.model, config.training
    if config.data.kind == "galaxy":
        needed = _FLOAT * 12 * galaxy.nside**2 * galaxy.channels
        yield from _beyond_memory(needed, f"data.galaxy.nside={galaxy.nside} with {galaxy.channels} channels")
    if model.domain == "none":
        return
    side = config.patches.size if model.domain == "flat" else 1
    layer = _FLOAT * training.batch_size * model.width * side**2
    yield from _beyond_memory(layer, f"training.batch_size={training.batch_size} with model.width={model.width}")
    widest = min(model.max_width, model.width * 2**model.depth)
    yield from _beyond_memory(_FLOAT * widest**2 * model.kernel, f"a layer of {widest} channels")


def _beyond_memory(needed: int, what: str) -> Iterator[UserError]:
    try:
        refuse_beyond_memory(needed, what)
    except UserError as error:
        yield UserError(error.what, "lower it, or use a larger machine")


def refuse_beyond_memory(needed: int, name: str) -> None:
    """Raise UserError when ``needed`` bytes are more than the machine has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise UserError(
            f"{name} claims {needed / 2**30:.3g} GiB and this machine has {memory / 2**30:.3g}",
            "check its header, or read it on a larger machine",
        )


def refuse_long(word: str) -> None:
    """Raise UserError for a word of the command line whose parsing alone would take minutes."""
    if len(word) > _LONGEST_WORD or word.count(",") > _MOST_ITEMS:
        what = f"the value of {word[:40].partition('=')[0]} has {len(word)} characters"
        raise UserError(what, f"give lists of {_MOST_ITEMS} values at most")


def refuse_special(path: Path) -> None:
    """Raise UserError for a device or a pipe, which may never end; a path where nothing stands passes."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is no regular file", "give a file")


def refuse_bomb(text: str, path: Path) -> None:
    """Raise UserError for YAML whose aliases stand for more values than any file of ours has, or for themselves.

    A text that is no YAML passes: its reader says why.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = 0 if root is None else _count(root, {})
    except yaml.YAMLError:
        return
    except RecursionError:
        values = _MOST_VALUES + 1
    if values > _MOST_VALUES:
        what = f"{path} is nested too deeply, or lists or stands for too many values"
        raise UserError(what, f"give lists of {_MOST_ITEMS} values at most, and no aliases")


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values that a node stands for, aliases spelled out; too many for a list that is too long."""
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1  # what holds itself is endless
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        if len(inner) > _MOST_ITEMS:
            return known[id(node)]
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]
