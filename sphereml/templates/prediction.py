"""Full-sky predictions of a finished run, on the sphere itself whatever the model's domain.

A spherical network sees the whole sphere at once, or by exact tiles where it is large.  A flat network's *output* is
predicted on patches that cover the sphere, stitched by a partition of unity, and only then combined with the first
guess, ``t' = base + gain n``, on the sphere's own pixels: in the physical form the column keeps its resolution and only
the gain is interpolated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sphereml.data.store import Sky, column
from sphereml.domains import FlatPatch, HealpixSky
from sphereml.errors import UserError
from sphereml.models.baselines import LinearModel
from sphereml.models.networks import NETWORKS, Network
from sphereml.models.tiling import Tiling
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import sample_patches
from sphereml.patches.stitching import covering_frames, stitch_stream
from sphereml.tasks.dust import DustScaling, TaskFields, build_fields, combine
from sphereml.training.fit import build_network
from sphereml.training.runs import Run

_PATCHES_AT_ONCE = 16
_CENTRES_NSIDE = (4, 8, 16)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A finished run, ready to predict on one sky; tiles of ``tile_side`` pixels a side bound the memory."""

    run: Run
    sky: Sky
    tile_side: int = 256

    def __post_init__(self) -> None:
        expected = self.run.manifest()["nside"]
        if self.sky.grid.nside != expected:
            raise UserError(
                f"{self.run.folder} was trained at Nside {expected}, the sky has {self.sky.grid.nside}",
                "predict at the Nside of the training",
            )

    def sphere(self) -> Prediction:
        """The full-sky prediction in the target's unit; raises UserError when the training had diverged."""
        started = time.monotonic()
        values, seam = self._sphere()
        if not np.isfinite(values).all():
            raise UserError(
                f"{self.run.folder} predicts values that are not finite: its training diverged",
                "train again with a lower training.learning_rate",
            )
        return Prediction(values.astype(np.float32), seam, time.monotonic() - started)

    def patches(self, frames: np.ndarray, sphere: np.ndarray) -> np.ndarray:
        """The prediction on gnomonic patches ``(n, size, size)``: a flat network's own, else ``sphere`` projected."""
        patch = gnomonic_patch(self.run)
        if self.run.config.model.domain != "flat":
            return sample_patches(sphere, frames, patch)
        scaling, fields, network = self._network()
        output = np.concatenate([values for values, _ in self._flat_outputs(network, fields, frames)])
        guess = sample_patches(np.concatenate([fields.base[:, None], fields.gain], axis=1), frames, patch)
        return scaling.restore(_combined(guess[..., 0], guess[..., 1:], output, scaling))

    def _sphere(self) -> tuple[np.ndarray, float | None]:
        arch, domain = self.run.config.model.arch, self.run.config.model.domain
        if arch not in NETWORKS:
            weights = self.run.weights()
            inputs = self.sky.inputs if arch == "linear" else column(self.sky)[:, None]
            return LinearModel(weights["weights"].numpy(), float(weights["offset"])).predict(inputs), None
        scaling, fields, network = self._network()
        if domain == "sphere":
            output, seam = self._sphere_output(network, fields), None
        else:
            patch = gnomonic_patch(self.run)
            stitched = stitch_stream(self._flat_outputs(network, fields, _covering(patch)), patch, self.sky.grid)
            output, seam = stitched.map, stitched.seam
        return scaling.restore(_combined(fields.base, fields.gain, output, scaling)), seam

    def _network(self) -> tuple[DustScaling, TaskFields, Network]:
        scaling = DustScaling.from_json(self.run.scaling())
        if scaling.channels_in != len(self.sky.channels):
            raise UserError(
                f"{self.run.folder} was trained on {scaling.channels_in} channels, not {len(self.sky.channels)}",
                "use the data the run was trained on",
            )
        network = build_network(self.run.config, scaling, self.sky.grid.nside)
        network.load_state_dict(self.run.weights())
        return scaling, build_fields(self.sky, scaling), network.eval()

    def _sphere_output(self, network: Network, fields: TaskFields) -> np.ndarray:
        nside = self.sky.grid.nside
        if nside > self.tile_side:
            return Tiling(network, nside, nside // self.tile_side).run(fields.features)
        with torch.no_grad():
            output: np.ndarray = network(torch.from_numpy(fields.features)[None], HealpixSky(nside))[0].numpy()
        return output

    def _flat_outputs(
        self, network: Network, fields: TaskFields, frames: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Network output ``(n, size, size, noutput)`` with its frames, a few patches at a time."""
        patch = gnomonic_patch(self.run)
        domain = FlatPatch.of(patch)
        for start in range(0, len(frames), _PATCHES_AT_ONCE):
            chosen = frames[start : start + _PATCHES_AT_ONCE]
            with torch.no_grad():
                output = network(torch.from_numpy(sample_patches(fields.features, chosen, patch)), domain)
            yield output.numpy(), chosen


@dataclass(frozen=True, eq=False)
class Prediction:
    """``values`` ``(npix,)`` float32 NEST in the target's unit.

    ``seam``, of a stitched prediction: how far overlapping patches differ in the network's output (the correction to
    the first guess), in units of its standard deviation over the sky (see ``patches.stitching``).
    """

    values: np.ndarray
    seam: float | None
    seconds: float


def _combined(base: np.ndarray, gain: np.ndarray, output: np.ndarray, scaling: DustScaling) -> np.ndarray:
    fields = [torch.from_numpy(np.ascontiguousarray(array)) for array in (base, gain, output)]
    return combine(fields[0], fields[1], fields[2], scaling.gain_limit).numpy()


def gnomonic_patch(run: Run) -> GnomonicPatch:
    return GnomonicPatch(run.config.patches.size, run.config.patches.pixel_arcmin)


def _covering(patch: GnomonicPatch) -> np.ndarray:
    """Frames of the fewest HEALPix-centred patches that cover the sphere."""
    for nside in _CENTRES_NSIDE[:-1]:
        try:
            return covering_frames(nside, patch)
        except UserError:
            continue
    return covering_frames(_CENTRES_NSIDE[-1], patch)
