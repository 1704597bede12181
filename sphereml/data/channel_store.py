"""Finished maps on disk while the others are being made, and the store that they become.

A store under way is ``.NAME.partial`` beside ``NAME``; as NAME carries a hash of everything that shapes the store, maps
made under other settings never mix with these.  Each map is one ``.npy`` of its own, there whole or not at all, so a
killed preparation goes on at the first map that is absent or damaged.  At the end the maps are turned from one file per
channel into superpixels with all their channels, block by block, and the store takes its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sphereml.data.file_checksums import file_checksum
from sphereml.data.holdings import lock, refuse_full
from sphereml.data.store import Sky, superpixel_size, write_blocks
from sphereml.data.whole_files import read_sealed_json, refuse_unwritable, sealed_json, tell_rebuilt, write_atomically
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid

# Memory for the block of superpixels that is turned around at once.
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class StagedMap:
    """A finished map and what is known of it.

    Args:
        values: float32 ``(npix,)`` NEST; memory-mapped when it comes from the disk.
        gaps: pixels that had no data, int64 NEST of the *source's* grid.
        mean: of the pixels with data, before any filter.
    """

    values: np.ndarray
    gaps: np.ndarray
    mean: float


@dataclass(frozen=True)
class StagedMaps:
    """The maps of one store under way; made by :func:`open_stage`."""

    folder: Path

    def __contains__(self, name: str) -> bool:
        """Whether all of a map is there, as it was put; one that is damaged is as if it were not, and is told."""
        if not self._record(name).is_file():
            return False
        try:
            whole = self._checksums(name) == read_sealed_json(self._record(name))["checksums"]
        except (OSError, ValueError, KeyError, UserError):
            whole = False
        if not whole:
            tell_rebuilt(self.folder / f"{name}.npy")
        return whole

    def put(self, name: str, staged: StagedMap) -> None:
        """Keep a map; it counts as there only when all of it is."""
        self._write(f"{name}.gaps.npy", staged.gaps)
        self._write(f"{name}.npy", staged.values.astype(np.float32, copy=False))
        record = {"mean": staged.mean, "checksums": self._checksums(name)}
        write_atomically(self._record(name), sealed_json(record))

    def get(self, name: str) -> StagedMap:
        mean = float(read_sealed_json(self._record(name))["mean"])
        values = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return StagedMap(values, np.load(self.folder / f"{name}.gaps.npy"), mean)

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _checksums(self, name: str) -> list[str]:
        return [file_checksum(self.folder / f"{name}{part}.npy") for part in ("", ".gaps")]

    def clear_scratch(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.folder.glob("*.scratch"):
            path.unlink()
        shutil.rmtree(self.folder / "store", ignore_errors=True)

    def assemble(
        self, path: Path, sky: Sky, channels: Sequence[str], weight: np.ndarray | None, progress: Callable[[int], None]
    ) -> None:
        """Make the store from the staged channels, bring it to ``path`` and remove the stage.

        Args:
            sky: everything but the inputs.
            channels: names of the staged maps that are the inputs.
            weight: ``(npix,)`` multiplied onto the inputs, or None.
            progress: told the number of finished pixels.
        """
        scratch = self.folder / "store"
        shutil.rmtree(scratch, ignore_errors=True)
        maps = [self.get(name).values for name in channels]
        write_blocks(scratch, sky, _superpixels(maps, sky.grid, weight, progress))
        if path.exists():
            path.replace(self.folder / "old")
        scratch.replace(path)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, values: np.ndarray) -> None:
        scratch = self.folder / f"{name}.scratch"
        with scratch.open("wb") as stream:
            np.save(stream, values)
        scratch.replace(self.folder / name)


@contextmanager
def open_stage(path: Path, needed: int) -> Iterator[StagedMaps]:
    """The stage of the store ``path``, held against other processes; what is in it stays when anything fails.

    Args:
        needed: bytes that the finished stage and store take together.
    Raises:
        UserError: the folder cannot be written or has no room, or another process is preparing the same store.
    """
    refuse_unwritable(path.parent)
    folder = path.parent / f".{path.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sum(one.stat().st_size for one in folder.glob("*.npy"))
        refuse_full(path.parent, needed - there, f"the store {path.name}", "data.stores=PATH")
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if not lock(descriptor, wait=False):
                raise UserError(f"another process is preparing {path}", "wait for it, or stop it")
            stage = StagedMaps(folder)
            stage.clear_scratch()
            yield stage
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(
            f"preparing {path} failed ({error})", "see to the disc, then give the same line again: it goes on"
        ) from None


def store_bytes(grid: HealpixGrid, channels: int) -> int:
    """Room that the stage and the store take together, at most."""
    return 2 * 4 * grid.npix * (channels + 3)


def _superpixels(
    maps: Sequence[np.ndarray], grid: HealpixGrid, weight: np.ndarray | None, progress: Callable[[int], None]
) -> Iterator[np.ndarray]:
    """Blocks ``(pixels, nchan)`` of whole superpixels, from the first pixel on."""
    superpixel = superpixel_size(grid)
    step = superpixel * max(1, _BLOCK_BYTES // (4 * superpixel * len(maps)))
    for first in range(0, grid.npix, step):
        part = slice(first, min(first + step, grid.npix))
        block = np.stack([values[part] for values in maps], axis=1)
        yield block if weight is None else block * weight[part, None].astype(np.float32)
        progress(part.stop)
