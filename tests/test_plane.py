"""Square grids: the numbers that everything flat shares."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from sphereml.domains import FlatPatch
from sphereml.errors import UserError
from sphereml.harmonics.flat import FlatModes
from sphereml.harmonics.flat_polarization import FlatSky
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.lambert import LambertPatch
from sphereml.sky import plane
from sphereml.sky.plane import SquareGrid

GRID = SquareGrid(128, 2.34375)


def test_five_degrees_have_the_numbers_of_deepcmb():
    assert (GRID.extent, GRID.fundamental_ell, GRID.nyquist_ell) == (5, 72, 4608)
    assert GRID.area == np.radians(5) ** 2 and GRID.step == np.radians(5 / 128)
    assert GRID.with_size(256).extent == 10 and GRID.resampled(64) == SquareGrid(64, 4.6875)


def test_whatever_is_flat_has_the_same_geometry():
    grids = [kind(128, 2.34375) for kind in (FlatSky, GnomonicPatch, LambertPatch)]
    grids += [FlatPatch(128, 2.34375).grid, FlatModes(GRID).grid, FlatPatch.of(GRID, "lambert").grid]
    for name in ("size", "pixel_arcmin", "extent", "step", "area", "fundamental_ell", "nyquist_ell"):
        assert {getattr(grid, name) for grid in grids} == {getattr(GRID, name)}
    assert isinstance(FlatSky(8, 1.0).with_size(16), FlatSky)


def test_pixel_centres_come_back_to_their_places_and_lie_inside():
    column, row, inside = GRID.position(*GRID.offsets())
    expected = np.indices((128, 128))
    np.testing.assert_allclose([row, column], expected, atol=1e-9)
    assert inside.all()
    assert not GRID.position(np.array([0.0, np.nan]), np.array([64.1 * GRID.step, 0.0]))[2].any()


def test_module_examples():
    assert doctest.testmod(plane).failed == 0


@pytest.mark.parametrize(("size", "pixel"), [(0, 1.0), (16, -1.0), (16, float("nan")), (16, float("inf"))])
def test_impossible_grids_are_refused(size: int, pixel: float):
    with pytest.raises(UserError, match="impossible"):
        SquareGrid(size, pixel)
