"""Drawn skies of a forecast, and the products of their parts that cleaning and spectra are made of.

Conventions: a *part* of the sky is a map ``(2, npix)`` in uK_CMB at the beam's resolution: the CMB, tensors of r = 1,
the noise of each frequency, dust at its reference frequency, and each template.  Cleaning and spectra are (bi)linear,
so the maps of any r, frequency and template are sums of parts, and only the parts are transformed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sphereml.config.forecast import ForecastConfig, ForecastSurvey
from sphereml.data.unit_conversion import conversion_factor
from sphereml.harmonics.filters import gaussian_beam
from sphereml.harmonics.workspace import Workspace
from sphereml.simulate.cmb_spectra import PLANCK_2013, load_spectra, tensor_spectra
from sphereml.simulate.fields import smooth
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize, disc
from sphereml.templates.error_fields import draw_field

REFERENCE_GHZ = 353.0
DRAWN = ("cmb", "tensor", "noise_1", "noise_2")


def dust_scaling(frequency: float, beta: float, temperature: float) -> float:
    """uK_CMB at ``frequency`` (GHz) per uK_RJ at 353 GHz of a modified black body, ``nu^beta B_nu(T)``.

    Bands are not integrated over.
    """
    from scipy.constants import h, k

    def brightness(ghz: float) -> float:
        x = 1e9 * h * ghz / (k * temperature)
        return float(ghz ** (beta + 1) / math.expm1(x))  # Rayleigh-Jeans: B_nu / nu^2

    ratio = brightness(frequency) / brightness(REFERENCE_GHZ)
    return ratio * conversion_factor("uK_RJ", "uK_CMB", frequency)


@dataclass(frozen=True, eq=False)
class Theory:
    """Spectra of the skies: ``cmb`` (lensed) and ``tensor`` (r = 1), each EE and BB ``(2, lmax + 1)`` in uK^2."""

    cmb: np.ndarray
    tensor: np.ndarray

    @classmethod
    def to_lmax(cls, lmax: int) -> Theory:
        """CAMB's, in the cosmology of Planck 2013."""
        kept = load_spectra()
        cmb = np.stack([kept.ee_lensed, kept.bb_lensed])[:, : lmax + 1]
        return cls(cmb, np.stack(tensor_spectra(lmax, PLANCK_2013)))


def target_cmb(theory: Theory, nside: int, seed: int, sky: int) -> np.ndarray:
    """CMB of a drawn sky as a target of dust at 353 GHz holds it, without a beam: ``(npix, 2)`` uK_RJ.

    A generator's first deviates are those of the CMB, in :meth:`SurveyField.draw` too.
    """
    factor = conversion_factor("uK_CMB", "uK_RJ", REFERENCE_GHZ)
    return factor * draw_field(theory.cmb, nside, np.random.default_rng([seed, sky]))


@dataclass(frozen=True, eq=False)
class Products:
    """What parts have in common, for ``n`` and ``m`` of them.

    Attributes:
        spectra: pseudo-spectra EE and pure BB, ``(n, m, 2, lmax + 1)``.
        bandpowers: decoupled BB, ``(n, m, nbin)``.
        overlaps: scalar products of the masked maps, ``(n, m)``.
    """

    spectra: np.ndarray
    bandpowers: np.ndarray
    overlaps: np.ndarray


@dataclass(frozen=True, eq=False)
class SurveyField:
    """The masked sky of one survey; ``mirrored``: its like on the other side of the equator, where templates learn."""

    survey: ForecastSurvey
    config: ForecastConfig
    grid: HealpixGrid
    mirrored: bool = False

    @cached_property
    def workspace(self) -> Workspace:
        lat = -self.survey.lat if self.mirrored else self.survey.lat
        mask = apodize(disc(self.grid, self.survey.lon, lat, self.survey.radius), self.grid, self.survey.taper)
        beam = gaussian_beam(3 * self.grid.nside - 1, self.config.beam_arcmin)
        return Workspace(mask, self.config.edges, beam, spins=(2, 2), purify_b=True, lmax=self.lmax)

    @property
    def lmax(self) -> int:
        """Of the drawn skies, as far as HEALPix transforms are exact; the bands end below."""
        return self.grid.safe_lmax

    def draw(self, theory: Theory, rng: np.random.Generator) -> np.ndarray:
        """The parts that are drawn anew, ``(4, 2, npix)`` as in :data:`DRAWN`."""
        beam = self.workspace.beams[0][: self.lmax + 1]
        spectra = (beam**2 * both[:, : self.lmax + 1] for both in (theory.cmb, theory.tensor))
        signals = [draw_field(both, self.grid.nside, rng).T for both in spectra]
        side = math.degrees(math.sqrt(self.grid.pixel_area)) * 60
        noises = [level / side * rng.standard_normal((2, self.grid.npix)) for level in self.survey.noise]
        return np.stack([*signals, *noises])

    def smoothed(self, maps: np.ndarray) -> np.ndarray:
        """Maps ``(..., 2, npix)`` at the beam's resolution."""
        return smooth(maps, self.workspace.beams[0][: self.lmax + 1], spin=2)

    def alms(self, maps: np.ndarray) -> np.ndarray:
        """Coefficients of masked E and pure B, ``(n, 2, nalm)``.

        At Nside 128 three iterations, or multipoles to 3 nside - 1, would change BB bandpowers by 2e-4 at most.
        """
        field = self.workspace.fields[0]
        return np.stack([field.alms(one, field.bias_iterations) for one in maps])

    def products(self, first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> Products:
        """Products of parts, each given as maps ``(n, 2, npix)`` and their coefficients."""
        workspace, field = self.workspace, self.workspace.fields[0]
        pairs = [[field.cross_spectra(a, b) for b in second[1]] for a in first[1]]
        spectra = np.array(pairs)
        coupled = spectra.reshape(*spectra.shape[:2], 4, -1)
        binned = np.einsum("nmcl,bl->cbnm", coupled, workspace.binning)
        decoupled = workspace.solve(binned)[workspace.names.index("BB")]
        masked = [field.weighted(maps).reshape(len(maps), -1) for maps, _ in (first, second)]
        diagonal = np.stack([spectra[:, :, i, i] for i in (0, 1)], axis=2)
        return Products(diagonal, np.moveaxis(decoupled, 0, -1), masked[0] @ masked[1].T)


def joined(new: Products, between: Products, kept: Products) -> Products:
    """Products of all parts from those of the new, of the new with the kept, and of the kept ones."""

    def whole(name: str) -> np.ndarray:
        a, b, c = (getattr(products, name) for products in (new, between, kept))
        return np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([b.swapaxes(0, 1), c], axis=1)])

    return Products(whole("spectra"), whole("bandpowers"), whole("overlaps"))
