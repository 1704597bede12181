"""The 8-neighbour HEALPix graph: pygsp and scipy as oracles, and the symmetry of the grid."""

from __future__ import annotations

import healpy
import numpy as np
import pygsp
import pytest
import scipy.sparse
from scipy.sparse.linalg import eigsh

from sphereml.sky.graphs import (
    NeighbourOperator,
    edge_weights,
    kernel_width,
    laplacian,
    largest_eigenvalue,
    neighbours,
    rescaled_laplacian,
)
from sphereml.sky.regions import Region
from sphereml.testing import SYMMETRIES

# Sums of nine numbers of order one in another order.
ROUNDING = 1e-13


def weight_matrix(nside: int) -> scipy.sparse.csr_matrix:
    """The graph's weights built edge by edge, with nothing from ``laplacian``."""
    pixels = np.arange(12 * nside**2)
    vectors = np.stack(healpy.pix2vec(nside, pixels, nest=True), axis=-1)
    matrix = scipy.sparse.lil_matrix((pixels.size, pixels.size))
    for pixel in pixels:
        for other in healpy.get_all_neighbours(nside, pixel, nest=True):
            if other >= 0:
                chord2 = np.sum((vectors[pixel] - vectors[other]) ** 2)
                matrix[pixel, other] = 2 ** (-chord2 / kernel_width(nside) ** 2)
    return matrix.tocsr()


@pytest.mark.parametrize("nside", [2, 8])
def test_laplacian_equals_pygsp(nside):
    oracle = pygsp.graphs.Graph(weight_matrix(nside), lap_type="combinatorial").L
    assert abs(laplacian(Region(nside)).matrix() - oracle).max() < ROUNDING


@pytest.mark.parametrize("nside", [1, 2, 8, 32])
def test_laplacian_is_symmetric_and_annihilates_constants(nside):
    matrix = laplacian(Region(nside)).matrix()
    # To the last bit: the backward pass of the convolution takes L for its own transpose.
    assert (matrix != matrix.T).nnz == 0
    assert np.abs(matrix @ np.ones(matrix.shape[0])).max() < ROUNDING


def top_eigenvalue(nside: int, precision: float = 1e-3) -> float:
    matrix = laplacian(Region(nside)).matrix()
    start = np.random.default_rng(5).standard_normal(matrix.shape[0])
    return float(eigsh(matrix, k=1, which="LA", v0=start, tol=precision, return_eigenvectors=False)[0])


@pytest.mark.parametrize("nside", [8, 32, 64])
def test_largest_eigenvalue_bounds_the_spectrum_closely(nside):
    top = top_eigenvalue(nside)
    assert top < largest_eigenvalue(nside) < 1.03 * top


def test_bound_of_nside_64_holds_above_it():
    top = top_eigenvalue(128, precision=1e-2)
    assert 1.01 * top < largest_eigenvalue(128) < 1.03 * top


def test_bound_holds_for_the_wider_kernels_of_nside_512_and_above():
    """Their width is not quite that of Nside 64 scaled: give Nside 64 theirs, ``w' = w^(1 / ratio^2)``."""
    ratio = max(kernel_width(nside) * nside / (64 * kernel_width(64)) for nside in (128, 256, 512, 1024, 2048))
    assert ratio > 1.001
    operator = laplacian(Region(64))
    wider = np.abs(operator.weight) ** (1 / ratio**2)
    wider[:, 0] = -wider[:, 1:].sum(axis=1)
    matrix = NeighbourOperator(operator.index, -wider).matrix()
    start = np.random.default_rng(5).standard_normal(matrix.shape[0])
    assert eigsh(matrix, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)[0] < largest_eigenvalue(64)


@pytest.mark.parametrize("nside", [1, 2, 4])
def test_rescaled_spectrum_lies_within_unity(nside):
    values = np.linalg.eigvalsh(rescaled_laplacian(Region(nside)).matrix().toarray())
    assert values[0] == pytest.approx(-1, abs=1e-12)
    # A bound far above the top would waste the range the Chebyshev polynomials resolve.
    assert (0.9 if nside > 1 else 0.0) < values[-1] <= 1


def test_rescaled_spectrum_of_a_region_lies_within_unity():
    values = np.linalg.eigvalsh(rescaled_laplacian(Region(16, (0, 5, 6, 30), 2)).matrix().toarray())
    assert values[0] >= -1 and values[-1] <= 1


@pytest.mark.parametrize(("coarse", "coarse_nside"), [((0,), 1), ((3, 4, 11), 1), ((0, 1, 17, 40), 2), ((7, 90), 4)])
def test_operator_of_a_region_is_the_block_of_the_sphere(coarse, coarse_nside):
    region = Region(16, coarse, coarse_nside)
    block = laplacian(Region(16)).matrix()[region.pixels][:, region.pixels]
    assert abs(laplacian(region).matrix() - block).max() == 0


@pytest.mark.parametrize("nside", [4, 32])
def test_corners_of_base_pixels_have_seven_neighbours(nside):
    pixels = np.arange(12 * nside**2)
    table = neighbours(nside, pixels)
    missing = (table < 0).sum(axis=1)
    # Three base pixels meet at 8 corners: 24 pixels lack their neighbour across the corner.
    assert (missing == 1).sum() == 24 and missing.max() == 1
    weight = edge_weights(nside, pixels, table)
    assert (weight[table < 0] == 0).all() and (weight[table >= 0] > 0.005).all()
    operator = laplacian(Region(nside))
    corner = np.flatnonzero(missing)[0]
    assert (operator.index[corner] >= 0).all() and (operator.weight[corner] == 0).sum() == 1


def test_operator_keeps_the_symmetries_of_the_grid():
    matrix = laplacian(Region(8)).matrix()
    for symmetry in SYMMETRIES:
        source = symmetry.source(8)
        assert abs(matrix[source][:, source] - matrix).max() < ROUNDING


def test_operator_is_deterministic():
    first, second = rescaled_laplacian(Region(16)), rescaled_laplacian(Region(16))
    np.testing.assert_array_equal(first.index, second.index)
    np.testing.assert_array_equal(first.weight, second.weight)
    kept = largest_eigenvalue(16)
    largest_eigenvalue.cache_clear()
    assert largest_eigenvalue(16) == kept


def test_kernel_width_scales_with_the_pixel():
    for nside in (1, 2, 16, 32, 256, 1024, 4096):
        assert kernel_width(nside) == pytest.approx(2 * kernel_width(2 * nside), rel=0.02)
