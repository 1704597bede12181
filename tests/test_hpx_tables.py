"""HI4PI's HEALPix tables and maps that list their pixels: exact round trips, silence in headers, wrong files."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from fixtures_archive import (
    SHORT_AXIS,
    AnalyticSky,
    ArchiveAxis,
    HpxLayout,
    refused,
    write_hpx_table,
    write_hpx_tables,
    write_listed_map,
)

from sphereml.data.channels import find_files
from sphereml.data.file_checksums import file_checksum
from sphereml.data.healpix_fits import UNSEEN, UnsaidCards, read_healpix
from sphereml.data.hpx_tables import HI4PI, TableDefaults, open_hpx_tables
from sphereml.sky.ordering import ring_to_nest

SKY, NSIDE = AnalyticSky(), 16
NPIX = 12 * NSIDE**2
SMALL = replace(HI4PI, nside=NSIDE, axis=SHORT_AXIS.axis)


def expected() -> np.ndarray:
    return SKY.channels(NSIDE, SHORT_AXIS.axis.centres).astype(np.float32)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("block_channels", [1, 3, 100])
def test_a_set_of_tables_comes_back_exactly(tmp_path: Path, nested: bool, block_channels: int) -> None:
    write_hpx_tables(tmp_path, SKY, layout=HpxLayout(nested=nested))
    source = open_hpx_tables(find_files(tmp_path, "HPX_*.fits"), SMALL, block_bytes=4 * NPIX * block_channels)
    assert source.block_channels == min(block_channels, 7)
    for channel in (3, 0, 6, 2, 1, 5, 4):
        np.testing.assert_array_equal(source.read(channel), expected()[:, channel])
    assert (source.unit, source.frame, source.nside, source.beam_arcmin) == ("K", "G", NSIDE, 16.2)
    np.testing.assert_allclose(source.velocity, SHORT_AXIS.axis.centres)
    assert source.files["HPX_002.fits"] == file_checksum(tmp_path / "HPX_002.fits") and len(source.files) == 4


def test_the_full_axis_gives_64_channels_and_the_column(tmp_path: Path) -> None:
    layout = HpxLayout(nside=2, files=2)
    source = open_hpx_tables(write_hpx_tables(tmp_path, SKY, ArchiveAxis(), layout), replace(HI4PI, nside=2))
    chosen = source.axis.select(-64.5, 17.0)
    assert len(source.axis) == 933 and len(chosen) == 64
    maps = SKY.channels(2, source.velocity[chosen])
    ours = sum(source.axis.widths[channel] * source.read(int(channel)) for channel in chosen)
    np.testing.assert_allclose(ours, 1.28821496 * maps.sum(axis=1), rtol=1e-5)


def test_silent_headers_take_what_the_archive_documents(tmp_path: Path) -> None:
    silent = dict.fromkeys(["NSIDE", "ORDERING", "COORDSYS", *SHORT_AXIS.cards()])
    paths = write_hpx_tables(tmp_path, SKY, layout=HpxLayout(cards=silent))
    np.testing.assert_array_equal(open_hpx_tables(paths, SMALL).read(3), expected()[:, 3])
    for change, words in {
        "nside": ("Nside", "NSIDE"),
        "order": ("ORDERING", "RING"),
        "frame": ("COORDSYS",),
        "axis": ("no velocity axis",),
    }.items():
        with refused("HPX_001.fits", *words):
            open_hpx_tables(paths, replace(SMALL, **{change: getattr(TableDefaults(), change)}))


def test_the_files_order_card_decides(tmp_path: Path) -> None:
    paths = write_hpx_tables(tmp_path, SKY, layout=HpxLayout(nested=True))
    np.testing.assert_array_equal(open_hpx_tables(paths, SMALL).read(3), expected()[:, 3])


def test_scaled_integers_and_their_blank_are_understood(tmp_path: Path) -> None:
    stored = np.arange(NPIX * 7, dtype=np.int16).reshape(NPIX, 7)
    columns = [
        fits.Column(name="HPXINDEX", format="K", array=np.arange(NPIX)),
        fits.Column(name="DATA", format="7I", unit="mK", array=stored, null=5),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.header.update({"ORDERING": "NESTED", "COORDSYS": "G", "TSCAL2": 0.5, "TZERO2": 10.0} | SHORT_AXIS.cards())
    table.writeto(tmp_path / "HPX_001.fits")
    source = open_hpx_tables([tmp_path / "HPX_001.fits"], replace(SMALL, unit=""))
    values = 1e-3 * (10 + 0.5 * stored[:, 5].astype(float))
    values[0] = np.nan
    np.testing.assert_allclose(source.read(5), values, rtol=1e-6)


def test_pixels_in_no_file_are_nan(tmp_path: Path) -> None:
    paths = write_hpx_tables(tmp_path, SKY)
    source = open_hpx_tables(paths[1:], SMALL)
    values = source.read(3)
    assert np.isnan(values).sum() == NPIX / 4
    np.testing.assert_array_equal(values[~np.isnan(values)], expected()[~np.isnan(values), 3])


def test_wrong_tables_are_refused_in_one_line(tmp_path: Path) -> None:
    paths = write_hpx_tables(tmp_path, SKY)
    with refused("HPX_001.fits", "Nside 16", "1024"):
        open_hpx_tables(paths, HI4PI)
    with refused("no HPX table"):
        open_hpx_tables([])
    with refused("no file"):
        open_hpx_tables([tmp_path / "HPX_009.fits"], SMALL)
    with refused("no file HPX_9*.fits"):
        find_files(tmp_path, "HPX_9*.fits")
    cut = tmp_path / "cut.fits"
    cut.write_bytes(paths[0].read_bytes()[:9000])
    with refused("cut.fits", "truncated"):
        open_hpx_tables([cut], SMALL)
    text = tmp_path / "text.fits"
    text.write_text("no FITS")
    with refused("text.fits", "not a readable FITS"):
        open_hpx_tables([text], SMALL)
    packed = tmp_path / "HPX_001.fits.gz"
    packed.write_bytes(gzip.compress(paths[0].read_bytes()))
    with refused("gunzip"):
        open_hpx_tables([packed], SMALL)
    # What a file says of itself decides; the archive's documents are for silent ones.
    assert open_hpx_tables(paths, replace(SMALL, unit="mK")).read(3).max() == expected()[:, 3].max()


@pytest.mark.parametrize("lost", ["HPXINDEX", "DATA"])
def test_a_missing_column_is_refused(tmp_path: Path, lost: str) -> None:
    path = write_hpx_tables(tmp_path, SKY)[0]
    with fits.open(path) as hdus:
        hdus[1].columns.change_name(lost, "OTHER")
        hdus.writeto(tmp_path / "renamed.fits")
    with refused("renamed.fits", lost, "OTHER"):
        open_hpx_tables([tmp_path / "renamed.fits"], SMALL)


@pytest.mark.parametrize(
    ("index", "words"),
    [([0, 1, NPIX], (f"pixel {NPIX}", "Nside 16")), ([0, -1, 2], ("pixel -1",)), ([4, 7, 4], ("pixel 4", "2 times"))],
)
def test_pixels_out_of_range_or_doubled_are_refused(tmp_path: Path, index: list[int], words: tuple[str, ...]) -> None:
    cards = {"NSIDE": NSIDE, "ORDERING": "RING", "COORDSYS": "G", **SHORT_AXIS.cards()}
    path = write_hpx_table(tmp_path / "HPX_001.fits", np.array(index), np.ones((3, 7), np.float32), cards)
    with refused("HPX_001.fits", *words):
        open_hpx_tables([path], SMALL).read(0)


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    cards = {"NSIDE": NSIDE, "ORDERING": "RING", "COORDSYS": "G", **SHORT_AXIS.cards()}
    ones = np.ones((3, 7), np.float32)
    first = write_hpx_table(tmp_path / "first.fits", np.array([1, 2, 3]), ones, cards)
    again = write_hpx_table(tmp_path / "again.fits", np.array([5, 3, 6]), ones, cards)
    fewer = write_hpx_table(tmp_path / "fewer.fits", np.array([7, 8, 9]), ones[:, :6], cards)
    other = write_hpx_table(tmp_path / "other.fits", np.array([7, 8, 9]), ones, cards | {"ORDERING": "NESTED"})
    with refused("again.fits", "pixel 3"):
        open_hpx_tables([first, again], SMALL).read(0)
    with refused("fewer.fits", "6 and 7 channels"):
        open_hpx_tables([first, fewer], SMALL)
    with refused("other.fits", "order"):
        open_hpx_tables([first, other], SMALL)


def test_a_channel_without_data_or_not_there_is_refused(tmp_path: Path) -> None:
    cards = {"NSIDE": NSIDE, "ORDERING": "RING", "COORDSYS": "G", **SHORT_AXIS.cards()}
    spectra = np.ones((3, 7), np.float32)
    spectra[:, 2] = np.nan
    path = write_hpx_table(tmp_path / "HPX_001.fits", np.arange(3), spectra, cards)
    source = open_hpx_tables([path], SMALL)
    with refused("channel 2", "km/s", "no data"):
        source.read(2)
    with refused("no channel 7", "0 to 6"):
        source.read(7)


def test_pixels_in_the_other_order_are_noticed(tmp_path: Path) -> None:
    paths = write_hpx_tables(tmp_path, SKY, layout=HpxLayout(nested=True, cards={"ORDERING": "RING"}))
    with refused("ORDERING=RING", "NESTED"):
        open_hpx_tables(paths, SMALL).read(3)


# ---- maps that list their pixels


def test_a_listed_map_is_nan_elsewhere_and_agrees_with_healpy(tmp_path: Path) -> None:
    pixels, values = np.array([700, 3, 50]), np.array([1.0, 2.0, 3.0], np.float32)
    path = write_listed_map(tmp_path / "part.fits", pixels, values)
    maps = read_healpix(path, allow_missing=True)
    full = np.full(768, np.nan)
    full[pixels] = values
    np.testing.assert_array_equal(maps.values[:, 0], ring_to_nest(full))
    assert maps.names == ("NHI",) and maps.unit == "cm^-2" and maps.values.dtype == np.float32
    partial = np.full(768, UNSEEN)
    partial[pixels] = values
    healpy.write_map(tmp_path / "healpy.fits", partial, partial=True, coord="G", column_units="cm-2")
    ours = read_healpix(tmp_path / "healpy.fits", allow_missing=True).values[:, 0]
    np.testing.assert_array_equal(ours, maps.values[:, 0])


def test_a_list_of_every_pixel_is_a_full_map(tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(768)
    path = write_listed_map(tmp_path / "all.fits", order, order.astype(np.float32), NSIDE=None, COORDSYS=None)
    with refused("all.fits", "COORDSYS"):
        read_healpix(path)
    maps = read_healpix(path, fields=(1,), unsaid=UnsaidCards(frame="G"))
    np.testing.assert_array_equal(maps.values[:, 0], ring_to_nest(np.arange(768.0)))


@pytest.mark.parametrize(
    ("pixels", "cards", "words"),
    [
        ([1, 2, 768], {}, ("pixel 768", "Nside 8")),
        ([1, 2, 2], {}, ("pixel 2", "2 times")),
        ([1, 2, 3], {"NSIDE": None}, ("3 pixels", "NSIDE")),
        ([1, 2, 3], {"ORDERING": None}, ("ORDERING",)),
    ],
)
def test_a_wrong_list_of_pixels_is_refused(
    tmp_path: Path, pixels: list[int], cards: dict[str, None], words: tuple[str, ...]
) -> None:
    path = write_listed_map(tmp_path / "part.fits", np.array(pixels), np.ones(3, np.float32), **cards)
    with refused("part.fits", *words):
        read_healpix(path, allow_missing=True)


def test_a_partial_map_is_refused_where_all_pixels_are_needed(tmp_path: Path) -> None:
    path = write_listed_map(tmp_path / "part.fits", np.arange(3), np.ones(3, np.float32))
    with refused("part.fits", "explicit"):
        read_healpix(path)
    with refused("field 0", "pixel numbers"):
        read_healpix(path, fields=(0,), allow_missing=True)


def test_a_map_without_any_data_is_refused(tmp_path: Path) -> None:
    path = write_listed_map(tmp_path / "empty.fits", np.arange(3), np.full(3, np.nan, np.float32))
    with refused("empty.fits", "no data"):
        read_healpix(path, allow_missing=True)
