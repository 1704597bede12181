"""Gaussian covariance of bandpowers in the narrow-kernel approximation, for spins 0 and 2.

Conventions: spectra ``(n1, n2, lmax + 1)`` are those of the maps, beams and noise included; covariances are those of
bandpowers, ``(ncl, nbin, ncl, nbin)``.

With Wick's theorem the covariance of the pseudo-spectra XY and ZW is ``<X~ Z~*><Y~ W~*> + <X~ W~*><Y~ Z~*>``.  A
spectrum that varies little over the width of the mask's kernel leaves the sum over modes (Efstathiou 2004,
astro-ph/0307515; Garcia-Garcia et al. 2019, arXiv:1906.11765),

    <X~ Z~*> = C^XZ K[w w'],   Cov(XY_l, ZW_l') = (C^XZ C^YW)_(ll') Xi[w_a w_c, w_b w_d]_ll' + exchange,

with ``Xi = M / (2l'+1)`` the coupling of the products of masks and ``(x y)_(ll') = (x_l y_l' + x_l' y_l) / 2``.  In
spin 2 the kernel also turns E into B, with the matrix J = ((0, 1), (-1, 0)): ``<a~ a~*> = C K+ + (C J + J C)/2 K-``,
exact where E and B have one spectrum; the two parts couple by Xi++ and Xi--.  Improved (Nicola et al. 2021,
arXiv:2010.09717): the spectra are the expected pseudo-spectra over the mean product of the masks, which know how the
mask smooths and leaks. Deprojection's few modes are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sphereml.harmonics.coupling import Component, coupling_kernels
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import analysis

if TYPE_CHECKING:
    from sphereml.harmonics.workspace import Workspace

Product = tuple[float, np.ndarray, np.ndarray]
_TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])


@dataclass(frozen=True, eq=False)
class Contractions:
    """Products of two spectra, each with a weight, whose sum Wick's theorem wants.

    Attributes:
        direct: spectra of the first field with itself and of the second with itself.
        exchange: spectra of the first field with the second, and of the second with the first.
    """

    direct: tuple[Product, ...]
    exchange: tuple[Product, ...]

    @classmethod
    def of_pair(cls, first: np.ndarray, second: np.ndarray, cross: np.ndarray) -> Contractions:
        """Of one cross spectrum of two maps (one map: all three are its spectrum)."""
        return cls(((1.0, first, second),), ((1.0, cross, cross.swapaxes(0, 1)),))

    @classmethod
    def of_splits(cls, signal: np.ndarray, noise: np.ndarray, count: int) -> Contractions:
        """Of the mean over all pairs of different splits, each with the same signal and a noise of its own.

        Two ordered pairs share a split at one given place in 1/n of all cases, at both in 1/(n(n-1)).
        """
        terms = (
            (1.0, signal, signal), (1 / count, signal, noise), (1 / count, noise, signal),
            (1 / (count * (count - 1)), noise, noise),
        )  # fmt: skip
        return cls(terms, terms)


def effective_spectra(workspace: Workspace, alms: list[np.ndarray], guess: np.ndarray | None = None) -> Contractions:
    """Spectra of the improved approximation, from the coefficients ``(ncomp, nalm)`` of one map, two, or splits.

    Args:
        guess: ``(ncl, lmax + 1)`` for one map, instead of what its own bandpowers say.
    """
    if len(alms) == 1:
        one = _effective(workspace, workspace.fields[0].cross_spectra(alms[0], alms[0]), guess)
        return Contractions.of_pair(one, one, one)
    field = workspace.fields[0]
    if len(alms) == 2:
        first, second = (_effective(workspace.of_one(i), field.cross_spectra(alm, alm)) for i, alm in enumerate(alms))
        return Contractions.of_pair(first, second, _effective(workspace, field.cross_spectra(alms[0], alms[1])))
    count = range(len(alms))
    total = np.mean([field.cross_spectra(alm, alm) for alm in alms], axis=0)
    cross = np.mean([field.cross_spectra(alms[i], alms[j]) for i in count for j in count if i != j], axis=0)
    signal = _effective(workspace, cross)
    return Contractions.of_splits(signal, _effective(workspace, total) - signal, len(alms))


def _effective(workspace: Workspace, coupled: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
    """Pseudo-spectra ``(n1, n2, lmax + 1)`` over the masks' product, those of a smooth fit and not of the one sky.

    The square of a measured spectrum is too large by its own variance, at low ell by a half.
    """
    flat = coupled.reshape(len(workspace.names), -1)
    smooth = workspace.fit(flat) if guess is None else guess
    first, second = workspace.fields
    spectra = np.tensordot(workspace.coupling_matrix(), smooth, axes=2) / np.mean(first.mask * second.mask)
    return np.asarray(spectra.reshape(coupled.shape))


def gaussian_covariance(workspace: Workspace, contractions: Contractions) -> np.ndarray:
    """Covariance ``(ncl, nbin, ncl, nbin)`` of a workspace's bandpowers."""
    first, second = (len(field.components.members) for field in workspace.fields)
    size = len(workspace.binning)
    coupled = np.zeros((first, second, size, first, second, size))
    masks = [field.mask for field in workspace.fields]
    direct = _kernels(workspace, masks[0] ** 2, masks[1] ** 2)
    for weight, xz, yw in contractions.direct:
        for part, (x, y) in _parts(workspace, direct, xz, yw):
            coupled += weight * _binned(workspace, part, x, y).transpose(0, 2, 4, 1, 3, 5)
    same = workspace.fields[0] is workspace.fields[1]
    exchange = direct if same else _kernels(workspace, masks[0] * masks[1], masks[0] * masks[1])
    for weight, xw, yz in contractions.exchange:
        for part, (x, y) in _parts(workspace, exchange, xw, yz):
            coupled += weight * _binned(workspace, part, x, y).transpose(0, 2, 4, 3, 1, 5)
    shape = len(workspace.names), size
    half = workspace.solve(coupled.reshape(*shape, -1))  # M^-1 C
    return workspace.solve(half.reshape(*shape, *shape).transpose(2, 3, 0, 1))


