"""Files of other people that were once refused, or read wrongly, with the right values."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import healpy
import numpy as np
import pytest
from astropy.io import fits
from conftest import smooth_maps
from fixtures_archive import refused
from fixtures_cli import REAL_SKY, Outcome, done, needs_real_sky, sphereml

from sphereml.data.column_names import flips_with_convention, group_fields, parse_reference, stem, stokes
from sphereml.data.file_checksums import file_checksum
from sphereml.data.fits_files import open_fits
from sphereml.data.healpix_fits import UNSEEN, UnsaidCards, read_healpix, read_mask, read_weights
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import regrade_weights
from sphereml.sky.ordering import nest_to_ring
from sphereml.templates.marginalization import marginalize

NSIDE = 32
GRID = HealpixGrid(NSIDE)
AMPLITUDE = 0.5


def write_columns(path: Path, columns: dict[str, np.ndarray], unit: str = "uK_CMB", **cards: Any) -> Path:
    """A RING file of NEST maps; checksums when ``CHECKSUM`` is True among the cards."""
    summed = cards.pop("CHECKSUM", False)
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name, "D", unit=unit or None, array=nest_to_ring(values)) for name, values in columns.items()]
    )
    nside = round((len(next(iter(columns.values()))) / 12) ** 0.5)
    table.header.update({"PIXTYPE": "HEALPIX", "ORDERING": "RING", "COORDSYS": "G", "NSIDE": nside} | cards)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True, checksum=summed)
    return path


def latitudes(nside: int = NSIDE) -> np.ndarray:
    return HealpixGrid(nside).lonlat()[1]


@pytest.fixture(scope="module")
def template() -> np.ndarray:
    """Foreground that fades from the plane."""
    return np.exp(smooth_maps(NSIDE, 1, 5)[:, 0]) * 20 * (1 + 10 * np.exp(-np.abs(latitudes()) / 8))


@pytest.fixture(scope="module")
def sky(template: np.ndarray) -> np.ndarray:
    return 10 * smooth_maps(NSIDE, 1, 6)[:, 0] + AMPLITUDE * template


@pytest.fixture
def folder(tmp_path: Path, sky: np.ndarray, template: np.ndarray) -> Path:
    """``sky.fits``, ``template.fits`` and a binary ``mask.fits``."""
    write_columns(tmp_path / "sky.fits", {"TEMPERATURE": sky})
    write_columns(tmp_path / "template.fits", {"DUST": template})
    write_columns(tmp_path / "mask.fits", {"MASK": (np.abs(latitudes()) > 20).astype(float)}, "")
    return tmp_path


def clean(folder: Path, *words: str, **files: str) -> Outcome:
    """``sphereml marginalize`` on a folder's files, or those given."""
    names = {"sky": "sky.fits", "mask": "mask.fits", "template": "template.fits"} | files
    inputs = [word for key, name in names.items() for word in (f"--{key}", str(folder / name))]
    return sphereml("marginalize", *inputs, "--out", str(folder / "out"), "--overwrite", *words)


def amplitudes(folder: Path, *words: str, **files: str) -> list[float]:
    outcome = clean(folder, *words, **files)
    assert outcome.code == 0, outcome.err
    return list(json.loads((folder / "out" / "marginalization.json").read_text())["amplitudes"])


# ---- pixel order


@pytest.mark.parametrize("nside", [16, 64])
@pytest.mark.parametrize("cut", [2, 5, 10, 30])
@pytest.mark.parametrize("nested", [False, True])
def test_a_cut_in_latitude_is_read_in_its_order(tmp_path: Path, nside: int, cut: int, nested: bool) -> None:
    mask = np.abs(latitudes(nside)) > cut
    values = mask.astype(np.float32) if nested else nest_to_ring(mask.astype(np.float32))
    healpy.write_map(tmp_path / "mask.fits", values, nest=nested, coord="G", dtype=np.float32)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.fits", HealpixGrid(nside)), mask)


