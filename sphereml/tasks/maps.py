"""Full-sky maps learnt from full-sky maps: standardized inputs in, standardized targets out, on tiles or patches.

Conventions: full-sky arrays are NEST, pixel-major.  Every scalar column is standardized by its own mean and deviation
over the training pixels; a field with a spin has no mean and one deviation for both of its columns, since its values
turn with the frame.  A closed-form model is a :class:`~sphereml.models.baselines.PointwiseLinear` on the same
standardized columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from sphereml.config.schema import ExperimentConfig
from sphereml.config.validation import check_resolution
from sphereml.data.file_checksums import file_checksum
from sphereml.data.sky_on_disk import ReadableSky
from sphereml.data.split_files import Split, write_split
from sphereml.data.store import Sky
from sphereml.data.suspicions import suspicious_columns
from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.domains.channels import Channels
from sphereml.errors import UserError
from sphereml.models.baselines import LinearModel, PointwiseLinear, fit_linear
from sphereml.models.networks import Network
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.lambert import LambertPatch
from sphereml.patches.projection import ProjectedPatch
from sphereml.patches.sampling import PatchZone
from sphereml.sky.fields import Field, count_columns
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import latitude_cut
from sphereml.sources.batch import Part, Source
from sphereml.sources.footprints import Footprint, PatchFootprint, RegionFootprint, TileFootprint
from sphereml.sources.sky import load_sky, load_split, read_sky, split_identity
from sphereml.sources.sky_source import SkyColumns, SkySource
from sphereml.tasks.losses import CorrelationLoss, resolved_bands
from sphereml.tasks.protocol import Loss, Provenance, Say, Task


@dataclass(frozen=True)
class MapScaling:
    """Fields of a trained network, with means and deviations over the training pixels, a number a real column."""

    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    feature_mean: list[float]
    feature_std: list[float]
    target_mean: list[float]
    target_std: list[float]

    def __post_init__(self) -> None:
        columns = count_columns(self.output_fields)
        if len(self.feature_mean) != len(self.feature_std):
            raise ValueError("features have as many means as deviations")
        if not len(self.target_mean) == len(self.target_std) == columns:
            raise ValueError(f"targets have a mean and a deviation for each of {columns} columns")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    @property
    def input_fields(self) -> tuple[Field, ...]:
        return tuple(Field(**values) for values in self.inputs)

    @property
    def output_fields(self) -> tuple[Field, ...]:
        return tuple(Field(**values) for values in self.outputs)

    @property
    def output_spins(self) -> tuple[int, ...]:
        return tuple(one.spin for one in self.output_fields)

    def restore(self, prediction: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(values).to(prediction) for values in (self.target_mean, self.target_std))
        return prediction * std + mean

    def targets(self, sky: Sky) -> np.ndarray:
        """Standardized targets ``(npix, O)``; zero for a sky that has none."""
        if not sky.targets.shape[1]:
            return np.zeros((len(sky.inputs), len(self.target_std)), np.float32)
        return (sky.targets - np.asarray(self.target_mean)) / np.asarray(self.target_std)


class MapTask(Task):
    """Regression of full-sky maps.

    Args:
        sky, split: given where they are at hand; else those of the configuration are loaded when they are needed.

    Attributes:
        pixelwise: whether :meth:`columns` makes each row of the sky's row at that pixel alone, so that tiles of a large
            sky can be read apart; else all of it is read.

    Example:
        >>> import sphereml as sm
        >>> class Haze(sm.MapTask):  # in a file for --plugin; a configuration says task: haze
        ...     name = "haze"
        >>> Haze.study
        'maps'
    """

    name = "maps"
    scaling: ClassVar[type[MapScaling]] = MapScaling
    pixelwise: ClassVar[bool] = True

    def __init__(
        self, config: ExperimentConfig, say: Say = print, sky: ReadableSky | None = None, split: Split | None = None
    ) -> None:
        super().__init__(config, say)
        # Into the cached properties' own places.
        given = {"readable_sky": sky, "split": split}
        self.__dict__ |= {name: value for name, value in given.items() if value is not None}

    @cached_property
    def sky(self) -> Sky:
        given: ReadableSky | None = self.__dict__.get("readable_sky")
        return load_sky(self.config.data, self.say) if given is None else given.whole()

    @cached_property
    def readable_sky(self) -> ReadableSky:
        """The sky to predict from and to score on, read by its pixels where it is not in memory."""
        made_by_the_task = type(self).sky is not MapTask.sky
        return self.sky if "sky" in self.__dict__ or made_by_the_task else read_sky(self.config.data, self.say)

    @cached_property
    def split(self) -> Split:
        return load_split(self.config.split, self.config.data, self.sky)

    @property
    def outputs(self) -> tuple[Field, ...]:
        return self.sky.target_fields

    @property
    def learning_pixels(self) -> np.ndarray:
        """What is learnt from: the training region, with the validation region where nothing is chosen by it."""
        joined = self.closed_form or self.config.training.join_validation
        return self.split.train | self.split.validation if joined else self.split.train

    def check(self) -> None:
        config = self.config
        known = self.__dict__.keys() & {"sky", "readable_sky"}
        if config.data.kind == "galaxy" and not known:  # before it is simulated
            check_resolution(config, config.data.galaxy.nside)
        check_resolution(config, self.sky.grid.nside)
        if not self.closed_form:
            self.footprint(self.split.train)

    def warnings(self) -> list[str]:
        return suspicious_columns(self.sky, self.learning_pixels)

    def identity(self) -> dict[str, str]:
        return split_identity(self.config.split, self.config.data)

    def provenance(self) -> Provenance:
        return Provenance(self.sky.provenance, {"nside": self.sky.grid.nside})

    def keep(self, folder: Path) -> dict[str, Any]:
        path = write_split(folder / "split.fits", self.split)
        return {"split_sha256": file_checksum(path)}

    def fit_scaling(self) -> MapScaling:
        sky, features = self.sky, self.statistics(self.sky.inputs, self.sky.input_fields)
        return MapScaling.from_json(fields_of(sky) | named("feature", features) | self.target_statistics())

    def statistics(self, values: np.ndarray, fields: Sequence[Field]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of every column of ``(npix, columns)`` over the pixels that are learnt from."""
        pixels, weight = self.learning_pixels, self.split.weight
        return standardization(values[pixels], fields, None if weight is None else weight[pixels])

    def target_statistics(self) -> dict[str, Any]:
        """The entries of a scaling that standardize the targets; raises UserError for a sky without any."""
        if not self.sky.target_fields:
            raise UserError("the sky has no target", "give data.target")
        return named("target", self.statistics(self.sky.targets, self.sky.target_fields))

    def columns(self, sky: Sky, scaling: Any) -> SkyColumns:
        """A whole sky as the network sees it."""
        refuse_other_fields(sky, scaling)
        features = (sky.inputs - single(scaling.feature_mean)) / single(scaling.feature_std)
        target = scaling.targets(sky)
        return SkyColumns(
            self.channels(scaling)[0], features, np.zeros_like(target), None, target, scaling.output_spins
        )

    def column_reader(self, sky: ReadableSky, scaling: Any) -> Callable[[np.ndarray], SkyColumns]:
        """Gives the sky's columns at NEST pixels, rising and distinct, read when they are asked for."""
        if self.pixelwise:
            return lambda pixels: self.columns(sky.at(pixels), scaling)
        return self.columns(sky.whole(), scaling).at

    def sources(self, scaling: Any) -> Mapping[Part, Source]:
        columns = self.columns(self.sky, scaling)
        parts: dict[Part, np.ndarray] = {"train": self.learning_pixels}
        if not self.config.training.join_validation:
            parts["validation"] = self.split.validation
        return {
            part: SkySource(columns, pixels.astype(np.float32), self.footprint(pixels), self.split.weight)
            for part, pixels in parts.items()
        }

    def footprint(self, pixels: np.ndarray) -> Footprint:
        """Where batches are drawn: centres inside ``pixels`` and the split's margin away from the equator.

        Raises:
            UserError: the margin leaves no pixel.
        """
        config, margin = self.config, self.split.margin
        nside = HealpixGrid.of_size(pixels.size).nside
        inner = pixels & ~latitude_cut(HealpixGrid(nside), -margin, margin) if margin else pixels
        if not inner.any():
            what = f"no pixel of the region lies {margin:g} degrees from the equator"
            raise UserError(what, "lower split.centre_margin")
        zone = PatchZone(inner, pixels, config.patches.max_masked)
        if config.model.domain == "flat":
            return PatchFootprint(self.patch, zone)
        if config.training.footprint == "region":
            return RegionFootprint(nside, config.training.tile_nside, pixels)
        return TileFootprint(nside, config.training.tile_nside, zone, config.training.rotations)

    def loss(self, scaling: Any) -> Loss:
        bands = resolved_bands(self.config.bands, self.sky.grid.nside)
        return CorrelationLoss.of(self.config.loss, bands, scaling.output_spins)

    @property
    def patch(self) -> ProjectedPatch:
        """Of a flat network, and of the held-out patches that every model is scored on."""
        patches = self.config.patches
        kind = GnomonicPatch if patches.projection == "gnomonic" else LambertPatch
        return kind(patches.size, patches.pixel_arcmin)

    def domain(self, nside: int) -> Domain:
        if self.config.model.domain == "flat":
            return FlatPatch.of(self.patch, self.patch.projection)
        return HealpixSky(nside)

    def channels(self, scaling: Any) -> tuple[Channels, Channels]:
        return Channels.of_fields(scaling.input_fields), Channels.of_fields(scaling.output_fields)

    def network(self, scaling: Any, nside: int) -> Network:
        if not self.closed_form:
            return super().network(scaling, nside)
        channels_in, channels_out = self.channels(scaling)
        return PointwiseLinear(channels_in.columns, channels_out.columns)

    def solve(self, network: Network, scaling: Any) -> None:
        """Least squares of the raw columns, so that dark channels are told by their own size."""
        assert isinstance(network, PointwiseLinear)
        inputs, targets, pixels = self.raw_features(), self.sky.targets, self.learning_pixels
        for column in range(targets.shape[1]):
            model = fit_linear(inputs, targets[:, column], pixels, self.split.weight, self.comparable_inputs)
            network.assign(column, _standardized(model, scaling, column))

    @property
    def comparable_inputs(self) -> bool:
        """Whether inputs are amounts of one thing, so that one of them can be too dark to be weighed."""
        return False

    def raw_features(self) -> np.ndarray:
        """The columns that a closed-form model weighs, ``(npix, F)``, in their units."""
        return self.sky.inputs


