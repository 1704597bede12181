"""Time and memory to build each neighbour graph with its Laplacian, beside the plain way with scipy.

Every graph is built in a fresh process, so that its peak of memory is its own and no memory is warm.  The plain way is
a k-d tree of the pixel centres and a sparse matrix symmetrized by the maximum, as deepsphere has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import cpu_count
from typing import Any, get_args

from sphereml.benchmarks.processes import Cost, in_fresh_process
from sphereml.sky.graphs import Graph, laplacian
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.kdtree import kdtree_laplacian
from sphereml.sky.regions import Region


@dataclass(frozen=True)
class GraphBenchmark:
    """Graphs of the whole sphere at ``nside``; ``plain`` builds each of the k-nearest ones with scipy as well."""

    nside: int
    graphs: tuple[Graph, ...] = get_args(Graph)
    plain: bool = True

    def measure(self) -> dict[str, Any]:
        """``{"nside", "npix", "cores", "graphs": {NAME: {"seconds", "peak_mb", "plain": {"seconds", "peak_mb"}}}}``."""
        grid = HealpixGrid(self.nside)  # refuses an impossible Nside
        graphs = {graph: self._measured(graph) for graph in self.graphs}
        return {"nside": grid.nside, "npix": grid.npix, "cores": cpu_count(), "graphs": graphs}

    def _measured(self, graph: Graph) -> dict[str, Any]:
        result = in_fresh_process(_build, self.nside, graph)
        if self.plain and graph != "adjacent":
            return {**result, "plain": in_fresh_process(_build_plainly, self.nside, graph)}
        return dict(result)


def _build(nside: int, graph: Graph) -> dict[str, float]:
    return Cost.of(lambda: laplacian(Region(nside), graph)).json()


def _build_plainly(nside: int, graph: Graph) -> dict[str, float]:
    return Cost.of(lambda: kdtree_laplacian(nside, graph)).json()
