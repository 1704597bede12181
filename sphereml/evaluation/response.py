"""Does a prediction follow the sky, or the skies it was trained on?  Its response to fiducials that differ.

Conventions: powers are ``(n, band)``, one row for each simulated sky, debiased with what was calibrated on the fiducial
skies (response R, noise bias) and nothing else; ``fiducials`` says which parameters a row's sky was drawn with, e.g.
0.8, 1 and 1.2 of A_lens.  The response of a band is the slope of a line through the fiducials' mean recovered power
against their mean true power,

    s = sum_f (T_f - T)(P_f - P) / sum_f (T_f - T)^2,

every fiducial counted once: 1 for an unbiased estimate, 0 for a network that returns its prior, or the mean, whatever
it is shown.  Scatter between skies of one fiducial takes no part: a prior that is multiplied onto each sky's own phases
would follow it.  The error is that of the jackknife over ``groups``, skies that share a seed across fiducials, so that
the sample variance that recovered and true power have in common falls out.

A noise bias that itself depends on the fiducial (lensed B is the noise of a quadratic estimator) adds its own slope to
that of the signal: debias every fiducial by its own, or give the cross-power with the truth over R.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sphereml.errors import UserError
from sphereml.evaluation.statistics import jackknife_error

# Standard errors above 0 below which a slope is that of a prediction that does not follow the sky.
_SIGMAS = 3.0


@dataclass(frozen=True, eq=False)
class Response:
    """Slope of recovered against true power, and its standard error, each ``(band,)``."""

    slope: np.ndarray
    error: np.ndarray

    @property
    def collapsed(self) -> np.ndarray:
        """Bands, bool ``(band,)``, in which the prediction does not follow the truth at three standard errors."""
        return np.asarray(~(self.slope > _SIGMAS * self.error))

    def follows(self, least: float = 0.5) -> np.ndarray:
        """Bands, bool ``(band,)``, whose slope is above ``least``, and which have not collapsed."""
        return np.asarray((self.slope > least) & ~self.collapsed)

    def to_json(self) -> dict[str, Any]:
        return {"slope": self.slope.tolist(), "error": self.error.tolist(), "collapsed": self.collapsed.tolist()}


def response(
    recovered: np.ndarray,
    true: np.ndarray,
    fiducials: Sequence[Any] | np.ndarray,
    groups: Sequence[int] | np.ndarray | None = None,
) -> Response:
    """Slope of recovered against true power over skies of several fiducials, see the module's docstring.

    Args:
        recovered, true: ``(n, band)``, or ``(n,)`` of one band.
        fiducials: ``(n,)``, the label of every sky's fiducial.
        groups: ``(n,)``, skies of one seed; the k-th sky of every fiducial is a group when None.

    Raises:
        UserError: shapes that differ, values that are not finite, fewer than two fiducials, a group that lacks one of
            them, fewer than two groups, or fiducials of one and the same true power.

    Example:
        >>> import numpy as np
        >>> true = np.repeat([0.8, 1.0, 1.2], 4) + np.tile([0.01, -0.01, 0.02, 0.0], 3)
        >>> labels = np.repeat(["0.8", "1", "1.2"], 4)
        >>> bool(response(np.ones(12), true, labels).collapsed[0])
        True
        >>> response(0.5 + 0.5 * true, true, labels).slope.round(2).tolist()
        [0.5]
    """
    recovered, true = (_columns(values) for values in (recovered, true))
    labels, fiducial = np.unique(np.asarray(fiducials), return_inverse=True)
    _refuse_misfits(recovered, true, fiducial)
    if len(labels) < 2:
        raise UserError(f"skies of {len(labels)} fiducial have no slope", "give skies of at least two")
    group = _counted(fiducial) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if group.shape != fiducial.shape:
        raise UserError(f"{group.size} groups for {fiducial.size} skies", "give every sky its group")
    sums, counts = _sums(np.stack([recovered, true], axis=1), fiducial, group)
    if len(counts) < 2 or (counts == 0).any():
        what = f"{len(counts)} groups of skies, of which {int((counts == 0).any(axis=1).sum())} lack a fiducial"
        raise UserError(what, "give two groups or more, each with skies of every fiducial")
    left = [_slope((sums.sum(0) - own) / (counts.sum(0) - n)[:, None, None])
            for own, n in zip(sums, counts, strict=True)]  # fmt: skip
    samples = np.stack([_slope(sums.sum(0) / counts.sum(0)[:, None, None]), *left])
    return Response(samples[0], jackknife_error(samples, counts.sum(axis=1)))


def _columns(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values


def _refuse_misfits(recovered: np.ndarray, true: np.ndarray, fiducial: np.ndarray) -> None:
    if recovered.ndim != 2 or recovered.shape != true.shape or fiducial.shape != true.shape[:1]:
        what = f"recovered power of shape {recovered.shape}, true of {true.shape}, {fiducial.size} fiducials"
        raise UserError(what, "give (n, band) of both, and n fiducials")
    if not (np.isfinite(recovered).all() and np.isfinite(true).all()):
        raise UserError("the powers are not finite", "leave out the skies or bands in which they are not")


def _counted(fiducial: np.ndarray) -> np.ndarray:
    """The number of every sky among those of its fiducial."""
    number = np.zeros(fiducial.size, dtype=int)
    for one in np.unique(fiducial):
        member = fiducial == one
        number[member] = np.arange(member.sum())
    return number


def _sums(values: np.ndarray, fiducial: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values ``(n, 2, band)`` by group and fiducial ``(g, f, 2, band)``, and their numbers ``(g, f)``."""
    shape = (group.max() + 1, fiducial.max() + 1)
    sums, counts = np.zeros((*shape, *values.shape[1:])), np.zeros(shape)
    np.add.at(sums, (group, fiducial), values)
    np.add.at(counts, (group, fiducial), 1)
    return sums, counts


def _slope(means: np.ndarray) -> np.ndarray:
    """Slope ``(band,)`` of means ``(f, 2, band)``."""
    recovered, true = (means - means.mean(axis=0)).transpose(1, 0, 2)
    spread = (true**2).sum(axis=0)
    if not (spread > 0).all():
        raise UserError("the fiducials have one and the same true power", "choose fiducials that differ in it")
    return np.asarray((true * recovered).sum(axis=0) / spread)
