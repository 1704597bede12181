"""Small files in the formats of the HI4PI archive, all made from one sky that is known everywhere.

The sky is analytic: clouds ``A exp(-(1 - n.c) / s^2)`` in direction and Gaussian in velocity, K.  Its second
derivatives are bounded by ``sum A / s^2``, so the error of any interpolation can be stated and asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import healpy
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from sphereml.data.channels import ChannelSource
from sphereml.data.store import COLUMN_PER_K_KMS
from sphereml.data.velocity import VelocityAxis
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid

HI4PI_STEP = 1288.21496  # m/s
TILE = 20.0  # degrees
TILE_ROWS = "ABCDEFGHI"


@dataclass(frozen=True)
class AnalyticSky:
    """Clouds: ``amplitude`` K, ``size`` s radians, ``centre`` (l, b) degrees, ``velocity`` and ``dispersion`` km/s."""

    amplitude: tuple[float, ...] = (8.0, 5.0, 3.0, 4.0, 2.0, 6.0)
    size: tuple[float, ...] = (0.5, 0.3, 0.2, 0.25, 0.2, 0.4)
    centre: tuple[tuple[float, float], ...] = ((0, 0), (180, 2), (75, 60), (200, -80), (359, -35), (300, 88))
    velocity: tuple[float, ...] = (-3.0, -20.0, 8.0, -45.0, 2.0, 12.0)
    dispersion: tuple[float, ...] = (12.0, 9.0, 6.0, 10.0, 15.0, 8.0)

    def temperature(self, vectors: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """``(..., nchan)`` K at Galactic unit vectors ``(..., 3)`` and velocities ``(nchan,)`` km/s."""
        total = np.zeros((*vectors.shape[:-1], len(velocity)))
        clouds = zip(self.amplitude, self.size, self.centre, self.velocity, self.dispersion, strict=True)
        for amplitude, size, (lon, lat), middle, dispersion in clouds:
            distance = 1 - vectors @ healpy.ang2vec(lon, lat, lonlat=True)
            profile = np.exp(-((velocity - middle) ** 2) / (2 * dispersion**2))
            total += amplitude * np.exp(-distance / size**2)[..., None] * profile
        return total

    def channels(self, nside: int, velocity: np.ndarray) -> np.ndarray:
        """``(npix, nchan)`` K at the pixel centres, NEST."""
        return self.temperature(HealpixGrid(nside).vectors(), velocity)

    @property
    def curvature(self) -> float:
        """Bound of the second derivative along any great circle, K per square radian."""
        return float(sum(a / s**2 for a, s in zip(self.amplitude, self.size, strict=True)))


@dataclass(frozen=True)
class ArchiveAxis:
    """HI4PI's velocity cards, fewer channels on request: zero at pixel ``zero`` (from 1)."""

    channels: int = 933
    zero: float = 466.0
    step: float = HI4PI_STEP

    def cards(self) -> dict[str, Any]:
        return {
            "CTYPE3": "VRAD",
            "CUNIT3": "m/s",
            "CRPIX3": self.zero,
            "CRVAL3": 0.0,
            "CDELT3": self.step,
            "SPECSYS": "LSRK",
            "RESTFRQ": 1.42040575177e9,
        }

    @property
    def axis(self) -> VelocityAxis:
        return VelocityAxis.uniform((1 - self.zero) * self.step / 1e3, self.step / 1e3, self.channels)


SHORT_AXIS = ArchiveAxis(channels=7, zero=4.0, step=8 * HI4PI_STEP)


@dataclass(frozen=True)
class HpxLayout:
    """How the HPX tables are written; a card given as None is left out."""

    nside: int = 16
    files: int = 4
    nested: bool = False
    cards: Mapping[str, Any] = field(default_factory=dict)


def write_hpx_tables(
    folder: Path, sky: AnalyticSky, axis: ArchiveAxis = SHORT_AXIS, layout: HpxLayout = HpxLayout()
) -> list[Path]:
    """``HPX_001.fits`` ...: the whole sky in ``layout.files`` tables, pixels dealt out in turn and shuffled."""
    values = sky.channels(layout.nside, axis.axis.centres).astype(np.float32)
    pixels = np.random.default_rng(0).permutation(len(values))
    paths = []
    for number in range(layout.files):
        nest = pixels[number :: layout.files]
        index = nest if layout.nested else healpy.nest2ring(layout.nside, nest)
        ordering = "NESTED" if layout.nested else "RING"
        cards = {"NSIDE": layout.nside, "ORDERING": ordering, "COORDSYS": "G", **axis.cards(), **layout.cards}
        paths.append(write_hpx_table(folder / f"HPX_{number + 1:03d}.fits", index, values[nest], cards))
    return paths


