"""Decoupled bandpowers of masked maps (MASTER, Hivon et al. 2002, astro-ph/0105302; arXiv:1809.09603).

Conventions
-----------
* Maps are NEST: ``(npix,)`` of spin 0, ``(2, npix)`` (Q, U), COSMO, of spin 2, or a
  :class:`~sphereml.sky.maps.SkyMap` of any order; missing pixels are NaN or UNSEEN and must have mask 0.  Masks are
  weights.  Spectra are C_ell; ``dl`` bins and reports D_ell.
* A band gives every multipole the same weight.  Bandpowers take the spectrum as constant within bands and zero outside
  all of them; their windows say what they see.
* Beams multiply a_lm, ``(lmax + 1,)`` or more; a pixel window is one more factor of the beam.

With B the binning, M the mode coupling and b the beams, the bandpowers are ``(B M b^2 U)^-1 B (C~ - bias)``, U the step
function that unbins, and their windows ``(B M b^2 U)^-1 B M b^2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.bandpowers import Bandpowers, spectrum_names
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.coupling import Components, coupling_matrix
from sphereml.harmonics.masked_field import MaskedField
from sphereml.harmonics.spectra import cross_spectrum
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.maps import SkyMap, nest_rows

if TYPE_CHECKING:
    from sphereml.harmonics.estimator import Options

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Workspace:
    """Coupling and binning of one pair of masks, kept for any number of maps.

    Args:
        mask: ``(npix,)`` weights, or two of them, of the first and of the second field.
        bins: edges ``lo, ..., hi`` of consecutive half-open bands, or :class:`~sphereml.harmonics.bands.Bands`.
        beam: ``(lmax + 1,)`` or more, two of them, or None.
        spins: of the two fields, 0 or 2.
        purify_e, purify_b: of the fields of spin 2.
        lmax: of the maps' coefficients, 3 nside - 1 when None; whatever the maps hold beyond is lost, not aliased.
        dl: D_ell rather than C_ell.

    Raises:
        UserError: masks of two grids or unusable, bands that overlap, reach above ``lmax`` or hold no multipole, a beam
            that is too short or not positive, a spin that is not 0 or 2, nothing to purify.

    Example:
        >>> import numpy as np
        >>> workspace = Workspace(np.ones(12 * 8**2), [2, 10, 20])
        >>> workspace.windows.shape
        (1, 2, 1, 24)
    """

    mask: np.ndarray | Pair
    bins: Bands | Sequence[float]
    beam: np.ndarray | Pair | None = None
    spins: tuple[int, int] = (0, 0)
    purify_e: bool = False
    purify_b: bool = False
    lmax: int | None = None
    dl: bool = False

    def __post_init__(self) -> None:
        if not set(self.spins) <= {0, 2}:
            raise UserError(f"spins {self.spins}", "spectra are of fields of spin 0 or 2")
        if (self.purify_e or self.purify_b) and 2 not in self.spins:
            raise UserError("nothing to purify in scalar fields", "purify fields of spin 2")
        _ = self.fields, self.membership, self.beams

    @cached_property
    def fields(self) -> tuple[MaskedField, MaskedField]:
        """The two masked fields; one object when they are alike."""
        masks = [nest_rows(mask).astype(np.float64) for mask in self._pair(self.mask)]
        if masks[0].shape != masks[1].shape:
            raise UserError(f"masks of {masks[0].size} and {masks[1].size} pixels", "bring both to one Nside")
        lmax = 3 * HealpixGrid.of_size(masks[0].size).nside - 1 if self.lmax is None else self.lmax
        kinds = [Components(s, self.purify_e and s == 2, self.purify_b and s == 2) for s in self.spins]
        first = MaskedField(masks[0], kinds[0], lmax)
        alike = kinds[0] == kinds[1] and np.array_equal(masks[0], masks[1])
        return first, first if alike else MaskedField(masks[1], kinds[1], lmax)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the spectra, in their order."""
        return spectrum_names(self.spins)

    @cached_property
    def bands(self) -> Bands:
        return self.bins if isinstance(self.bins, Bands) else Bands.edges(*self.bins)

    @cached_property
    def membership(self) -> np.ndarray:
        """Which multipoles each band holds, bool ``(nbin, lmax + 1)``."""
        lmax, bands = self.fields[0].lmax, self.bands
        if bands.lmax > lmax:
            raise UserError(f"a band reaches ell = {bands.lmax}, the maps {lmax}", f"end the bands at {lmax + 1}")
        held = bands.membership(lmax)
        if not held.any(axis=1).all():
            raise UserError("a band holds no multipole", "give every band an integer ell")
        if (held.sum(axis=0) > 1).any():
            raise UserError("two bands hold the same multipole", "give bands that do not overlap")
        if self.dl and held[:, 0].any():
            raise UserError("D_ell is zero at ell = 0", "start the bands at 1 or above")
        return held

    @property
    def lower(self) -> np.ndarray:
        """First multipole of every band."""
        return self.membership.argmax(axis=1)

    @property
    def upper(self) -> np.ndarray:
        """Multipole behind the last of every band."""
        return np.asarray(self.membership.shape[1] - self.membership[:, ::-1].argmax(axis=1))

    @cached_property
    def binning(self) -> np.ndarray:
        """B, ``(nbin, lmax + 1)``: means over bands, of D_ell where asked."""
        held = self.membership
        return np.asarray(held / held.sum(axis=1, keepdims=True) * self._scale)

    @cached_property
    def beams(self) -> Pair:
        """The two beams to ``lmax``, ones where none is given."""
        count = self.fields[0].lmax + 1
        beams = [np.ones(count) if beam is None else np.asarray(beam, float) for beam in self._pair(self.beam)]
        for beam in beams:
            if beam.ndim != 1 or len(beam) < count:
                raise UserError(f"a beam to ell = {beam.size - 1}", f"give it to {count - 1}, or lower lmax")
            if not (np.isfinite(beam[:count]).all() and (beam[:count] > 0).all()):
                raise UserError("a beam with values that are not positive", "lower lmax to where it ends")
        return beams[0][:count], beams[1][:count]

    @cached_property
    def beam_product(self) -> np.ndarray:
        """Product of the two beams, ``(lmax + 1,)``."""
        return self.beams[0] * self.beams[1]

    @cached_property
    def mask_spectrum(self) -> np.ndarray:
        """Pseudo-spectrum ``W_L`` of the masks."""
        first, second = self.fields
        return cross_spectrum(first.mask_alm, second.mask_alm, first.lmax_mask)

    @cached_property
    def rows(self) -> np.ndarray:
        """Binned mode coupling without beams, ``B M``: ``(ncl, nbin, ncl, lmax + 1)``."""
        first, second = (field.components for field in self.fields)
        return coupling_matrix(self.mask_spectrum, first, second, self.fields[0].lmax, self.binning)

    def coupling_matrix(self) -> np.ndarray:
        """The whole M without beams, ``(ncl, lmax + 1, ncl, lmax + 1)``; nothing here keeps it."""
        first, second = (field.components for field in self.fields)
        return coupling_matrix(self.mask_spectrum, first, second, self.fields[0].lmax)

    @cached_property
    def windows(self) -> np.ndarray:
        """Bandpower windows ``(ncl, nbin, ncl, lmax + 1)``, beams included."""
        return self.solve(self.rows * self.beam_product)

    def solve(self, binned: np.ndarray, beams: bool = True) -> np.ndarray:
        """``(B M b^2 U)^-1`` of binned pseudo-spectra ``(ncl, nbin, ...)``.

        Args:
            beams: False leaves the beams in the bandpowers.
        Raises:
            UserError: the mask leaves too little of the sky to tell the bands apart.
        """
        coupling = self.rows * (self.beam_product if beams else 1.0) @ self._unbinning.T
        size = coupling.shape[0] * coupling.shape[1]
        try:
            solved = np.linalg.solve(coupling.reshape(size, size), binned.reshape(size, -1))
        except np.linalg.LinAlgError:
            raise UserError("the mask couples the bands beyond decoupling", "give wider bands") from None
        return np.asarray(solved.reshape(binned.shape))

    def decouple(self, coupled: np.ndarray, beams: bool = True) -> np.ndarray:
        """Bandpowers ``(ncl, nbin)`` of pseudo-spectra ``(ncl, lmax + 1)``, C_ell."""
        return self.solve(coupled @ self.binning.T, beams)

    def fit(self, coupled: np.ndarray) -> np.ndarray:
        """A smooth spectrum ``(ncl, lmax + 1)``, beam included, through the bandpowers of pseudo-spectra.

        ``ell(ell+1) C`` is interpolated between the bands and constant above, C (or D where asked) constant below the
        middle of the first; parity-odd spectra are zero, autos not negative, and ell = 0 and 1 are zero.
        """
        ell = np.arange(coupled.shape[1])
        middle = (self.lower + self.upper - 1) / 2
        values = self.decouple(coupled, beams=False) * (2 * np.pi if self.dl else middle * (middle + 1))
        smooth = np.stack([np.interp(ell, middle, row) for row in values])
        held = ell if self.dl else np.maximum(ell, middle[0])
        smooth[:, 2:] /= (held * (held + 1))[2:]
        smooth[:, :2] = 0
        odd = [name.count("B") == 1 for name in self.names]
        smooth[odd] = 0
        auto = [name[0] == name[1] for name in self.names]
        smooth[auto] = np.maximum(smooth[auto], 0)
        return smooth

    def of_one(self, side: int) -> Workspace:
        """The workspace of the auto spectra of the first (0) or the second (1) field."""
        mask, beam = self._pair(self.mask)[side], self._pair(self.beam)[side]
        spin = self.spins[side]
        pure_e, pure_b = self.purify_e and spin == 2, self.purify_b and spin == 2
        return replace(self, mask=mask, beam=beam, spins=(spin, spin), purify_e=pure_e, purify_b=pure_b)

    def bandpowers(self, *maps: np.ndarray | SkyMap, **options: Unpack[Options]) -> Bandpowers:
        """Bandpowers of one map (auto), two (cross), or the splits of one sky (mean of all their cross spectra).

        The options are those of :class:`~sphereml.harmonics.estimator.Options`: templates to deproject, the guess that
        corrects their bias, noise, and which covariance is wanted.

        Example:
            >>> import numpy as np
            >>> workspace = Workspace(np.ones(12 * 8**2), [2, 10, 20])
            >>> workspace.bandpowers(np.random.default_rng(0).standard_normal(12 * 8**2))["TT"].shape
            (2,)
        """
        from sphereml.harmonics.estimator import estimate

        if (templates := options.get("templates")) is not None:
            options["templates"] = np.stack([nest_rows(one) for one in templates])
        if (templates := options.get("second_templates")) is not None:
            options["second_templates"] = np.stack([nest_rows(one) for one in templates])
        return estimate(self, tuple(nest_rows(one) for one in maps), **options)

    def save(self, path: Path | str) -> Path:
        """Keep masks, settings and the coupling in a file of numpy's ``npz``; see :mod:`~.workspace_file`."""
        from sphereml.harmonics.workspace_file import save

        return save(self, Path(path))

    @staticmethod
    def load(path: Path | str) -> Workspace:
        """A kept workspace; raises UserError when the file is absent, damaged or something else."""
        from sphereml.harmonics.workspace_file import load

        return load(Path(path))

    @cached_property
    def _scale(self) -> np.ndarray:
        """``ell(ell+1)/2pi`` for D_ell, else ones."""
        ell = np.arange(self.fields[0].lmax + 1)
        return np.asarray(ell * (ell + 1) / (2 * np.pi) if self.dl else np.ones(len(ell)))

    @cached_property
    def _unbinning(self) -> np.ndarray:
        """U^T, ``(nbin, lmax + 1)``: constant C_ell, or D_ell, within bands."""
        return np.divide(self.membership, self._scale, where=self.membership, out=np.zeros(self.membership.shape))

    def _pair(self, value: object) -> tuple:
        return value if isinstance(value, tuple) else (value, value)