@pytest.mark.parametrize("nested", [False, True])
def test_a_cut_whose_card_lies_is_refused(tmp_path: Path, nested: bool) -> None:
    mask = (np.abs(latitudes()) > 10).astype(np.float32)
    values = mask if nested else nest_to_ring(mask)
    healpy.write_map(tmp_path / "mask.fits", values, nest=not nested, coord="G", dtype=np.float32)
    with refused("mask.fits", f"pixels are in {'NESTED' if nested else 'RING'} order"):
        read_mask(tmp_path / "mask.fits", GRID)


# ---- columns: names, numbers, spins, signs


@pytest.mark.parametrize("name", ["U_POLARISATION", "U-POLARISATION", "STOKES_U", "DUST_U", "U STOKES", "U", "UPOL"])
def test_u_of_an_iau_file_is_known_by_any_name(tmp_path: Path, name: str) -> None:
    assert stokes(name) == "U" and flips_with_convention(name)
    values = smooth_maps(8, 1, 1)[:, 0]
    path = write_columns(tmp_path / "iau.fits", {name: -values}, POLCCONV="IAU")
    np.testing.assert_array_equal(read_healpix(path).values[:, 0], values)


def test_an_iau_file_without_a_u_is_read_only_where_that_is_no_matter(tmp_path: Path) -> None:
    values = smooth_maps(8, 3, 1).T
    path = write_columns(tmp_path / "iau.fits", dict(zip("AB", values, strict=False)), POLCCONV="IAU")
    with refused("iau.fits", "POLCCONV=IAU", "TTYPE"):
        read_healpix(path)
    write_columns(tmp_path / "intensity.fits", {"TEMPERATURE": values[0]}, POLCCONV="IAU")
    np.testing.assert_array_equal(read_healpix(tmp_path / "intensity.fits").values[:, 0], values[0])


def test_covariances_odd_in_u_change_their_sign_too() -> None:
    names = ["II_COV", "IQ_COV", "IU_COV", "QQ_COV", "QU_COV", "UU_COV", "I", "Q", "HITS"]
    assert [name for name in names if flips_with_convention(name)] == ["IU_COV", "QU_COV"]


def test_q_followed_by_its_u_is_one_field_of_spin_2() -> None:
    names = ["I_STOKES", "Q_STOKES", "U_STOKES", "DUST_Q", "DUST_U", "Q"]
    fields = (Field("I_STOKES", "K"), Field("P", "K", 2), Field("DUST", "K", 2), Field("Q", "K"))
    assert group_fields(names, "K") == fields
    assert stem("Q_POLARISATION") == stem("U-POLARISATION") == ""


@pytest.mark.parametrize(
    ("text", "unit", "columns"),
    [
        ("a.fits", None, ()),
        ("a.fits[Q_POLARISATION]", None, ("Q_POLARISATION",)),
        ("a.fits[#2]", None, ("#2",)),
        ("a.fits+1[Q,U]", 1, ("Q", "U")),
        ("a.fits+2", 2, ()),
    ],
)
def test_columns_are_asked_for_by_name_or_number(text: str, unit: int | None, columns: tuple[str, ...]) -> None:
    reference = parse_reference(text)
    assert (reference.path, reference.unit, reference.columns) == (Path("a.fits"), unit, columns)


def test_a_file_whose_own_name_holds_brackets_is_that_file(tmp_path: Path) -> None:
    values = smooth_maps(8, 1, 2)[:, 0]
    for name in ("map[1].fits", "map.fits+1", "map.fits[DUST]"):
        path = write_columns(tmp_path / name, {"A": values, "B": 2 * values})
        assert read_healpix(str(path)).names == ("A", "B")
        np.testing.assert_array_equal(read_healpix(f"{path}[b]").values[:, 0], 2 * values)


