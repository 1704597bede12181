"""How linear weights overfit: r where they were fitted and where they are tested, against their number.

Channels are summed in groups of neighbours, so that 1, 2, 4, ... all of them are weighed, each also apart by scale; the
weights are those of :func:`~sphereml.models.baselines.fit_linear`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sphereml.data.split_files import Split
from sphereml.data.store import Sky
from sphereml.harmonics.bands import Bands
from sphereml.harmonics.sky_spectra import correlation
from sphereml.models.baselines import fit_linear
from sphereml.tasks.gas import part_by_scale


def overfitting(sky: Sky, split: Split, bands: Bands, scales: list[float]) -> list[dict[str, Any]]:
    """``weights``, ``channels``, ``scales``, and ``train`` and ``test`` with r by band, by number of weights.

    Args:
        scales: nodes of the weights that depend on scale.
    """
    rows = [_row(sky, split, bands, *one) for one in _features(sky, scales)]
    return sorted(rows, key=lambda row: row["weights"])


def _features(sky: Sky, scales: list[float]) -> Iterator[tuple[np.ndarray, int, int]]:
    channels = sky.inputs.shape[1]
    parts = part_by_scale(sky.inputs, scales).reshape(*sky.inputs.shape, len(scales))
    for count in [2**power for power in range(channels.bit_length()) if 2**power < channels] + [channels]:
        edges = np.linspace(0, channels, count, endpoint=False).astype(int)
        yield np.add.reduceat(sky.inputs, edges, axis=1), count, 1
        yield np.add.reduceat(parts, edges, axis=1).reshape(sky.grid.npix, -1), count, len(scales)


def _row(sky: Sky, split: Split, bands: Bands, features: np.ndarray, channels: int, scales: int) -> dict[str, Any]:
    model = fit_linear(features, sky.target, split.train | split.validation, split.weight, comparable=False)
    prediction = features @ model.weights + model.offset
    truth = sky.target.astype(np.float64)
    parts = {"train": split.train | split.validation, "test": split.test}
    r = {name: correlation(prediction, truth, part.astype(float), bands=bands) for name, part in parts.items()}
    return {"weights": channels * scales, "channels": channels, "scales": scales} | r
