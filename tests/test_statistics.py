"""The block jackknife: exact for independent values, honest for repeated ones."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sphereml.errors import UserError
from sphereml.evaluation.statistics import (
    PairedDifference,
    block_jackknife,
    jackknife_error,
    leave_one_out,
    paired,
    pseudovalues,
)


def plain_sem(values: np.ndarray) -> np.ndarray:
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def test_blocks_of_one_value_give_the_plain_error():
    values = np.random.default_rng(0).standard_normal((40, 3))
    mean, sem = block_jackknife(values, np.arange(40))
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sem, plain_sem(values), rtol=1e-12)


def test_repeated_values_do_not_shrink_the_error():
    values = np.random.default_rng(1).standard_normal(60)
    repeated, blocks = np.repeat(values, 9), np.repeat(np.arange(60), 9)
    assert block_jackknife(repeated, blocks)[1] == pytest.approx(plain_sem(values), rel=1e-12)
    assert plain_sem(repeated) == pytest.approx(plain_sem(values) / 3, rel=0.02)


def test_error_is_calibrated_for_correlated_blocks_of_unequal_size():
    rng = np.random.default_rng(2)
    blocks = np.repeat(np.arange(25), rng.integers(3, 12, 25))
    draws = [rng.standard_normal(25)[blocks] + 0.5 * rng.standard_normal(blocks.size) for _ in range(400)]
    means, sems = zip(*(block_jackknife(draw, blocks) for draw in draws), strict=True)
    assert np.sqrt(np.mean(np.square(sems))) == pytest.approx(np.std(means), rel=0.12)


@given(shift=st.floats(-5, 5), labels=st.lists(st.integers(0, 5), min_size=12, max_size=12))
@settings(max_examples=20, deadline=None)
def test_shift_moves_the_mean_and_not_the_error(shift, labels):
    assume(len(set(labels)) > 1)
    values = np.random.default_rng(3).standard_normal(12)
    mean, sem = block_jackknife(values, np.array(labels))
    moved, moved_sem = block_jackknife(values + shift, np.array(labels))
    assert moved == pytest.approx(mean + shift, abs=1e-9)
    assert moved_sem == pytest.approx(sem, rel=1e-6, abs=1e-9)


def test_one_block_has_no_error():
    with pytest.raises(UserError, match="at least two groups"):
        block_jackknife(np.arange(4.0), np.zeros(4, int))


def test_groups_of_one_size_need_no_sizes():
    values, blocks = np.random.default_rng(5).standard_normal((24, 2)), np.repeat(np.arange(6), 4)
    samples = leave_one_out(values, blocks) ** 2  # a statistic that is no mean
    np.testing.assert_allclose(jackknife_error(samples, np.full(6, 4.0)), jackknife_error(samples), rtol=1e-12)
    assert block_jackknife(values, blocks)[1] == pytest.approx(jackknife_error(leave_one_out(values, blocks)))
    np.testing.assert_allclose(pseudovalues(values, blocks), values.reshape(6, 4, 2).mean(axis=1))


def test_paired_difference_cancels_the_common_scatter():
    rng = np.random.default_rng(4)
    common = 10 * rng.standard_normal(200)
    other = common + 0.1 * rng.standard_normal(200)
    result = paired(common + 0.1, other, np.arange(200))
    assert result.sem < 0.01
    assert result.sigmas == pytest.approx(result.mean / result.sem)
    same = paired(common, common, np.arange(200))
    assert (same.mean, same.sigmas) == (0.0, 0.0)
    assert PairedDifference(-1.0, 0.0).sigmas == -np.inf
