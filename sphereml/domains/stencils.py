"""Tables of derivatives by local fits, cut into pieces: who is summed up with what weight, on whatever device.

On the whole sphere a quarter turn about the polar axis carries pixels, frames and neighbours along, so pieces of the
four faces of a row share their tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from sphereml.domains.spin_steps import Operator
from sphereml.sky.faces import turned
from sphereml.sky.jets import Jets, white_gain
from sphereml.sky.regions import Region
from sphereml.sky.tangent import LocalFrames

# Pixels whose fits are made at once: their normal equations stay below some ten megabytes.
_AT_ONCE = 4096
# Smaller spheres are one piece; on larger ones pieces of four faces share their tables.
_SMALLEST_SHARED = 32
# Sheets that are summed up together: a sum over rows four times as wide takes hardly longer.
_SHEETS = 4
# Pixels of a stencil: with its sheets some thousand rows, which stay in cache; on an accelerator launches count.
_SIZE, _SIZE_ACCELERATOR = 1024, 1 << 18


@dataclass(frozen=True, eq=False)
class Bags:
    """The rows that are summed up for every row of a result: a flat list, and where each sum begins in it."""

    indices: torch.Tensor
    offsets: torch.Tensor

    @classmethod
    def of(cls, table: np.ndarray, device: torch.device) -> Bags:
        """Sums of equally many rows, ``(n, k)``."""
        offsets = torch.arange(0, table.size, table.shape[1], dtype=torch.int32, device=device)
        return cls(torch.from_numpy(table.reshape(-1).astype(np.int32)).to(device), offsets)


@dataclass(frozen=True, eq=False)
class Stencil:
    """Sums over neighbours on ``size`` pixels, the first of those gathered: ``pixels`` ``(ngathered,)``, NEST.

    ``near`` lists k neighbours among the gathered rows; ``both`` these, and then the same among as many rows of i times
    the values.  Weights are flat as well.
    """

    pixels: np.ndarray
    size: int
    near: Bags
    both: Bags
    weights: dict[Operator, torch.Tensor] = field(default_factory=dict)

    def sums(self, operator: Operator | None, values: torch.Tensor) -> torch.Tensor:
        """``(size, c)`` of the gathered values ``(ngathered, c)`` (and then i times them); None: their own values."""
        if operator is None:
            return values[: self.size]
        bags = self.both if operator.part == "complex" else self.near
        weights = self.weights[operator]
        return embedding_bag(bags.indices, values, bags.offsets, mode="sum", per_sample_weights=weights)


@dataclass(frozen=True, eq=False)
class Cut:
    """Rows that share a stencil: sheets, side by side, of equally many pixels.

    A sheet is one sky of several, or one of the four faces that quarter turns carry into each other.  ``starts`` are
    the first of each sheet's own consecutive rows; ``gather`` ``(ngathered * nsheet,)`` lists all rows that a sheet
    sees, its own first, pixel by pixel.
    """

    starts: tuple[int, ...]
    gather: torch.Tensor
    stencil: Stencil

    def own(self, columns: torch.Tensor) -> torch.Tensor:
        """The own rows, pixel by pixel and then sheet by sheet: ``(size * nsheet, c)``."""
        return columns.index_select(0, self.gather[: self.stencil.size * len(self.starts)])

    def gathered(self, columns: torch.Tensor, with_turned: bool) -> torch.Tensor:
        """The rows of all sheets side by side ``(ngathered, nsheet * c)``; i times these complex rows after them."""
        count, width = len(self.stencil.pixels), len(self.starts) * columns.shape[1]
        if not with_turned:
            return columns.index_select(0, self.gather).view(count, width)
        both = columns.new_empty(2, count, width)
        torch.index_select(columns, 0, self.gather, out=both[0].view(len(self.gather), -1))
        pairs, turned_pairs = (part.view(count, -1, 2) for part in both)
        torch.neg(pairs[..., 1], out=turned_pairs[..., 0])
        turned_pairs[..., 1].copy_(pairs[..., 0])
        return both.flatten(0, 1)

    def write(self, result: torch.Tensor, columns: torch.Tensor) -> None:
        """Write the own rows, ordered as in :meth:`own`."""
        sheets = result.view(self.stencil.size, len(self.starts), -1)
        for sheet, start in enumerate(self.starts):
            columns[start : start + self.stencil.size].copy_(sheets[:, sheet])


@dataclass(frozen=True, eq=False)
class StencilTables:
    """The stencils of a region, their weights made when they are first asked for."""

    region: Region
    frames: LocalFrames
    degree: int
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _made: dict[int, tuple[Cut, ...]] = field(default_factory=dict)

    @property
    def npix(self) -> int:
        """Pixels with weights of their own."""
        return self.region.npix // 4 if self._is_shared else self.region.npix

    def copies(self, rows: int) -> int:
        """How many skies at most are worth working through together in pieces of so many rows."""
        return max(1 if self._is_shared else _SHEETS, rows // self.region.npix)

    def cuts(self, copies: int, operators: Iterable[Operator]) -> tuple[Cut, ...]:
        """The pieces of ``copies`` skies, with these operators' weights; the stencils are the same for any number."""
        if copies not in self._made:
            self._made[copies] = tuple(self._cut(stencil, copies) for stencil in self._stencils)
        needed = frozenset(operators)
        for stencil in self._stencils:
            if missing := needed - stencil.weights.keys():
                stencil.weights.update(self._weights(stencil, missing))
        return self._made[copies]

    @property
    def _is_shared(self) -> bool:
        return self.region.is_full and self.frames.angles is None and self.region.nside >= _SMALLEST_SHARED

    @cached_property
    def _stencils(self) -> tuple[Stencil, ...]:
        """Of faces 0, 4 and 8, where the others share them; else of the whole region."""
        size = _SIZE if self.device.type == "cpu" else _SIZE_ACCELERATOR
        if self._is_shared:
            face = self.region.nside**2
            own = np.arange(min(size, face))
            starts = np.concatenate([first * face + np.arange(0, face, len(own)) for first in (0, 4, 8)])
            return tuple(self._stencil(start + own) for start in starts)
        pixels = self.region.pixels
        size = len(pixels) if len(pixels) <= _SHEETS * size else size
        return tuple(self._stencil(pixels[start : start + size]) for start in range(0, len(pixels), size))

    def _cut(self, stencil: Stencil, copies: int) -> Cut:
        """The sheets of a stencil in each of several skies."""
        turns = range(4) if self._is_shared else range(1)
        sheets = [self.region.locate(turned(self.region.nside, stencil.pixels, turn)) for turn in turns]
        rows = np.stack(sheets, axis=-1)[:, None] + np.arange(copies)[:, None] * self.region.npix
        rows = rows.reshape(len(stencil.pixels), -1)
        gather = torch.from_numpy(rows.reshape(-1).astype(np.int32)).to(self.device)
        return Cut(tuple(rows[0].tolist()), gather, stencil)

    def _jets(self, pixels: np.ndarray) -> Jets:
        return Jets(self.region, self.frames, pixels, self.degree)

    def _stencil(self, own: np.ndarray) -> Stencil:
        neighbours = self._jets(own).neighbours
        pixels = np.concatenate([own, np.setdiff1d(neighbours, own)])
        near = _places(pixels, neighbours)
        both = np.concatenate([near, near + len(pixels)], axis=1)
        return Stencil(pixels, len(own), Bags.of(near, self.device), Bags.of(both, self.device))

    def _weights(self, stencil: Stencil, operators: Iterable[Operator]) -> dict[Operator, torch.Tensor]:
        own = stencil.pixels[: stencil.size]
        parts = [self._part(own[start : start + _AT_ONCE], operators) for start in range(0, len(own), _AT_ONCE)]
        tables = {operator: np.concatenate([part[operator] for part in parts]) for operator in parts[0]}
        return {operator: torch.from_numpy(table).to(self.device) for operator, table in tables.items()}

    def _part(self, own: np.ndarray, operators: Iterable[Operator]) -> dict[Operator, np.ndarray]:
        """Flat tables of some pixels; numpy throughout, whose small steps wait for no thread."""
        beyond = np.setdiff1d(self._jets(own).neighbours, own)
        jets, made = self._jets(np.concatenate([own, beyond])), {}
        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        transposition = _Transposition.of(jets, len(own))
        for operator in operators:
            weights = jets.coefficients(operator.source, operator.up, operator.down)
            weights = transposition.apply(weights) if operator.adjoint else weights[: len(own)]
            table = operator.table(weights / white_gain(operator.up, operator.down, self.degree))
            made[operator] = table.astype(dtype).ravel()
        return made


@dataclass(frozen=True, eq=False)
class _Transposition:
    """Where the weight by which a neighbour sees a pixel stands: ``row`` and ``slot`` ``(size, k)``; else not seen."""

    row: np.ndarray
    slot: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, jets: Jets, size: int) -> _Transposition:
        neighbours, present = jets.neighbours[:size], jets.present[:size]
        row = _places(jets.pixels, neighbours)
        back = (jets.neighbours[row] == jets.pixels[:size, None, None]) & jets.present[row]
        return cls(row, back.argmax(axis=2), back.any(axis=2) & present)

    def apply(self, weights: np.ndarray) -> np.ndarray:
        transposed: np.ndarray = np.where(self.seen, weights[self.row, self.slot], 0)
        return transposed


def _places(pixels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the wanted pixels stand in a list that holds each of them."""
    order = np.argsort(pixels)
    places: np.ndarray = order[np.searchsorted(pixels, wanted, sorter=order)]
    return places