def test_columns_without_names_or_with_equal_ones_are_read_by_position(tmp_path: Path) -> None:
    values = smooth_maps(8, 1, 2)[:, 0]
    path = write_columns(tmp_path / "named.fits", {"AAAA": values, "BBBB": 2 * values})
    content = path.read_bytes()
    cases = {
        "absent": ({b"TTYPE1  = 'AAAA    '": b"COMMENT gone        "}, ("field_0", "BBBB")),
        "blank": ({b"TTYPE1  = 'AAAA    '": b"TTYPE1  = '        '"}, ("field_0", "BBBB")),
        "equal": ({b"TTYPE2  = 'BBBB    '": b"TTYPE2  = 'AAAA    '"}, ("AAAA", "AAAA")),
    }
    for case, (changes, names) in cases.items():
        spoilt = content
        for old, new in changes.items():
            assert old in spoilt
            spoilt = spoilt.replace(old, new)
        changed = tmp_path / f"{case}.fits"
        changed.write_bytes(spoilt)
        maps = read_healpix(changed)
        assert maps.names == names
        np.testing.assert_array_equal(maps.values, np.stack([values, 2 * values], axis=1))
        np.testing.assert_array_equal(read_healpix(f"{changed}[#1]").values[:, 0], 2 * values)
    with refused("2 columns called AAAA", "[#1]"):
        read_healpix(f"{tmp_path / 'equal.fits'}[AAAA]")
    with refused("no column NHI", "#0 AAAA"):
        read_healpix(f"{path}[NHI]")


# ---- missing values


@pytest.mark.parametrize("sentinel", [-9999.0, -32768.0, 1e20, -1e30, 0.0, UNSEEN])
def test_pixels_that_a_card_calls_missing_are_missing(tmp_path: Path, sentinel: float) -> None:
    values = smooth_maps(8, 1, 2)[:, 0]
    values[::97] = sentinel
    path = write_columns(tmp_path / "map.fits", {"T": values}, BAD_DATA=sentinel)
    missing = np.isnan(read_healpix(path, allow_missing=True).values[:, 0])
    assert np.flatnonzero(missing).tolist() == list(range(0, 768, 97))
    with refused("map.fits", "8 pixels", "missing"):
        read_healpix(path)


def test_missing_pixels_are_dropped_or_refused_as_the_mask_says(folder: Path, sky: np.ndarray) -> None:
    kept, right = np.abs(latitudes()) > 20, amplitudes(folder)
    for pixels, code in ((np.flatnonzero(~kept)[::7], 0), (np.flatnonzero(kept)[::97], 2)):
        spoilt = sky.copy()
        spoilt[pixels] = -9999.0
        write_columns(folder / "spoilt.fits", {"TEMPERATURE": spoilt}, BAD_DATA=-9999.0)
        if code:
            assert f"misses {pixels.size} pixels that the mask keeps" in clean(folder, sky="spoilt.fits").refusal
        else:
            assert amplitudes(folder, sky="spoilt.fits") == pytest.approx(right, rel=1e-10)


def test_large_values_are_no_gaps_without_ordinary_ones_beside_them(tmp_path: Path) -> None:
    column = 1e20 * np.exp(smooth_maps(8, 1, 3)[:, 0])
    column[5] = 0.0
    np.testing.assert_array_equal(
        read_healpix(write_columns(tmp_path / "gas.fits", {"NHI": column}, "cm-2")).values[:, 0], column
    )
    column[7] = 1.0
    np.testing.assert_array_equal(
        read_healpix(write_columns(tmp_path / "low.fits", {"NHI": column}, "cm-2")).values[:, 0], column
    )


# ---- masks are weights


def c2_taper() -> np.ndarray:
    x = np.clip((np.abs(latitudes()) - 10) / 20, 0, 1)
    return np.asarray(x - np.sin(2 * np.pi * x) / (2 * np.pi))


