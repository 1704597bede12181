"""Which stores of a folder are of use: those that a line reads again, and those that none will."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sphereml.data.store import is_marked, open_dataset
from sphereml.data.whole_files import sweep
from sphereml.errors import UserError


@dataclass(frozen=True)
class KeptStore:
    """A store on disk: ``size`` in bytes, ``fault`` why nothing reads it any more, empty when something may."""

    path: Path
    size: int
    fault: str


def list_stores(folder: Path) -> Iterator[KeptStore]:
    """The stores of skies in a folder; raises UserError when there is none of that name."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "name the one that data.stores names")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and is_marked(path):  # what has no mark may be somebody else's
            fault = ""
            try:
                open_dataset(path).close()
            except UserError as error:
                fault = error.what.removeprefix(f"{path} ").removeprefix(f"the store {path} ")
            yield KeptStore(path, tree_size(path), fault)


def tree_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def clean_stores(folder: Path, everything: bool = False) -> tuple[list[KeptStore], list[KeptStore], list[Path]]:
    """Remove the stores that nothing reads, or all, and what killed processes left; returns removed, kept and swept."""
    stores = list(list_stores(folder))
    removed = [one for one in stores if everything or one.fault]
    for one in removed:
        shutil.rmtree(one.path)
    return removed, [one for one in stores if one not in removed], sweep(folder)
