"""Values the schema's types allow but no experiment can have; each is refused in one line.

What depends on the maps' Nside is checked by :func:`check_resolution`, once it is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from sphereml.config.bounds import bound_faults, memory_faults
from sphereml.config.cross_fit import cross_fit_faults
from sphereml.config.forecast import forecast_faults
from sphereml.config.schema import Disc, ExperimentConfig, ModelConfig, SplitConfig
from sphereml.config.survey import check_survey
from sphereml.config.tasks import schema_of
from sphereml.errors import UserError

CLOSED_FORMS = ("linear", "integrated", "tensor", "hough")
_CHOICES: dict[str, tuple[str, ...]] = {
    "data.kind": ("galaxy", "healpix", "survey"),
    "model.arch": ("unet", "resunet", "stack", "spectral", *CLOSED_FORMS),
    "model.domain": ("flat", "sphere", "none"),
    "model.form": ("plain", "physical"),
    "model.inputs": ("channels", "integrated", "moments", "scales"),
    "model.features": ("profile", "column"),
    "model.guess": ("column", "linear"),
    "model.gains": ("one", "channels"),
    "model.norm": ("batch", "none"),
    "model.stencil": ("adjacent", "nearest8", "nearest20", "nearest40", "nearest60", "oriented", "spin"),
    "patches.projection": ("gnomonic", "lambert"),
    "training.schedule": ("step", "plateau", "cosine"),
    "training.precision": ("float32", "tf32", "bf16"),
    "training.footprint": ("tiles", "region"),
    "training.logger": ("tensorboard", "csv", "mlflow", "wandb"),
    "loss.correlation": ("auto", "mode", "ell"),
    "evaluation.study": ("", "cross_fit", "dust_paper", "r_forecast", "sphere_only"),
    "split.train": ("north", "south", "east", "west", "fold"),
}
_POSITIVE = [
    "data.galaxy.channel_width",
    "patches.size",
    "patches.pixel_arcmin",
    "model.width",
    "model.max_width",
    "model.convs_per_level",
    "model.kernel",
    "model.moments",
    "training.epochs",
    "training.steps_per_epoch",
    "training.batch_size",
    "training.learning_rate",
    "training.decay_every",
    "training.patience",
    "training.processes",
    "training.validation_batches",
    "evaluation.patches",
]
_NOT_NEGATIVE = [
    "data.galaxy.beam_arcmin",
    "data.galaxy.noise_mk",
    "data.lmax",
    "data.beam_arcmin",
    "data.iterations",
    "model.depth",
    "model.input_noise",
    "training.weight_decay",
    "training.threads",
    "training.clip",
    "evaluation.apodization",
    "loss.lambda_r",
    "loss.l1",
    "loss.l2",
    "split.buffer",
    "split.centre_margin",
]
# A seed shifted by 32 bits and added to a step still fits torch's 64.
_SEEDS = ("data.galaxy.seed", "training.seed", "evaluation.seed")
# They become names of files and folders.
_NAMES = ("name", "data.name", "split.name", "model.name")
_FOLDERS = ("output", "data.stores")
# Degrees: beyond, the corners of the tangent plane run away to the horizon.
_LARGEST_EXTENT = 90.0
_POWERS_OF_TWO = ("data.galaxy.nside", "training.tile_nside", "evaluation.block_nside")


def allowed_values(task: str) -> dict[str, tuple[str, ...]]:
    """Key -> the values that it may have, of the keys that have a list of them."""
    return _CHOICES | dict(schema_of(task).choices)


def validate(config: ExperimentConfig) -> None:
    """Raise UserError for the first impossible value."""
    for fault in bound_faults(asdict(config)):
        raise fault
    for key, number in _numbers(asdict(config)):
        if not math.isfinite(number):
            raise UserError(f"{key}={number}", "give a finite number")
    schema = schema_of(config.task)
    for key, choices in allowed_values(config.task).items():
        _require(config, key, lambda value, choices=choices: value in choices, "choose " + ", ".join(choices))
    for key in _POSITIVE:
        _require(config, key, lambda value: value > 0, "give a number above 0")
    for key in _NOT_NEGATIVE:
        _require(config, key, lambda value: value >= 0, "give 0 or more")
    for key in _POWERS_OF_TWO:
        _require(config, key, lambda value: value > 0 and value & (value - 1) == 0, "give a power of two")
    _require(config, "data.nside", lambda value: value >= 0 and value & (value - 1) == 0, "give a power of two, or 0")
    _require(config, "data.max_missing", lambda value: 0 <= value < 1, "give a share in [0, 1)")
    _require(config, "model.dropout", lambda value: 0 <= value < 1, "give a probability in [0, 1)")
    _require(config, "patches.max_masked", lambda value: 0 <= value < 1, "give a share in [0, 1)")
    known = ("r_low", "r50", "r150")
    _require(config, "loss.bands", lambda value: set(value) <= set(known), "choose from " + ", ".join(known))
    for key in ("bands.r_low", "bands.r50", "bands.r150"):
        _require(config, key, lambda value: len(value) == 2 and 0 <= value[0] < value[1], "give [lo, hi] with lo < hi")
        _require(config, key, lambda value: math.ceil(value[0]) < math.ceil(value[1]), "no multipole lies in it")
    # The velocity axis, hence the column, comes from the distance between channels.
    _require(config, "data.galaxy.channels", lambda value: value > 1, "give 2 or more")
    for key in _SEEDS:
        _require(config, key, lambda value: 0 <= value < 2**31, "give 0 to 2147483647")
    for key in _NAMES:
        _require(config, key, lambda value: re.fullmatch(r"\w[\w.+-]*", value), "use letters, digits and _ . + - alone")
    for key in _FOLDERS:
        _require(config, key, lambda value: value.strip() and "\0" not in value, "name a folder, . for this one")
    known_scheduler = re.compile(r"|local|(tcp|tls|ucx|inproc)://\S+")
    _require(config, "scheduler", known_scheduler.fullmatch, "give local, or an address: scheduler=tcp://HOST:8786")
    for cut in [*config.split.cuts, *config.evaluation.cuts]:
        _check_disc(cut)
    if config.data.kind == "survey":
        check_survey(config.data.survey)
    if config.split.train == "fold":
        check_folds(config.split)
    _check_model(config.model)
    if config.training.schedule == "plateau" and config.training.join_validation:
        what = "training.schedule=plateau waits for a validation loss, and training.join_validation leaves none"
        raise UserError(what, "choose another schedule, or join_validation=false")
    evaluation = config.evaluation
    own = (*forecast_faults(evaluation.forecast), *cross_fit_faults(evaluation.cross_fit))
    for fault in (*_size_faults(config), *own):
        raise fault
    for fault in (*schema.faults(config), *memory_faults(config)):
        raise fault


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a tree of dicts and lists, with its key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif isinstance(value, float):
        yield key, value


def _check_disc(cut: Disc) -> None:
    if not (0 < cut.radius <= 180 and -90 <= cut.lat <= 90):
        raise UserError(f"the cut {cut.name!r} is no disc on the sky", "give lat in -90..90 and radius in 0..180")


def check_folds(split: SplitConfig) -> None:
    """Raise UserError for a fold that does not exist, or too few of them."""
    if not (split.folds >= 3 and 0 <= split.fold < split.folds):
        raise UserError(
            f"split.fold={split.fold} of split.folds={split.folds}",
            "three folds or more are needed (one tests, one validates), counted from 0",
        )


def _check_model(model: ModelConfig) -> None:
    closed_form = model.arch in CLOSED_FORMS
    if closed_form != (model.domain == "none"):
        raise UserError(
            f"model.arch={model.arch} with model.domain={model.domain}",
            "networks live on flat or sphere, closed-form baselines on none",
        )
    typed = [name for name in ("odd_width", "spin1_width", "spin2_width", "products", "chiral") if getattr(model, name)]
    if typed and model.stencil != "spin":
        what = f"model.{typed[0]}={getattr(model, typed[0])} with model.stencil={model.stencil}"
        raise UserError(what, "types of channels need model.stencil=spin")
    if model.stencil == "spin" and model.kernel not in (1, 3, 5):
        raise UserError(f"model.kernel={model.kernel} with model.stencil=spin", "use 3 or 5")
    if model.domain == "flat" and model.kernel % 2 == 0:
        raise UserError(f"model.kernel={model.kernel}: a flat kernel of even side has no centre", "use 3 or 5")


def _size_faults(config: ExperimentConfig) -> Iterator[UserError]:
    extent = config.patches.size * config.patches.pixel_arcmin / 60
    if config.patches.size < 4 or extent > _LARGEST_EXTENT:
        yield UserError(
            f"patches of {config.patches.size} x {config.patches.size} pixels, {extent:.3g} degrees on a side",
            f"choose patches.size >= 4 and patches.pixel_arcmin so that a side has {_LARGEST_EXTENT:g} degrees at most",
        )
    if config.model.domain == "flat" and config.patches.size % 2**config.model.poolings:
        yield UserError(
            f"patches.size={config.patches.size} cannot be halved model.depth={config.model.depth} times",
            "use a smaller depth or a size that is a multiple of 2^depth",
        )


def check_resolution(config: ExperimentConfig, nside: int) -> None:
    """Raise UserError for what maps of this Nside cannot give an experiment."""
    for fault in (*_resolution_faults(config, nside), *_band_faults(config, 2.0 * nside)):
        raise fault


def _resolution_faults(config: ExperimentConfig, nside: int) -> Iterator[UserError]:
    tiles = config.training.tile_nside
    if config.model.domain == "sphere" and nside >> config.model.poolings < tiles:
        yield UserError(
            f"model.depth={config.model.depth} pools Nside {nside} below training.tile_nside={tiles}",
            "use a smaller depth or larger tiles (lower tile_nside)",
        )
    if config.evaluation.block_nside > nside:
        yield UserError(f"evaluation.block_nside={config.evaluation.block_nside} is above Nside {nside}", "lower it")


def _band_faults(config: ExperimentConfig, top: float) -> Iterator[UserError]:
    """Bands of the loss and the scores without a mode on the map or on the flat patches; only r150 may be missing."""
    fundamental = 360 * 60 / (config.patches.size * config.patches.pixel_arcmin)
    for name, (lo, hi) in (("r50", config.bands.r50), ("r150", config.bands.r150)):
        if name == "r150" and lo >= top:
            continue
        if math.ceil(lo) >= min(hi, top):
            yield UserError(
                f"bands.{name}=[{lo:g}, {hi:g}] lies beyond what the map resolves (ell < {top:g})",
                "lower the band or use maps of a higher Nside",
            )
        elif not _has_flat_mode(fundamental, config.patches.size, lo, min(hi, top)):
            yield UserError(
                f"no Fourier mode of the patches lies in bands.{name} ({lo:g} <= ell < {min(hi, top):g})",
                f"patches.size and patches.pixel_arcmin give modes from {fundamental:.4g} up",
            )


def _has_flat_mode(fundamental: float, size: int, lo: float, hi: float) -> bool:
    side = range(size // 2 + 1)
    slack = 1 + 1e-9  # the fundamental multipole, computed in another way, still is the first band's edge
    return any(lo <= fundamental * math.hypot(x, y) * slack < hi for x in side for y in side if x or y)


def _require(config: ExperimentConfig, key: str, accept: Callable[..., object], mend: str) -> None:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    if not accept(value):
        raise UserError(f"{key}={value}", mend)