def test_weights_of_a_mask_are_used_and_their_rounding_is_clipped(
    folder: Path, sky: np.ndarray, template: np.ndarray
) -> None:
    weights = c2_taper()
    rounded = np.where(weights >= 1, 1.0000016666803668, np.where(weights <= 0, -7.494005416219807e-15, weights))
    files = {"apodized": weights, "rounded": rounded, "half": (weights > 0.5).astype(float)}
    for name, values in files.items():
        write_columns(folder / f"{name}.fits", {"M": values}, "")
    np.testing.assert_array_equal(read_weights(folder / "rounded.fits", GRID), weights)
    right = marginalize(sky, template, weights)
    for name in ("apodized", "rounded"):
        assert amplitudes(folder, mask=f"{name}.fits") == pytest.approx(right.amplitudes, rel=1e-9)
        assert "used as they are" in clean(folder, mask=f"{name}.fits").out
    cut = amplitudes(folder, mask="half.fits")
    assert abs(cut[0] - right.amplitudes[0]) > 1e-5
    assert amplitudes(folder, "--threshold", "0.5", mask="apodized.fits") == cut
    assert "--threshold 2" in clean(folder, "--threshold", "2", mask="apodized.fits").refusal


def test_missing_and_unlisted_pixels_of_a_mask_are_dropped(folder: Path) -> None:
    right, mask = amplitudes(folder), np.abs(latitudes()) > 20
    ring = nest_to_ring(np.where(mask, 1.0, UNSEEN))
    for name, options in (("unseen.fits", {}), ("partial.fits", {"partial": True})):
        healpy.write_map(folder / name, ring, coord="G", dtype=np.float32, **options)
        assert amplitudes(folder, mask=name) == right
    healpy.write_map(folder / "logical.fits", nest_to_ring(mask), coord="G", dtype=bool)
    assert amplitudes(folder, mask="logical.fits") == right
    np.testing.assert_array_equal(read_mask(folder / "logical.fits", GRID), mask)


def test_weights_survive_another_nside() -> None:
    weights = c2_taper()
    np.testing.assert_allclose(
        regrade_weights(weights, HealpixGrid(16)), weights.reshape(-1, 4).mean(axis=1), rtol=1e-12
    )
    assert set(np.unique(regrade_weights((weights > 0.5) * 1.0, HealpixGrid(16)))) == {0, 1}


# ---- marginalize says what it takes


def test_q_is_cleaned_as_what_it_is(folder: Path, sky: np.ndarray, template: np.ndarray) -> None:
    iqu = {"I_STOKES": 2 * sky, "Q_STOKES": sky, "U_STOKES": 3 * sky}
    write_columns(folder / "iqu.fits", iqu, POLCCONV="COSMO")
    write_columns(folder / "dust.fits", {"I": template, "Q": template, "U": -template}, "MJy/sr", POLCCONV="IAU")
    for words, name in ((["--field", "1"], "iqu.fits"), ([], "iqu.fits[Q_STOKES]"), ([], "iqu.fits+1[#1]")):
        outcome = clean(folder, *words, sky=name)
        assert "Q_STOKES is one component of a field of spin 2" in outcome.out
        with fits.open(folder / "out" / "cleaned.fits") as hdus:
            header = hdus[1].header
            assert (header["TTYPE1"], header["POLCCONV"], header["TUNIT1"]) == ("Q_STOKES", "COSMO", "uK_CMB")
    q = amplitudes(folder, sky="iqu.fits[Q_STOKES]", template="dust.fits")
    assert amplitudes(folder, sky="sky.fits") == pytest.approx(q, rel=1e-9)
    assert amplitudes(folder, sky="iqu.fits[U_STOKES]", template="dust.fits") == pytest.approx([3 * q[0]], rel=1e-9)
    assert "spin 2" not in clean(folder, sky="iqu.fits", template="dust.fits[I]").out
    assert "one scalar map" in clean(folder, sky="iqu.fits[I_STOKES,U_STOKES]").refusal


