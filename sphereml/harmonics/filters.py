"""Isotropic filters of the sphere, as gains on a_lm by multipole, and the rotation of a_lm between sky frames.

Conventions: a gain is float64 ``(lmax + 1,)`` and multiplies a_lm, so spectra get its square.  Beams are Gaussian, FWHM
in arcmin.  Every gain here is at most one: nothing is ever deconvolved.  healpy and scipy take
half a second to import, and are so only where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence

import ducc0
import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.rings import alm_size, threads

FRAMES = {"G": "Galactic", "C": "equatorial", "E": "ecliptic"}
_ROUNDING = 1e-6


def butterworth(lmax: int, cutoff: float, order: float) -> np.ndarray:
    """Low-pass gain ``1 / sqrt(1 + (ell / cutoff)^(2 order))``: 1 / sqrt 2 at the cutoff, ``ell^-order`` far above.

    Raises:
        UserError: the cutoff or the order is not above 0.
    """
    if not (cutoff > 0 and order > 0):
        raise UserError(f"a Butterworth filter at ell={cutoff:g} of order {order:g} is impossible", "give both above 0")
    return np.asarray(1 / np.sqrt(1 + (np.arange(lmax + 1) / cutoff) ** (2 * order)))


def gaussian_beam(lmax: int, fwhm_arcmin: float) -> np.ndarray:
    """Harmonic window ``exp(-ell (ell + 1) sigma^2 / 2)`` of a Gaussian beam, ``sigma = fwhm / sqrt(8 ln 2)``."""
    sigma = np.radians(fwhm_arcmin / 60) / np.sqrt(8 * np.log(2))
    ell = np.arange(lmax + 1)
    return np.asarray(np.exp(-0.5 * ell * (ell + 1) * sigma**2))


def scale_windows(nodes: Sequence[float], lmax: int) -> np.ndarray:
    """Gains that part a map by scale: ``(len(nodes), lmax + 1)``, linear in log(ell) between nodes, their sum one.

    Edges as soft as that do not ring: what is bright stays where it is.
    """
    place = np.log(np.maximum(np.arange(lmax + 1), 0.5))
    return np.stack([np.interp(place, np.log(nodes), row) for row in np.eye(len(nodes))])


def beam_change(lmax: int, fwhm_in: float, fwhm_out: float, name: str) -> np.ndarray:
    """What brings a map of one beam to a wider one, ``B_out / B_in``.

    Raises:
        UserError: the wanted beam is the narrower, which would be a deconvolution.
    """
    if fwhm_out < fwhm_in * (1 - _ROUNDING):
        raise UserError(
            f"{name} has a beam of {fwhm_in:g} arcmin and {fwhm_out:g} is asked for, which only amplifies noise",
            f"ask for {fwhm_in:g} arcmin or more",
        )
    return gaussian_beam(lmax, float(np.sqrt(max(fwhm_out**2 - fwhm_in**2, 0.0))))


def pixel_window_change(lmax: int, nside_in: int, nside_out: int, name: str) -> np.ndarray:
    """What brings a map of pixel averages to larger pixels, ``p_out / p_in``.

    Raises:
        UserError: the wanted pixels are the smaller, which would be a deconvolution.
    """
    if nside_out > nside_in:
        raise UserError(
            f"the pixel window of {name} (Nside {nside_in}) cannot be narrowed to Nside {nside_out}",
            "set pixel_window=keep, or ask for a lower Nside",
        )
    if nside_out == nside_in:
        return np.ones(lmax + 1)
    from sphereml.harmonics.pixel_window import pixel_window

    return np.asarray(pixel_window(nside_out, lmax) / pixel_window(nside_in, lmax))


def multiply(alm: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """``gain_l a_lm`` of complex ``(..., nalm)``, in place.

    Raises:
        ValueError: the gain ends at another multipole than the coefficients.
    """
    lmax, start = len(gain) - 1, 0
    if alm.shape[-1] != alm_size(lmax):
        raise ValueError(f"a gain to ell={lmax} for {alm.shape[-1]} coefficients")
    for m in range(lmax + 1):
        alm[..., start : start + lmax + 1 - m] *= gain[m:]
        start += lmax + 1 - m
    return alm


def rotate_to_galactic(alm: np.ndarray, lmax: int, frame: str) -> np.ndarray:
    """The coefficients ``(..., nalm)`` of a scalar map of frame C or E in the Galactic frame (healpy's rotation).

    Raises:
        UserError: an unknown frame.
    """
    if frame not in FRAMES:
        raise UserError(f"unknown frame {frame!r}", f"use one of {', '.join(FRAMES)}")
    if frame == "G":
        return alm
    import healpy

    matrix = healpy.Rotator(coord=[frame, "G"]).mat
    # R = Rz(phi) Ry(theta) Rz(psi)
    psi = float(np.arctan2(matrix[2, 1], -matrix[2, 0]))
    theta = float(np.arccos(np.clip(matrix[2, 2], -1, 1)))
    phi = float(np.arctan2(matrix[1, 2], matrix[0, 2]))
    angles = {"psi": psi, "theta": theta, "phi": phi, "nthreads": threads()}
    rows = [ducc0.sht.rotate_alm(row, lmax, **angles) for row in alm.reshape(-1, alm.shape[-1])]
    return np.stack(rows).reshape(alm.shape)
