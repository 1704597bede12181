"""A trained model, ready to predict: batches, patches, or the whole sphere by exact tiles, in the outputs' units.

A spherical network sees the whole sphere at once, or by exact tiles where it is large.  A flat network's *output* is
predicted on patches that cover the sphere, stitched by a partition of unity, and only then combined with the first
guess, ``t' = base + gain n``, on the sphere's own pixels: in the physical form the column keeps its resolution and only
the gain is interpolated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from sphereml import __version__
from sphereml.data.split_files import read_split
from sphereml.data.store import Sky
from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.errors import UserError
from sphereml.models.networks import Network
from sphereml.models.tiling import Tiling
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import sample_patches
from sphereml.patches.stitching import covering_frames, stitch_stream
from sphereml.sky.fields import Field
from sphereml.sky.maps import SkyMap
from sphereml.sources.batch import Batch
from sphereml.sources.sky_source import SkyColumns
from sphereml.tasks import open_task
from sphereml.tasks.maps import MapTask
from sphereml.tasks.protocol import Scaling, Task
from sphereml.training.runs import Run

_PATCHES_AT_ONCE = 16
_CENTRES_NSIDE = (4, 8, 16)


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
        task: that of the run's configuration, where one is at hand (runs that see the same may share it).
        tile_side: pixels a side of the tiles that bound the memory.
    """

    run: Run
    given: Task | None = None
    device: torch.device = field(default_factory=best_device)
    tile_side: int = 256

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.network.parameters())
        return f"Predictor({self.run.name}: {count} parameters, on {self.device})"

    @cached_property
    def task(self) -> Task:
        return self.given or open_task(self.run.config)

    @cached_property
    def scaling(self) -> Scaling:
        return self.task.scaling.from_json(self.run.scaling())

    @cached_property
    def network(self) -> Network:
        """With the trained weights, in ``eval()`` mode."""
        network = self.task.network(self.scaling, self.run.manifest().get("nside", 0))
        network.load_state_dict(self.run.weights())
        return network.eval().to(self.device)

    @torch.no_grad()
    def batch(self, batch: Batch) -> torch.Tensor:
        """The prediction ``(B, *s, O)`` for a batch, on the CPU; raises UserError when the training had diverged."""
        there = batch.to(self.device)
        output = self.network(there.features, there.domain)
        return self._finite(self.scaling.restore(self.task.combine(there, output, self.scaling)).cpu())

    def sphere(self, sky: Sky | None = None) -> Prediction:
        """The full-sky prediction from a sky, or from the one that the run was trained on.

        Raises:
            UserError: the task has no full sky, the network does not fit the sky, or the training had diverged.
        """
        started, task = time.monotonic(), self._maps
        if sky is None:
            task.sky  # noqa: B018  loaded before the clock starts
            started = time.monotonic()
        sky = sky or task.sky
        columns = task.columns(sky, self.scaling)
        output, seam = self._sphere_output(columns, sky)
        values = self._combined(columns, columns.guess, output, HealpixSky(sky.grid.nside))
        return Prediction(values.float().numpy(), seam, time.monotonic() - started)

    def patches(self, frames: np.ndarray, sphere: np.ndarray, sky: Sky) -> np.ndarray:
        """Predicted gnomonic patches ``(n, size, size, O)``: a flat network's own, else ``sphere`` projected."""
        task = self._maps
        if self.run.config.model.domain != "flat":
            return sample_patches(sphere, frames, task.patch, [one.spin for one in self.fields])
        columns = task.columns(sky, self.scaling)
        output = np.concatenate([values for values, _ in self._flat_outputs(columns, frames)])
        guess = sample_patches(columns.guess.astype(np.float32), frames, task.patch, columns.guess_spins)
        return self._combined(columns, guess, output, FlatPatch.of(task.patch)).numpy()

    def predict(self, sky: Sky | None = None) -> SkyMap:
        """Full-sky maps of the outputs; the header says what made them, and whether the sky is another one."""
        known = sky is None
        sky = sky or self._maps.sky
        return SkyMap(self.sphere(sky).values, self.fields, order="nest", header=self.header(None if known else sky))

    @property
    def fields(self) -> tuple[Field, ...]:
        """What is predicted, as it was when the run was trained."""
        fields: tuple[Field, ...] = getattr(self.scaling, "output_fields", self.task.outputs)
        return fields

    def header(self, other: Sky | None = None) -> dict[str, object]:
        """Facts for a template's header: what made it, and where its pixels' own targets did."""
        manifest = self.run.manifest()
        facts: dict[str, object] = {
            "run_id": self.run.folder.name,
            "weights_hash": manifest["weights_sha256"],
            "model": self.run.name,
            "code_version": __version__,
        }
        if other is not None and not _same_data(manifest.get("data", {}), other.provenance):
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

    def _combined(self, columns: SkyColumns, guess: np.ndarray, output: np.ndarray, domain: Domain) -> torch.Tensor:
        """The prediction in units, from first guess and output of the same places ``(..., columns)``."""
        base, gains = columns.split_guess(torch.from_numpy(np.ascontiguousarray(guess)))
        features, weight = base.new_empty(0), base.new_ones(())
        batch = Batch(domain, columns.channels, features, base, gains, base, weight)
        return self._finite(self.scaling.restore(self.task.combine(batch, torch.from_numpy(output), self.scaling)))

    def _sphere_output(self, columns: SkyColumns, sky: Sky) -> tuple[np.ndarray, float | None]:
        """The network's output on every pixel of the sky, and the seam of a stitched one."""
        task, nside = self._maps, sky.grid.nside
        if self.run.config.model.domain == "flat":
            outputs, spins = self._flat_outputs(columns, _covering(task.patch)), task.channels(self.scaling)[1].spins
            stitched = stitch_stream(outputs, task.patch, sky.grid, spins)
            return stitched.map, stitched.seam
        _refuse_shallow(self.network, nside, self.run)
        features = columns.features.astype(np.float32, copy=False)
        if nside > self.tile_side:
            return Tiling(self.network, nside, nside // self.tile_side).run(features, self.device), None
        return self._output(features[None], HealpixSky(nside))[0], None

    def _flat_outputs(self, columns: SkyColumns, frames: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Network output ``(n, size, size, C)`` with its frames, a few patches at a time."""
        patch = self._maps.patch
        features = columns.features.astype(np.float32, copy=False)
        for start in range(0, len(frames), _PATCHES_AT_ONCE):
            chosen = frames[start : start + _PATCHES_AT_ONCE]
            patches = sample_patches(features, chosen, patch, columns.channels.spins)
            yield self._output(patches, FlatPatch.of(patch)), chosen

    @torch.no_grad()
    def _output(self, features: np.ndarray, domain: Domain) -> np.ndarray:
        output: np.ndarray = self.network(torch.from_numpy(features).to(self.device), domain).cpu().numpy()
        return output


def _same_data(trained: dict[str, object], found: dict[str, object]) -> bool:
    return all(trained.get(key) == found.get(key) for key in ("kind", "files", "seed"))


def _refuse_shallow(network: Network, nside: int, run: Run) -> None:
    """Raise UserError for a sky that the network would pool away."""
    if nside >> network.depth < 1:
        raise UserError(
            f"{run.folder} pools {network.depth} times, which a sky of Nside {nside} does not have",
            f"predict at Nside {2**network.depth} or higher",
        )


def _covering(patch: GnomonicPatch) -> np.ndarray:
    """Frames of the fewest HEALPix-centred patches that cover the sphere."""
    for nside in _CENTRES_NSIDE[:-1]:
        try:
            return covering_frames(nside, patch)
        except UserError:
            continue
    return covering_frames(_CENTRES_NSIDE[-1], patch)
