"""Values the schema's types allow but no experiment can have; each is refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sphereml.config.schema import ExperimentConfig, ModelConfig
from sphereml.errors import UserError

_CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("dust",),
    "data.kind": ("galaxy", "healpix"),
    "model.arch": ("unet", "linear", "integrated"),
    "model.domain": ("flat", "sphere", "none"),
    "model.form": ("plain", "physical"),
    "model.features": ("profile", "column"),
    "model.guess": ("column", "linear"),
    "model.gains": ("one", "channels"),
    "model.norm": ("batch", "none"),
    "training.footprint": ("tiles", "region"),
    "loss.correlation": ("auto", "mode", "ell"),
    "split.train": ("north", "south", "east", "west"),
}
_POSITIVE = [
    "data.galaxy.channels",
    "data.galaxy.channel_width",
    "patches.size",
    "patches.pixel_arcmin",
    "model.width",
    "model.max_width",
    "model.convs_per_level",
    "model.kernel",
    "training.epochs",
    "training.steps_per_epoch",
    "training.batch_size",
    "training.learning_rate",
    "training.decay_every",
    "training.patience",
    "training.validation_batches",
    "evaluation.patches",
]
_NOT_NEGATIVE = [
    "data.galaxy.beam_arcmin",
    "data.galaxy.noise_mk",
    "model.depth",
    "model.input_noise",
    "training.weight_decay",
    "training.threads",
    "evaluation.apodization",
    "loss.lambda_r",
    "loss.l1",
    "split.buffer",
    "split.centre_margin",
]
_POWERS_OF_TWO = ("data.galaxy.nside", "training.tile_nside", "evaluation.block_nside")


def validate(config: ExperimentConfig) -> None:
    """Raise UserError for the first impossible value."""
    for key, choices in _CHOICES.items():
        _require(config, key, lambda value, choices=choices: value in choices, "choose " + ", ".join(choices))
    for key in _POSITIVE:
        _require(config, key, lambda value: value > 0, "give a number above 0")
    for key in _NOT_NEGATIVE:
        _require(config, key, lambda value: value >= 0, "give 0 or more")
    for key in _POWERS_OF_TWO:
        _require(config, key, lambda value: value > 0 and value & (value - 1) == 0, "give a power of two")
    _require(config, "model.dropout", lambda value: 0 <= value < 1, "give a probability in [0, 1)")
    _require(config, "patches.max_masked", lambda value: 0 <= value < 1, "give a share in [0, 1)")
    for key in ("bands.r_low", "bands.r50", "bands.r150"):
        _require(config, key, lambda value: len(value) == 2 and 0 <= value[0] < value[1], "give [lo, hi] with lo < hi")
    _check_model(config.model)
    for fault in _size_faults(config):
        raise fault


def _check_model(model: ModelConfig) -> None:
    closed_form = model.arch in ("linear", "integrated")
    if closed_form != (model.domain == "none"):
        raise UserError(
            f"model.arch={model.arch} with model.domain={model.domain}",
            "networks live on flat or sphere, closed-form baselines on none",
        )
    if model.gains == "channels" and model.guess != "linear":
        raise UserError("model.gains=channels with model.guess=column", "a gain a channel needs model.guess=linear")
    if model.domain == "flat" and model.kernel % 2 == 0:
        raise UserError(f"model.kernel={model.kernel}: a flat kernel of even side has no centre", "use 3 or 5")


def _size_faults(config: ExperimentConfig) -> Iterator[UserError]:
    if config.model.domain == "flat" and config.patches.size % 2**config.model.depth:
        yield UserError(
            f"patches.size={config.patches.size} cannot be halved model.depth={config.model.depth} times",
            "use a smaller depth or a size that is a multiple of 2^depth",
        )


def _require(config: ExperimentConfig, key: str, accept: Callable[..., bool], mend: str) -> None:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    if not accept(value):
        raise UserError(f"{key}={value}", mend)
