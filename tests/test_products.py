"""Template FITS files: what healpy reads, what comes back, and what is refused."""

import healpy
import numpy as np
import pytest
from astropy.io import fits

from sphereml.errors import UserError
from sphereml.sky.ordering import nest_to_ring
from sphereml.surface import read_map
from sphereml.templates.products import write_template

NSIDE = 8
NPIX = 12 * NSIDE**2
FLOAT32_RTOL = 6e-8  # half a unit in the last place of the stored float32
HEADER = {"run_id": "demo-12ab", "weights_hash": "a" * 64, "model": "unet_sphere"}


@pytest.fixture
def maps() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {name: rng.standard_normal(NPIX) for name in ("DUST", "Q_DUST", "U_DUST")}


def test_healpy_reads_what_was_written(tmp_path, maps):
    path = write_template(tmp_path / "new" / "dust.fits", maps, "uK_RJ", HEADER)
    read, cards = healpy.read_map(path, field=None, h=True, dtype=np.float64)
    np.testing.assert_allclose(read, [nest_to_ring(m) for m in maps.values()], rtol=FLOAT32_RTOL)
    nested = healpy.read_map(path, field=0, nest=True, dtype=np.float64)
    np.testing.assert_allclose(nested, maps["DUST"], rtol=FLOAT32_RTOL)
    cards = dict(cards)
    assert (cards["ORDERING"], cards["COORDSYS"], cards["POLCCONV"]) == ("RING", "G", "COSMO")
    assert (cards["TUNIT1"], cards["TTYPE2"], cards["NSIDE"]) == ("uK_RJ", "Q_DUST", NSIDE)
    assert (cards["RUNID"], cards["WEIGHTS"], cards["MODEL"]) == ("demo-12ab", "a" * 64, "unet_sphere")


def test_round_trip_keeps_values_units_and_gaps(tmp_path, maps):
    maps["DUST"][3] = np.nan
    path = write_template(tmp_path / "dust.fits", maps, "MJy/sr", {"a_longer_name": 3})
    np.testing.assert_allclose(read_map(path).values, np.stack(list(maps.values()), axis=-1), rtol=FLOAT32_RTOL)
    header = fits.getheader(path, 1)
    assert header["TUNIT3"] == "MJy/sr"
    assert header["A_LONGER_NAME"] == 3


def test_equal_input_gives_equal_bytes_with_valid_checksums(tmp_path, maps):
    first = write_template(tmp_path / "a.fits", maps, "K", HEADER)
    second = write_template(tmp_path / "b.fits", maps, "K", HEADER)
    assert first.read_bytes() == second.read_bytes()
    with fits.open(first) as hdus:
        assert all(hdu.verify_checksum() == 1 and hdu.verify_datasum() == 1 for hdu in hdus)


def test_intensity_alone_has_no_polarization_card(tmp_path, maps):
    path = write_template(tmp_path / "dust.fits", {"DUST": maps["DUST"]}, "K")
    assert "POLCCONV" not in fits.getheader(path, 1)


def test_iau_file_is_turned_to_cosmo(tmp_path, maps):
    path = write_template(tmp_path / "dust.fits", maps, "K")
    with fits.open(path) as hdus:
        hdus[1].header["POLCCONV"] = "IAU"
        hdus.writeto(tmp_path / "iau.fits", checksum=True)
    values = read_map(tmp_path / "iau.fits").values
    np.testing.assert_allclose(values[:, 2], -maps["U_DUST"], rtol=FLOAT32_RTOL)
    np.testing.assert_allclose(values[:, 1], maps["Q_DUST"], rtol=FLOAT32_RTOL)


@pytest.mark.parametrize("nest", [False, True])
def test_reads_maps_written_by_healpy(tmp_path, maps, nest):
    values = maps["DUST"] if nest else nest_to_ring(maps["DUST"])
    healpy.write_map(tmp_path / "hp.fits", values, nest=nest, dtype=np.float64, column_units="K", coord="G")
    np.testing.assert_array_equal(read_map(tmp_path / "hp.fits").values[:, 0], maps["DUST"])


def test_existing_file_is_kept_unless_told(tmp_path, maps):
    path = write_template(tmp_path / "dust.fits", maps, "K")
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists"):
        write_template(path, maps, "mK")
    assert path.read_bytes() == before
    write_template(path, maps, "mK", overwrite=True)
    assert fits.getheader(path, 1)["TUNIT1"] == "mK"


def test_unwritable_folder_leaves_nothing(tmp_path, maps):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write"):
        write_template(tmp_path / "file" / "dust.fits", maps, "K")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_unit_lone_stokes_and_mixed_sizes_are_refused(tmp_path, maps):
    path = tmp_path / "dust.fits"
    with pytest.raises(UserError, match="unit"):
        write_template(path, maps, " ")
    with pytest.raises(UserError, match="unknown unit"):
        write_template(path, maps, "furlong")
    with pytest.raises(UserError, match="Stokes Q"):
        write_template(path, {"Q": maps["Q_DUST"]}, "K")
    with pytest.raises(UserError, match="shapes"):
        write_template(path, {"A": np.ones(48), "B": np.ones(12)}, "K")
    assert not path.exists()


def test_damaged_and_foreign_files_are_refused(tmp_path, maps):
    path = write_template(tmp_path / "dust.fits", maps, "K")
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-NPIX] ^= 1
    for name, data in {"cut": content[:-4000], "flipped": bytes(flipped), "text": b"no FITS at all"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=r"truncated|damaged|not a readable"):
            read_map(tmp_path / name)
    with pytest.raises(UserError, match="no file"):
        read_map(tmp_path / "absent.fits")


def test_file_without_pixel_order_is_refused(tmp_path, maps):
    path = write_template(tmp_path / "dust.fits", maps, "K")
    with fits.open(path) as hdus:
        del hdus[1].header["ORDERING"]
        hdus.writeto(tmp_path / "orderless.fits", checksum=True)
    with pytest.raises(UserError, match="ORDERING"):
        read_map(tmp_path / "orderless.fits")
