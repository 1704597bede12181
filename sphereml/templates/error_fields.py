"""How a template's errors hang together over the sky: their spectrum, draws of them, and the r(ell) that they allow.

Conventions
-----------
* An error is ``sigma g`` with g a Gaussian field of unit variance, of the spectrum of ``residual / sigma`` where folds
  were held out: freed of the mask's mode coupling, ``ell (ell + 1) C_ell`` constant in bands (what a template misses is
  red), negative ones set to zero.
* ``r_ell = C^ab / sqrt(C^aa C^bb)`` of masked pseudo-spectra, component by component (T, or E and B), averaged over
  bands; g of a field of spin 2 is drawn from EE and BB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sphereml.errors import UserError
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.spectra import band_mean, correlation, cross_spectrum, masked_alms
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.harmonics.workspace import Workspace
from sphereml.simulate.fields import draw_alm
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid

_BAND_WIDTH = 12
# Held-out strips are some degrees wide, so that multipoles nearer than this are not told apart.
_ERROR_BAND_WIDTH = 30


def measure_errors(pulls: Sequence[np.ndarray], masks: Sequence[np.ndarray], field: Field) -> np.ndarray:
    """Spectra of g: TT ``(1, lmax + 1)``, or EE and BB ``(2, lmax + 1)``.

    Args:
        pulls: ``residual / sigma`` of several folds, ``(npix, columns)``.
        masks: where each was held out, ``(npix,)``.

    Raises:
        UserError: a field of spin 1, which has no spectra here.
    """
    if field.spin == 1:
        raise UserError(f"the field {field.name} has spin 1", "errors are of fields of spin 0 or 2")
    lmax = HealpixGrid.of_size(len(masks[0])).safe_lmax
    edges = [*range(2, max(lmax + 2 - _ERROR_BAND_WIDTH, 3), _ERROR_BAND_WIDTH), lmax + 1]
    names = ("EE", "BB") if field.spin else ("TT",)
    found = np.zeros((len(names), len(edges) - 1))
    for pull, mask in zip(pulls, masks, strict=True):
        seen = np.where(mask[:, None] > 0, pull, 0.0)
        workspace = Workspace(mask, edges, spins=(field.spin, field.spin), lmax=lmax, dl=True)
        result = workspace.bandpowers(seen.T if field.spin else seen[:, 0])
        found += mask.sum() * np.stack([result[name] for name in names])
    spectra = np.zeros((len(names), lmax + 1))
    ell = np.arange(lmax + 1)
    spectra[:, 2:] = np.repeat(np.maximum(found, 0), np.diff(edges), axis=1) / (ell * (ell + 1))[2:]
    variance = ((2 * ell + 1) * spectra.mean(axis=0)).sum() / (4 * np.pi)
    return spectra / variance


def draw_field(spectra: np.ndarray, nside: int, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian field ``(npix, columns)`` NEST of TT ``(1, lmax + 1)``, or of spin 2 of EE and BB."""
    alm = np.stack([draw_alm(spectrum, rng) for spectrum in spectra])
    lmax = spectra.shape[1] - 1
    return synthesis(alm[0], nside, lmax)[:, None] if len(alm) == 1 else synthesis(alm, nside, lmax, 2).T


def r_band(
    template: np.ndarray, skies: Sequence[np.ndarray], fields: Sequence[Field], mask: np.ndarray
) -> dict[str, np.ndarray]:
    """``ELL`` and, of every component, ``R_X``, ``R_X_LOW``, ``R_X_HIGH``: median and central 68 % over the skies.

    Args:
        template, skies: ``(npix, columns of the fields)``.
    """
    drawn = [correlations(template, sky, fields, mask) for sky in skies]
    bands = correlation_bands(mask)
    columns = {"ELL": bands.centers}
    for name in drawn[0]:
        low, middle, high = np.quantile([one[name] for one in drawn], [0.16, 0.5, 0.84], axis=0)
        columns |= {f"R_{name}": middle, f"R_{name}_LOW": low, f"R_{name}_HIGH": high}
    return columns


def correlation_bands(mask: np.ndarray) -> Bands:
    """Bands of equal width from ell = 2 to twice the mask's Nside."""
    lmax = HealpixGrid.of_size(mask.size).safe_lmax
    return Bands.edges(*range(2, lmax + 2, _BAND_WIDTH))


def correlations(
    one: np.ndarray, other: np.ndarray, fields: Sequence[Field], mask: np.ndarray, bands: Bands | None = None
) -> dict[str, np.ndarray]:
    """r in bands ``(nband,)`` of two sets of maps ``(npix, columns)``, by component: a field's name, or its E and B."""
    bands = bands or correlation_bands(mask)
    found = {}
    for (name, a), (_, b) in zip(components(one, fields, mask), components(other, fields, mask), strict=True):
        lmax = HealpixGrid.of_size(mask.size).safe_lmax
        spectra = (cross_spectrum(x, y, lmax) for x, y in ((a, b), (a, a), (b, b)))
        found[name] = band_mean(correlation(*spectra), bands)
    return found


def components(maps: np.ndarray, fields: Sequence[Field], mask: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name and a_lm ``(nalm,)``, up to twice the Nside, of every masked component of maps ``(npix, columns)``."""
    lmax, first = HealpixGrid.of_size(mask.size).safe_lmax, 0
    for one in fields:
        rows = maps[:, first : first + one.columns].T.astype(np.float64)
        first += one.columns
        if not one.spin:
            yield one.name, masked_alms(rows, mask, lmax=lmax)[0]
            continue
        yield from zip(one.parity_names, analysis(rows * mask, lmax, one.spin), strict=True)
