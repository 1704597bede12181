"""Synthesis and adjoint synthesis on HEALPix rings by ducc0, for numpy arrays of NEST pixels: the path of a CPU.

ducc0 transforms float64 RING maps one after another.  Here every thread takes maps of its own: it orders one map into a
ring buffer of its own that stays in cache, converting its precision on the way, transforms it on one thread, and goes
on.  So no copy of the whole batch in another order or precision is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import ducc0
import numpy as np

from sphereml.harmonics.rings import RingLayout, alm_size, threads

_WORTH_A_THREAD = 200_000  # pixels of a batch below which one call of ducc0 is quicker than threads


@dataclass(frozen=True, eq=False)
class DuccTransform:
    """Transform of one spin of ``(batch, ncomp, n)`` arrays on the touched rings of a set of pixels.

    Args:
        layout: the rings, and the pixels on them.
        lmax: highest multipole.
        spin: 0 or more.
    """

    layout: RingLayout
    lmax: int
    spin: int = 0

    def synthesize(
        self, alm: np.ndarray, weight: np.ndarray | float = 1.0, dtype: np.typing.DTypeLike = np.float64
    ) -> np.ndarray:
        """Maps ``(batch, ncomp, npix)`` of the given real dtype of complex ``weight * alm``.

        Args:
            weight: number, or array ``(nalm,)``, multiplied onto the alms.
        """
        place = self.layout.place
        maps = np.empty((*alm.shape[:-1], len(place)), dtype)
        plain = np.ndim(weight) == 0 and weight == 1

        def transform(i: int, rings: np.ndarray, nthreads: int) -> None:
            coefficients = (alm[i] if plain else alm[i] * weight).astype(np.complex128, copy=False)
            ducc0.sht.synthesis(alm=coefficients, map=rings, nthreads=nthreads, **self._options)
            for ring, row in zip(rings, maps[i], strict=True):
                np.take(ring.astype(dtype, copy=False), place, out=row, mode="clip")  # "raise" would copy twice

        self._share(len(maps), np.empty, transform)
        return maps

    def adjoint_synthesize(self, maps: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
        """``weight`` times the transpose of :meth:`synthesize`: complex128 ``(batch, ncomp, nalm)`` of real maps."""
        alm = np.empty((*maps.shape[:-1], alm_size(self.lmax)), np.complex128)
        place = self.layout.place
        plain = np.ndim(weight) == 0 and weight == 1

        def transform(i: int, rings: np.ndarray, nthreads: int) -> None:
            for row, ring in zip(maps[i], rings, strict=True):
                ring[place] = row.astype(np.float64, copy=False)  # others stay zero; a fused conversion is slower
            ducc0.sht.adjoint_synthesis(map=rings, alm=alm[i], nthreads=nthreads, **self._options)
            if not plain:
                alm[i] *= weight

        self._share(len(maps), np.zeros, transform)
        return alm

    @property
    def _options(self) -> dict[str, object]:
        return {"lmax": self.lmax, "spin": self.spin, **self.layout.geometry}

    def _share(
        self,
        batch: int,
        new: Callable[[tuple[int, int]], np.ndarray],
        transform: Callable[[int, np.ndarray, int], None],
    ) -> None:
        """Call ``transform(item, rings, nthreads)`` for all items: a thread each, those left over with all threads."""
        available = threads()
        shape = (1 if self.spin == 0 else 2, self.layout.size)
        shared = batch - batch % available if batch * self.layout.size >= _WORTH_A_THREAD and available > 1 else 0

        def work(items: Iterator[int], nthreads: int) -> None:
            rings = new(shape)
            for item in items:
                transform(item, rings, nthreads)

        if shared:
            items = iter(range(shared))  # of all threads: whichever is free takes the next
            with ThreadPoolExecutor(available) as pool:
                for done in [pool.submit(work, items, 1) for _ in range(available)]:
                    done.result()
        if shared < batch:
            work(iter(range(shared, batch)), available)
