"""Neighbour graphs of HEALPix: pygsp, scipy's k-d tree and deepsphere as oracles, and the symmetries of the grid."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import get_args

import healpy
import numpy as np
import pygsp
import pytest
import scipy.sparse
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree

from sphereml.benchmarks.graph import GraphBenchmark
from sphereml.sky.faces import face_coordinates, pixels_beyond, turned, unit_vectors
from sphereml.sky.graphs import (
    Graph,
    Kind,
    NeighbourOperator,
    graph_reach,
    kernel_width,
    laplacian,
    largest_eigenvalue,
    neighbour_count,
    neighbours,
    rescaled_laplacian,
)
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.kdtree import kdtree_laplacian, kdtree_rescaled_laplacian, kdtree_weights
from sphereml.sky.regions import Region
from sphereml.testing import SYMMETRIES

# Sums of some twenty numbers of order one in another order.
ROUNDING = 1e-13
GRAPHS = get_args(Graph)
NEAREST = GRAPHS[1:]
SLOW = ("nearest8", "nearest40", "nearest60")
KINDS = get_args(Kind)
REFERENCE = Path(__file__).parents[1] / "../shared/reference/deepsphere_chebconv_nside8_k20_K5.npz"


@lru_cache
def weight_matrix(nside: int, graph: str) -> scipy.sparse.csr_matrix:
    """The graph's weights from healpy's neighbours or a k-d tree's balls, with nothing from ``laplacian``."""
    vectors = HealpixGrid(nside).vectors()
    if graph == "adjacent":
        near = [set(healpy.get_all_neighbours(nside, pixel, nest=True)) - {-1} for pixel in range(len(vectors))]
    else:
        tree = cKDTree(vectors)
        radius = tree.query(vectors, [min(neighbour_count(graph) + 1, len(vectors))])[0][:, 0]
        near = [set(ball) - {own} for own, ball in enumerate(tree.query_ball_point(vectors, radius * (1 + 1e-10)))]
    rows = np.repeat(np.arange(len(vectors)), [len(own) for own in near])
    columns = np.concatenate([sorted(own) for own in near])
    chord2 = ((vectors[rows] - vectors[columns]) ** 2).sum(axis=1)
    weight = 2 ** (-chord2 / kernel_width(nside, graph) ** 2)
    matrix = scipy.sparse.coo_matrix((weight, (rows, columns)), shape=(len(vectors),) * 2).tocsr()
    return matrix.maximum(matrix.T)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("nside", [2, 8, 16])
def test_laplacian_equals_pygsp(nside, graph, kind):
    oracle = pygsp.graphs.Graph(weight_matrix(nside, graph), lap_type=kind).L
    assert abs(laplacian(Region(nside), graph, kind).matrix() - oracle).max() < 10 * ROUNDING


@pytest.mark.parametrize("graph", NEAREST)
def test_window_holds_every_mutual_neighbour(graph):
    """Finer grids have pixels of the same shapes: none of Nside 16, 32 and 64 needs a window wider than another."""
    missed = (weight_matrix(32, graph) > 0) != (laplacian(Region(32), graph).matrix() < 0)
    assert missed.nnz == 0


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("nside", [4, 8, 16])
def test_neighbours_lie_within_the_reach_of_the_graph(nside, graph):
    step = laplacian(Region(nside)).matrix() != 0
    reached = scipy.sparse.identity(step.shape[0], dtype=bool, format="csr")
    for _ in range(graph_reach(graph)):
        reached = reached @ step
    named = laplacian(Region(nside), graph).matrix() != 0
    assert (named.astype(int) - named.multiply(reached)).count_nonzero() == 0


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("nside", [1, 2, 8, 32])
def test_laplacian_is_symmetric_and_annihilates_constants(nside, graph):
    matrix = laplacian(Region(nside), graph).matrix()
    # To the last bit: the backward pass of the convolution takes L for its own transpose.
    assert (matrix != matrix.T).nnz == 0
    assert np.abs(matrix @ np.ones(matrix.shape[0])).max() < 4 * ROUNDING
    matrix = laplacian(Region(nside), graph, "normalized").matrix()
    assert (matrix != matrix.T).nnz == 0
    assert abs(matrix.diagonal() - 1).max() == 0


def top_eigenvalue(operator: NeighbourOperator, precision: float = 1e-3) -> float:
    matrix = operator.matrix()
    start = np.random.default_rng(5).standard_normal(matrix.shape[0])
    return float(eigsh(matrix, k=1, which="LA", v0=start, tol=precision, return_eigenvectors=False)[0])


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nside", [8, 32])
def test_largest_eigenvalue_bounds_the_spectrum_closely(nside, kind, graph):
    top = top_eigenvalue(laplacian(Region(nside), graph, kind))
    assert top < largest_eigenvalue(nside, graph, kind) < 1.03 * top