def standardization(
    values: np.ndarray, fields: Sequence[Field], weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of every column of ``(n, columns)``; a constant column keeps its scale.

    Args:
        weight: ``(n,)``, what each row counts; None: all alike.
    """
    values = values.astype(np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0)
    if weight is not None:
        mean = np.average(values, axis=0, weights=weight)
        std = np.sqrt(np.average(np.square(values - mean), axis=0, weights=weight))
    first = 0
    for one in fields:
        if one.spin:
            both = slice(first, first + 2)
            power = np.square(values[:, both])
            mean[both], std[both] = 0.0, np.sqrt(np.average(power.mean(axis=1), weights=weight))
        first += one.columns
    std[std == 0] = 1.0
    return mean, std


def named(what: str, statistics: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Mean and deviation under the names of a scaling's entries."""
    return {f"{what}_mean": statistics[0].tolist(), f"{what}_std": statistics[1].tolist()}


def fields_of(sky: Sky) -> dict[str, Any]:
    """The entries of a scaling that say what goes in and what comes out."""
    return {"inputs": [asdict(one) for one in sky.input_fields], "outputs": [asdict(one) for one in sky.target_fields]}


def refuse_other_fields(sky: Sky, scaling: MapScaling) -> None:
    """Raise UserError for a sky whose inputs are not of the kind that a network was trained on."""
    trained, found = scaling.input_fields, sky.input_fields
    if count_columns(trained) != count_columns(found):
        raise UserError(
            f"the model was trained on {count_columns(trained)} channels, not {count_columns(found)}",
            "use the data the run was trained on, or data with the same channels",
        )
    for one, other in zip(trained, found, strict=True):
        if (one.unit, one.spin, one.parity) != (other.unit, other.spin, other.parity):
            raise UserError(
                f"the input {other.name} is a field of spin {other.spin} in {other.unit or 'no unit'}; the model was "
                f"trained on {one.name} of spin {one.spin} in {one.unit or 'no unit'}",
                "convert it, or use the data the run was trained on",
            )


def _standardized(model: LinearModel, scaling: MapScaling, column: int) -> LinearModel:
    """Weights of raw columns as weights of standardized ones, for a standardized target."""
    mean, std = np.asarray(scaling.feature_mean), np.asarray(scaling.feature_std)
    unit = scaling.target_std[column]
    offset = model.offset + float(mean @ model.weights) - scaling.target_mean[column]
    return LinearModel(model.weights * std / unit, offset / unit)


def single(values: Sequence[float]) -> np.ndarray:
    """Numbers of a scaling as float32: float64 ones would double the memory of a sky's features."""
    return np.asarray(values, dtype=np.float32)
