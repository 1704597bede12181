"""How a convolution mixes the jets of typed channels: which terms meet in which type, and with what weights.

A *term* is ``F z = D^up D*^down z`` of a field of spin s (:mod:`sphereml.sky.jets`).  It has spin t = s + up - down;
where that is negative, its conjugate has spin -t.  A typed convolution adds up all terms that share a spin:

    y_t = b + sum_terms w F z

with a weight w for every pair of channels and a bias for even scalars alone.  Spin 0 is the complex number
``even + i odd``, of a single scalar the real or imaginary part.  Real weights keep parity: mirrored in the sky, the
input gives the mirrored output.  Complex weights (``chiral``) tell left from right.

As matrices on real columns, each of which is a part (1 or i) of a complex number, the weight w from column c to column
d stands with the sign ``Re(part(d)* factor part(c))``, factor 1, or i for the imaginary part of a complex weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from sphereml.domains.channels import Channels

_TYPES = ("even", "odd", "spin1", "spin2")


@dataclass(frozen=True)
class Term:
    """``D^up D*^down`` of spin ``source``, conjugated or not, which has spin ``target``."""

    source: int
    target: int
    up: int
    down: int
    conjugate: bool = False

    @property
    def is_own(self) -> bool:
        """Whether this is the pixel's own value, with no look at its neighbours."""
        return self.up == self.down == 0


@lru_cache(maxsize=8)
def terms(degree: int) -> tuple[Term, ...]:
    """All terms up to a degree between the spins 0, 1 and 2; degree 0: the own values alone."""
    found = []
    orders = [(total - down, down) for total in range(degree + 1) for down in range(total + 1)]
    for source in range(3):
        for up, down in orders:
            spin = source + up - down
            if 0 <= spin <= 2:
                found.append(Term(source, spin, up, down))
            elif source and -2 <= spin < 0:  # of a real scalar, the conjugate of one term is another
                found.append(Term(source, -spin, up, down, conjugate=True))
    return tuple(found)


@dataclass(frozen=True)
class Block:
    """A real matrix, columns in x columns out, in a flat kernel from ``start`` on."""

    start: int
    shape: tuple[int, int]

    @property
    def stop(self) -> int:
        return self.start + self.shape[0] * self.shape[1]

    def of(self, kernel: torch.Tensor) -> torch.Tensor:
        return kernel[self.start : self.stop].view(self.shape)


@dataclass(frozen=True)
class TermBlocks:
    """The matrices of a term.

    ``plain`` is that of the term.  Between spin 0 and another one there is ``turned`` too: from spin 0, of i times the
    term; to spin 0, of -i times the term, which is what the adjoint needs.
    """

    term: Term
    plain: Block
    turned: Block | None


@dataclass(frozen=True)
class Mixing:
    """The weights of a convolution between typed channels.

    Args:
        channels_in, channels_out: of the maps.
        degree: of the jets; 0 looks at no neighbour.
        chiral: complex weights.
    """

    channels_in: Channels
    channels_out: Channels
    degree: int
    chiral: bool = False

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Shape ``(inputs, channels)`` of the real weights of every output type there is."""
        return _plan(self).shapes

    @property
    def missing(self) -> tuple[str, ...]:
        """Output types that nothing leads to."""
        return tuple(name for name, (inputs, _) in self.shapes.items() if not inputs)

    @property
    def blocks(self) -> tuple[TermBlocks, ...]:
        return _plan(self).blocks

    def kernel(self, weights: Mapping[str, torch.Tensor]) -> TypedKernel:
        """The blocks of all terms with these weights by type; differentiable."""
        plan = _plan(self)
        flat = torch.cat([weights[name].flatten() for name in plan.shapes])
        place, sign = plan.place.to(flat.device), plan.sign.to(flat.device, flat.dtype)
        return TypedKernel(self, flat.index_select(0, place) * sign)


@dataclass(frozen=True, eq=False)
class TypedKernel:
    """The kernel of a convolution of typed channels: the blocks of a mixing with values."""

    mixing: Mixing
    values: torch.Tensor

    def dense(self) -> torch.Tensor:
        """The one matrix ``(columns in, columns out)`` of a kernel that looks at no neighbour."""
        own, other = self.mixing.channels_in, self.mixing.channels_out
        matrix = self.values.new_zeros(own.columns, other.columns)
        for blocks in self.mixing.blocks:
            matrix[own.span(blocks.term.source), other.span(blocks.term.target)] = blocks.plain.of(self.values)
        return matrix


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which weight stands at every entry of the flat kernel (``place``), and with what ``sign``: -1, 0 or 1."""

    shapes: Mapping[str, tuple[int, int]]
    blocks: tuple[TermBlocks, ...]
    place: torch.Tensor
    sign: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Columns:
    """The columns of one spin: their types, their channels, and which part of a complex number each is, 1 or i."""

    names: np.ndarray
    channel: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, channels: Channels, spin: int) -> _Columns:
        number = channels.of_spin(spin)
        if spin:
            return cls(np.full(2 * number, f"spin{spin}"), np.repeat(np.arange(number), 2), np.tile([1, 1j], number))
        counts = [channels.even, channels.odd]
        return cls(np.repeat(["even", "odd"], counts), np.arange(number), np.repeat([1, 1j], counts))

    @property
    def within_type(self) -> np.ndarray:
        """The channels counted anew for odd scalars."""
        first: np.ndarray = np.where(self.names == "odd", np.count_nonzero(self.names == "even"), 0)
        return self.channel - first