def write_hpx_table(path: Path, index: np.ndarray, spectra: np.ndarray, cards: Mapping[str, Any]) -> Path:
    """One table: HPXINDEX ``(n,)`` and DATA ``(n, nchan)`` K."""
    columns = [
        fits.Column(name="HPXINDEX", format="J", array=index),
        fits.Column(name="DATA", format=f"{spectra.shape[1]}E", unit="K", array=spectra),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.header.update({card: value for card, value in cards.items() if value is not None})
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
    return path


def plate_carree(lon: float, lat: float, shape: tuple[int, int], pixel: float, **cards: Any) -> fits.Header:
    """Celestial cards of a Galactic CAR image ``(ny, nx)`` centred on ``(lon, lat)``, longitude growing to the left."""
    ny, nx = shape
    header = fits.Header()
    # The reference stays on the equator, else CAR would be oblique (Calabretta & Greisen 2002, sec. 7.1).
    header.update(
        {"CTYPE1": "GLON-CAR", "CRVAL1": lon, "CRPIX1": (nx + 1) / 2, "CDELT1": -pixel, "CUNIT1": "deg"}
        | {"CTYPE2": "GLAT-CAR", "CRVAL2": 0.0, "CRPIX2": (ny + 1) / 2 - lat / pixel, "CDELT2": pixel, "CUNIT2": "deg"}
        | {"BUNIT": "K"}
        | cards
    )
    return header


def write_cube(path: Path, sky: AnalyticSky, header: fits.Header, shape: tuple[int, int], axis: ArchiveAxis) -> Path:
    """A Galactic cube ``(nchan, ny, nx)`` float32, NaN where the header's projection leaves the sky."""
    y, x = np.indices(shape)
    lon, lat = WCS(header).celestial.wcs_pix2world(x.ravel(), y.ravel(), 0)
    beyond = ~(np.abs(lat) <= 90)
    vectors = healpy.ang2vec(np.where(beyond, 0, lon), np.where(beyond, 0, lat), lonlat=True)
    values = np.where(beyond[:, None], np.nan, sky.temperature(vectors, axis.axis.centres))
    header = header.copy()
    header.update(axis.cards())
    fits.PrimaryHDU(values.T.reshape(-1, *shape).astype(np.float32), header).writeto(path, overwrite=True)
    return path


def write_allsky_car(path: Path, sky: AnalyticSky, pixel: float = 1.0, axis: ArchiveAxis = SHORT_AXIS) -> Path:
    """``CAR.fits``: the sky with three columns more than a turn and rows beyond the poles (NaN), as in the archive."""
    shape = (round(180 / pixel) + 3, round(360 / pixel) + 3)
    return write_cube(path, sky, plate_carree(0.0, 0.0, shape, pixel), shape, axis)


def write_car_tiles(
    folder: Path, sky: AnalyticSky, pixel: float = 1.0, margin: int = 3, axis: ArchiveAxis = SHORT_AXIS
) -> list[Path]:
    """``CAR_A01.fits`` to ``CAR_I18.fits``: 20-degree tiles that reach ``margin`` pixels into their neighbours."""
    side = round(TILE / pixel) + 2 * margin
    paths = []
    for row, letter in enumerate(TILE_ROWS):
        for column in range(18):
            header = plate_carree(TILE * (column + 0.5), -90 + TILE * (row + 0.5), (side, side), pixel)
            paths.append(write_cube(folder / f"CAR_{letter}{column + 1:02d}.fits", sky, header, (side, side), axis))
    return paths


def write_listed_map(path: Path, pixels: np.ndarray, values: np.ndarray, unit: str = "cm-2", **cards: Any) -> Path:
    """A HEALPix table that lists its pixels (``INDXSCHM = EXPLICIT``); a card given as None is left out."""
    columns = [
        fits.Column(name="PIXEL", format="J", array=pixels),
        fits.Column(name="NHI", format="E", unit=unit, array=values),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    header = {"PIXTYPE": "HEALPIX", "ORDERING": "RING", "COORDSYS": "G", "NSIDE": 8} | {"INDXSCHM": "EXPLICIT"} | cards
    table.header.update({card: value for card, value in header.items() if value is not None})
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
    return path


def column_density(source: ChannelSource, channels: Sequence[int] | np.ndarray = ()) -> np.ndarray:
    """Optically thin gas column ``(npix,)`` float64 cm^-2, ``1.823e18 sum_v T_v dv`` (Dickey & Lockman 1990, eq. 3).

    Args:
        channels: which to sum; all when empty.
    Returns:
        NaN where any of the channels has no data.
    """
    total = np.zeros(HealpixGrid(source.nside).npix)
    for channel in channels if len(channels) else range(len(source.axis)):
        total += COLUMN_PER_K_KMS * source.axis.widths[channel] * source.read(int(channel))
    return total


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """The body raises a UserError of one line that holds the words."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
