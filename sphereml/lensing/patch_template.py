"""The lensing-B template of a flat patch: the B that a given kappa makes of a given E.

Conventions: modes ``(batch, n, n // 2 + 1)`` on a periodic sky that the patch is a corner of, E in uK, as in
:mod:`sphereml.lensing.patch_model`; ``kappa = l^2/2 phi``, ``P~(n) = P(n + grad phi)``.  The two expansions are those
of :mod:`sphereml.lensing.lensed_b`: ``gradient`` for an observed, hence lensed E, ``all`` for an unlensed one.
"""

from __future__ import annotations

import numpy as np
import torch

from sphereml.harmonics.flat_polarization import FlatSky, resample
from sphereml.lensing.lensed_b import Expansion
from sphereml.simulate.flat_lensing import deflect


def potential_modes(sky: FlatSky, kappa: torch.Tensor) -> torch.Tensor:
    """phi from kappa, both modes; the mean is 0."""
    ell = sky.ell(kappa)
    return kappa * torch.where(ell > 0, 2 / ell.clamp_min(1e-30) ** 2, 0.0)


def gradient_b(sky: FlatSky, fine: FlatSky, e: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
    """Modes of ``B of grad phi . grad P_E``.

    Args:
        fine: the same sky with as many pixels as the products need.
    """

    def images(modes: torch.Tensor) -> torch.Tensor:
        return fine.to_images(resample(modes, fine.size))

    east, north = (images(part) for part in sky.gradient(potential_modes(sky, kappa)))
    changes = []
    for part in sky.to_qu(e, torch.zeros_like(e)):
        along, across = sky.gradient(part)
        changes.append(resample(fine.to_modes(east * images(along) + north * images(across)), sky.size))
    return sky.to_eb(*changes)[1]


def remapped_b(sky: FlatSky, e: torch.Tensor, kappa: torch.Tensor) -> torch.Tensor:
    """Modes of the B of an unlensed E remapped by grad phi, to all orders."""
    lensed = deflect(sky, sky.to_qu(e, torch.zeros_like(e)), potential_modes(sky, kappa))
    return sky.to_eb(sky.to_modes(lensed.real), sky.to_modes(lensed.imag))[1]


def template_qu(patch: FlatSky, kappa: np.ndarray, e: np.ndarray, expansion: Expansion = "gradient") -> np.ndarray:
    """Q and U ``(2, n, n)`` float64 of the lensing B alone from images ``(n, n)`` of the most likely kappa and E.

    Nothing is known beyond the patch: within some 20 arcmin of its edge too little B is made.
    """
    sky = patch.with_size(2 * patch.size)
    kappa_modes, e_modes = (
        torch.fft.rfft2(torch.from_numpy(image).double()[None], s=(sky.size, sky.size)) * sky.step**2
        for image in (kappa, e)
    )
    if expansion == "gradient":
        b = gradient_b(sky, sky.resampled(2 * sky.size), e_modes, kappa_modes)
    else:
        b = remapped_b(sky, e_modes, kappa_modes)
    images = [sky.to_images(part)[0, : patch.size, : patch.size] for part in sky.to_qu(torch.zeros_like(b), b)]
    return np.asarray(torch.stack(images).numpy())