@dataclass(frozen=True, eq=False)
class _TermPlan:
    """The entries of a term: rows of the weights (factor, columns in, columns out), and the product of the parts."""

    term: Term
    target: _Columns
    rows: np.ndarray
    product: np.ndarray
    factors: np.ndarray

    @classmethod
    def counted(cls, mixing: Mixing, term: Term, counts: dict[str, int]) -> _TermPlan:
        """With rows of its own, counted in ``counts`` by type, for every channel that enters a type."""
        source, target = _Columns.of(mixing.channels_in, term.source), _Columns.of(mixing.channels_out, term.target)
        part = source.part.conj() if term.conjugate else source.part
        product, factors = part[:, None] * target.part.conj(), np.array([1, 1j] if mixing.chiral else [1])
        rows = np.full((len(factors), *product.shape), -1)
        for name in dict.fromkeys(target.names):
            columns = np.flatnonzero(target.names == name)
            for table, factor in zip(rows, factors, strict=True):
                entering = np.unique(source.channel[(factor * product[:, columns]).real.any(axis=1)])
                row = np.full(source.channel.max() + 1, -1)
                row[entering] = counts[name] + np.arange(len(entering))
                counts[name] += len(entering)
                table[:, columns] = row[source.channel][:, None]
        return cls(term, target, rows, product, factors)

    def entries(self, turn: complex, first: dict[str, int], widths: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """Places in the flat weights and signs, ``(columns in, columns out)``, of the term times ``turn``."""
        signs = (self.factors[:, None, None] * self.product * turn).real
        chosen = np.abs(signs).argmax(axis=0)[None]  # a product is real with one factor at most
        row, sign = (np.take_along_axis(table, chosen, axis=0)[0] for table in (self.rows, signs))
        begin = np.array([first[name] for name in self.target.names]) + self.target.within_type
        width = np.array([widths[name] for name in self.target.names])
        return np.where(sign == 0, 0, begin + row * width), sign

    @property
    def turns(self) -> tuple[complex, ...]:
        """The factors of the term's matrices."""
        if (self.term.source == 0) == (self.term.target == 0):
            return (1,)
        return (1, 1j) if self.term.source == 0 else (1, -1j)


@lru_cache(maxsize=256)
def _plan(mixing: Mixing) -> _Plan:
    own, other, counts = mixing.channels_in, mixing.channels_out, dict.fromkeys(_TYPES, 0)
    found = [
        _TermPlan.counted(mixing, term, counts)
        for term in terms(mixing.degree)
        if own.of_spin(term.source) and other.of_spin(term.target)
    ]
    widths = {name: getattr(other, name) for name in _TYPES if getattr(other, name)}
    sizes = [counts[name] * width for name, width in widths.items()]
    first = dict(zip(widths, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    blocks, tables, stop = [], [], 0
    for plan in found:
        made = []
        for turn in plan.turns:
            tables.append(plan.entries(turn, first, widths))
            made.append(Block(stop, plan.product.shape))
            stop = made[-1].stop
        blocks.append(TermBlocks(plan.term, *made) if len(made) == 2 else TermBlocks(plan.term, made[0], None))
    place, sign = (
        np.concatenate([np.zeros(0, dtype), *(table[part].ravel() for table in tables)])
        for part, dtype in enumerate((np.int64, np.float64))
    )
    with torch.inference_mode(False):  # kept, and used in training steps too
        shapes = {name: (counts[name], width) for name, width in widths.items()}
        return _Plan(shapes, tuple(blocks), torch.from_numpy(place), torch.from_numpy(sign))