def test_q_and_u_are_cleaned_as_one_field(folder: Path, sky: np.ndarray, template: np.ndarray) -> None:
    write_columns(folder / "iqu.fits", {"I": 2 * sky, "Q_STOKES": sky, "U_STOKES": 3 * template}, POLCCONV="COSMO")
    write_columns(folder / "dust.fits", {"I": template, "Q": template, "U": -template}, "MJy/sr", POLCCONV="IAU")
    outcome = clean(folder, sky="iqu.fits[Q_STOKES,U_STOKES]", template="dust.fits")
    assert outcome.out.startswith("dust: amplitude") and "scalar" not in outcome.out
    assert "EE power after / before" in outcome.out and "dust.fits gives one template: Q, U; not used: I" in outcome.out
    cleaned = healpy.read_map(folder / "out" / "cleaned.fits", field=(0, 1), nest=True, dtype=np.float64)
    amplitude = json.loads((folder / "out" / "marginalization.json").read_text())["amplitudes"][0]
    np.testing.assert_allclose(cleaned, [sky - amplitude * template, (3 - amplitude) * template], atol=1e-3)
    assert "no Stokes Q" in clean(folder, sky="iqu.fits[Q_STOKES,U_STOKES]").refusal
    assert "no Q with its U" in clean(folder, sky="iqu.fits[Q_STOKES,U_STOKES]", template="dust.fits[I]").refusal


def test_a_template_file_of_several_columns_says_what_it_gives(folder: Path, template: np.ndarray) -> None:
    other = 20 * smooth_maps(NSIDE, 1, 9)[:, 0]
    columns = {"DUST": template, "OTHER": other, "Q": other, "U": template}
    write_columns(folder / "several.fits", columns, "MJy/sr")
    outcome = clean(folder, template="several.fits")
    assert "several.fits gives 2 templates: DUST, OTHER; not used: Q, U" in outcome.out
    assert "several:DUST: amplitude" in outcome.out and "uK_CMB per MJy/sr" in outcome.out
    facts = json.loads((folder / "out" / "marginalization.json").read_text())
    assert facts["sky"] == {"file": "sky.fits", "column": "TEMPERATURE", "unit": "uK_CMB"}
    assert facts["templates"] == [{"name": f"several:{name}", "unit": "MJy/sr"} for name in ("DUST", "OTHER")]
    assert amplitudes(folder, template="several.fits[DUST]") == amplitudes(folder)
    write_columns(folder / "polarized.fits", {"Q": other, "U": template})
    assert "no scalar column for the sky's TEMPERATURE" in clean(folder, template="polarized.fits").refusal


def test_a_silent_template_takes_the_unit_of_the_option(folder: Path, template: np.ndarray) -> None:
    write_columns(folder / "silent.fits", {"DUST": template}, "")
    assert "--template-unit" in clean(folder, template="silent.fits").refusal
    assert amplitudes(folder, "--template-unit", "uK_RJ", template="silent.fits") == amplitudes(folder)


def test_a_partial_sky_is_cleaned_where_it_is(folder: Path, sky: np.ndarray) -> None:
    ring = nest_to_ring(np.where(np.abs(latitudes()) > 20, sky, UNSEEN))
    healpy.write_map(folder / "partial.fits", ring, coord="G", column_units="uK_CMB", partial=True, dtype=np.float64)
    assert amplitudes(folder, sky="partial.fits") == pytest.approx(amplitudes(folder), rel=1e-10)


# ---- checksums


def test_stale_checksums_are_refused_until_told_otherwise(folder: Path, sky: np.ndarray) -> None:
    path = write_columns(folder / "summed.fits", {"TEMPERATURE": sky}, CHECKSUM=True)
    right = amplitudes(folder, sky="summed.fits")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'uK_CMB  '", b"'uK_RJ   '"))
    refusal = clean(folder, sky="summed.fits").refusal
    assert "CHECKSUM" in refusal and "fitscheck --write" in refusal and "--no-checksum" in refusal
    assert amplitudes(folder, "--no-checksum", sky="summed.fits") == right
    flipped = bytearray(content)
    flipped[-4000] ^= 4
    path.write_bytes(flipped)
    assert "DATASUM" in clean(folder, sky="summed.fits").refusal
    for name in ("mask", "template"):
        flipped = bytearray(write_columns(folder / "other.fits", {"A": 0.5 + 0 * sky}, CHECKSUM=True).read_bytes())
        flipped[-9000] ^= 64
        (folder / "other.fits").write_bytes(flipped)
        assert "DATASUM" in clean(folder, **{name: "other.fits"}).refusal


