"""Spectra and correlations of full-sky maps in one call.

Conventions: maps are NEST, ``(npix,)`` scalars or ``(2, npix)`` (Q, U) in COSMO sign; masks weigh ``(npix,)``; bands
hold ``lo <= ell < hi``.  For repeated use of one mask keep a :class:`~sphereml.harmonics.workspace.Workspace`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from sphereml.harmonics.bandpowers import Bandpowers
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.estimator import Options
from sphereml.harmonics.spectra import band_mean, fsky, masked_spectra
from sphereml.harmonics.spectra import correlation as correlation_of_spectra
from sphereml.harmonics.workspace import Workspace
from sphereml.sky.grid import HealpixGrid


def spectra(
    maps: Sequence[np.ndarray],
    mask: np.ndarray | None = None,
    *,
    lmax: int | None = None,
    bins: Bands | Sequence[float] | None = None,
    beam: np.ndarray | None = None,
    purify_b: bool = False,
    **options: Unpack[Options],
) -> dict[tuple[int, int], Bandpowers]:
    """All auto and cross spectra of maps, freed of the mask's mode coupling, by the pair of their places in ``maps``.

    Args:
        maps: scalars and pairs (Q, U), mixed as they come.
        mask: the whole sphere when None.
        lmax: 3 nside - 1 when None.
        bins: edges or bands; when None as wide as the mask's resolution, ``pi / sqrt(4 pi fsky)`` (1 on the whole sky).
        beam: of all maps, ``(lmax + 1,)``.
    Raises:
        UserError: as :class:`~sphereml.harmonics.workspace.Workspace` and its ``bandpowers``.

    Example:
        >>> import numpy as np
        >>> sky = np.random.default_rng(0).standard_normal((2, 12 * 8**2))
        >>> spectra(sky, lmax=16)[0, 1]["TT"].shape
        (15,)
    """
    arrays = [np.asarray(one, dtype=np.float64) for one in maps]
    weights = np.ones(arrays[0].shape[-1]) if mask is None else np.asarray(mask, dtype=np.float64)
    highest = 3 * HealpixGrid.of_size(weights.size).nside - 1 if lmax is None else lmax
    edges = default_edges(weights, highest) if bins is None else bins
    results, kept = {}, {}
    for i, a in enumerate(arrays):
        for j, b in enumerate(arrays[i:], start=i):
            spins = 2 * (a.ndim - 1), 2 * (b.ndim - 1)
            if spins not in kept:
                kept[spins] = Workspace(weights, edges, beam, spins, purify_b=purify_b and 2 in spins, lmax=highest)
            results[i, j] = kept[spins].bandpowers(*((a,) if i == j else (a, b)), **options)
    return results


def correlation(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None, *, bands: Bands) -> dict[str, float]:
    """Mean over bands of ``r_ell = C^ab / sqrt(C^aa C^bb)`` of two masked scalar maps, by the bands' names.

    Raises:
        UserError: an unusable mask.
        ValueError: a band that reaches above ``3 nside - 1`` or holds no multipole.
    """
    weights = np.ones(np.shape(a)[-1]) if mask is None else np.asarray(mask, dtype=np.float64)
    lmax = 3 * HealpixGrid.of_size(weights.size).nside - 1
    pseudo = masked_spectra(np.stack([a, b]), weights, lmax=lmax)
    r = correlation_of_spectra(pseudo[0, 1], pseudo[0, 0], pseudo[1, 1])
    return dict(zip(bands, band_mean(r, bands).tolist(), strict=True))


def default_edges(mask: np.ndarray, lmax: int) -> list[int]:
    """Edges from ell = 2 of bands as wide as the multipoles that a mask keeps apart, the last up to ``lmax``."""
    share = min(fsky(mask / mask.max()), 1.0)
    width = 1 if share > 1 - 1e-9 else max(2, int(np.ceil(np.sqrt(np.pi / 4 / share) + 1)))
    edges = list(range(2, lmax + 2, width))
    return edges if edges[-1] == lmax + 1 else [*edges[:-1], lmax + 1] if len(edges) > 1 else [2, lmax + 1]
