"""Polarization from the structure tensor of the gas: across the ridges of the logarithm of the column.

Conventions: see :mod:`sphereml.filaments`; the recipe's smoothings are Gaussian sigmas in degrees; x is south, y east.

With f the log column between two smoothings, ``J = <grad f grad f^T>`` averaged over a neighbourhood, the gradient
runs across a ridge, and so does the polarization:

    Q + iU = I <(f_x + i f_y)^2> / <f_x^2 + f_y^2>.

The square has spin 2, so its average over a neighbourhood is taken in harmonic space as that of a spin-2 field: frames
are carried along, and the result does not depend on where the poles of the grid lie.  ``averaging="components"``
averages the components of the meridians' frame as if they were scalars, which the real sample's published table does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.transforms import alm_index, analysis, synthesis
from sphereml.sky.grid import HealpixGrid

# Added to a map before its logarithm, in means of all channels' sum.
FLOOR = 1e-3


@dataclass(frozen=True)
class TensorSettings:
    """How the orientation of the gas is measured.

    Args:
        fine, coarse: the gradient is that of the structure between these smoothings, degrees sigma.
        neighbourhood: over which the tensor is averaged, degrees sigma.
        floor: added to every map before its logarithm, in its unit; None: a thousandth of the mean of all channels'
            sum, which for HI columns is about 1e18 cm^-2.
        least_gradient: the denominator is at least this share of its median, so that featureless sky is unpolarized.
        averaging: ``"spin"`` or ``"components"``; see the module.
    Raises:
        UserError: smoothings out of order.
    """

    fine: float = 0.5
    coarse: float = 6.0
    neighbourhood: float = 8.0
    floor: float | None = None
    least_gradient: float = 0.2
    averaging: Literal["spin", "components"] = "spin"

    def __post_init__(self) -> None:
        if not 0 <= self.fine < self.coarse:
            raise UserError(
                f"smoothings {self.fine:g} and {self.coarse:g} degrees are out of order", "give fine < coarse"
            )
        if self.neighbourhood < 0:
            raise UserError(f"a neighbourhood of {self.neighbourhood:g} degrees is impossible", "give 0 or more")


def tensor_stokes(inputs: np.ndarray, settings: TensorSettings | None = None) -> np.ndarray:
    """Q and U of channels by the structure tensor of each, added: ``(npix, 2)`` float64 in the inputs' unit.

    Args:
        inputs: ``(npix, nchan)`` columns or brightness, NEST; negative noise counts as nothing in the logarithm.
        settings: None: the defaults.
    """
    total = np.zeros((len(inputs), 2))
    for stokes in channel_stokes(inputs, settings):
        total += stokes
    return total


def channel_stokes(inputs: np.ndarray, settings: TensorSettings | None = None) -> Iterator[np.ndarray]:
    """Q and U of one channel after the other, ``(npix, 2)`` each: what :func:`tensor_stokes` adds."""
    settings = settings or TensorSettings()
    floor = settings.floor
    if floor is None:
        floor = FLOOR * float(np.mean(inputs.sum(axis=1, dtype=np.float64)))
    for intensity in np.asarray(inputs, dtype=np.float64).T:
        yield intensity[:, None] * tensor_orientation(intensity, floor, settings)


def tensor_orientation(intensity: np.ndarray, floor: float, settings: TensorSettings) -> np.ndarray:
    """Q/I and U/I of one map ``(npix,)``: ``(npix, 2)`` of length 1 or less.

    Args:
        floor: added to the map before its logarithm; above 0.
    """
    grid = HealpixGrid.of_size(intensity.size)
    band = gaussian_window(grid.safe_lmax, settings.fine) - gaussian_window(grid.safe_lmax, settings.coarse)
    south, east = gradient(np.log(np.maximum(intensity, 0.0) + floor), band)
    strength = _average(south**2 + east**2, settings)
    if settings.averaging == "spin":
        across = _average(np.stack([south**2 - east**2, 2 * south * east]), settings, spin=2)
    else:
        xx, yy, xy = (_average(part, settings) for part in (south**2, east**2, south * east))
        across = np.stack([xx - yy, 2 * xy])
    ratio = across / np.maximum(strength, settings.least_gradient * np.median(strength))
    return np.asarray((ratio / np.maximum(np.hypot(*ratio), 1.0)).T)


def gradient(scalar: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of a filtered map towards south and east, per radian, each ``(npix,)``.

    Args:
        scalar: ``(npix,)`` NEST.
        window: gain of every multipole, ``(lmax + 1,)``.
    """
    lmax = len(window) - 1
    ell = np.arange(lmax + 1)
    gain = (window * np.sqrt(ell * (ell + 1.0)))[alm_index(lmax)[0]]
    alm = analysis(scalar, lmax) * gain
    # ducc0's spin-1 field of a gradient alm is the gradient itself, in the basis (south, east).
    south, east = synthesis(np.stack([alm, np.zeros_like(alm)]), HealpixGrid.of_size(scalar.size).nside, lmax, spin=1)
    return south, east


def gaussian_window(lmax: int, sigma: float) -> np.ndarray:
    """``exp(-ell (ell + 1) sigma^2 / 2)``, ``(lmax + 1,)``; sigma in degrees."""
    ell = np.arange(lmax + 1)
    return np.asarray(np.exp(-0.5 * ell * (ell + 1) * np.radians(sigma) ** 2))


def _average(maps: np.ndarray, settings: TensorSettings, spin: int = 0) -> np.ndarray:
    """Gaussian averages of a scalar ``(npix,)`` or of (Q, U) ``(2, npix)`` over the neighbourhood."""
    grid = HealpixGrid.of_size(maps.shape[-1])
    lmax = grid.safe_lmax
    alm = analysis(maps, lmax, spin) * gaussian_window(lmax, settings.neighbourhood)[alm_index(lmax)[0]]
    return synthesis(alm, grid.nside, lmax, spin)