@needs_real_sky
def test_a_damaged_file_of_a_known_product_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nhi_hi4pi_n64.fits"
    content = bytearray((REAL_SKY / path.name).read_bytes())
    path.write_bytes(content)
    assert read_healpix(path).checksum == file_checksum(REAL_SKY / path.name)
    content[100_000] ^= 1
    path.write_bytes(content)
    with refused("nhi_hi4pi_n64.fits is damaged", "sha256"):
        read_healpix(path)
    read_healpix(path, unsaid=UnsaidCards(edited=True))


# ---- hostile headers


HOSTILE = {
    "10^18 pixels": {"NAXIS2": 10**18},
    "no columns": {"TFIELDS": -1},
    "10^12 columns": {"TFIELDS": 10**12},
    "nside 2^60": {"NSIDE": 2**60},
    "text for a number": {"NAXIS1": "'eight   '"},
    "bits": {"BITPIX": 7},
    "endless rows": {"TFORM1": "'999999999999D'"},
    "axes": {"NAXIS": 10**9},
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_that_claim_the_impossible_are_refused_at_once(tmp_path: Path, case: str, packed: bool) -> None:
    path = write_columns(tmp_path / "map.fits", {"A": smooth_maps(8, 1, 1)[:, 0]})
    content = path.read_bytes()
    for key, value in HOSTILE[case].items():
        place = content.rindex(f"{key:<8}=".encode())
        content = content[:place] + f"{key:<8}= {value:>20}".ljust(80).encode() + content[place + 80 :]
    path.write_bytes(gzip.compress(content) if packed else content)
    with refused("map.fits"):
        read_healpix(path, allow_missing=True)


def test_a_pixel_list_of_an_absurd_grid_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.fits"
    columns = [fits.Column("PIXEL", "K", array=np.arange(9)), fits.Column("T", "E", unit="K", array=np.ones(9))]
    table = fits.BinTableHDU.from_columns(columns)
    for nside in (2**29, 2**60):
        table.header.update({"ORDERING": "NESTED", "COORDSYS": "G", "NSIDE": nside, "INDXSCHM": "EXPLICIT"})
        table.writeto(path, overwrite=True)
        with refused("list.fits"):
            read_healpix(path, allow_missing=True)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.fits")
    for path in (Path("/dev/zero"), tmp_path / "pipe.fits"):
        with refused(str(path), "no regular file"):
            read_healpix(path)
    (tmp_path / "endless.fits").write_bytes(b"SIMPLE  =                    T".ljust(80) + b" " * 2880 * 2100)
    with refused("endless.fits", "END"), open_fits(tmp_path / "endless.fits") as file:
        file.table()
    for head, tool in ((b"PK\x03\x04", "unzip"), (b"\x1f\x9d", "uncompress"), (b"\x28\xb5\x2f\xfd", "unzstd")):
        (tmp_path / "packed.fits").write_bytes(head + bytes(99))
        with refused("packed.fits", "compressed", tool):
            read_healpix(tmp_path / "packed.fits")


def test_the_cosmology_of_the_command_line_has_limits() -> None:
    for words in (("--mnu", "-0.1"), ("--H0", "0"), ("--As", "nan"), ("--tau", "-1")):
        assert f"{words[0][2:]}=" in sphereml("lensing", "n0", *words).refusal


def test_done_is_said_of_the_cleaned_map(folder: Path) -> None:
    words = ["--sky", folder / "sky.fits", "--mask", folder / "mask.fits", "--template", folder / "template.fits"]
    first = done("marginalize", *words, "--out", folder / "new").out.splitlines()[0]
    assert first.startswith("template: amplitude 0.5")
