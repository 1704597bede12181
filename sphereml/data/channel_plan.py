"""Which channels of a source become which inputs: a range of its own channels, or a wanted grid.

Conventions: LSR km/s.  Rebinning keeps ``int T dv`` (see :meth:`VelocityAxis.rebinning`); a channel belongs to a range
when its centre does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphereml.config.survey import CubeConfig
from sphereml.data.channels import ChannelSource
from sphereml.data.velocity import VelocityAxis
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid


@dataclass(frozen=True, eq=False)
class ChannelPlan:
    """Which of a source's channels make which inputs.

    Args:
        axis: of the inputs.
        weights: ``(ninput, nchan of the source)``, rows sum to one.
        context: channels of the source whose mean alone is wanted.
        context_velocity: ``(ncontext,)`` km/s of their centres.
    """

    axis: VelocityAxis
    weights: np.ndarray
    context: tuple[int, ...]
    context_velocity: np.ndarray

    def read(self, source: ChannelSource, index: int) -> np.ndarray:
        """Input ``index`` as float32 ``(npix,)`` K; NaN where any of its channels has no data."""
        used = np.flatnonzero(self.weights[index])
        if len(used) == 1:
            return source.read(int(used[0]))
        total = np.zeros(HealpixGrid(source.nside).npix)
        for channel in used:
            total += self.weights[index, channel] * source.read(int(channel))
        return total.astype(np.float32)


def plan_channels(config: CubeConfig, source: ChannelSource) -> ChannelPlan:
    """The inputs of a survey as combinations of the source's channels.

    Raises:
        UserError: the source does not reach as far as the range asked for, or no channel is in it.
    """
    low, high = config.velocity
    width = config.channel_width
    around = source.axis.select(*config.context) if config.context else np.zeros(0, dtype=np.int64)
    context, centres = tuple(int(i) for i in around), source.axis.centres[around]
    if not width:
        chosen = source.axis.select(low, high)
        return ChannelPlan(source.axis.subset(chosen), np.eye(len(source.axis))[chosen], context, centres)
    count = int((high - low) / width + 1e-6)
    if count < 1:
        raise UserError(f"no channel of {width:g} km/s fits into {low:g} to {high:g} km/s", "lower cube.channel_width")
    wanted = VelocityAxis.uniform(low + width / 2, width, count)
    return ChannelPlan(wanted, source.axis.rebinning(wanted), context, centres)
