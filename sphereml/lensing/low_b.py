"""B of low multipoles taken out of patches: what a network may not see when it is to delens below ``lmin_b``.

Conventions: patches as in :mod:`sphereml.lensing.patch_model`, observed as ``mask (sky + noise)``.  Exact filters of
patches are made blind to the same waves, those of the masked sphere by
:meth:`~sphereml.lensing.observation.Observation.unseen_below`; a whole sky's multipoles are simply left out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from sphereml.harmonics.flat_polarization import FlatSky

# Sides of the patch in the period of the waves that span what B of low multipoles can be on it.
_PERIODS = 4
# Directions in pixel space that carry less than this share of the largest amplitude are left in.
_LEAST = 1e-4


def without_low_b(
    patch: FlatSky, mask: torch.Tensor, q: torch.Tensor, u: torch.Tensor, lmin_b: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked Q and U ``(batch, n, n)`` less whatever B of ell < lmin_b could have made of them.

    The waves of such B, multiplied by the mask, span a space of few dimensions; the data are projected off it, with the
    part of E and of noise that lies in it.
    """
    basis = low_b_waves(patch, mask, lmin_b).to(q)
    data = torch.stack([q, u], dim=1).flatten(1)
    kept = (data - (data @ basis) @ basis.T).view(len(q), 2, *q.shape[1:])
    return kept[:, 0], kept[:, 1]


def low_b_waves(patch: FlatSky, window: torch.Tensor, lmin_b: int) -> torch.Tensor:
    """Orthonormal columns ``(2 n^2, rank)``, float64, Q first: what B of ell < lmin_b can be under a window."""
    return _waves(patch.size, patch.step, lmin_b, window.double().cpu().numpy().tobytes())


@lru_cache(maxsize=4)
def _waves(size: int, step: float, lmin_b: int, mask: bytes) -> torch.Tensor:
    side = _PERIODS * size
    unit = 2 * np.pi / (side * step)
    reach = np.arange(-int(lmin_b / unit) - 1, int(lmin_b / unit) + 2)
    lx, ly = (part.ravel() for part in np.meshgrid(reach, reach, indexing="ij"))
    # |l| = ell + 1/2; of l and -l one is enough.
    chosen = (np.hypot(lx, ly) * unit < lmin_b + 0.5) & ((lx > 0) | ((lx == 0) & (ly > 0)))
    lx, ly = lx[chosen] * 2 * np.pi / side, ly[chosen] * 2 * np.pi / side
    row, column = np.indices((size, size)).reshape(2, -1, 1)
    phase, angle = lx * column + ly * row, 2 * np.arctan2(ly, lx)
    window = np.frombuffer(mask).reshape(-1, 1)
    waves = [window * wave for wave in (np.cos(phase), np.sin(phase))]
    # Q and U of B alone: FlatSky.to_qu.
    patterns = np.concatenate([np.concatenate([np.sin(angle) * w, -np.cos(angle) * w]) for w in waves], axis=1)
    left, amplitude, _ = np.linalg.svd(patterns, full_matrices=False)
    return torch.from_numpy(np.ascontiguousarray(left[:, amplitude > _LEAST * amplitude[0]]))
