"""Cubes of other people that were once refused, or read wrongly, with the right values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from fixtures_archive import refused

from sphereml.data.car_cubes import open_cubes
from sphereml.data.cube_files import UnsaidCubeCards

COLUMNS, ROWS, CHANNELS, STEP = 144, 73, 11, 1.288
VELOCITY = (np.arange(CHANNELS) - CHANNELS // 2) * STEP
LINES = {
    "CTYPE1": "GLON-CAR", "CRPIX1": 72.5, "CDELT1": -2.5, "CRVAL1": 0.0, "CUNIT1": "deg",
    "CTYPE2": "GLAT-CAR", "CRPIX2": 37.0, "CDELT2": 2.5, "CRVAL2": 0.0, "CUNIT2": "deg",
    "CTYPE3": "VRAD", "CRPIX3": 6.0, "CDELT3": STEP, "CRVAL3": 0.0, "CUNIT3": "km/s", "SPECSYS": "LSRK", "BUNIT": "K",
}  # fmt: skip


def brightness() -> np.ndarray:
    """A line whose centre moves over the sky, ``(channels, rows, columns)`` K."""
    lat = np.radians(-90 + 2.5 * np.arange(ROWS))[None, :, None]
    lon = np.radians(np.mod(-(np.arange(COLUMNS) - 71.5) * 2.5, 360))[None, None, :]
    centre = 5 * np.sin(lon) * np.cos(lat)
    return np.asarray(5 * np.exp(-((VELOCITY[:, None, None] - centre) ** 2) / 2 / 2.5**2))


def write_lines(path: Path, values: np.ndarray, changes: dict[str, Any] | None = None) -> Path:
    header = fits.Header()
    header.update(LINES)
    for key, value in (changes or {}).items():
        if value is None:
            del header[key]
        else:
            header[key] = value
    fits.PrimaryHDU(values.astype(np.float32), header).writeto(path, overwrite=True)
    return path


def wcs_header() -> dict[str, Any]:
    """What astropy writes for a header with a CD matrix."""
    header = fits.Header()
    header.update({key: value for key, value in LINES.items() if not key.startswith("CDELT")})
    header.update({"CD1_1": -2.5, "CD2_2": 2.5, "CD3_3": STEP})
    return {key: None for key in LINES if key.startswith("CDELT")} | dict(WCS(header).to_header())


UPRIGHT = {f"PC{i}_{j}": float(i == j) for i in (1, 2, 3) for j in (1, 2, 3)}
MATRICES: dict[str, dict[str, Any]] = {
    "PC scales the step": {"CDELT3": 1.0, "PC3_3": STEP},
    "CD": {"CDELT1": None, "CDELT2": None, "CDELT3": None, "CD1_1": -2.5, "CD2_2": 2.5, "CD3_3": STEP},
    "as astropy writes CD": wcs_header(),
    "unit PC": UPRIGHT,
    "PC of old CASA": {key.replace("PC", "PC0").replace("_", "_0"): value for key, value in UPRIGHT.items()},
    "a Stokes axis that is gone": {"CTYPE4": "STOKES", "CRPIX4": 1.0, "CDELT4": 1.0, "CRVAL4": 1.0, "WCSAXES": 4},
    "a spectral axis that is gone": {"CTYPE5": "FREQ", "CRPIX5": 1.0, "CDELT5": 1.0, "CRVAL5": 1.4e9},
}


@pytest.mark.parametrize("case", MATRICES)
def test_steps_may_stand_in_any_matrix(tmp_path: Path, case: str) -> None:
    plain = open_cubes([write_lines(tmp_path / "plain.fits", brightness())], 8)
    ours = open_cubes([write_lines(tmp_path / "cube.fits", brightness(), MATRICES[case])], 8)
    np.testing.assert_allclose(ours.axis.centres, VELOCITY, atol=1e-9)
    np.testing.assert_allclose(ours.axis.widths, STEP)
    np.testing.assert_allclose(ours.read(5), plain.read(5), atol=1e-5)


def test_a_matrix_that_mixes_sky_and_velocity_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "cube.fits", brightness(), UPRIGHT | {"PC1_3": 0.1})
    with refused("cube.fits", "PC1_3=0.1"):
        open_cubes([path], 8)


def test_what_a_cube_says_of_its_unit_decides(tmp_path: Path) -> None:
    kelvin = open_cubes([write_lines(tmp_path / "k.fits", brightness())], 8)
    path = write_lines(tmp_path / "mk.fits", 1e3 * brightness(), {"BUNIT": "mK"})
    milli = open_cubes([path], 8, UnsaidCubeCards(unit="K"))
    np.testing.assert_allclose(milli.read(5), kelvin.read(5), rtol=1e-5)


def test_every_channel_has_the_data_of_its_own_samples(tmp_path: Path) -> None:
    full = brightness()
    weak = open_cubes([write_lines(tmp_path / "signal.fits", np.where(full > 1, full, np.nan))], 16)
    whole = open_cubes([write_lines(tmp_path / "whole.fits", full)], 16)
    area = np.cos(np.radians(-90 + 2.5 * np.arange(ROWS)))[:, None] * np.ones(COLUMNS)
    for channel in (2, 5, 8):
        values = weak.read(channel)
        share = (area * (full[channel] > 1)).sum() / area.sum()
        assert np.isfinite(values).mean() == pytest.approx(share, abs=0.02)
        known = np.isfinite(values)
        # Beside the edge of the signal the weaker half of a pixel's samples is missing.
        assert np.abs(values - whole.read(channel))[known].max() < 0.3
    blank = full.copy()
    blank[[0, CHANNELS // 2, CHANNELS - 1]] = np.nan
    others = open_cubes([write_lines(tmp_path / "blank.fits", blank)], 16)
    np.testing.assert_array_equal(others.read(3), whole.read(3))
    with refused("channel 5", "no data"):
        others.read(5)
