"""Time and memory of preparing a survey, beside its spherical harmonic transforms alone, and after a kill.

The cube is one random map times a number a channel, made when it is read, so that files play no part; channels, filter
and target are those of the default survey, with the cutoff at the same share of Nside.
"""

from __future__ import annotations

import hashlib
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import healpy
import numpy as np

from sphereml.config.survey import CubeConfig, FilterConfig, SurveyConfig, SurveyMap
from sphereml.data.map_filter import MapKind, design_filter
from sphereml.data.survey import batch_size, write_survey
from sphereml.data.survey_sources import MapFile, SurveySources
from sphereml.data.velocity import VelocityAxis
from sphereml.sky.grid import HealpixGrid

_CUTOFF = 460 / 1024
# Batches whose transforms are timed for the whole.
_TIMED_BATCHES = 2


class _Killed(BaseException):
    """Ends a preparation where nothing can tidy up."""


@dataclass(eq=False)
class _MadeChannels:
    """A ChannelSource; ``dies_at`` is a channel whose reading ends the preparation."""

    nside: int
    axis: VelocityAxis
    pattern: np.ndarray
    dies_at: int = -1
    name: str = "benchmark"
    unit: str = "K"
    frame: str = "G"
    beam_arcmin: float | None = 16.2
    files: dict[str, str] = field(default_factory=dict)

    @property
    def velocity(self) -> np.ndarray:
        return self.axis.centres

    def read(self, channel: int) -> np.ndarray:
        if channel == self.dies_at:
            raise _Killed
        return self.pattern * np.float32(1 + channel)


@dataclass(frozen=True)
class PreparationBenchmark:
    """``channels`` maps of ``nside``, prepared below ``folder`` (where the system keeps such when None)."""

    nside: int
    channels: int
    folder: Path | str | None = None
    resume: bool = True

    def measure(self) -> dict[str, Any]:
        """Seconds of ``prepare`` and of its ``transforms`` alone, their ``ratio``, ``peak_rss_gb`` of the process, and
        whether a store killed halfway and resumed is ``identical`` (None when not tried).
        """
        axis = VelocityAxis.uniform(-64.5, 1.28821496, self.channels)
        pattern = np.random.default_rng(0).standard_normal(HealpixGrid(self.nside).npix, dtype=np.float32)
        source = _MadeChannels(self.nside, axis, pattern)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            folder = Path(scratch)
            config, sources = self._survey(folder, source)
            started = time.perf_counter()
            write_survey(folder / "whole.zarr", config, sources)
            prepare = time.perf_counter() - started
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            transforms = self._transforms(config, source)
            identical = self._resumed(folder, config, sources, source) if self.resume else None
        return {
            "nside": self.nside,
            "channels": self.channels,
            "seconds": {"prepare": prepare, "transforms": transforms},
            "ratio": prepare / transforms,
            "peak_rss_gb": peak,
            "identical": identical,
        }

    def _survey(self, folder: Path, source: _MadeChannels) -> tuple[SurveyConfig, SurveySources]:
        target = folder / "target.fits"
        healpy.write_map(target, source.pattern, nest=True, coord="G", column_units="uK_RJ", dtype=np.float32)
        ends = [float(source.velocity[0]), float(source.velocity[-1])]
        filters = FilterConfig(nside=self.nside, butterworth_ell=_CUTOFF * self.nside)
        config = SurveyConfig(CubeConfig(pattern="*", velocity=ends), SurveyMap("target.fits"), filters=filters)
        return config, SurveySources(source, MapFile(target, config.target), None, None, {})

    def _transforms(self, config: SurveyConfig, source: _MadeChannels) -> float:
        """Seconds of analysis, gain and synthesis of as many maps as the survey has, the target included."""
        map_filter = design_filter(config.filters, MapKind(source.name, self.nside, source.beam_arcmin))
        size = batch_size(map_filter)
        maps = np.stack([source.read(channel) for channel in range(min(size, self.channels))])
        batches = min(_TIMED_BATCHES, -(-self.channels // size))
        started = time.perf_counter()
        for _ in range(batches):
            map_filter.apply(maps)
        return (time.perf_counter() - started) / (batches * len(maps)) * (self.channels + 1)

    def _resumed(self, folder: Path, config: SurveyConfig, sources: SurveySources, source: _MadeChannels) -> bool:
        source.dies_at = self.channels // 2
        try:
            write_survey(folder / "resumed.zarr", config, sources)
        except _Killed:
            source.dies_at = -1
            write_survey(folder / "resumed.zarr", config, sources)
        return _digest(folder / "resumed.zarr") == _digest(folder / "whole.zarr")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