def _kernels(workspace: Workspace, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``Xi`` of even and odd sums of multipoles for two products of masks, each ``(lmax + 1, lmax + 1)``."""
    field, other = workspace.fields
    alms = [analysis(mask, field.lmax_mask) for mask in ((first,) if first is second else (first, second))]
    spectrum = cross_spectrum(alms[0], alms[-1], field.lmax_mask)
    even, odd = coupling_kernels(spectrum, Component(field.spin), Component(other.spin), field.lmax)
    modes = 2 * np.arange(field.lmax + 1) + 1
    return even / modes, odd / modes


def _parts(
    workspace: Workspace, kernels: tuple[np.ndarray, np.ndarray], first: np.ndarray, second: np.ndarray
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    """The kernels with the pairs of spectra that they couple."""
    yield kernels[0], (first, second)
    if all(field.spin for field in workspace.fields):
        yield kernels[1], (_turned(first), _turned(second))


def _turned(spectra: np.ndarray) -> np.ndarray:
    """``(C J + J C) / 2`` of spectra ``(2, 2, lmax + 1)``."""
    return np.asarray(np.einsum("ijl,jk->ikl", spectra, _TURN) + np.einsum("ij,jkl->ikl", _TURN, spectra)) / 2


def _binned(workspace: Workspace, kernel: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``B (x y)_(ll') Xi B^T`` of all products of two sets of spectra: ``(n1, n2, n3, n4, nbin, nbin)``."""
    binning = workspace.binning
    left = np.einsum("bl,xzl->xzbl", binning, first) @ kernel
    right = np.einsum("bl,xzl->xzbl", binning, second)
    half = np.einsum("xzbl,ywcl->xzywbc", left, right)
    # The kernel is symmetric, so that the other half is this one with its bands exchanged.
    return np.asarray(half + half.swapaxes(-1, -2)) / 2
