"""One spectral cube in a FITS image: where its planes are, its sky coordinates, its velocity axis.

Layout: axes 1 and 2 are celestial, one further axis is spectral, any other has length one (Stokes).  A plane is
``(ny, nx)`` float32 K, NaN where blank, and is read by itself from its place in the file.  Positions ``(x, y)`` in a
plane count from 0 at the centre of the first pixel.  Longitude may grow either way and may wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units
from astropy.coordinates import CartesianRepresentation, Galactic, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area, wcs_to_celestial_frame

from sphereml.config.bounds import refuse_beyond_memory
from sphereml.data.channels import kelvin_factor
from sphereml.data.cube_headers import celestial_wcs
from sphereml.data.fits_checksums import refuse_stale
from sphereml.data.fits_files import FitsFile, Unit, open_fits, refuse_compressed
from sphereml.data.stored_values import Scaling
from sphereml.data.velocity import VelocityAxis, spectral_axis_number, velocity_axis
from sphereml.errors import UserError

# Projections in which the native longitude runs along x, so that x repeats after 360 degrees.
_CYLINDRICAL = ("CAR", "CEA", "CYP", "MER")
# Directions per side of a cube's outline: enough to find the cap that holds it.
_OUTLINE = 33


@dataclass(frozen=True)
class UnsaidCubeCards:
    """What the archive's documentation says where a cube's header is silent: unit, frame of velocities, beam."""

    unit: str = ""
    velocity_frame: str = ""
    beam_arcmin: float | None = None


SILENT = UnsaidCubeCards()


@dataclass(frozen=True, eq=False)
class CubeFile:
    """One cube; no data.

    Args:
        path: the file.
        unit: its header and where its data begin.
        stored: numpy type of the stored values.
        shape: ``(ny, nx)`` of a plane.
        scaling: stored to physical values.
        kelvin: physical values to K.
        wcs: celestial world coordinates of a plane.
        to_cube: ``(3, 3)`` rotation such that ``cube = galactic @ to_cube`` for row vectors.
        period: pixels in 360 degrees along x, 0 where x does not repeat.
        beam_arcmin: full width at half maximum, None where not known.
    """

    path: Path
    unit: Unit
    stored: np.dtype
    shape: tuple[int, int]
    scaling: Scaling
    kelvin: float
    wcs: WCS
    to_cube: np.ndarray
    period: float
    axis: VelocityAxis
    beam_arcmin: float | None

    def plane(self, channel: int) -> np.ndarray:
        """One channel, float32 ``(ny, nx)`` K, NaN where blank; reads only that plane."""
        size = self.shape[0] * self.shape[1]
        place = self.unit.start + channel * size * self.stored.itemsize
        stored = np.fromfile(self.path, dtype=self.stored, count=size, offset=place)
        return self.scaling.apply(stored.reshape(self.shape)) * np.float32(self.kelvin)

    def refuse_stale(self) -> None:
        """Raise UserError when a checksum that the cube carries is not that of its bytes; reads all of them."""
        with open_fits(self.path):
            refuse_stale(self.unit)

    @property
    def pixel_size(self) -> float:
        """Square root of the pixel area at the projection's centre, degrees."""
        return float(np.sqrt(proj_plane_pixel_area(self.wcs)))

    @property
    def closes(self) -> bool:
        """Whether x goes all around, so that the last column is a neighbour of the first."""
        return 0 < self.period < self.shape[1] + 0.01

    def positions(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(x, y)``, each ``(n,)``, of Galactic unit vectors ``(n, 3)``; NaN where the projection has none."""
        x_axis, y_axis, z_axis = (vectors @ self.to_cube).T
        longitude, latitude = np.degrees(np.arctan2(y_axis, x_axis)), np.degrees(np.arcsin(z_axis.clip(-1, 1)))
        x, y = self.wcs.wcs_world2pix(longitude, latitude, 0)
        if self.period:
            # The image may lie a turn away from where the projection puts its native longitude; an image longer than
            # a turn may be blank at its ends, so the turn about its middle is taken.
            start = (self.shape[1] - 1 - self.period) / 2
            x = np.mod(x - start, self.period) + start
        return x, y

    def cap(self) -> tuple[np.ndarray, float]:
        """Galactic unit vector ``(3,)`` and radius (degrees) of a cap that holds the whole image."""
        (ny, nx), middle = self.shape, self._directions(*((n - 1) / 2 for n in self.shape[::-1]))[0]
        along_x, along_y = np.linspace(-0.5, nx - 0.5, _OUTLINE), np.linspace(-0.5, ny - 0.5, _OUTLINE)
        x = np.concatenate([along_x, along_x, np.full(_OUTLINE, -0.5), np.full(_OUTLINE, nx - 0.5)])
        y = np.concatenate([np.full(_OUTLINE, -0.5), np.full(_OUTLINE, ny - 0.5), along_y, along_y])
        radius = np.degrees(np.arccos((self._directions(x, y) @ middle).clip(-1, 1))).max()
        # Beyond 90 degrees an outline no longer says what it encloses; a projection may not even reach its corners.
        whole = self.closes or not radius < 90
        return (middle, 180.0) if whole or np.isnan(middle).any() else (middle, radius + 2 * self.pixel_size)

    def _directions(self, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        longitude, latitude = (np.radians(a) for a in self.wcs.wcs_pix2world(np.atleast_1d(x), np.atleast_1d(y), 0))
        flat = np.cos(latitude)
        vectors = np.stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)], axis=-1)
        return np.asarray(vectors @ self.to_cube.T)


def open_cube(path: str | Path, unsaid: UnsaidCubeCards = SILENT) -> CubeFile:
    """Open a cube; only headers are read.

    Raises:
        UserError: the file is absent, no FITS, compressed, truncated or holds no cube; its coordinates, velocity axis
            or unit are absent or not understood.
    """
    path = Path(path)
    refuse_compressed(path)
    with open_fits(path) as file:
        unit = _first_cube(file)
        header = unit.header
        spectral = _spectral_axis(header, path.name)
        wcs = celestial_wcs(header, path.name)
        beam = unsaid.beam_arcmin if "BMAJ" not in header else 60 * float(header["BMAJ"])
        return CubeFile(
            path=path,
            unit=unit,
            stored=np.dtype({8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[header["BITPIX"]]),
            shape=(int(header["NAXIS2"]), int(header["NAXIS1"])),
            scaling=Scaling.of_image(header),
            kelvin=kelvin_factor(str(header.get("BUNIT", "")), unsaid.unit, path.name),
            wcs=wcs,
            to_cube=_rotation(wcs, path.name),
            period=_period(wcs),
            axis=velocity_axis(header, int(header[f"NAXIS{spectral}"]), path.name, unsaid.velocity_frame),
            beam_arcmin=beam,
        )


def _first_cube(file: FitsFile) -> Unit:
    for unit in file.units():
        if unit.is_packed and unit.header.get("ZNAXIS", 3) >= 3:
            raise UserError(f"{file.name} is compressed (fpack)", "unpack it first (funpack)")
        if unit.is_image and unit.header["NAXIS"] >= 3:
            unit.refuse_truncated()
            refuse_beyond_memory(8 * unit.header["NAXIS1"] * unit.header["NAXIS2"], file.name)
            return unit
    raise UserError(f"{file.name} holds no cube (an image of three axes)", "give a cube of sky x sky x velocity")


def _spectral_axis(header: fits.Header, name: str) -> int:
    number = spectral_axis_number(header, header["NAXIS"])
    if number is None or number < 3:
        raise UserError(f"{name} has no velocity axis", "its third axis must be VRAD, VELO or FREQ (CTYPE3)")
    longer = [i for i in range(3, header["NAXIS"] + 1) if i != number and header[f"NAXIS{i}"] > 1]
    if longer:
        raise UserError(
            f"{name} has {header[f'NAXIS{longer[0]}']} values along its axis {longer[0]} as well", "choose one of them"
        )
    return number


def _rotation(wcs: WCS, name: str) -> np.ndarray:
    """``(3, 3)``: rows are the Galactic axes written in the cube's frame (FK4's 0.3 arcsec E-terms are left out)."""
    try:
        frame = wcs_to_celestial_frame(wcs)
    except ValueError:
        raise UserError(
            f"the sky frame of {name} is not understood ({', '.join(wcs.wcs.ctype)})", "use GLON/GLAT or RA/DEC"
        ) from None
    axes = SkyCoord(CartesianRepresentation(np.eye(3) * units.one), frame=Galactic())
    # Unit-spherical first: with distances FK5 and ICRS would count as shifted, not only turned.
    turned = SkyCoord(l=axes.spherical.lon, b=axes.spherical.lat, frame=Galactic()).transform_to(frame)
    return np.asarray(turned.cartesian.xyz.value.T)


def _period(wcs: WCS) -> float:
    matrix = wcs.pixel_scale_matrix
    cylindrical = all(kind[-3:] in _CYLINDRICAL for kind in wcs.wcs.ctype)
    return 360 / abs(float(matrix[0, 0])) if cylindrical and matrix[0, 1] == 0 else 0.0
