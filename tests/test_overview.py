"""The quick-look page and the lines of `data info`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures_cli import sphereml

from sphereml.benchmarks.preparation import PreparationBenchmark
from sphereml.data.split_files import read_split
from sphereml.data.store import Sky, write_store
from sphereml.evaluation.overview import draw_profile, render
from sphereml.evaluation.store_summary import summarize_store
from sphereml.sky.fields import Field
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import latitude_cut

GRID = HealpixGrid(16)


def made_sky() -> Sky:
    rng = np.random.default_rng(0)
    _, lat = GRID.lonlat()
    gas = (np.exp(-np.abs(lat) / 20)[:, None] * rng.uniform(0.5, 1.5, (GRID.npix, 6))).astype(np.float32)
    return Sky(
        grid=GRID,
        inputs=gas,
        targets=gas.sum(axis=1, keepdims=True),
        input_fields=tuple(Field(f"{v:+.2f} km/s", "K") for v in np.arange(-10.0, 20.0, 5.0)),
        target_fields=(Field("dust", "uK_RJ"),),
        velocity=np.arange(-10.0, 20.0, 5.0),
        components={"mask": (~latitude_cut(GRID, -10, 10)).astype(np.float32)},
        component_units={"mask": ""},
        provenance={"kind": "survey", "files": {"HPX_001.fits": "sha256:0a"}},
    )


@pytest.fixture()
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "made.zarr", made_sky())


def test_the_summary_is_what_the_store_holds(store):
    sky, summary = made_sky(), summarize_store(store)
    np.testing.assert_allclose(summary.mean, sky.inputs.mean(axis=0, dtype=np.float64))
    kept = sky.components["mask"] > 0.5
    np.testing.assert_allclose(summary.inside, sky.inputs[kept].mean(axis=0, dtype=np.float64))
    np.testing.assert_array_equal(summary.extremes, np.stack([sky.inputs.min(axis=0), sky.inputs.max(axis=0)], axis=1))
    assert list(summary.maps) == [0, 1, 3, 5] and summary.kept == kept.mean()
    np.testing.assert_array_equal(summary.maps[3], sky.inputs[:, 3])


def test_info_says_what_is_there_and_writes_one_page(store, tmp_path):
    page = tmp_path / "page.html"
    answer = sphereml("data", "info", store, "--html", page, "--split", "folds", "north_south")
    assert answer.code == 0, answer.err
    for words in ("Nside 16, 6 channels in K, target in uK_RJ", "-10.00 to +15.00 km/s", "HPX_001.fits: sha256:0a"):
        assert words in answer.out
    text = page.read_text()
    assert text.count('<img src="data:image/png;base64,') == 10
    assert 'src="http' not in text and "HPX_001.fits" in text and "Split folds" in text
    split = read_split(tmp_path / "page-folds.fits")
    assert split.name == "folds" and split.grid == GRID


def test_the_profile_spans_the_context_and_marks_the_used_range(store):
    spectrum = {
        "velocity": [-10.0, -5.0, 0.0, 5.0, 10.0, 15.0],
        "mean": [1.0, 2.0, 3.0, 3.0, 2.0, 1.0],
        "context_velocity": [-20.0, -15.0, -10.0, 20.0],
        "context_mean": [0.1, 0.3, 1.0, 0.2],
    }
    summary = summarize_store(store)
    axes = draw_profile(replace(summary, provenance={"spectrum": spectrum})).axes[0]
    velocity, mean = axes.lines[0].get_data()
    np.testing.assert_array_equal(velocity, [-20, -15, -10, -5, 0, 5, 10, 15, 20])
    np.testing.assert_array_equal(mean, [0.1, 0.3, 1, 2, 3, 3, 2, 1, 0.2])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), summary.inside)
    assert axes.patches[0].get_extents().transformed(axes.transData.inverted()).intervalx.tolist() == [-10, 15]


def test_a_store_without_velocities_or_mask_has_a_page(tmp_path):
    sky = replace(made_sky(), velocity=None, components={}, input_fields=tuple(Field(name, "K") for name in "abcdef"))
    text = render(summarize_store(write_store(tmp_path / "plain.zarr", sky)))
    assert text.count('<img src="data:image/png;base64,') == 6


def test_what_is_no_store_is_refused_in_one_line(store, tmp_path):
    assert "no store" in sphereml("data", "info", tmp_path / "absent.zarr").refusal
    assert "not a sphereml store" in sphereml("data", "info", tmp_path).refusal
    (store / "inputs/c/3/0").unlink()
    assert "damaged" in sphereml("data", "info", store).refusal


def test_the_benchmark_of_preparing_resumes_to_the_same_store(tmp_path):
    result = PreparationBenchmark(16, 10, tmp_path).measure()
    assert result["identical"] is True and result["ratio"] > 0 and not list(tmp_path.iterdir())
