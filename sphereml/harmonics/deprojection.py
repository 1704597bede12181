"""Deprojection of templates from masked fields, mode by mode, and the bias that it leaves in pseudo-spectra.

Conventions
-----------
* Maps are ``(ncomp, npix)``, templates ``(nt, ncomp, npix)``; a pair (Q, U) is one template with one amplitude.
* w is the mask, f_i the templates, ``<a, b> = sum_pixels a b`` times the pixel's area.
* What is done here asks a *masked field* for its transforms, that of the sphere
  (:class:`~sphereml.harmonics.masked_field.MaskedField`) or that of a patch.

Amplitudes are those of a least-squares fit of the masked map, ``a_i = A^-1_ij <w f_j, w d>``, ``A_ij = <w f_i, w
f_j>``, and ``d - sum a_i f_i`` goes on.  That takes the modes of the templates out of any map, at the cost of a bias
(Alonso et al. 2019, arXiv:1809.09603, eq. 26): with f, v, A of the first field, g, w, B of the second, P their
(purified) transforms,

    bias = - A^-1_ij P(f_i) x P(C v^2 f_j) - B^-1_ij P(C w^2 g_j) x P(g_i)
           + A^-1_ij B^-1_rs <v^2 f_j, C w^2 g_r> P(f_i) x P(g_s),

``a x b`` the pseudo-cross-spectrum, C the covariance of the two skies as they were before the mask, given by a guess of
their spectra (:func:`deprojection_bias`), or, for noise that is white with the variance sigma^2 per pixel, diagonal in
pixels (:func:`noise_bias`; eq. 39 there).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from sphereml.errors import UserError

# Eigenvalues of the templates' products below this share of the largest are taken for zero (NaMaster's value).
_DEPENDENT = 1e-10


class Transforms(Protocol):
    """What deprojection asks of a masked field; modes are complex ``(..., ncomp, nmode)``."""

    @property
    def pixel_area(self) -> float:
        """Solid angle of a pixel, sr."""

    @property
    def bias_iterations(self) -> int:
        """Iterations of an analysis that are enough for the bias."""

    def weighted(self, maps: np.ndarray) -> np.ndarray:
        """Maps times the mask."""

    def alms(self, maps: np.ndarray, iterations: int | None = None) -> np.ndarray:
        """Modes of the masked, and where asked purified, maps."""

    def plain_alms(self, maps: np.ndarray, iterations: int | None = None) -> np.ndarray:
        """Modes of maps as they are."""

    def filtered(self, alms: np.ndarray, spectra: np.ndarray) -> np.ndarray:
        """``sum_n C^mn a^n`` of modes ``(n, nmode)`` and spectra ``(m, n, nl)``."""

    def synthesis(self, alms: np.ndarray) -> np.ndarray:
        """Maps of modes."""

    def cross_spectra(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Pseudo-spectra ``(n1, n2, nl)`` of modes ``(n1, nmode)`` and ``(n2, nmode)``."""


