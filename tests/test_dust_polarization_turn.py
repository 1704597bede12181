"""The Galactic equator through the poles of the grid: sky, mask and split turned, a spin network scores the same."""

from __future__ import annotations

from dataclasses import replace

import ducc0
import numpy as np
import pytest
from fixtures_cli import Place

from sphereml.config.compose import compose
from sphereml.data.store import Sky
from sphereml.evaluation.maps.polarization import PolarizedRegion
from sphereml.evaluation.maps.sphere import JackknifeMasks, SphereScores
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.transforms import analysis, synthesis
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import apodize
from sphereml.tasks.dust_polarization import DustPolarizationTask
from sphereml.training.fit import fit
from sphereml.training.lifecycle import FitOptions
from sphereml.training.predictor import Predictor


def turned(maps: np.ndarray, angle: float, spin: int = 0) -> np.ndarray:
    """Band-limited maps ``(npix, n)``, or Q and U, turned about y in harmonic space."""
    grid = HealpixGrid.of_size(len(maps))
    alm = analysis(maps.T.astype(float), grid.safe_lmax, spin)
    alm = np.stack([ducc0.sht.rotate_alm(one, grid.safe_lmax, 0.0, angle, 0.0) for one in alm])
    return synthesis(alm, grid.nside, grid.safe_lmax, spin).T.astype(np.float32)


def turned_sky(sky: Sky, angle: float) -> Sky:
    assert sky.intensity is not None
    return replace(
        sky,
        inputs=turned(sky.inputs, angle),
        targets=turned(sky.targets, angle, spin=2),
        components={"intensity": turned(sky.intensity[:, None], angle)[:, 0]},
    )


def origin(grid: HealpixGrid, angle: float) -> np.ndarray:
    """The pixel that every pixel of the turned sky comes from."""
    cosine, sine = np.cos(angle), np.sin(angle)
    back = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    return grid.pixels_at(grid.vectors() @ back.T)


def scores(predictor: Predictor, sky: Sky, region: np.ndarray, blocks: np.ndarray) -> tuple[SphereScores, ...]:
    """r_EE and r_BB of a run on a sky, with a jackknife over blocks that turn with it."""
    mask = apodize(region, sky.grid, 4.0)
    size = np.bincount(blocks, mask)
    used = np.flatnonzero(size > 1e-3 * size.sum())
    masks = JackknifeMasks(mask, blocks, used, size[used])
    bands = Bands(r50=(15, 60 if sky.grid.nside < 64 else 100))
    assert sky.intensity is not None
    known = PolarizedRegion(sky.targets, sky.intensity, mask, bands, 2)
    known.__dict__["masks"] = masks
    return known.score(predictor.sphere(sky).values)[0]


def changes(predictor: Predictor) -> list[dict[str, float]]:
    """Paired difference of r_EE and of r_BB between the sky turned by 90 degrees and as it is."""
    task = predictor.task
    assert isinstance(task, DustPolarizationTask)
    sky, found = task.sky, []
    for angle in (0.0, np.pi / 2):
        source = origin(sky.grid, angle)
        blocks = (np.arange(sky.grid.npix) // (sky.grid.npix // 48))[source]
        found.append(scores(predictor, turned_sky(sky, angle), task.split.test[source], blocks))
    return [there.difference(here)["r50"] | {"r": here.bands["r50"]} for here, there in zip(*found, strict=True)]


def test_maps_turn_about_y():
    grid = HealpixGrid(16)
    x, y, z = grid.vectors().T
    maps = np.stack([x * y + z, z**3], axis=1)
    there = turned(maps, np.pi / 2)
    np.testing.assert_allclose(there, np.stack([-z * y + x, x**3], axis=1), atol=5e-4)
    smooth = maps[origin(grid, np.pi / 2)]
    assert np.abs(there - smooth).max() < 0.15


@pytest.mark.slow
def test_the_score_does_not_know_where_the_poles_are(tmp_path):
    """Nside 32, a minute of training: the change is within two of its errors and far below what was learnt."""
    place = Place(tmp_path, "dust_polarization_quick")
    words = ["data.galaxy.nside=32", "data.galaxy.channels=8", "data.galaxy.channel_width=10.2", "bands.r50=[14.4,60]"]
    words += ["patches.size=16", "patches.pixel_arcmin=93.6", "model.depth=2", "training.epochs=4"]
    words += ["training.tile_nside=1", "training.batch_size=4"]
    run = fit(
        compose(["experiment=dust_polarization_quick", "model=unet_spin", *words, *place.words]),
        FitOptions(say=lambda _: None),
    )
    for change in changes(Predictor(run)):
        assert abs(change["sigmas"]) < 2 and abs(change["mean"]) < 0.05 * change["r"], change
