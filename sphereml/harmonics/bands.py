"""Bands of multipoles, the one form in which losses, scores and spectra are asked for them.

Conventions: a band holds ``lo <= ell < hi``; the limits are floats, so that a flat patch's fundamental multipole can be
one.  Bands keep the order in which they were given, may overlap, and have names: those given, or ``lo-hi``.  What is
said of integer multipoles is about the curved sky; which Fourier modes of a patch lie in a band says
:class:`sphereml.harmonics.flat.FlatModes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sphereml.errors import UserError


@dataclass(frozen=True, init=False, repr=False)
class Bands(Mapping[str, tuple[float, float]]):
    """Named bands ``lo <= ell < hi``: an immutable, hashable mapping from a name to ``(lo, hi)``.

    Args:
        limits: ``(lo, hi)`` of every band by name.

    Raises:
        UserError: a band without two finite limits ``0 <= lo < hi``.

    Example:
        >>> bands = Bands(r_low=(2, 15), r50=(14.4, 100))
        >>> bands["r50"], bands.lmax
        ((14.4, 100.0), 99)
        >>> Bands.edges(2, 15, 100)
        Bands.edges(2, 15, 100)
    """

    names: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]

    def __init__(self, /, **limits: Sequence[float]) -> None:
        object.__setattr__(self, "names", tuple(limits))
        object.__setattr__(self, "limits", tuple(_checked(name, band) for name, band in limits.items()))

    @classmethod
    def edges(cls, *edges: float) -> Bands:
        """Consecutive bands ``edges[i] <= ell < edges[i + 1]``, named by their limits.

        Raises:
            UserError: fewer than two edges, or edges that do not increase from 0 or above.
        """
        if len(edges) < 2 or not all(lo < hi for lo, hi in pairwise(edges)):
            raise UserError(f"bands with the edges {[float(e) for e in edges]}", "give two or more, increasing")
        return cls(**{_label(lo, hi): (lo, hi) for lo, hi in pairwise(edges)})

    def __getitem__(self, name: str) -> tuple[float, float]:
        return dict(zip(self.names, self.limits, strict=True))[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        consecutive = all(before[1] == after[0] for before, after in pairwise(self.limits))
        if self and consecutive and self.names == tuple(_label(*band) for band in self.limits):
            return f"Bands.edges({', '.join(f'{edge:.15g}' for edge in (self.limits[0][0], *self.upper))})"
        return f"Bands({', '.join(f'{name}=({lo:.15g}, {hi:.15g})' for name, (lo, hi) in self.items())})"

    @property
    def lower(self) -> np.ndarray:
        """Lower limits, float64 ``(nband,)``."""
        return np.array([lo for lo, _ in self.limits])

    @property
    def upper(self) -> np.ndarray:
        """Upper limits, which the bands do not hold, float64 ``(nband,)``."""
        return np.array([hi for _, hi in self.limits])

    @property
    def lmax(self) -> int:
        """The highest integer multipole that a band reaches to; raises ValueError without bands."""
        return math.ceil(max(hi for _, hi in self.limits)) - 1

    @property
    def slices(self) -> tuple[slice, ...]:
        """The integer multipoles of every band, as slices of curves over ell = 0, 1, ..."""
        return tuple(slice(math.ceil(lo), math.ceil(hi)) for lo, hi in self.limits)

    @property
    def centers(self) -> np.ndarray:
        """Mean integer multipole of every band with the weights 2 ell + 1, float64 ``(nband,)``; NaN without any."""
        ell = [np.arange(members.start, members.stop) for members in self.slices]
        return np.array([np.average(one, weights=2 * one + 1) if one.size else np.nan for one in ell])

    def membership(self, lmax: int) -> np.ndarray:
        """Which of the multipoles 0 to ``lmax`` each band holds, bool ``(nband, lmax + 1)``."""
        ell = np.arange(lmax + 1)
        return (ell >= self.lower[:, None]) & (ell < self.upper[:, None])

    def clipped(self, lmax: int, lmin: int = 0) -> Bands:
        """The parts within ``lmin <= ell <= lmax``; bands that keep no integer multipole are left out."""
        parts = {name: (max(lo, lmin), min(hi, lmax + 1)) for name, (lo, hi) in self.items()}
        return Bands(**{name: (lo, hi) for name, (lo, hi) in parts.items() if math.ceil(lo) < hi})

    def chosen(self, names: Iterable[str]) -> Bands:
        """The bands of these names in this order; names that no band has are passed over."""
        return Bands(**{name: self[name] for name in names if name in self})


def _checked(name: str, band: Sequence[float]) -> tuple[float, float]:
    limits = tuple(float(limit) for limit in band)
    if len(limits) != 2 or not 0 <= limits[0] < limits[1] < math.inf:
        raise UserError(f"the band {name}={list(limits)}", "give two limits 0 <= lo < hi")
    return limits[0], limits[1]


def _label(lo: float, hi: float) -> str:
    return f"{lo:.15g}-{hi:.15g}"
