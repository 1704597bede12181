"""Train one run: closed-form baselines at once, networks with Lightning; interrupted ones go on with ``resume``."""

from __future__ import annotations

import numpy as np
import torch

from sphereml.config.schema import ExperimentConfig
from sphereml.config.validation import check_resolution
from sphereml.data.splits import Split, write_split
from sphereml.data.store import Sky, column
from sphereml.domains import Domain, FlatPatch, HealpixSky
from sphereml.errors import UserError
from sphereml.models.baselines import fit_integrated, fit_linear
from sphereml.models.networks import NETWORKS, Network, build
from sphereml.patches.gnomonic import GnomonicPatch
from sphereml.patches.sampling import PatchZone
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.masks import latitude_cut
from sphereml.tasks.dust import DustScaling, build_fields, fit_scaling
from sphereml.tasks.losses import CorrelationLoss, resolved_bands
from sphereml.training.batches import (
    Footprint,
    PatchFootprint,
    RegionFootprint,
    SkyBatches,
    TileFootprint,
    sky_batches,
)
from sphereml.training.lifecycle import FitOptions, Fitted, Provenance, train_once
from sphereml.training.runs import Run, as_tensor


def fit_run(config: ExperimentConfig, sky: Sky, split: Split, options: FitOptions) -> Run:
    """Train the model of a configuration, or return its run when it is already complete.

    Raises:
        UserError: the maps cannot give what is asked, an unfinished run stands there and neither resume nor overwrite
            is asked for, the inputs changed since it was started, or its folder cannot be written.
    """
    check_resolution(config, sky.grid.nside)

    def fit(run: Run) -> Fitted:
        write_split(run.folder / "split.fits", split)
        return (_fit_network if config.model.arch in NETWORKS else _fit_baseline)(run, sky, split, options)

    return train_once(Run.of(config), Provenance(sky.provenance, {"nside": sky.grid.nside}), options, fit)


def _fit_baseline(run: Run, sky: Sky, split: Split, options: FitOptions) -> Fitted:
    pixels = split.train | split.validation
    if run.config.model.arch == "integrated":
        model = fit_integrated(column(sky), sky.target, pixels)
    else:
        model = fit_linear(sky.inputs, sky.target, pixels)
    return Fitted({"weights": as_tensor(model.weights), "offset": as_tensor(model.offset)})


def build_network(config: ExperimentConfig, scaling: DustScaling, nside: int) -> Network:
    """The network of a configuration, its weights drawn from the training seed."""
    torch.manual_seed(config.training.seed)
    domain: Domain = HealpixSky(nside)
    if config.model.domain == "flat":
        domain = FlatPatch(config.patches.size, config.patches.pixel_arcmin)
    return build(config.model, domain, scaling.feature_count, scaling.output_count)


def footprint(config: ExperimentConfig, nside: int, pixels: np.ndarray) -> Footprint:
    """Where batches are drawn: centres inside ``pixels`` and ``centre_margin`` away from the equator."""
    margin = config.split.centre_margin if config.split.train in ("north", "south") else 0.0
    grid = HealpixGrid(nside)
    inner = pixels & ~latitude_cut(grid, -margin, margin) if margin else pixels
    if not inner.any():
        raise UserError(f"no pixel of the region lies {margin:g} degrees from the equator", "lower split.centre_margin")
    zone = PatchZone(inner, pixels, config.patches.max_masked)
    if config.model.domain == "flat":
        return PatchFootprint(GnomonicPatch(config.patches.size, config.patches.pixel_arcmin), zone)
    if config.training.footprint == "region":
        return RegionFootprint(nside, config.training.tile_nside, pixels)
    return TileFootprint(nside, config.training.tile_nside, zone, config.training.rotations)


def _fit_network(run: Run, sky: Sky, split: Split, options: FitOptions) -> Fitted:
    from sphereml.training.lightning_fit import train_network
    from sphereml.training.regression import MapRegression

    config = run.config
    torch.set_num_threads(config.training.threads or torch.get_num_threads())
    pixels = split.train | split.validation if config.training.join_validation else split.train
    scaling = fit_scaling(sky, pixels, config.model)
    fields = build_fields(sky, scaling)
    nside, training = sky.grid.nside, config.training

    def batches(pixels: np.ndarray, count: int, stream: int) -> SkyBatches:
        place = footprint(config, nside, pixels)
        return sky_batches(fields, pixels, place, training.batch_size, count, training.seed + stream)

    network = build_network(config, scaling, nside)
    loss = CorrelationLoss.of(config.loss, resolved_bands(config.bands, nside))
    facts = train_network(
        run,
        MapRegression(network, loss, config.model, training),
        batches(pixels, training.steps_per_epoch, stream=0),
        None if training.join_validation else batches(split.validation, training.validation_batches, stream=1_000_000),
        options.say,
    )
    return Fitted(network.state_dict(), scaling.to_json(), facts)