@pytest.mark.parametrize("graph", ["adjacent", "nearest20", *(pytest.param(g, marks=pytest.mark.slow) for g in SLOW)])
def test_bound_found_at_nside_64_holds_above_it(graph):
    top = top_eigenvalue(laplacian(Region(128), graph), precision=1e-2)
    assert 1.01 * top < largest_eigenvalue(128, graph) < 1.03 * top


@pytest.mark.parametrize("nside", [128, pytest.param(256, marks=pytest.mark.slow)])
def test_bound_of_the_normalized_laplacian_keeps_ahead_of_its_growth(nside):
    top = top_eigenvalue(laplacian(Region(nside), "adjacent", "normalized"), precision=1e-2)
    assert 1.01 * top < largest_eigenvalue(nside, "adjacent", "normalized") < 1.08 * top


@pytest.mark.parametrize("kind", KINDS)
def test_largest_eigenvalue_agrees_with_pygsp(kind):
    oracle = pygsp.graphs.Graph(weight_matrix(16, "nearest20"), lap_type=kind)
    oracle.estimate_lmax()
    assert largest_eigenvalue(16, "nearest20", kind) == pytest.approx(oracle.lmax, rel=0.02)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nside", [1, 2, 4])
def test_rescaled_spectrum_lies_within_unity(nside, kind, graph):
    values = np.linalg.eigvalsh(rescaled_laplacian(Region(nside), graph, kind).matrix().toarray())
    assert values[0] == pytest.approx(-1, abs=1e-12)
    # A bound far above the top would waste the range the Chebyshev polynomials resolve.
    assert 0.9 < values[-1] <= 1


def test_rescaled_spectrum_of_a_region_lies_within_unity():
    values = np.linalg.eigvalsh(rescaled_laplacian(Region(16, (0, 5, 6, 30), 2)).matrix().toarray())
    assert values[0] >= -1 and values[-1] <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", ["adjacent", "nearest20", "nearest60"])
@pytest.mark.parametrize(("coarse", "coarse_nside"), [((0,), 1), ((3, 4, 11), 1), ((0, 1, 17, 40), 2), ((7, 90), 4)])
@pytest.mark.parametrize("nside", [4, 16])
def test_operator_of_a_region_is_the_block_of_the_sphere(nside, coarse, coarse_nside, graph, kind):
    region = Region(nside, coarse, coarse_nside)
    block = laplacian(Region(nside), graph, kind).matrix()[region.pixels][:, region.pixels]
    assert abs(laplacian(region, graph, kind).matrix() - block).max() == 0


def test_operator_of_single_pixels_is_the_block_of_the_sphere():
    region = Region(32, (0, 1, 2, 3, 40, 1023, 5000, 12287), 32)
    block = laplacian(Region(32), "nearest20").matrix()[region.pixels][:, region.pixels]
    assert abs(laplacian(region, "nearest20").matrix() - block).max() == 0


def test_operator_of_a_tile_takes_no_memory_of_the_sphere():
    """At Nside 4096 the whole graph would have 200 million rows."""
    operator = laplacian(Region(4096, (100000,), 256), "nearest20")
    assert operator.index.shape[0] == 256
    assert (operator.weight[:, 1:] < 0).sum(axis=1).max() >= 20


@pytest.mark.parametrize("nside", [4, 32])
def test_corners_of_base_pixels_have_seven_neighbours(nside):
    pixels = np.arange(12 * nside**2)
    table = neighbours(nside, pixels)
    missing = (table < 0).sum(axis=1)
    # Three base pixels meet at 8 corners: 24 pixels lack their neighbour across the corner.
    assert (missing == 1).sum() == 24 and missing.max() == 1
    operator = laplacian(Region(nside))
    np.testing.assert_array_equal(operator.index[:, 1:], np.where(table >= 0, table, pixels[:, None]))
    assert (operator.weight[:, 1:][table < 0] == 0).all() and (operator.weight[:, 1:][table >= 0] < -0.005).all()


@pytest.mark.parametrize("graph", GRAPHS)
def test_operator_keeps_the_symmetries_of_the_grid(graph):
    matrix = laplacian(Region(16), graph).matrix()
    for symmetry in SYMMETRIES:
        source = symmetry.source(16)
        assert abs(matrix[source][:, source] - matrix).max() < ROUNDING


def test_operator_is_deterministic():
    first, second = (rescaled_laplacian(Region(16), "nearest20") for _ in range(2))
    np.testing.assert_array_equal(first.index, second.index)
    np.testing.assert_array_equal(first.weight, second.weight)
    kept = largest_eigenvalue(16, "nearest20")
    largest_eigenvalue.cache_clear()
    assert largest_eigenvalue(16, "nearest20") == kept


