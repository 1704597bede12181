"""Linear polarization templates: second derivatives of the gas, weighed by least squares.

Conventions: see :mod:`sphereml.filaments`; x is south, y east; smoothings are Gaussian sigmas in degrees.

``eth^2 f = (f_xx - f_yy) + 2i f_xy`` is the one linear, local map from a scalar to Q and U that knows no direction; in
harmonics it multiplies by ``sqrt((l+2)! / (l-2)!)`` and makes E alone.  ``scale_free`` divides by ``l (l + 1)``, so
that every scale of the gas counts as much as it does in the gas itself; a negative weight is polarization across ridges
(f_xx < 0 across a ridge along y).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sphereml.errors import UserError
from sphereml.filaments.tensor import gaussian_window
from sphereml.harmonics.transforms import alm_index, analysis, synthesis
from sphereml.sky.grid import HealpixGrid


def second_derivatives(inputs: np.ndarray, smoothings: Sequence[float] = (1.0,), scale_free: bool = True) -> np.ndarray:
    """``eth^2`` of every channel at every smoothing: ``(npix, nchan * nsmoothing, 2)`` float64 (Q, U).

    Args:
        inputs: ``(npix, nchan)`` NEST.
        smoothings: degrees; all of one channel stand together.
        scale_free: see the module; else derivatives per radian squared.
    """
    grid = HealpixGrid.of_size(len(inputs))
    lmax = grid.safe_lmax
    gains = np.stack([_gain(lmax, scale_free) * gaussian_window(lmax, sigma) for sigma in smoothings])
    features = np.empty((grid.npix, inputs.shape[1] * len(smoothings), 2))
    for channel, scalar in enumerate(np.asarray(inputs, dtype=np.float64).T):
        # Q + iU = -sum (E + iB) 2Y and eth^2 Y = sqrt((l+2)!/(l-2)!) 2Y.
        gradient = -analysis(scalar, lmax) * gains[:, alm_index(lmax)[0]]
        maps = synthesis(np.stack([gradient, np.zeros_like(gradient)], axis=1), grid.nside, lmax, spin=2)
        first = channel * len(smoothings)
        features[:, first : first + len(smoothings)] = np.moveaxis(maps, -1, 0)
    return features


def _gain(lmax: int, scale_free: bool) -> np.ndarray:
    ell = np.arange(lmax + 1, dtype=np.float64)
    raising = np.sqrt(np.maximum((ell + 2) * (ell + 1) * ell * (ell - 1), 0.0))
    return raising / np.maximum(ell * (ell + 1), 1.0) if scale_free else raising


def fit_polarization(features: np.ndarray, target: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Least-squares weights ``(nfeature,)`` of ``(Q, U)' = sum_v w_v features_v`` on the chosen pixels.

    They are real, since a mirrored sky has a mirrored U, and there is no constant, which would have no spin.

    Args:
        features: ``(npix, nfeature, 2)``.
        target: ``(npix, 2)``.
        pixels: ``(npix,)`` bool.
    Raises:
        UserError: fewer numbers than weights, or no structure in the features.
    """
    table = np.moveaxis(features[pixels], 1, -1).reshape(-1, features.shape[1])
    if len(table) <= table.shape[1]:
        raise UserError(f"{len(table)} numbers cannot fix {table.shape[1]} weights", "use a larger training region")
    scale = np.sqrt(np.mean(table**2, axis=0))
    if not scale.max() > 0:
        raise UserError("the inputs are constant over the training region", "check the maps and the split")
    lit = scale > 1e-6 * scale.max()
    weights = np.zeros(table.shape[1])
    solution = np.linalg.lstsq(table[:, lit] / scale[lit], target[pixels].reshape(-1), rcond=1e-10)[0]
    weights[lit] = solution / scale[lit]
    return weights
