"""From a survey's files to one store, map by map: read, fill, filter, convert, weigh, write.

Conventions: inputs are brightness temperature in K at LSR km/s; every map is NEST and Galactic in the store.  Channels
go in batches whose size depends on the settings alone, so that a killed and resumed preparation, on the same number of
threads, ends in the same bytes.  Memory is a batch of channels (``_BATCH_BYTES``), the source's own block, and the
tables of the transforms; the cube is never held.

Pixels without data are filled from their surroundings before the transform and are masked in the store's component
``mask`` (1 = keep), in which the survey's own mask is as well.  Masks go by pixel averages, not through the filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sphereml.config.schema import DataConfig
from sphereml.config.survey import SurveyConfig
from sphereml.data.channel_plan import ChannelPlan, plan_channels
from sphereml.data.channel_store import StagedMap, StagedMaps, open_stage, store_bytes
from sphereml.data.channels import ChannelSource
from sphereml.data.group_checksums import has_whole_metadata
from sphereml.data.map_filter import MapFilter, MapKind, design_filter
from sphereml.data.prepare import store_path
from sphereml.data.store import is_store, open_dataset
from sphereml.data.survey_sky import Preparation, channel_name, combine_mask, context_name, sky_without_inputs
from sphereml.data.survey_sources import SkyMap, SurveySources, open_survey
from sphereml.data.whole_files import tell_rebuilt
from sphereml.data.work_items import do_items
from sphereml.errors import UserError
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import fill_gaps, to_galactic

# Maps that are transformed together; ducc0 takes one per thread.
_BATCH_BYTES = 1_600_000_000
_LARGEST_BATCH = 8
# Told the step, how much of it is done and of how much.
Progress = Callable[[str, int, int], None]


def _silent(step: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


def prepare_survey(data: DataConfig, progress: Progress = _silent, scheduler: str = "") -> Path:
    """The store of a survey's configuration, made (or finished) unless it is there.

    Args:
        scheduler: of the workers that take a batch of channels each (:mod:`sphereml.data.work_items`).

    Raises:
        UserError: see :func:`sphereml.data.survey_sources.open_survey` and :func:`write_survey`.
    """
    path = store_path(data)
    if path.exists() and not is_store(path):
        raise UserError(f"{path} is not a sphereml store", "move it away or set data.stores=PATH")
    if is_store(path) and has_whole_metadata(path):
        open_dataset(path).close()
        return path
    if path.exists():
        tell_rebuilt(path)
    assert data.survey is not None
    write_survey(path, data.survey, open_survey(data), progress, scheduler)
    return path


def write_survey(
    path: Path, config: SurveyConfig, sources: SurveySources, progress: Progress = _silent, scheduler: str = ""
) -> None:
    """Prepare a survey into the store ``path``; a preparation that was stopped goes on where it was.

    Raises:
        UserError: an impossible filter or range of velocities, too many pixels without data, no room, or what a reader
            finds wrong.
    """
    plan = plan_channels(config.cube, sources.cube)
    source = sources.cube
    cube_filter = design_filter(config.filters, MapKind(source.name, source.nside, source.beam_arcmin))
    grid = HealpixGrid(config.filters.nside)
    with open_stage(path, store_bytes(grid, len(plan.axis))) as stage:
        # Single maps first: what is wrong with them shows before the hours of the cube.
        single, units = _stage_maps(stage, config, sources, progress)
        mask = sources.mask.read() if sources.mask else None
        batches = _Batches(stage, config.filters.max_missing, source, plan, cube_filter)
        _stage_channels(batches, progress, scheduler)
        made = Preparation(config, sources.files, plan, {"inputs": cube_filter, **single}, units)
        weight = combine_mask(stage, made, mask)
        sky = sky_without_inputs(stage, made, weight)
        applied = weight if config.mask is not None and config.mask.apply else None
        stage.assemble(path, sky, made.channels, applied, lambda done: progress("store", done, grid.npix))


def batch_size(channel_filter: MapFilter) -> int:
    """Channels that are transformed together, a power of two, so that they share out among threads.

    It depends on the settings alone, not on the machine.
    """
    fitting = max(1, min(_LARGEST_BATCH, _BATCH_BYTES // channel_filter.bytes_per_map()))
    return 1 << (int(fitting).bit_length() - 1)


@dataclass(frozen=True, eq=False)
class _Batches:
    """Channels on their way into a stage, by batches that are filtered together."""

    stage: StagedMaps
    max_missing: float
    source: ChannelSource
    plan: ChannelPlan
    channel_filter: MapFilter

    def make(self, batch: range) -> None:
        # The whole batch again if one is absent: which maps are transformed together decides their last bits.
        if all(channel_name(index) in self.stage for index in batch):
            return
        raw = [self.plan.read(self.source, index) for index in batch]
        results = filter_maps(self.channel_filter, raw, self.max_missing)
        for index, result in zip(batch, results, strict=True):
            self.stage.put(channel_name(index), result)


def _stage_channels(batches: _Batches, progress: Progress, scheduler: str) -> None:
    stage, source, plan = batches.stage, batches.source, batches.plan
    total, size = len(plan.axis), batch_size(batches.channel_filter)
    ranges = [range(first, min(first + size, total)) for first in range(0, total, size)]
    progress("channels", 0, total)
    do_items(batches.make, ranges, scheduler, lambda done: progress("channels", min(done * size, total), total))
    for done, channel in enumerate(plan.context):
        progress("context", done, len(plan.context))
        if context_name(channel) not in stage:
            mean = float(np.nanmean(source.read(channel), dtype=np.float64))
            stage.put(context_name(channel), StagedMap(np.zeros(0), np.zeros(0, np.int64), mean))


def _stage_maps(
    stage: StagedMaps, config: SurveyConfig, sources: SurveySources, progress: Progress
) -> tuple[dict[str, MapFilter], dict[str, str]]:
    """Target and total; returns the filters and units of those that there are."""
    files = {"target": sources.target} | ({"total": sources.total} if sources.total else {})
    filters, units = {}, {}
    for done, (name, file) in enumerate(files.items()):
        progress("maps", done, len(files))
        # Read even when staged: its unit and grid are in the file.
        one = file.read()
        units[name], filters[name] = one.unit, _filter_of(one, config)
        if name not in stage:
            stage.put(name, next(filter_maps(filters[name], [one.values], config.filters.max_missing)))
    progress("maps", len(files), len(files))
    return filters, units


def _filter_of(one: SkyMap, config: SurveyConfig) -> MapFilter:
    nside = HealpixGrid.of_size(one.values.size).nside
    return design_filter(config.filters, MapKind(one.name, nside, one.beam_arcmin, one.frame))


def filter_maps(map_filter: MapFilter, maps: Sequence[np.ndarray], max_missing: float) -> Iterator[StagedMap]:
    """Fill and filter maps ``(npix,)`` together.

    Raises:
        UserError: more than the share ``max_missing`` of a map has no data.
    """
    for values in maps:
        missing = np.count_nonzero(np.isnan(values)) / values.size
        if missing > max_missing:
            raise UserError(
                f"{missing:.2%} of the pixels of {map_filter.kind.name} have no data",
                f"bring the files that are missing, or raise filters.max_missing={max_missing:g}",
            )
    results = map_filter.apply(np.stack([fill_gaps(values) for values in maps]))
    for result, values in zip(results, maps, strict=True):
        gaps = to_galactic(np.isnan(values), map_filter.kind.frame)
        yield StagedMap(result, np.flatnonzero(gaps), float(np.nanmean(values, dtype=np.float64)))
