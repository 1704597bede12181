"""How well jets recover E and B: ``D*^2 (Q + iU)`` against its exact value, by multipole, band limit and place.

Skies are Gaussian, with the exact ``-sqrt((l + 2)! / (l - 2)!) (E + iB)`` white up to the band limit and no noise, so
that the largest multipoles weigh most.  Errors are in units of the exact field's standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.harmonics.spectra import cross_spectrum
from sphereml.harmonics.transforms import alm_index, analysis, synthesis
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.plotting.jets import places_on_the_sky, transfer_curves
from sphereml.plotting.style import write_png
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.jets import Jets
from sphereml.sky.regions import Region
from sphereml.sky.rotations import frame_at
from sphereml.sky.tangent import LocalFrames

_AT_ONCE = 2**15
_POLAR = 85.0  # degrees of latitude


@dataclass(frozen=True)
class Recovery:
    """A found and an exact complex field ``(npix,)`` NEST, even real part and odd imaginary part."""

    found: np.ndarray
    exact: np.ndarray

    def correlations(self) -> dict[str, float]:
        """r of E and of B over all pixels; cross-talk, r of found E and exact B beyond that of the exact ones."""

        def r(a: np.ndarray, b: np.ndarray) -> float:
            return float(np.corrcoef(a, b)[0, 1])

        found, exact = self.found, self.exact
        cross = abs(r(found.real, exact.imag) - r(exact.real, exact.imag))
        return {"r_e": r(found.real, exact.real), "r_b": r(found.imag, exact.imag), "cross_talk": cross}

    @property
    def errors(self) -> np.ndarray:
        """Modulus of the difference over the exact field's rms modulus, ``(npix,)``."""
        return np.abs(self.found - self.exact) / np.sqrt(np.mean(np.abs(self.exact) ** 2))

    def by_multipole(self, lmax: int) -> tuple[np.ndarray, np.ndarray]:
        """Transfer ``C^fe / C^ee`` and correlation ``r_ell`` of found and exact E, ``(lmax + 1,)``."""
        found, exact = (analysis(field.real, lmax) for field in (self.found, self.exact))
        fe, ff, ee = (cross_spectrum(*pair, lmax) for pair in ((found, exact), (found, found), (exact, exact)))
        with np.errstate(invalid="ignore", divide="ignore"):
            return fe / ee, fe / np.sqrt(ff * ee)


@dataclass(frozen=True)
class JetBenchmark:
    """Recovery at one Nside by fits of one degree (2: 3x3 pixels, 4: 5x5)."""

    nside: int
    degree: int = 2

    def measure(self) -> dict[str, Any]:
        """``{"bands": {"0.5 nside": {"r_e", "r_b", "cross_talk", "worst", ...}, ...}, ...}``.

        ``worst`` is the largest error of any pixel, ``worst_corner`` of the pixels with seven neighbours or whose
        window holds such a corner, ``worst_polar`` of those within five degrees of a pole; ``rms`` that of all.
        """
        return {
            "nside": HealpixGrid(self.nside).nside,
            "pixels": f"{self.degree + 1}x{self.degree + 1}",
            "bands": {f"{share:g} nside": self._scores(round(share * self.nside)) for share in (0.5, 1, 2)},
        }

    def recovery(self, lmax: int, seed: int = 0) -> Recovery:
        """A sky white after two derivatives up to ``lmax``, its jets and the exact field."""
        ell, order = alm_index(lmax)
        rng = np.random.default_rng(seed)
        white = rng.standard_normal((2, ell.size)) + 1j * rng.standard_normal((2, ell.size))
        white[:, order == 0] = np.sqrt(2) * white[:, order == 0].real
        white[:, ell < 2] = 0
        raised = -np.sqrt((ell + 2.0) * (ell + 1) * np.maximum(ell * (ell - 1), 1))
        q, u = synthesis((white / raised)[None], self.nside, lmax, spin=2)[0]
        e, b = synthesis(white, self.nside, lmax)
        return Recovery(np.concatenate(list(self._derivatives(q + 1j * u))), e + 1j * b)

    def corners(self) -> np.ndarray:
        """Pixels whose window misses some, bool ``(npix,)``."""
        return np.concatenate([~jets.present.all(axis=1) for jets in self._jets()])

    def _scores(self, lmax: int) -> dict[str, float]:
        recovery = self.recovery(lmax)
        errors, polar = recovery.errors, np.abs(HealpixGrid(self.nside).lonlat()[1]) > _POLAR
        return recovery.correlations() | {
            "rms": float(np.sqrt(np.mean(errors**2))),
            "worst": float(errors.max()),
            "worst_corner": float(errors[self.corners()].max()),
            "worst_polar": float(errors[polar].max()),
        }

    def _jets(self) -> Iterator[Jets]:
        npix = HealpixGrid(self.nside).npix
        region, frames = Region(self.nside), LocalFrames(self.nside)
        for start in range(0, npix, _AT_ONCE):
            yield Jets(region, frames, np.arange(start, min(start + _AT_ONCE, npix)), self.degree)

    def _derivatives(self, field: np.ndarray) -> Iterator[np.ndarray]:
        area = HealpixGrid(self.nside).pixel_area
        for jets in self._jets():
            yield (field[jets.neighbours] * jets.coefficients(2, 0, 2)).sum(axis=1) / area


def draw_figures(nside: int, folder: Path) -> list[Path]:
    """Transfer and correlation by multipole, and maps around a pole and a corner of base pixels, as PNG files."""
    degrees, corner = (2, 4), float(np.degrees(np.arcsin(2 / 3)))
    names = {degree: f"{degree + 1}x{degree + 1} pixels" for degree in degrees}
    wide = {name: JetBenchmark(nside, degree).recovery(2 * nside) for degree, name in names.items()}
    curves = {name: (nside, *recovery.by_multipole(2 * nside)) for name, recovery in wide.items()}
    narrow = {name: JetBenchmark(nside, degree).recovery(nside) for degree, name in names.items()}
    frames = {"north pole": frame_at(0, 90), "corner of base pixels": frame_at(0, corner)}
    images = {place: _images(narrow, frame, nside) for place, frame in frames.items()}
    drawn = {"spin_transfer": transfer_curves(curves), "spin_places": places_on_the_sky(images)}
    return [write_png(figure, folder / f"{name}.png", dpi=70) for name, figure in drawn.items()]


def _images(recoveries: dict[str, Recovery], frame: np.ndarray, nside: int) -> dict[str, np.ndarray]:
    """E, what the first recovery finds, and ten times the error of all, in standard deviations, over 27 degrees."""
    pixels = HealpixGrid(nside).pixels_at(GnomonicPatch(90, 18).vectors(frame))
    first = next(iter(recoveries.values()))
    shown = {"exact E": first.exact, "found": first.found}
    shown |= {f"10 x error, {name}": 10 * (own.found - own.exact) for name, own in recoveries.items()}
    return {name: field.real[pixels] / first.exact.real.std() for name, field in shown.items()}