@pytest.mark.parametrize("graph", GRAPHS)
def test_kernel_width_scales_with_the_pixel(graph):
    for nside in (1, 2, 16, 32, 64, 256, 1024, 4096):
        assert kernel_width(nside, graph) == pytest.approx(2 * kernel_width(2 * nside, graph), rel=0.05)
    assert kernel_width(16, graph) == 2 * kernel_width(32, graph)


def test_kernel_widths_are_those_of_deepsphere():
    assert kernel_width(64, "nearest20") == 0.01564
    assert kernel_width(1024, "nearest8") == 0.00077
    assert kernel_width(1024, "nearest40") == 0.005551 / 4
    assert kernel_width(128) == kernel_width(128, "nearest8") == 0.00614


@pytest.mark.parametrize("nside", [1, 2, 16])
def test_faces_continue_across_their_edges_as_healpy_says(nside):
    pixels = np.arange(12 * nside**2)
    face, x, y = face_coordinates(nside, pixels)
    compass = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    table = np.stack([pixels_beyond(nside, face, x + east, y + west) for east, west in compass], axis=1)
    np.testing.assert_array_equal(table, neighbours(nside, pixels))


def test_quarter_turns_move_vectors_exactly():
    pixels = np.arange(12 * 8**2)
    x, y, z = unit_vectors(8, pixels)
    np.testing.assert_allclose(np.stack([x, y, z], axis=-1), HealpixGrid(8).vectors(), atol=1e-15)
    np.testing.assert_array_equal(unit_vectors(8, turned(8, pixels, 1)), np.stack([-y, x, z]))


@pytest.fixture(scope="module")
def deepsphere():
    if not REFERENCE.exists():
        pytest.skip(f"no reference file {REFERENCE}")
    arrays = np.load(REFERENCE)

    def matrix(name: str) -> scipy.sparse.csr_matrix:
        value = arrays[f"{name}_weight" if name == "adj" else f"{name}_val"]
        return scipy.sparse.coo_matrix(
            (value, (arrays[f"{name}_row"], arrays[f"{name}_col"])), shape=(768, 768)
        ).tocsr()

    return {name: matrix(name) for name in ("adj", "lap", "scaled")}


def test_kdtree_graph_is_deepspheres(deepsphere):
    assert abs(kdtree_weights(8) - deepsphere["adj"]).max() < 1e-12
    assert abs(kdtree_laplacian(8) - deepsphere["lap"]).max() < 1e-12
    # Its estimate of the largest eigenvalue is good to 0.5 %.
    assert abs(kdtree_rescaled_laplacian(8).matrix() - deepsphere["scaled"]).max() < 0.005


def test_deepspheres_graph_is_ours_without_some_of_the_tied_neighbours(deepsphere):
    ours, theirs = -laplacian(Region(8), "nearest20").matrix(), deepsphere["adj"]
    ours.setdiag(0)
    ours.eliminate_zeros()
    common = ours.multiply(theirs > 0)
    assert abs(common - theirs).max() < 1e-12
    extra = (ours - common).tocoo()
    extra.eliminate_zeros()
    vectors = HealpixGrid(8).vectors()
    radius = cKDTree(vectors).query(vectors, [21])[0][:, 0]
    distance = np.linalg.norm(vectors[extra.row] - vectors[extra.col], axis=1)
    np.testing.assert_allclose(distance, np.maximum(radius[extra.row], radius[extra.col]), rtol=1e-12)
    assert 0 < extra.nnz <= 60


@pytest.mark.parametrize("kind", KINDS)
def test_kdtree_laplacian_equals_pygsp(kind):
    oracle = pygsp.graphs.Graph(kdtree_weights(8), lap_type=kind).L
    assert abs(kdtree_laplacian(8, kind=kind) - oracle).max() < ROUNDING


def test_operator_of_a_matrix_is_that_matrix():
    matrix = scipy.sparse.random(30, 30, 0.2, random_state=3).tocsr()
    operator = NeighbourOperator.from_matrix(matrix)
    assert abs(operator.matrix() - matrix).max() == 0
    np.testing.assert_array_equal(operator.index[:, 0], np.arange(30))
    assert (operator.index[operator.weight == 0] == np.nonzero(operator.weight == 0)[0]).all()


def test_graph_benchmark_reports_time_and_memory():
    result = GraphBenchmark(16, ("nearest20",)).measure()
    assert result["npix"] == 3072
    for measured in (result["graphs"]["nearest20"], result["graphs"]["nearest20"]["plain"]):
        assert measured["seconds"] > 0 and measured["peak_mb"] >= 0
