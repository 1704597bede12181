"""The table of signs in docs/spin.md, recomputed: healpy, ducc0, COSMO and IAU, and the derivatives of jets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import ducc0
import healpy
import numpy as np
import pytest

from sphereml.harmonics.transforms import alm_index, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.jets import Jets
from sphereml.sky.regions import Region
from sphereml.sky.tangent import LocalFrames

DOCS = Path(__file__).parents[1] / "docs" / "spin.md"
NSIDE, LMAX = 32, 8
ELL = alm_index(LMAX)[0]
RAISED = np.sqrt(np.maximum((ELL + 2.0) * (ELL + 1) * ELL * (ELL - 1), 0))
LAPLACIAN = ELL * (ELL + 1.0)


def random_alm(count: int = 1) -> np.ndarray:
    order = alm_index(LMAX)[1]
    rng = np.random.default_rng(0)
    alm = rng.standard_normal((count, ELL.size)) + 1j * rng.standard_normal((count, ELL.size))
    alm[:, order == 0] = alm[:, order == 0].real
    return alm * (ELL >= 2)


E, B = random_alm(2)
NOTHING = np.zeros_like(E)


def spin(e: np.ndarray, b: np.ndarray, number: int) -> np.ndarray:
    """Our field of a spin, complex ``(npix,)``."""
    real, imaginary = synthesis(np.stack([e, b])[None], NSIDE, LMAX, number)[0]
    return real + 1j * imaginary


def scalar(alm: np.ndarray) -> np.ndarray:
    return synthesis(alm[None], NSIDE, LMAX)[0]


def derivative(field: np.ndarray, of_spin: int, up: int, down: int) -> np.ndarray:
    jets = Jets(Region(NSIDE), LocalFrames(NSIDE), np.arange(field.size), 4)
    scale = HealpixGrid(NSIDE).pixel_area ** ((up + down) / 2)
    return (field[jets.neighbours] * jets.coefficients(of_spin, up, down)).sum(axis=1) / scale


def healpy_qu() -> np.ndarray:
    q, u = healpy.alm2map_spin([E, B], NSIDE, 2, LMAX)
    return healpy.reorder(q, r2n=True) + 1j * healpy.reorder(u, r2n=True)


def ducc_field(number: int) -> np.ndarray:
    geometry = ducc0.healpix.Healpix_Base(NSIDE, "RING").sht_info()
    real, imaginary = ducc0.sht.synthesis(alm=np.stack([E, B]), spin=number, lmax=LMAX, **geometry)
    return healpy.reorder(real, r2n=True) + 1j * healpy.reorder(imaginary, r2n=True)


def gradient() -> np.ndarray:
    """healpy's derivatives of the scalar with E's a_lm: along colatitude (south) and along longitude (east)."""
    _, south, east = healpy.alm2map_der1(E, NSIDE, LMAX)
    return healpy.reorder(south, r2n=True) + 1j * healpy.reorder(east, r2n=True)


def sign_of(ours: np.ndarray, reference: np.ndarray) -> float:
    """+1 or -1, where the two agree up to it; else fails."""
    sign = np.sign(np.vdot(reference, ours).real)
    assert np.abs(ours - sign * reference).max() < 0.02 * np.abs(reference).max()
    return float(sign)


def in_iau(field: np.ndarray) -> np.ndarray:
    """``Q + iU`` in IAU's basis (north, east), by way of the polarization's direction, from south towards east."""
    along, across = np.cos(np.angle(field) / 2), np.sin(np.angle(field) / 2)
    return np.abs(field) * (-along + 1j * across) ** 2


ROWS: dict[str, Callable[[], float]] = {
    "healpy's alm2map_spin(E, B), spin 2": lambda: sign_of(spin(E, B, 2), healpy_qu()),
    "ducc0's synthesis(E, B), spin 2": lambda: sign_of(spin(E, B, 2), ducc_field(2)),
    "ducc0's synthesis(E, B), spin 1": lambda: sign_of(spin(E, B, 1), ducc_field(1)),
    "U of IAU": lambda: sign_of(spin(E, B, 2).imag, in_iau(spin(E, B, 2)).imag),
    "Q of IAU": lambda: sign_of(spin(E, B, 2).real, in_iau(spin(E, B, 2)).real),
    "D f, the gradient of healpy's alm2map_der1": lambda: sign_of(derivative(scalar(E), 0, 1, 0), gradient()),
    "D f, spin 1 with E = sqrt(l (l + 1)) f": lambda: sign_of(
        derivative(scalar(E), 0, 1, 0), spin(np.sqrt(LAPLACIAN) * E, NOTHING, 1)
    ),
    "i D f, spin 1 with B = sqrt(l (l + 1)) f": lambda: sign_of(
        1j * derivative(scalar(E), 0, 1, 0), spin(NOTHING, np.sqrt(LAPLACIAN) * E, 1)
    ),
    "D D* f, l (l + 1) f": lambda: sign_of(derivative(scalar(E), 0, 1, 1).real, scalar(LAPLACIAN * E)),
    "D^2 f, spin 2 with E = sqrt((l + 2)! / (l - 2)!) f": lambda: sign_of(
        derivative(scalar(E), 0, 2, 0), spin(RAISED * E, NOTHING, 2)
    ),
    "i D^2 f, spin 2 with B = sqrt((l + 2)! / (l - 2)!) f": lambda: sign_of(
        1j * derivative(scalar(E), 0, 2, 0), spin(NOTHING, RAISED * E, 2)
    ),
    "D* of spin 1, sqrt(l (l + 1)) (E + iB)": lambda: sign_of(
        derivative(spin(E, B, 1), 1, 0, 1), scalar(np.sqrt(LAPLACIAN) * E) + 1j * scalar(np.sqrt(LAPLACIAN) * B)
    ),
    "D*^2 of spin 2, sqrt((l + 2)! / (l - 2)!) (E + iB)": lambda: sign_of(
        derivative(spin(E, B, 2), 2, 0, 2), scalar(RAISED * E) + 1j * scalar(RAISED * B)
    ),
}


def documented() -> dict[str, float]:
    rows = re.findall(r"^\| (.+?) +\| ([+-])1 \|$", DOCS.read_text(), re.MULTILINE)
    return {name.replace("`", "").strip(): 1.0 if sign == "+" else -1.0 for name, sign in rows}


def test_the_table_lists_what_is_checked():
    assert set(documented()) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_signs_are_the_documented_ones(name):
    assert ROWS[name]() == documented()[name]
