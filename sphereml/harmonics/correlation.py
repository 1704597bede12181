"""Correlation r of two fields from their spherical harmonic coefficients, differentiable.

Two forms.  ``mode``: ``r_lm = Re(a_lm b_lm^*) / (|a_lm| |b_lm|)`` of each (ell, m >= 0), averaged over the band with
m > 0 counted twice (for -m): the spherical counterpart of eq. 2.3 of arXiv:1904.13265, where r of single Fourier modes
is averaged.  ``ell``: ``r_ell = C^ab_ell / sqrt(C^aa_ell C^bb_ell)``, averaged over the integers of the band.  The form
``ell`` is the one for small regions: single (ell, m) of a tile are mostly empty, and noise there counts in full.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch

from sphereml.harmonics.bands import Bands
from sphereml.harmonics.transforms import alm_index


@lru_cache(maxsize=16)
def _modes(lmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode(False):  # kept, and used in training steps too
        ell, order = (torch.from_numpy(index) for index in alm_index(lmax))
        return ell, torch.where(order == 0, 1.0, 2.0).double()


def alm_cross_power(a: torch.Tensor, b: torch.Tensor, lmax: int) -> torch.Tensor:
    """``C_ell = sum_m a_lm b_lm^* / (2 ell + 1)`` of alms ``(..., nalm)``: ``(..., lmax + 1)`` float64."""
    ell, multiplicity = (index.to(a.device) for index in _modes(lmax))
    power = (a * b.conj()).real * multiplicity
    total = torch.zeros(*power.shape[:-1], lmax + 1, dtype=power.dtype, device=power.device)
    return total.index_add(-1, ell, power) / (2 * torch.arange(lmax + 1, device=power.device) + 1)


def windowed_mean(field: torch.Tensor, window: torch.Tensor, pixels: tuple[int, ...]) -> torch.Tensor:
    """Window-weighted mean over the axes ``pixels``, which are kept with length 1; 0 under an empty window."""
    return (field * window).sum(dim=pixels, keepdim=True) / window.sum(dim=pixels, keepdim=True).clamp_min(1e-30)


def centred(field: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """``window (field - mean)`` of fields ``(batch, ...)`` with their window-weighted means, float64.

    Exactly 0, with its gradient, where rounding is all that is left: the phases of noise would be correlated else.
    """
    pixels = tuple(range(1, field.ndim))
    rounding = 8 * torch.finfo(field.dtype).eps  # of the field, and of sums over up to 2^16 pixels
    field, window = field.double(), window.double()
    rest, whole = (field - windowed_mean(field, window, pixels)) * window, field * window
    alive = rest.square().sum(pixels, keepdim=True) > rounding**2 * whole.square().sum(pixels, keepdim=True)
    return torch.where(alive, rest, 0.0)


def safe_ratio(cross: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """``cross / sqrt(power)``, 0 where the power vanishes or is subnormal (its gradient would overflow)."""
    empty = power < torch.finfo(power.dtype).tiny
    return torch.where(empty, torch.zeros_like(cross), cross / torch.where(empty, torch.ones_like(power), power).sqrt())


def sphere_band_correlation(
    a: torch.Tensor,
    b: torch.Tensor,
    lmax: int,
    bands: Bands,
    kind: Literal["mode", "ell"],
) -> torch.Tensor:
    """Mean r of alms ``(batch, nalm)`` in each band: ``(batch, nband)`` float64.

    Raises:
        ValueError: unknown form, or a band without a multipole.
    """
    if kind == "mode":
        ell, weight = (index.to(a.device) for index in _modes(lmax))
        r = safe_ratio((a * b.conj()).real, _abs2(a) * _abs2(b))
    elif kind == "ell":
        ell = torch.arange(lmax + 1, device=a.device)
        weight = torch.ones(lmax + 1, dtype=torch.float64, device=a.device)
        r = safe_ratio(alm_cross_power(a, b, lmax), alm_cross_power(a, a, lmax) * alm_cross_power(b, b, lmax))
    else:
        raise ValueError(f"unknown form of r: {kind!r}; use 'mode' or 'ell'")
    members = torch.from_numpy(bands.membership(lmax)).to(a.device)
    return torch.stack([_weighted_mean(r, weight, band[ell]) for band in members], dim=-1)


def _abs2(a: torch.Tensor) -> torch.Tensor:
    return a.real**2 + a.imag**2


def _weighted_mean(r: torch.Tensor, weight: torch.Tensor, band: torch.Tensor) -> torch.Tensor:
    if not band.any():
        raise ValueError("a band holds no multipole")
    return (r[..., band] * weight[band]).sum(dim=-1) / weight[band].sum()
