"""Shared by the tests of the core: a small synthetic sky, and how close two computations must come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sphereml.data.split_files import Split
from sphereml.data.store import Sky
from sphereml.harmonics.transforms import alm_index, synthesis
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import latitude_cut, longitude_cut

# Largest deviation, in units of the result's standard deviation, between two computations that agree in exact
# arithmetic.  One layer sums some 9 * K * channels products, a network a few dozen layers of them.
TOLERANCES: dict[tuple[torch.dtype, str], float] = {
    (torch.float32, "layer"): 2e-6,  # eps 1.2e-7, a random walk over up to 200 products, the worst of 1e4 pixels
    (torch.float32, "network"): 2e-5,  # ten layers, each stretching the error of the one before by about its gain
    (torch.float64, "layer"): 1e-12,  # eps 2.2e-16 with the same growth leaves three digits of room
    (torch.float64, "network"): 1e-11,
    (torch.float64, "transform"): 1e-10,  # two harmonic codes that sum in another order: the issue's own demand
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--freeze", action="store_true", help="write the numbers of test_frozen.py anew")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts of the fault suite, by kind of trial and verdict."""
    reports = [one for key in ("passed", "failed") for one in terminalreporter.stats.get(key, [])]
    found = [value for one in reports for name, value in one.user_properties if name == "faults"]
    for kind in dict.fromkeys(kind for kind, _ in found):
        counts = sum((Counter(counts) for name, counts in found if name == kind), Counter())
        verdicts = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
        terminalreporter.write_line(f"faults: {counts.total()} {kind}: {verdicts}")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tests' tensors are small: on shared cores threads spend their time waiting for each other (3-10 x)."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tolerance() -> Callable[[torch.dtype, str], float]:
    """``tolerance(dtype, kind)`` with kind ``layer``, ``network`` or ``transform``; see TOLERANCES for the reasons."""
    return lambda dtype, kind: TOLERANCES[dtype, kind]


def smooth_maps(nside: int, count: int, seed: int, slope: float = 1.5) -> np.ndarray:
    """Gaussian maps ``(npix, count)`` of amplitude ``1 / (ell + 2)^slope``, each with unit standard deviation."""
    lmax = 2 * nside
    ell, order = alm_index(lmax)
    rng = np.random.default_rng(seed)
    alm = (rng.standard_normal((count, ell.size)) + 1j * rng.standard_normal((count, ell.size))) / (ell + 2.0) ** slope
    alm[:, order == 0] = alm[:, order == 0].real
    maps = synthesis(alm, nside, lmax)
    return ((maps - maps.mean(axis=1, keepdims=True)) / maps.std(axis=1, keepdims=True)).T


def synthetic_sky(nside: int, channels: int = 4, seed: int = 0) -> Sky:
    """Lognormal gas columns (1e20 cm^-2 each); every channel has its own dust emissivity, and one is nonlinear."""
    gas = np.exp(0.6 * smooth_maps(nside, channels, seed))
    emissivity = np.linspace(0.5, 2.0, channels)
    dust = gas @ emissivity + 0.1 * gas[:, 0] ** 2
    return Sky(
        grid=HealpixGrid(nside),
        inputs=gas.astype(np.float32),
        targets=dust[:, None].astype(np.float32),
        input_fields=tuple(Field(f"gas {index}", "cm^-2") for index in range(channels)),
        target_fields=(Field("dust", "uK_RJ"),),
    )


def hemispheres(sky: Sky) -> Split:
    """North trains, its longitudes 30 to 90 validate, south tests; 8 degrees of latitude between them."""
    north, validation = latitude_cut(sky.grid, 8, np.inf), longitude_cut(sky.grid, 30, 90)
    south = latitude_cut(sky.grid, -np.inf, -8)
    return Split("north_south", sky.grid, north & ~validation, north & validation, south, margin=17.65)


@pytest.fixture(scope="session")
def sky16() -> Sky:
    return synthetic_sky(16)


@pytest.fixture(scope="session")
def sky32() -> Sky:
    return synthetic_sky(32)


@pytest.fixture(scope="session")
def split32(sky32: Sky) -> Split:
    return hemispheres(sky32)
