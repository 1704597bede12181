"""A trained model, ready to predict: batches, patches, or the whole sphere by exact tiles, in the outputs' units.

A spherical network sees the whole sphere at once, or by exact tiles where it is large; what it sees of a tile is read
from the sky then, so memory is bounded by a tile and the maps of the outputs.  A flat network's *output* is
predicted on patches that cover the sphere, stitched by a partition of unity, and only then combined with the first
guess, ``t' = base + gain n``, on the sphere's own pixels: in the physical form the column keeps its resolution and only
the gain is interpolated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from sphereml import __version__
from sphereml.data.finished_pieces import FinishedPieces
from sphereml.data.sky_on_disk import ReadableSky
from sphereml.data.split_files import read_split
from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.errors import UserError
from sphereml.models.networks import Network
from sphereml.models.tiling import Tiling
from sphereml.patches.sampling import pixels_beneath, sample_patches
from sphereml.patches.stitching import fewest_frames, stitch_stream
from sphereml.progress import TimeLeft
from sphereml.sky.fields import Field, count_columns
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.maps import SkyMap
from sphereml.sky.regions import Region
from sphereml.sources.batch import Batch
from sphereml.sources.sky_source import SkyColumns
from sphereml.tasks import open_task
from sphereml.tasks.maps import MapTask
from sphereml.tasks.protocol import Say, Scaling, Task
from sphereml.training.runs import Run

_PATCHES_AT_ONCE = 16
_Reader = Callable[[np.ndarray], SkyColumns]


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _quiet(line: str) -> None:
    """Takes lines of progress where nobody reads them."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """A full-sky prediction.

    Args:
        values: ``(npix, O)`` float32 NEST in the outputs' units.
        seam: of a stitched prediction: how far overlapping patches differ in the network's output (the correction to
            the first guess), in units of its standard deviation over the sky (see ``patches.stitching``).
        seconds: what it took.
    """

    values: np.ndarray
    seam: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Predictor:
    """A finished run and what it predicts.

    Args:
        given: the task of the run's configuration, where one is at hand (runs that see the same may share it).
        tile_side: pixels a side of the tiles that bound the memory.
        say: takes lines of progress of large skies.
    """

    run: Run
    given: Task | None = None
    device: torch.device = field(default_factory=best_device)
    tile_side: int = 256
    say: Say = _quiet

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.network.parameters())
        return f"Predictor({self.run.name}: {count} parameters, on {self.device})"

    @cached_property
    def task(self) -> Task:
        return self.given or open_task(self.run.config)

    @cached_property
    def scaling(self) -> Scaling:
        """As it was fitted; raises UserError when the file holds something else, whatever its checksum."""
        try:
            values = self.run.scaling()
            _refuse_unusable(values)
            return self.task.scaling.from_json(values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what = f"{self.run.scaling_path} is no scaling of task={self.run.config.task} ({error})"
            raise UserError(what, "restore it or train again") from None

    @cached_property
    def network(self) -> Network:
        """With the trained weights, in ``eval()`` mode."""
        network = self.task.network(self.scaling, self.run.manifest().get("nside", 0))
        trained = self.run.weights()
        if _kinds(trained) != _kinds(network.state_dict()):
            what = f"{self.run.weights_path} holds the weights of another network"
            raise UserError(what, "restore it or train again")
        network.load_state_dict(trained)
        return network.eval().to(self.device)

    @torch.no_grad()
    def batch(self, batch: Batch) -> torch.Tensor:
        """The prediction ``(B, *s, O)`` for a batch, on the CPU; raises UserError when the training had diverged."""
        there = batch.to(self.device)
        output = self.network(there.features, there.domain)
        return self._finite(self.scaling.restore(self.task.combine(there, output, self.scaling)).cpu())

    def sphere(
        self, sky: ReadableSky | None = None, kept: FinishedPieces | None = None, third: int | None = None
    ) -> Prediction:
        """The full-sky prediction from a sky, or from the one that the run was trained on.

        Args:
            kept: finished pieces of the same prediction; those that are there are not made again.
            third: of a flat network, not the mean of overlapping patches but one patch a pixel, which has it in this
                third of its area (:class:`~sphereml.patches.stitching.Stitcher`); the first guess where none has.

        Raises:
            UserError: the task has no full sky, the network does not fit the sky, or the training had diverged.
        """
        sky, kept = sky or self._maps.readable_sky, kept or FinishedPieces()
        started = time.monotonic()
        read, grid = self._maps.column_reader(sky, self.scaling), sky.grid
        if self.run.config.model.domain == "flat":
            values, seam = self._stitched(read, grid, kept, third)
        else:
            values, seam = self._tiled(read, grid, kept), None
        return Prediction(values, seam, time.monotonic() - started)

    def patches(self, frames: np.ndarray, sphere: np.ndarray, sky: ReadableSky) -> np.ndarray:
        """Predicted patches ``(n, size, size, O)``: a flat network's own, else ``sphere`` projected."""
        task = self._maps
        if self.run.config.model.domain != "flat":
            return sample_patches(sphere, frames, task.patch, [one.spin for one in self.outputs])
        read, domain = task.column_reader(sky, self.scaling), FlatPatch.of(task.patch, task.patch.projection)
        found = (self._on_patches(read, sky.grid, chosen) for chosen in _in_parts(frames))
        return np.concatenate([self._combined(*one, domain) for one in found])

    def predict(self, sky: ReadableSky | None = None) -> SkyMap:
        """Full-sky maps of the outputs; the header says what made them, and whether the sky is another one."""
        return SkyMap(self.sphere(sky).values, self.outputs, order="nest", header=self.header(sky))

    @property
    def outputs(self) -> tuple[Field, ...]:
        """The fields that are predicted, as the run's scaling knows them."""
        fields: tuple[Field, ...] | None = getattr(self.scaling, "output_fields", None)
        return self.task.outputs if fields is None else fields

    def header(self, other: ReadableSky | None = None) -> dict[str, object]:
        """Facts for a template's header: what made it, and where its pixels' own targets did."""
        manifest = self.run.manifest()
        facts: dict[str, object] = {
            "run_id": self.run.folder.name,
            "weights_hash": manifest["weights_sha256"],
            "model": self.run.name,
            "code_version": __version__,
        }
        drawn = "split_sha256" not in manifest  # whole skies that train are never predicted
        if drawn or (other is not None and not _same_data(manifest.get("data", {}), other.provenance)):
            return facts | {"fitted": "other sky", "other_data": True}
        return facts | {"fitted": "in-sample"} | self._shares()

    def _shares(self) -> dict[str, float]:
        """Of the sky, what trained, what chose the epoch and what was held out; the rest was not used."""
        split = read_split(self.run.split_path)
        joined = self.task.closed_form or self.run.config.training.join_validation
        train, chosen, test = (round(float(part.mean()), 4) for part in (split.train, split.validation, split.test))
        return {"trained": train + chosen * joined, "chosen": chosen * (not joined), "held_out": test}

    @property
    def _maps(self) -> MapTask:
        if not isinstance(self.task, MapTask):
            what = f"{self.run.folder} is a run of {self.task.name}, which lives on patches alone"
            raise UserError(what, "try `sphereml compare`")
        return self.task

    def _finite(self, values: torch.Tensor) -> torch.Tensor:
        if not values.isfinite().all():
            what = f"{self.run.folder} predicts values that are not finite: its training diverged"
            raise UserError(what, "train again with a lower training.learning_rate")
        return values

    def _combined(self, columns: SkyColumns, guess: np.ndarray, output: np.ndarray, domain: Domain) -> np.ndarray:
        """The prediction in units, from first guess and output of the same places ``(..., columns)``."""
        base, gains = columns.split_guess(torch.from_numpy(np.ascontiguousarray(guess)))
        features, weight = base.new_empty(0), base.new_ones(())
        batch = Batch(domain, columns.channels, features, base, gains, base, weight)
        values = self.scaling.restore(self.task.combine(batch, torch.from_numpy(output), self.scaling))
        return self._finite(values).float().numpy()

    def _tiled(self, read: _Reader, grid: HealpixGrid, kept: FinishedPieces) -> np.ndarray:
        """A spherical network's prediction on every pixel ``(npix, O)``."""
        nside = grid.nside
        _refuse_shallow(self.network, nside, self.run)
        whole = [(Region(nside), Region(nside))]
        tiles = list(Tiling(self.network, nside, nside // self.tile_side)) if nside > self.tile_side else whole

        def predict(tile: Region, wide: Region) -> np.ndarray:
            columns = read(wide.pixels)
            features = columns.features.astype(np.float32, copy=False)
            output = self._output(features[None], HealpixSky.of(wide))[0]
            if wide is not tile:
                own = wide.locate(tile.pixels)
                columns, output = columns.at(own), output[own]
            return self._combined(columns, columns.guess, output, HealpixSky.of(tile))

        return self._joined(tiles, predict, kept)

    def _stitched(
        self, read: _Reader, grid: HealpixGrid, kept: FinishedPieces, third: int | None
    ) -> tuple[np.ndarray, float]:
        """A flat network's prediction on every pixel ``(npix, O)``, its output stitched from patches, and the seam."""
        patch = self._maps.patch

        def output(frames: np.ndarray) -> np.ndarray:
            return self._on_patches(read, grid, frames)[2]

        def outputs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for index, frames in enumerate(_in_parts(fewest_frames(patch))):
                yield kept.get(f"patches-{index}", partial(output, frames)), frames

        spins = self._maps.channels(self.scaling)[1].spins
        stitched = stitch_stream(outputs(), patch, grid, spins, third)

        def predict(tile: Region, _: Region) -> np.ndarray:
            columns = read(tile.pixels)
            return self._combined(columns, columns.guess, stitched.map[tile.pixels], HealpixSky.of(tile))

        side = grid.nside // self.tile_side
        tiles = [Region(grid.nside, (pixel,), side) for pixel in range(12 * side**2)] or [Region(grid.nside)]
        return self._joined([(tile, tile) for tile in tiles], predict, kept), stitched.seam

    def _joined(
        self,
        tiles: Sequence[tuple[Region, Region]],
        predict: Callable[[Region, Region], np.ndarray],
        kept: FinishedPieces,
    ) -> np.ndarray:
        """What ``predict`` gives for every tile and its halo, joined to a map ``(npix, O)`` float32."""
        values, started = np.empty((tiles[0][0].grid.npix, count_columns(self.outputs)), np.float32), time.monotonic()
        left = TimeLeft(len(tiles))
        for done, (tile, wide) in enumerate(tiles, 1):
            values[tile.pixels] = kept.get(f"tile-{done}", partial(predict, tile, wide))
            if done * 10 // len(tiles) > (done - 1) * 10 // len(tiles) and done < len(tiles):
                self.say(
                    f"{self.run.name}: {done} of {len(tiles)} tiles in {time.monotonic() - started:.0f} s{left(done)}"
                )
        return values

    def _on_patches(
        self, read: _Reader, grid: HealpixGrid, frames: np.ndarray
    ) -> tuple[SkyColumns, np.ndarray, np.ndarray]:
        """A flat network on patches: columns of the pixels beneath, guess ``(n, size, size, ...)`` and output there."""
        patch, rows = self._maps.patch, pixels_beneath(grid, frames, self._maps.patch)
        columns = read(rows.pixels)
        sets = (columns.features, columns.channels.spins), (columns.guess, columns.guess_spins)
        features, guess = (
            sample_patches(values.astype(np.float32, copy=False), frames, patch, spins, rows) for values, spins in sets
        )
        return columns, guess, self._output(features, FlatPatch.of(patch, patch.projection))

    @torch.no_grad()
    def _output(self, features: np.ndarray, domain: Domain) -> np.ndarray:
        output: np.ndarray = self.network(torch.from_numpy(features).to(self.device), domain).cpu().numpy()
        return output


def _kinds(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (one.shape, one.dtype) for name, one in tensors.items()}


def _in_parts(frames: np.ndarray) -> list[np.ndarray]:
    return [frames[start : start + _PATCHES_AT_ONCE] for start in range(0, len(frames), _PATCHES_AT_ONCE)]


def _refuse_unusable(values: Any, name: str = "scaling") -> None:
    """Raise ValueError for a number, anywhere in a scaling, that is not finite, or an entry that is nothing at all."""
    if isinstance(values, dict):
        for key, value in values.items():
            _refuse_unusable(value, key)
    elif isinstance(values, list):
        if name.endswith(("_mean", "_std")) and any(isinstance(value, str) for value in values):
            raise ValueError(f"{name} holds text")
        for value in values:
            _refuse_unusable(value, name)
    elif values is None or (isinstance(values, float) and not math.isfinite(values)):
        raise ValueError(f"{name} is not finite")


def _same_data(trained: dict[str, object], found: dict[str, object]) -> bool:
    return all(trained.get(key) == found.get(key) for key in ("kind", "files", "seed"))


def _refuse_shallow(network: Network, nside: int, run: Run) -> None:
    """Raise UserError for a sky that the network would pool away."""
    if nside >> network.depth < 1:
        raise UserError(
            f"{run.folder} pools {network.depth} times, which a sky of Nside {nside} does not have",
            f"predict at Nside {2**network.depth} or higher",
        )
