"""What a network costs by the square degree: processor seconds of a training step, and of predicting the whole sky.

Conventions: seconds of all threads together, per 1000 square degrees.  A step is a batch drawn, forward and backward;
a patch's area is that of its pixels in the plane.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from sphereml.evaluation.sphere_only.networks import HeldOutSky, NetworkSeeds

_STEPS = 6
_SPHERE = 4 * np.pi * np.degrees(1) ** 2


def measure_cost(network: NetworkSeeds, held_out: HeldOutSky) -> dict[str, Any]:
    """``train`` (median of five steps) and ``predict``, and the square degrees of a batch."""
    predictor, task = network.predictors[0], network.task
    pixel = held_out.sky.grid.pixel_area if network.domain == "sphere" else task.patch.step**2
    size, source = task.config.training.batch_size, task.sources(predictor.scaling)["train"]
    model = task.network(predictor.scaling, held_out.sky.grid.nside).to(predictor.device)
    loss, seconds = task.loss(predictor.scaling), []
    for step in range(_STEPS):
        started = time.process_time()
        batch = source.batch(step, size, predictor.device)
        loss(task.combine(batch, model(batch.features, batch.domain), predictor.scaling), batch)[0].backward()
        seconds.append(time.process_time() - started)
    area = batch.base[..., 0].numel() * pixel * np.degrees(1) ** 2
    started = time.process_time()
    predictor.sphere(held_out.sky)
    predicted = time.process_time() - started
    # The first step makes the tables of the geometry.
    return {
        "train": float(np.median(seconds[1:]) / area * 1000),
        "predict": float(predicted / _SPHERE * 1000),
        "square_degrees": float(area),
    }