@dataclass(frozen=True, eq=False)
class Deprojection:
    """Templates of one masked field.

    Args:
        field: its transforms.
        templates: ``(nt, ncomp, npix)``, as they are, not masked.

    Raises:
        UserError: a template is zero or not finite where the mask is not.
    """

    field: Transforms
    templates: np.ndarray

    def __post_init__(self) -> None:
        for index, masked in enumerate(self.masked):
            if not np.isfinite(masked).all():
                raise UserError(f"template {index + 1} has missing values on the mask", "set the mask to 0 there")
            if not masked.any():
                raise UserError(f"template {index + 1} is zero on the mask", "leave it out")

    @cached_property
    def masked(self) -> np.ndarray:
        """``w f_i``, ``(nt, ncomp, npix)``."""
        return self.field.weighted(self.templates)

    @cached_property
    def inverse(self) -> np.ndarray:
        """``A^-1`` ``(nt, nt)``, a pseudo-inverse when templates depend on each other."""
        return np.linalg.pinv(self.products(self.masked, self.masked), rcond=_DEPENDENT, hermitian=True)

    @cached_property
    def alms(self) -> np.ndarray:
        """Modes of the masked templates, ``(nt, ncomp, nmode)``, as the bias needs them."""
        return _alms(self.field, self.templates)

    def products(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """``<a_i, b_j>`` of maps ``(n1, ncomp, npix)`` and ``(n2, ncomp, npix)``."""
        return self.field.pixel_area * first.reshape(len(first), -1) @ second.reshape(len(second), -1).T

    def amplitudes(self, maps: np.ndarray) -> np.ndarray:
        """Least-squares amplitudes ``(nt,)`` of the templates in maps ``(ncomp, npix)``, in map over template unit."""
        return np.asarray(self.inverse @ self.products(self.masked, self.field.weighted(maps)[None])[:, 0])

    def subtract(self, maps: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """Maps ``(ncomp, npix)`` less the templates of these amplitudes."""
        return np.asarray(maps - np.tensordot(amplitudes, self.templates, axes=1))


def deprojection_bias(
    first: Deprojection | None,
    second: Deprojection | None,
    guess: np.ndarray,
    fields: tuple[Transforms, Transforms],
) -> np.ndarray:
    """Bias of the pseudo-spectra of two deprojected fields, ``(n1, n2, nl)``; zero where neither has templates.

    Args:
        first, second: the fields' templates; the same object for an auto spectrum, which saves half the work.
        guess: ``(n1, n2, nl)`` spectra of the two skies as they are in the maps, beam included.
        fields: the two masked fields.
    """
    field, other = fields
    if second is None:
        if first is None:
            return np.zeros_like(guess)
        return _one_sided(first, _seen(first, guess.swapaxes(0, 1), field, other), other)
    through = _seen(second, guess, other, field)
    right = _one_sided(second, through, field).swapaxes(0, 1)
    if first is None:
        return right
    same = second is first and field is other
    left = right.swapaxes(0, 1) if same else deprojection_bias(first, None, guess, fields)
    between = first.inverse @ first.products(first.masked, field.weighted(through)) @ second.inverse
    return left + right + _contracted(between, first.alms, second.alms, field)


def noise_bias(deprojection: Deprojection, variance: np.ndarray) -> np.ndarray:
    """Bias by uncorrelated noise in the auto pseudo-spectra of a deprojected field, ``(n, n, nl)``.

    Args:
        variance: ``(npix,)`` of every component's noise in a pixel; what the noise itself adds is not in the result.
    """
    field = deprojection.field
    sigma2 = variance * field.pixel_area
    through = sigma2 * field.weighted(deprojection.masked)
    bias = -_contracted(deprojection.inverse, deprojection.alms, _alms(field, through), field)
    between = deprojection.inverse @ deprojection.products(deprojection.masked, field.weighted(through))
    return bias + bias.swapaxes(0, 1) + _contracted(between @ deprojection.inverse, *2 * (deprojection.alms,), field)


def _one_sided(deprojection: Deprojection, through: np.ndarray, other: Transforms) -> np.ndarray:
    """``- A^-1_ij P(f_i) x P(through_j)``, the second with the other field's mask."""
    return -_contracted(deprojection.inverse, deprojection.alms, _alms(other, through), other)


def _seen(deprojection: Deprojection, spectra: np.ndarray, field: Transforms, other: Transforms) -> np.ndarray:
    """``C v^2 f_j`` as maps of the other field, ``(nt, ncomp, npix)``."""
    count = field.bias_iterations
    seen = (field.plain_alms(field.weighted(masked), count) for masked in deprojection.masked)
    return np.stack([other.synthesis(other.filtered(alms, spectra)) for alms in seen])


def _alms(field: Transforms, maps: np.ndarray) -> np.ndarray:
    return np.stack([field.alms(row, field.bias_iterations) for row in maps])


def _contracted(weights: np.ndarray, first: np.ndarray, second: np.ndarray, field: Transforms) -> np.ndarray:
    """``sum_ij weights_ij first_i x second_j``: one product of spectra a template."""
    mixed = np.tensordot(weights, second, axes=1)
    return np.sum([field.cross_spectra(a, b) for a, b in zip(first, mixed, strict=True)], axis=0)
