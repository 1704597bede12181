"""Bandpowers: decoupled binned spectra with their windows, errors and what they were made from.

Conventions: spectra are C_ell, or D_ell = ell(ell+1)/2pi C_ell where ``dl`` says so; the first axis is the pair of
components (``names``, e.g. EE, EB, BE, BB), the second the band, ``lower <= ell < upper`` in integers.  Units are the
product of the two maps' units.  ``<values> = sum windows C_theory`` (summed over the last two axes) for any theory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray


def spectrum_names(spins: tuple[int, int]) -> tuple[str, ...]:
    """Names of the spectra of two fields of spin 0 or 2: TT; TE, TB; ET, BT; EE, EB, BE, BB."""
    letters = ["EB" if spin else "T" for spin in spins]
    return tuple(a + b for a in letters[0] for b in letters[1])


@dataclass(frozen=True, eq=False)
class Bandpowers:
    """Spectra of one pair of fields.

    Attributes:
        names: of the spectra, ``ncl`` of them.
        lower, upper: limits of the bands, int ``(nbin,)``, upper ones not included.
        values: ``(ncl, nbin)``.
        windows: ``(ncl, nbin, ncl, lmax + 1)``.
        coupled: pseudo-spectra of the masked, cleaned maps, ``(ncl, lmax + 1)``, C_ell, before ``bias`` is taken away.
        bias: of deprojection and noise in the pseudo-spectra, ``(ncl, lmax + 1)``.
        covariance: of the values, ``(ncl, nbin, ncl, nbin)``, None when it was not asked for.
        covariance_kind: ``"gaussian"`` or ``"jackknife"``.
        amplitudes: of the deprojected templates in each map, ``(nmap, nt)``.
        dl: whether the values are D_ell.
        unit: of the values.
    """

    names: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    values: np.ndarray
    windows: np.ndarray
    coupled: np.ndarray
    bias: np.ndarray
    covariance: np.ndarray | None = None
    covariance_kind: str = ""
    amplitudes: np.ndarray | None = None
    dl: bool = False
    unit: str = ""

    def __getitem__(self, name: str) -> np.ndarray:
        """Values ``(nbin,)`` of one spectrum, e.g. ``"EE"``."""
        return np.asarray(self.values[self.names.index(name)])

    @property
    def ell(self) -> np.ndarray:
        """Mean multipole of each band, ``(nbin,)``."""
        return (self.lower + self.upper - 1) / 2

    @property
    def errors(self) -> np.ndarray | None:
        """Standard deviations ``(ncl, nbin)``."""
        if self.covariance is None:
            return None
        size = self.values.size
        return np.asarray(np.sqrt(np.diag(self.covariance.reshape(size, size))).reshape(self.values.shape))

    def with_covariance(self, covariance: np.ndarray, kind: str) -> Bandpowers:
        return replace(self, covariance=covariance, covariance_kind=kind)

    def predict(self, theory: np.ndarray) -> np.ndarray:
        """Expected values ``(ncl, nbin)`` of theory spectra ``(ncl, lmax + 1)``, C_ell without beam."""
        return np.asarray(np.tensordot(self.windows, theory, axes=2))

    def to_xarray(self) -> xarray.Dataset:
        """Values, errors, covariance, windows and pseudo-spectra with named axes and units."""
        import xarray

        axes = ("spectrum", "band")
        data: dict[str, Any] = {
            "values": (axes, self.values, {"units": self.unit}),
            "windows": (("spectrum", "band", "theory", "ell"), self.windows),
            "coupled": (("spectrum", "ell"), self.coupled, {"units": self.unit}),
            "bias": (("spectrum", "ell"), self.bias, {"units": self.unit}),
        }
        errors = self.errors
        if errors is not None:
            data["errors"] = (axes, errors, {"units": self.unit})
            data["covariance"] = ((*axes, "spectrum_2", "band_2"), self.covariance)
        coordinates = {
            "spectrum": list(self.names), "theory": list(self.names), "ell": np.arange(self.coupled.shape[-1]),
            "lower": ("band", self.lower), "upper": ("band", self.upper), "center": ("band", self.ell),
        }  # fmt: skip
        attributes = {"quantity": "D_ell" if self.dl else "C_ell", "covariance": self.covariance_kind}
        return xarray.Dataset(data, coordinates, attributes)


def combine(parts: Sequence[Bandpowers]) -> Bandpowers:
    """Spectra of several pairs of fields in one object; covariances between the parts are NaN: not computed."""
    if len(parts) == 1:
        return parts[0]
    names = tuple(name for part in parts for name in part.names)
    first = parts[0]
    count, size = len(names), len(first.lower)
    windows = np.zeros((count, size, count, first.windows.shape[-1]))
    known = all(part.covariance is not None for part in parts)
    covariance = np.full((count, size, count, size), np.nan) if known else None
    start = 0
    for part in parts:
        own = slice(start, start + len(part.names))
        windows[own, :, own] = part.windows
        if covariance is not None:
            covariance[own, :, own] = part.covariance
        start = own.stop
    stacked = (np.concatenate([getattr(part, key) for part in parts]) for key in ("values", "coupled", "bias"))
    values, coupled, bias = stacked
    return replace(
        first, names=names, values=values, windows=windows, coupled=coupled, bias=bias, covariance=covariance,
        amplitudes=None,
    )  # fmt: skip
