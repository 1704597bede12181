"""Columns of a sky that are allowed but look wrong: constant ones, and inputs that are the target in disguise.

Conventions: r is Pearson's correlation over the given pixels, columns as they stand in the sky.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sphereml.data.store import Sky
from sphereml.sky.fields import Field

# |r| that is written as 1.000.
_PROPORTIONAL = 0.9995


def suspicious_columns(sky: Sky, pixels: np.ndarray) -> list[str]:
    """A line for every constant input or target, and for every input with |r| = 1.000 to a target.

    Args:
        pixels: bool ``(npix,)``, those that are learnt from.
    """
    return list(_suspicions(sky, pixels))


def _suspicions(sky: Sky, pixels: np.ndarray) -> Iterator[str]:
    targets = [_standard(sky.targets[:, column], pixels) for column in range(sky.targets.shape[1])]
    names = _names(sky.target_fields)
    for name, target in zip(names, targets, strict=True):
        if target is None:
            yield f"the target {name} is constant over the pixels that are learnt from"
    for column, name in enumerate(_names(sky.input_fields)):
        values = _standard(sky.inputs[:, column], pixels)
        if values is None:
            yield f"the input {name} is constant over the pixels that are learnt from"
            continue
        for other, target in zip(names, targets, strict=True):
            if target is not None and abs(r := float(np.mean(values * target))) > _PROPORTIONAL:
                yield f"the input {name} is proportional to the target {other} (r = {r:.3f})"


def _standard(values: np.ndarray, pixels: np.ndarray) -> np.ndarray | None:
    """Values of zero mean and unit deviation, None where they are constant."""
    chosen = values[pixels].astype(np.float64)
    rest = chosen - chosen.mean()
    deviation = rest.std()
    return rest / deviation if deviation > 1e-12 * np.abs(chosen).max() else None


def _names(fields: tuple[Field, ...]) -> list[str]:
    return [name for one in fields for name in one.column_names]
