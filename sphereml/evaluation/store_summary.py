"""What a store holds, in numbers small enough to look at: one pass over its superpixels, never the whole cube.

Conventions: maps are NEST at ``_MAP_NSIDE`` at most (means over children); the profile is the plain mean of each
channel over the sky, and over the pixels that the store's mask keeps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.data.store import open_dataset, superpixel_size
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import regrade

_MAP_NSIDE = 128
_SHOWN = 4
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class StoreSummary:
    """One store.

    Args:
        mean: ``(nchan,)`` over the sky; ``inside`` the same within the mask, None without one.
        maps: channel number -> ``(npix_low,)``.
        extremes: ``(nchan, 2)`` least and largest value.
        target, mask: ``(npix_low,)``, the first target; mask None where the store has none.
        velocity: ``(nchan,)`` km/s or None.
    """

    path: Path
    grid: HealpixGrid
    channels: tuple[str, ...]
    velocity: np.ndarray | None
    units: dict[str, str]
    mean: np.ndarray
    inside: np.ndarray | None
    extremes: np.ndarray
    maps: dict[int, np.ndarray]
    target: np.ndarray
    mask: np.ndarray | None
    kept: float
    provenance: dict[str, Any]


def summarize_store(path: Path) -> StoreSummary:
    """Read a store once; raises UserError when it is not one, or damaged."""
    with open_dataset(path) as store:
        try:
            grid = HealpixGrid(int(store.attrs["nside"]))
            inputs, target = store["inputs"], np.asarray(store["targets"].values[:, 0])
            mask = np.asarray(store["component_mask"].values) if "component_mask" in store else None
            mean, inside, extremes, maps = _pass_over(inputs, grid, mask)
            names = tuple(str(name) for name in store["channel"].values)
            velocity = np.asarray(store["velocity"].values) if "velocity" in store.coords else None
            units = {"inputs": inputs.attrs["units"], "target": store["targets"].attrs["units"]}
            provenance = json.loads(store.attrs["provenance"])
        except (KeyError, ValueError, OSError, RuntimeError):
            raise UserError(f"the store {path} is damaged", "remove it and prepare it again") from None
    if not (np.isfinite(mean).all() and np.isfinite(target).all()):
        raise UserError(f"the store {path} is damaged", "remove it and prepare it again")
    small = HealpixGrid(min(grid.nside, _MAP_NSIDE))
    return StoreSummary(
        path=path,
        grid=grid,
        channels=names,
        velocity=velocity,
        units=units,
        mean=mean,
        inside=inside,
        extremes=extremes,
        maps=maps,
        target=regrade(target, small),
        mask=None if mask is None else regrade(mask, small),
        kept=1.0 if mask is None else float(np.mean(mask > 0.5)),
        provenance=provenance,
    )


def describe(summary: StoreSummary) -> list[str]:
    """The lines that ``sphereml data info`` prints."""
    low, high = summary.extremes[:, 0].min(), summary.extremes[:, 1].max()
    lines = [
        f"store: {summary.path}",
        f"  Nside {summary.grid.nside}, {len(summary.channels)} channels in {summary.units['inputs']}, "
        f"target in {summary.units['target']}",
        f"  inputs {low:.4g} to {high:.4g}, mean {summary.mean.mean():.4g}",
        f"  target {summary.target.min():.4g} to {summary.target.max():.4g}, mean {summary.target.mean():.4g}",
        f"  sky kept: {100 * summary.kept:.1f} %",
    ]
    if summary.velocity is not None:
        lines.insert(2, f"  {summary.velocity.min():+.2f} to {summary.velocity.max():+.2f} km/s LSR")
    lines += [f"  {name}: {value}" for name, value in summary.provenance.get("files", {}).items()][:8]
    return lines


def _pass_over(
    inputs: Any, grid: HealpixGrid, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, dict[int, np.ndarray]]:
    npix, nchan = inputs.shape
    children = grid.npix // HealpixGrid(min(grid.nside, _MAP_NSIDE)).npix
    step = superpixel_size(grid) * max(1, _BLOCK_BYTES // (4 * nchan * superpixel_size(grid)))
    shown = sorted({int(i) for i in np.linspace(0, nchan - 1, min(nchan, _SHOWN))})
    total, inside = np.zeros(nchan), np.zeros(nchan)
    least, largest = np.full(nchan, np.inf), np.full(nchan, -np.inf)
    parts: dict[int, list[np.ndarray]] = {channel: [] for channel in shown}
    for first in range(0, npix, step):
        block = inputs[first : first + step].values
        total += block.sum(axis=0, dtype=np.float64)
        least, largest = np.minimum(least, block.min(axis=0)), np.maximum(largest, block.max(axis=0))
        if mask is not None:
            inside += block[mask[first : first + step] > 0.5].sum(axis=0, dtype=np.float64)
        for channel in shown:
            parts[channel].append(block[:, channel].reshape(-1, children).mean(axis=1))
    within = None if mask is None else inside / max(1, np.count_nonzero(mask > 0.5))
    maps = {channel: np.concatenate(some) for channel, some in parts.items()}
    return total / npix, within, np.stack([least, largest], axis=1), maps
