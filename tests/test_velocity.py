"""The velocity axis: header spellings against astropy.wcs, selection on HI4PI's own axis, flux-conserving rebinning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from fixtures_archive import ArchiveAxis
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.data.hpx_tables import HI4PI
from sphereml.data.velocity import SPEED_OF_LIGHT, VelocityAxis, velocity_axis
from sphereml.errors import UserError

F0 = 1.42040575177e9
# The cards of the real GHIGLS cube, whose AIPS spelling astropy translates to VOPT-F2W.
GHIGLS = {"CTYPE3": "FELO-LSR", "CRVAL3": 2.518386742294e5, "CDELT3": -1032.311963288, "CRPIX3": -35.0}
GHIGLS |= {"CUNIT3": "M/S", "VELREF": 1, "RESTFREQ": 1.4204058e9, "ALTRVAL": 1.41921359899e9}


def cards(**changes: Any) -> dict[str, Any]:
    merged = ArchiveAxis().cards() | changes
    return {key: value for key, value in merged.items() if value is not None}


def test_hi4pi_range_of_the_paper_is_64_channels_from_the_header() -> None:
    axis = velocity_axis(cards(), 933, "HPX")
    chosen = axis.select(-64.5, 17.0)
    assert len(chosen) == 64
    np.testing.assert_allclose(axis.centres[chosen[[0, -1]]], np.array([-50, 13]) * 1.28821496, rtol=1e-12)
    assert axis.centres[465] == pytest.approx(0, abs=1e-9)
    # Another file may keep other channels: the rule follows the velocities, not the index.
    assert (velocity_axis(cards(CRPIX3=100.0), 300, "cut").select(-64.5, 17.0) == chosen - 366).all()


def test_the_known_axis_of_hi4pi_is_that_of_its_cards() -> None:
    assert HI4PI.axis is not None and HI4PI.axis.matches(velocity_axis(cards(), 933, "CAR"))


def test_a_bound_printed_with_two_digits_counts_as_its_channel() -> None:
    axis = velocity_axis(cards(), 933, "HPX")
    assert len(axis.select(-64.41, 16.75)) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"CUNIT3": "km/s", "CDELT3": 1.28821496},
        {"CUNIT3": None},
        {"CTYPE3": "VELO-LSR", "SPECSYS": None},
        {"CTYPE3": "VELO-LSRK", "SPECSYS": None},
        {"CTYPE3": "VELO", "SPECSYS": None, "VELREF": 257},
        {"CTYPE3": "FREQ", "CUNIT3": "Hz", "CRVAL3": F0, "CDELT3": -F0 * 1.28821496 / SPEED_OF_LIGHT, "RESTFRQ": F0},
        {"CTYPE3": "FREQ", "CUNIT3": "MHz", "CRVAL3": F0 / 1e6, "CDELT3": -F0 * 1.28821496e-6 / SPEED_OF_LIGHT},
    ],
)
def test_spellings_of_one_axis_agree(changes: dict[str, Any]) -> None:
    axis = velocity_axis(cards(**changes), 933, "cube")
    np.testing.assert_allclose(axis.centres, velocity_axis(cards(), 933, "cube").centres, atol=1e-6)
    np.testing.assert_allclose(axis.widths, 1.28821496, rtol=1e-6)


def test_a_descending_axis_keeps_the_files_order_and_positive_widths() -> None:
    axis = velocity_axis(cards(CDELT3=-1288.21496), 933, "cube")
    assert (np.diff(axis.centres) < 0).all() and (axis.widths > 0).all()
    assert len(axis.select(-64.5, 17.0)) == 64


def oracle_radio(header: dict[str, Any], channels: int) -> np.ndarray:
    """Radio km/s from the optical m/s that astropy finds."""
    optical = WCS(fits.Header(header)).spectral.wcs_pix2world(np.arange(channels), 0)[0] / 1e3
    return np.asarray(SPEED_OF_LIGHT * (1 - 1 / (1 + optical / SPEED_OF_LIGHT)))


@pytest.mark.parametrize("kind", ["VOPT", "VOPT-F2W"])
def test_optical_axes_agree_with_astropy(kind: str) -> None:
    header = {"CTYPE3": kind, "CRVAL3": 2.5e5, "CDELT3": -1030.0, "CRPIX3": -35.0, "CUNIT3": "m/s", "SPECSYS": "LSRK"}
    header |= {"RESTFRQ": F0, "CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"}
    axis = velocity_axis(header, 490, "cube")
    np.testing.assert_allclose(axis.centres, oracle_radio(header, 490), atol=2e-6)


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_the_aips_axis_of_ghigls_agrees_with_astropy_and_with_its_own_frequency() -> None:
    axis = velocity_axis(GHIGLS, 490, "ghigls")
    lower = GHIGLS | {"CUNIT3": "m/s", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    np.testing.assert_allclose(axis.centres, oracle_radio(lower, 490), atol=1e-5)
    reference = SPEED_OF_LIGHT * (1 - GHIGLS["ALTRVAL"] / GHIGLS["RESTFREQ"])
    assert axis.centres[0] + 36 * axis.widths[0] == pytest.approx(reference, abs=0.01)


def test_the_cards_of_a_tables_vector_column_are_understood() -> None:
    column = {"1CTYP2": "VRAD", "1CUNI2": "m/s", "1CRPX2": 466.0, "1CRVL2": 0.0, "1CDLT2": 1288.21496}
    axis = velocity_axis(column, 933, "HPX", frame="LSRK", column=2)
    assert axis.matches(velocity_axis(cards(), 933, "CAR"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SPECSYS": "BARYCENT"}, ("BARYCENT", "LSRK")),
        ({"CTYPE3": "VELO-HEL", "SPECSYS": None}, ("HEL", "LSR")),
        ({"SPECSYS": "LSRD"}, ("LSRD",)),
        ({"SPECSYS": None, "VELREF": 258}, ("BARYCENT",)),
        ({"SPECSYS": None}, ("frame", "SPECSYS")),
        ({"CUNIT3": "furlong"}, ("unit", "furlong")),
        ({"CUNIT3": "Hz"}, ("unit", "Hz")),
        ({"CDELT3": 1.28821496}, ("0.00128821 km/s", "unit")),
        ({"CTYPE3": "FREQ", "CUNIT3": "Hz", "CRVAL3": F0, "CDELT3": 6e3, "RESTFRQ": None}, ("RESTFRQ",)),
        ({"CTYPE3": None}, ("no velocity axis", "CTYPE3")),
        ({"CDELT3": None}, ("CDELT3",)),
        ({"CDELT3": 0.0}, ("CDELT3",)),
    ],
)
def test_an_axis_that_is_not_understood_is_refused_in_one_line(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        velocity_axis(cards(**changes), 933, "cube.fits")
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_frame_may_be_brought_but_never_overrides_the_file() -> None:
    assert len(velocity_axis(cards(SPECSYS=None), 933, "cube", frame="LSRK")) == 933
    with pytest.raises(UserError, match="TOPOCENT"):
        velocity_axis(cards(SPECSYS="TOPOCENT"), 933, "cube", frame="LSRK")


@pytest.mark.parametrize("bounds", [(-700.0, 0.0), (0.0, 700.0), (0.1, 0.9)])
def test_ranges_beyond_or_between_channels_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="km/s"):
        velocity_axis(cards(), 933, "cube").select(*bounds)


@settings(max_examples=30, deadline=None)
@given(
    first=st.floats(-300, 200),
    width=st.floats(0.3, 12),
    channels=st.integers(1, 20),
    signs=st.tuples(st.sampled_from([-1, 1]), st.sampled_from([-1, 1])),
)
def test_rebinning_conserves_the_integral(first: float, width: float, channels: int, signs: tuple[int, int]) -> None:
    source = VelocityAxis.uniform(600.0 * -signs[0], signs[0] * 1.28821496, 933)
    wanted = VelocityAxis.uniform(first, signs[1] * width, channels)
    weights = source.rebinning(wanted)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    spectrum = np.exp(-((source.centres + 20) ** 2) / 5000)
    # The integral of a piecewise constant spectrum, by its cumulative sum, is the oracle.
    order = slice(None, None, signs[0])
    cumulative = np.concatenate([[0], np.cumsum((spectrum * source.widths)[order])])
    ends = np.interp([wanted.edges.min(), wanted.edges.max()], source.edges[order], cumulative)
    assert (weights @ spectrum) @ wanted.widths == pytest.approx(ends[1] - ends[0], rel=1e-9, abs=1e-9)


def test_rebinning_beyond_the_axis_is_refused() -> None:
    source = VelocityAxis.uniform(-10, 1.0, 20)
    with pytest.raises(UserError, match="beyond"):
        source.rebinning(VelocityAxis.uniform(-12, 4.0, 3))


def test_a_subset_is_consecutive() -> None:
    axis = VelocityAxis.uniform(-10, 1.0, 20)
    np.testing.assert_allclose(axis.subset(axis.select(-3, 3)).centres, np.arange(-3, 4))
    with pytest.raises(UserError, match="consecutive"):
        axis.subset(np.array([1, 3]))
