"""The block jackknife: exact for independent values, honest for repeated ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereml.evaluation.statistics import block_jackknife, paired, plain_sem


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
    values = np.random.default_rng(3).standard_normal(12)
    mean, sem = block_jackknife(values, np.array(labels))
    moved, moved_sem = block_jackknife(values + shift, np.array(labels))
    assert moved == pytest.approx(mean + shift, abs=1e-9)
    assert moved_sem == pytest.approx(sem, rel=1e-6, abs=1e-9, nan_ok=True)


def test_one_block_has_no_error():
    mean, sem = block_jackknife(np.arange(4.0), np.zeros(4, int))
    assert mean == 1.5
    assert np.isnan(sem)


def test_paired_difference_counts_wins_and_cancels_the_common_scatter():
    rng = np.random.default_rng(4)
    common = 10 * rng.standard_normal(200)
    other = common + 0.1 * rng.standard_normal(200)
    result = paired(common + 0.1, other, np.arange(200))
    assert result.sem < 0.01
    assert result.sigmas == pytest.approx(result.mean / result.sem)
    assert (result.wins, result.of) == (int(np.sum(common + 0.1 > other)), 200)
    same = paired(common, common, np.arange(200))
    assert (same.mean, same.sigmas, same.wins) == (0.0, 0.0, 0)
