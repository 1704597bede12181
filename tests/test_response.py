"""The response to fiducials: constant, prior-bound, half-shrunk and unbiased predictors, and errors that are right."""

from __future__ import annotations

import numpy as np
import pytest

from sphereml.errors import UserError
from sphereml.evaluation.response import response

AMPLITUDES, SKIES, BANDS = (0.8, 1.0, 1.2), 20, 3
LABELS = np.repeat(AMPLITUDES, SKIES)


def true_power(rng: np.random.Generator, shared: bool = True) -> np.ndarray:
    """Powers ``(60, 3)`` of skies that scatter by a tenth; those of one seed alike whatever the fiducial."""
    scatter = 1 + 0.1 * rng.standard_normal((1 if shared else 3, SKIES, BANDS))
    return (np.array(AMPLITUDES)[:, None, None] * np.ones((3, SKIES, BANDS)) * scatter).reshape(-1, BANDS)


@pytest.mark.parametrize(("name", "slope"), [("unbiased", 1.0), ("half", 0.5), ("prior", 0.0)])
@pytest.mark.parametrize("shared", [True, False])
def test_the_slope_is_found_within_its_error(name: str, slope: float, shared: bool):
    rng = np.random.default_rng(1)
    true = true_power(rng, shared)
    kept = {"unbiased": true, "half": 1 + 0.5 * (true - 1), "prior": np.ones_like(true)}[name]
    found = response(kept + 0.02 * rng.standard_normal(true.shape), true, LABELS)
    assert (np.abs(found.slope - slope) < 4 * found.error).all()
    assert (found.error < 0.1).all()
    assert found.follows(0.4).all() == (slope > 0.4)
    assert found.collapsed.all() == (slope == 0)


def test_a_constant_and_a_prior_on_each_skys_own_phases_are_caught():
    true = true_power(np.random.default_rng(2))
    constant = response(np.full_like(true, 7.0), true, LABELS)
    assert not constant.slope.any() and constant.collapsed.all() and not constant.follows(0).any()
    own = true / np.array(AMPLITUDES).repeat(SKIES)[:, None]  # follows the scatter of the skies, not the fiducial
    assert np.corrcoef(own[:, 0], true[:, 0])[0, 1] > 0.3
    assert response(own, true, LABELS).collapsed.all()


def test_the_error_is_the_scatter_of_the_slope():
    found = []
    for seed in range(200):
        rng = np.random.default_rng([3, seed])
        true = true_power(rng)
        found.append(response(true + 0.1 * rng.standard_normal(true.shape), true, LABELS))
    scatter = np.std([one.slope for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(scatter, rel=0.1)


def test_one_band_groups_in_any_order_and_json():
    rng = np.random.default_rng(4)
    true, seeds = true_power(rng)[:, :1], np.tile(np.arange(SKIES), 3)
    noisy, order = true + 0.1 * rng.standard_normal(true.shape), rng.permutation(len(true))
    first = response(noisy[:, 0], true[:, 0], LABELS)
    second = response(noisy[order], true[order], LABELS[order], seeds[order])
    assert second.slope == pytest.approx(first.slope) and second.error == pytest.approx(first.error)
    assert first.to_json()["collapsed"] == [False]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"true": np.ones((60, 2))}, "recovered power of shape"),
        ({"fiducials": np.ones(60)}, "skies of 1 fiducial"),
        ({"recovered": np.full((60, 3), np.nan)}, "not finite"),
        ({"groups": np.arange(60)}, "60 lack a fiducial"),
        ({"groups": np.zeros(60)}, "1 groups of skies"),
        ({"groups": np.zeros(3)}, "3 groups for 60 skies"),
        ({"true": np.ones((60, 3))}, "one and the same true power"),
    ],
)
def test_what_has_no_slope_is_refused(change: dict[str, np.ndarray], says: str):
    true = true_power(np.random.default_rng(5))
    with pytest.raises(UserError, match=says):
        response(**({"recovered": true, "true": true, "fiducials": LABELS} | change))
