"""Any legal way to write a sky as FITS reads back as that sky; what cannot be read is refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from conftest import smooth_maps
from fixtures_archive import SHORT_AXIS, AnalyticSky, refused, write_allsky_car
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sphereml.data.car_cubes import open_cubes
from sphereml.data.column_names import ColumnReference
from sphereml.data.healpix_fits import UNSEEN, read_healpix
from sphereml.errors import UserError

NSIDE = 16
NPIX = 12 * NSIDE**2
# Whole numbers up to 100, so that every type holds them exactly, and none of the sentinels below.
SKY = np.rint(50 + 12 * smooth_maps(NSIDE, 1, seed=3)[:, 0]).clip(1, 100)
GAPS = np.random.default_rng(4).random(NPIX) < 0.05
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
bounded = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class MapFile:
    """How one HEALPix file is written.

    ``missing`` is how its gaps are said, ``gain`` scales stored numbers, ``row`` is the pixels in a row of the table.
    """

    nested: bool
    frame: str
    sign: str
    missing: str
    form: str
    gain: tuple[float, float]
    unit: tuple[str, str]
    name: str
    packing: str
    suffix: str
    explicit: bool
    row: int

    @property
    def is_integer(self) -> bool:
        return self.form in "IJK"

    @property
    def sentinel(self) -> float:
        return {"card": -9999.0, "blank": -9999.0, "nan": np.nan, "unseen": UNSEEN, "scaled unseen": 1e-6 * UNSEEN}.get(
            self.missing, 0.0
        )


def stored_sky(kind: MapFile) -> np.ndarray:
    """Stored numbers in NEST order: the sky, its sign and gain undone, gaps as sentinels."""
    scale, zero = kind.gain
    odd = kind.sign == "IAU" and kind.name.startswith(("U", "DUST_U"))
    stored = ((-SKY if odd else SKY) - zero) / scale
    if kind.missing == "none" or kind.explicit:
        return stored
    return np.where(GAPS, kind.sentinel, stored)


def write_map_file(path: Path, kind: MapFile) -> None:
    stored = stored_sky(kind)
    pixels = np.arange(NPIX) if kind.nested else healpy.nest2ring(NSIDE, np.arange(NPIX))
    columns = []
    if kind.explicit:
        kept = ~GAPS
        columns.append(fits.Column("PIXEL", "J", array=pixels[kept]))
        values = stored[kept]
    else:
        values = np.empty(NPIX)
        values[pixels] = stored
    blank = -9999 if kind.missing == "blank" and kind.is_integer else None
    dtype = {"I": np.int16, "J": np.int32, "K": np.int64, "E": np.float32, "D": np.float64}[kind.form]
    row = 1 if kind.explicit else kind.row
    stacked = values.astype(dtype).reshape(-1, row) if row > 1 else values.astype(dtype)
    columns.append(fits.Column(kind.name, f"{row}{kind.form}", unit=kind.unit[0], null=blank, array=stacked))
    table = fits.BinTableHDU.from_columns(columns)
    number = len(columns)
    cards = {"ORDERING": "NESTED" if kind.nested else "RING", "COORDSYS": kind.frame, "NSIDE": NSIDE}
    cards |= {"INDXSCHM": "EXPLICIT" if kind.explicit else "IMPLICIT"}
    cards |= {"POLCCONV": kind.sign} if kind.sign else {}
    cards |= {"BAD_DATA": -9999.0} if kind.missing == "card" else {}
    cards |= {f"TSCAL{number}": kind.gain[0], f"TZERO{number}": kind.gain[1]} if kind.gain != (1, 0) else {}
    table.header.update(cards)
    # Not to the path itself: astropy packs what is called .gz.
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(stream)
    path.write_bytes(PACKINGS[kind.packing](stream.getvalue()))


def possible(kind: MapFile) -> bool:
    """Integers have no NaN and no UNSEEN, and unsigned ones (TZERO 32768) no negative values."""
    floats_only = kind.missing in ("nan", "unseen", "scaled unseen")
    unsigned = kind.form == "I" and kind.gain[1] > 3
    wrong_missing = kind.missing == "blank" and not kind.is_integer
    return not (kind.is_integer and floats_only) and not wrong_missing and not (unsigned and kind.sign == "IAU")


MAP_FILES = st.builds(
    MapFile,
    nested=st.booleans(),
    frame=st.sampled_from(["G", "C", "E", "GALACTIC", "EQUATORIAL"]),
    sign=st.sampled_from(["", "COSMO", "IAU"]),
    missing=st.sampled_from(["none", "card", "blank", "nan", "unseen", "scaled unseen"]),
    form=st.sampled_from("IJKED"),
    gain=st.sampled_from([(1.0, 0.0), (0.5, 0.0), (1.0, 32768.0), (-0.25, 3.0)]),
    unit=st.sampled_from([("K", "K"), ("MJy sr-1", "MJy/sr"), ("uK_CMB", "uK_CMB"), ("mK,thermodynamic", "mK_CMB")]),
    name=st.sampled_from(["T", "TEMPERATURE", "U_POLARISATION", "U-POLARISATION", "U STOKES", "DUST_U", "Q_STOKES"]),
    packing=st.sampled_from(sorted(PACKINGS)),
    suffix=st.sampled_from([".fits", ".fits.gz", ".dat"]),
    explicit=st.booleans(),
    row=st.sampled_from([1, 1024]),
).filter(possible)


@given(kind=MAP_FILES)
@bounded
def test_every_way_to_write_a_map_reads_as_that_map(tmp_path: Path, kind: MapFile) -> None:
    path = tmp_path / f"map{kind.suffix}"
    write_map_file(path, kind)
    reference = ColumnReference(path)
    maps = read_healpix(reference, allow_missing=True, any_frame=True)
    gaps = GAPS if kind.missing != "none" or kind.explicit else np.zeros(NPIX, dtype=bool)
    np.testing.assert_array_equal(np.isnan(maps.values[:, 0]), gaps)
    np.testing.assert_allclose(maps.values[~gaps, 0], SKY[~gaps], rtol=1e-6)
    frame = "C" if kind.frame == "EQUATORIAL" else kind.frame[0]
    assert (maps.unit, maps.frame, maps.names) == (kind.unit[1], frame, (kind.name,))


ANALYTIC = AnalyticSky()


@pytest.fixture(scope="module")
def plain_cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_allsky_car(tmp_path_factory.mktemp("cube") / "plain.fits", ANALYTIC, pixel=5.0)


@dataclass(frozen=True)
class CubeFile:
    """How one cube is written: type and unit of its numbers, how blanks and steps are said, and its packing."""

    form: str
    unit: tuple[str, float]
    missing: str
    steps: str
    checksum: bool
    packing: str


CUBE_FILES = st.builds(
    CubeFile,
    form=st.sampled_from(["i2", "f4", "f8"]),
    unit=st.sampled_from([("K", 1.0), ("mK", 1e3), ("K (Tb)", 1.0)]),
    missing=st.sampled_from(["none", "blank", "nan", "card"]),
    steps=st.sampled_from(["CDELT", "PC", "CD", "PC01_01", "left-over axis"]),
    checksum=st.booleans(),
    packing=st.sampled_from(["plain", "plain", "plain", "gzip", "fpack"]),
).filter(
    lambda kind: (
        not (kind.form == "i2" and kind.missing == "nan") and not (kind.form != "i2" and kind.missing == "blank")
    )
)


def write_cube_file(path: Path, plain: Path, kind: CubeFile) -> None:
    with fits.open(plain) as hdus:
        header, values = hdus[0].header.copy(), hdus[0].data.astype(np.float64)
    factor = 2e-3 if kind.form == "i2" else 1.0
    stored = np.nan_to_num(values) * kind.unit[1] / (factor * kind.unit[1])
    blanks = np.isnan(values)
    if kind.missing != "none":
        blanks[3, 10:14, 20:30] = True
    sentinel = {"nan": np.nan, "card": -9999.0, "blank": -9999.0}.get(kind.missing, 0.0)
    stored = np.where(blanks, sentinel, np.rint(stored) if kind.form == "i2" else stored * kind.unit[1])
    header["BUNIT"] = kind.unit[0]
    steps = [float(header[f"CDELT{i}"]) for i in (1, 2, 3)]
    if kind.steps in ("PC", "PC01_01"):
        matrix = "PC{0}_{0}" if kind.steps == "PC" else "PC0{0}_0{0}"
        header.update({matrix.format(i + 1): 1.0 for i in range(3)})
    if kind.steps == "CD":
        for i, step in enumerate(steps, start=1):
            del header[f"CDELT{i}"]
            header[f"CD{i}_{i}"] = step
    if kind.steps == "left-over axis":
        header.update({"CTYPE4": "STOKES", "CRPIX4": 1.0, "CDELT4": 1.0, "CRVAL4": 1.0, "PC4_4": 1.0})
    image = fits.PrimaryHDU(stored.astype(kind.form), header)
    if kind.form == "i2":
        image.header["BSCALE"] = factor * kind.unit[1]
    if kind.missing == "blank":
        image.header["BLANK"] = -9999
    if kind.missing == "card":
        image.header["BAD_DATA"] = -9999.0
    if kind.packing == "fpack":
        packed = fits.CompImageHDU(stored.astype("f4"), header)
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path, overwrite=True)
        return
    image.writeto(path, overwrite=True, checksum=kind.checksum)
    path.write_bytes(PACKINGS[kind.packing](path.read_bytes()))


@given(kind=CUBE_FILES)
@settings(bounded, max_examples=30)
def test_every_way_to_write_a_cube_reads_as_that_cube(tmp_path: Path, plain_cube: Path, kind: CubeFile) -> None:
    path = tmp_path / "cube.fits"
    write_cube_file(path, plain_cube, kind)
    if kind.packing != "plain":
        with refused("cube.fits", "compressed"):
            open_cubes([path], 8)
        return
    truth, ours = open_cubes([plain_cube], 8), open_cubes([path], 8)
    np.testing.assert_allclose(ours.axis.edges, SHORT_AXIS.axis.edges)
    for channel in (1, 3):
        values, right = ours.read(channel), truth.read(channel)
        known = ~np.isnan(values)
        assert known.all() == (kind.missing == "none" or channel == 1)
        # Half a stored step of integers; where a pixel lost some of its samples, the rest of them decide.
        close = np.abs(values[known] - right[known]) < (1.1e-3 if kind.form == "i2" else 1e-5)
        assert close.mean() > (0.999 if channel == 1 else 0.9)


@given(place=st.integers(0, 2**20), bit=st.integers(0, 7))
@bounded
def test_a_flipped_bit_is_never_used(tmp_path: Path, place: int, bit: int) -> None:
    path = tmp_path / "summed.fits"
    column = fits.Column("T", "E", unit="K", array=SKY)
    table = fits.BinTableHDU.from_columns([column])
    table.header.update({"ORDERING": "NESTED", "COORDSYS": "G", "NSIDE": NSIDE})
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True, checksum=True)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        maps = read_healpix(path)
    except UserError as refusal:
        assert "\n" not in str(refusal)
    else:
        # The bit was in the name of a card that nothing depends on, such as CHECKSUM itself beside a true DATASUM.
        np.testing.assert_array_equal(maps.values[:, 0], SKY)
        assert 320 <= place % len(content) < 2880 or b"CHECKSUM" not in content[2880:]
        assert (maps.unit, maps.frame, maps.names) == ("K", "G", ("T",))
