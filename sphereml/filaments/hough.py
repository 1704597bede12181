"""The rolling Hough transform on the whole sphere, by harmonic convolution, differentiable in torch.

Conventions: see :mod:`sphereml.filaments`; lengths in arcmin; tensors float64 inside, NEST, pixels first.

The transform of Clark, Peek & Putman 2014 (arXiv:1312.1338), whose sphere is that of Halal et al. 2024
(arXiv:2306.10107): the map is made a mask of what is brighter than its smoothed self, a stick is laid over every pixel
at every angle, and the share of the stick that is mask, above a threshold, weighs the angle:

    M = [I > smooth(I)],   R(n, theta) = int K(n, theta; n') M(n') dn',   w = max(R - Z, 0),
    Q = -I sum_theta w cos 2 theta / sum_theta w,   U = -I sum_theta w sin 2 theta / sum_theta w.

A pixel without any w has no polarization.  Channels of a cube are transformed one by one and added (Clark & Hensley
2019, arXiv:1909.11673).

With ``a_lm`` of M and ``k_ls`` of the stick at the pole, turned to (n, theta) by a Wigner matrix,

    R(n, theta) = sum_s exp(i s theta) sum_lm sqrt(4 pi / (2l + 1)) a_lm k_ls  _{-s}Y_lm(n):

one synthesis of spin s for each order of the kernel, after which R at any number of angles is a sum over few terms.
By default mask and stick are drawn as ``sphericalrht`` 2.0.1 draws them, so that equal settings mean equal things: the
mask on four pixels to the side of one of the map's, and the stick as a row of them, smoothed by a pixel of the map.

``softness`` tau > 0 replaces the steps by smooth ones: ``M = sigmoid((I / smooth(I) - 1) / tau)`` and
``w = tau log(1 + exp((R - Z) / tau))``, divided by ``tau + sum w``; with tau -> 0 they become the hard ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import ducc0
import numpy as np
import torch

from sphereml.filaments.kernel import row_coefficients, stick_coefficients
from sphereml.filaments.settings import HoughSettings
from sphereml.harmonics.autograd import SphericalTransform, analysis, synthesis
from sphereml.harmonics.filters import gaussian_beam
from sphereml.harmonics.rings import alm_index, ring_geometry, threads
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.ordering import nest_to_ring_index

_PIXELS_AT_ONCE = 2**16
# Of the mask's analysis by subpixels; on four of them to a side the first step is right to 5e-5 up to 6 nside, and the
# smooth map, whose analysis needs one at most, to 1e-4 of its scatter.
_ITERATIONS = {1: 3, 2: 1}


@dataclass(frozen=True, eq=False)
class HoughTransform:
    """The transform of maps of one Nside.

    Args:
        grid: of the maps.
        settings: see :class:`HoughSettings`.

    Example:
        >>> transform = HoughTransform(HealpixGrid(8), HoughSettings(length=3600, smoothing=1800))
        >>> tuple(transform.stokes(torch.ones(768, 1)).shape)
        (768, 2)
    """

    grid: HealpixGrid
    settings: HoughSettings

    @property
    def angles(self) -> np.ndarray:
        """Angles of the stick from south towards east, ``(orientations,)`` radians in [0, pi)."""
        return np.arange(self.settings.orientations) * np.pi / self.settings.orientations

    @property
    def lmax(self) -> int:
        """Highest multipole of mask and stick; the window of a pixel's width is .03 at 6 nside."""
        return self.grid.nside * (3 if self.settings.subpixels == 1 else 6)

    @cached_property
    def kernel(self) -> np.ndarray:
        """The stick's coefficients ``(lmax + 1, norder)``; see :mod:`sphereml.filaments.kernel`."""
        length, width = (math.radians(arcmin / 60) for arcmin in (self.settings.length, self.settings.width))
        if width:
            return stick_coefficients(length, width, self.lmax)
        return row_coefficients(self._fine_grid.nside, length, math.radians(self.grid.resolution), self.lmax)

    def stokes(self, inputs: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Q and U of channels, ``(npix, 2)`` float64: each is transformed, weighed and added.

        Args:
            inputs: ``(npix, nchan)``.
            weights: ``(nchan,)``, e.g. widths of channels; None: one each.
        Raises:
            ValueError: the maps are of another Nside.
        """
        total = inputs.new_zeros((self.grid.npix, 2), dtype=torch.float64)
        for channel in range(inputs.shape[1]):
            intensity = inputs[:, channel].double()
            weight = 1.0 if weights is None else weights[channel].double()
            total = total + (weight * intensity)[:, None] * self.orientation(intensity)
        return total

    def orientation(self, intensity: torch.Tensor) -> torch.Tensor:
        """Q/I and U/I of one map ``(npix,)``: ``(npix, 2)`` float64, of length 1 or less."""
        modes = self._modes(intensity)
        if torch.is_grad_enabled() and modes.requires_grad:
            return self._mean_direction(modes)
        return torch.cat([self._mean_direction(some) for some in modes.split(_PIXELS_AT_ONCE)])

    def responses(self, intensity: torch.Tensor) -> torch.Tensor:
        """R of one map ``(npix,)`` at every angle, ``(npix, orientations)`` float64, 0 to 1 but for ringing."""
        modes = self._modes(intensity)
        return modes @ self._angular_waves.to(modes.device)

    def excess(self, intensity: torch.Tensor) -> torch.Tensor:
        """The mask M on the (sub)pixels of one map ``(npix,)``: float64, 0 or 1, or between if soft."""
        if intensity.shape != (self.grid.npix,):
            raise ValueError(f"a map of shape {tuple(intensity.shape)} is not of Nside {self.grid.nside}")
        fine = intensity.double().repeat_interleave(self.settings.subpixels**2)
        smooth = self._smooth(fine)
        if not self.settings.softness:
            return (fine > smooth).double()
        # A channel of pure noise may have no level at all; the floor keeps the contrast finite there.
        level = smooth.abs() + 1e-12 * fine.detach().abs().mean()
        return torch.sigmoid((fine - smooth) / (self.settings.softness * level))

    def _smooth(self, fine: torch.Tensor) -> torch.Tensor:
        """Gaussian smoothing as ``simulate.fields.smooth`` does it: ``w_L f + S (w - w_L) A f``, without ringing."""
        transform = self._smoothing
        window = torch.from_numpy(gaussian_beam(transform.lmax, self.settings.smoothing)).to(fine.device)
        ell = torch.from_numpy(alm_index(transform.lmax)[0]).to(fine.device)
        iterations = min(1, _ITERATIONS.get(self.settings.subpixels, 0))
        alm = analysis(fine[None], transform, iterations) * (window - window[-1])[ell]
        return window[-1] * fine + synthesis(alm, transform)[0]

    def _modes(self, intensity: torch.Tensor) -> torch.Tensor:
        """Terms of R as a series in angle: ``(npix, 2 norder - 1)``, the mean, then cosine and sine of each order."""
        mask = self.excess(intensity)
        alm = analysis(mask[None], self._analysis, _ITERATIONS.get(self.settings.subpixels, 0))
        ell = torch.from_numpy(alm_index(self.lmax)[0])
        gains = torch.from_numpy(self.kernel * np.sqrt(4 * np.pi / (2 * np.arange(self.lmax + 1) + 1))[:, None])
        terms = [synthesis(alm * gains[ell, 0].to(alm.device), self._syntheses[0])]
        for order, transform in enumerate(self._syntheses[1:], start=1):
            # Q + iU = -sum (E + iB) sY, so E = -alm makes Q the cosine term: a stick's worth of mask along south.
            terms.append(_synthesize_e(-2 * alm[0] * gains[ell, order].to(alm.device), transform))
        return torch.cat(terms).T

    def _mean_direction(self, modes: torch.Tensor) -> torch.Tensor:
        """``-(sum w cos 2 theta, sum w sin 2 theta) / sum w`` of some pixels."""
        above = modes @ self._angular_waves.to(modes.device) - self.settings.threshold
        softness = self.settings.softness
        weights = softness * torch.nn.functional.softplus(above / softness) if softness else above.clamp_min(0)
        double_angles = 2 * self.angles
        waves = torch.from_numpy(np.stack([np.cos(double_angles), np.sin(double_angles)], axis=1)).to(modes.device)
        norm = weights.sum(dim=1, keepdim=True) + softness
        return -(weights @ waves) / torch.where(norm > 0, norm, 1.0)

    @cached_property
    def _angular_waves(self) -> torch.Tensor:
        """``(2 norder - 1, orientations)``: one, and cosine and sine of s theta for s = 2, 4, ..."""
        phases = np.outer(2 * np.arange(1, self.kernel.shape[1]), self.angles)
        waves = np.stack([np.cos(phases), np.sin(phases)], axis=1).reshape(-1, len(self.angles))
        return torch.from_numpy(np.vstack([np.ones(len(self.angles)), waves]))

    @cached_property
    def _fine_grid(self) -> HealpixGrid:
        return HealpixGrid(self.grid.nside * self.settings.subpixels)

    @cached_property
    def _smoothing(self) -> SphericalTransform:
        # Above the last multipole the window is below exp(-14): nothing is left to multiply.
        sigma = math.radians(self.settings.smoothing / 60) / math.sqrt(8 * math.log(2))
        return SphericalTransform(self._fine_grid.nside, min(self._fine_grid.safe_lmax, math.ceil(5.3 / sigma)))

    @cached_property
    def _analysis(self) -> SphericalTransform:
        return SphericalTransform(self._fine_grid.nside, self.lmax)

    @cached_property
    def _syntheses(self) -> list[SphericalTransform]:
        return [SphericalTransform(self.grid.nside, self.lmax, spin=2 * i) for i in range(self.kernel.shape[1])]


def _synthesize_e(alm: torch.Tensor, transform: SphericalTransform) -> torch.Tensor:
    """The spin field ``(2, npix)`` of E alone, ``(nalm,)``: ducc0 does it in half the time, but without a gradient."""
    if alm.requires_grad or not transform.uses_ducc(alm):
        return synthesis(torch.stack([alm, torch.zeros_like(alm)]), transform)
    options = {"lmax": transform.lmax, "spin": transform.spin, "mode": "GRAD_ONLY", "nthreads": threads()}
    rings = ducc0.sht.synthesis(alm=alm.detach().numpy()[None], **options, **ring_geometry(transform.nside))
    return torch.from_numpy(rings[:, nest_to_ring_index(transform.nside)])
