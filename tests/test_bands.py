"""Bands of multipoles: limits, order, membership, clipping, what they refuse."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sphereml.errors import UserError
from sphereml.harmonics import bands as module
from sphereml.harmonics.bands import Bands

limit = st.floats(0, 60)


def test_bands_map_names_to_limits_in_their_order():
    bands = Bands(r50=(14.4, 100), r_low=[2, 15])
    assert dict(bands) == {"r50": (14.4, 100.0), "r_low": (2.0, 15.0)}
    assert list(bands) == ["r50", "r_low"] and bands.lmax == 99
    assert bands == Bands(**bands) and hash(bands) == hash(Bands(**bands))
    assert bands != Bands(r_low=(2, 15), r50=(14.4, 100)) and {bands: 1}[Bands(**bands)] == 1
    assert bands.chosen(["r_low", "r150", "r50"]) == Bands(r_low=(2, 15), r50=(14.4, 100))
    with pytest.raises(AttributeError):
        bands.names = ()


def test_consecutive_bands_take_their_limits_for_names():
    bands = Bands.edges(2, 15, 14.4 * 10)
    assert dict(bands) == {"2-15": (2, 15), "15-144": (15, 144)}
    assert repr(bands) == "Bands.edges(2, 15, 144)" and repr(Bands(a=(0.5, 2))) == "Bands(a=(0.5, 2))"


def test_module_examples():
    assert doctest.testmod(module).failed == 0


@given(limit, limit, st.integers(0, 70), st.integers(0, 10))
def test_membership_slices_and_clipping_are_those_of_the_definition(one: float, other: float, lmax: int, lmin: int):
    lo, hi = sorted((one, other))
    if lo == hi:
        return
    bands = Bands(only=(lo, hi))
    inside = [ell for ell in range(71) if lo <= ell < hi]
    assert np.arange(71)[bands.slices[0]].tolist() == inside
    assert np.flatnonzero(bands.membership(70)[0]).tolist() == inside
    if inside:
        assert bands.lmax == inside[-1]
        assert bands.centers[0] == pytest.approx(np.average(inside, weights=[2 * ell + 1 for ell in inside]))
    kept = [ell for ell in inside if lmin <= ell <= lmax]
    clipped = bands.clipped(lmax, lmin)
    assert [ell for ell in range(71) if clipped and clipped["only"][0] <= ell < clipped["only"][1]] == kept
    assert bool(clipped) == bool(kept)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bands(low=(15, 2)),
        lambda: Bands(low=(-1, 2)),
        lambda: Bands(low=(2, np.inf)),
        lambda: Bands(low=(np.nan, 2)),
        lambda: Bands(low=(2, 15, 30)),
        lambda: Bands.edges(500),
        lambda: Bands.edges(500, 300),
    ],
)
def test_impossible_bands_are_refused(make):
    with pytest.raises(UserError, match="band"):
        make()
