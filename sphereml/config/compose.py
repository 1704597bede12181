"""Compose an experiment from the YAML files in ``configs/`` and ``key=value`` overrides, checked against the schema.

Hydra's Compose API builds the container; it is then merged onto the structured schema, which refuses unknown keys
(``+typo=1`` included) and values of the wrong type.  All faults end as UserError.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from sphereml.config.outer_hydra import alone_in_hydra
from sphereml.config.overrides import check_override, unknown_key
from sphereml.config.quoting import quote_texts
from sphereml.config.resources import resource_folder
from sphereml.config.schema import ExperimentConfig
from sphereml.config.validation import validate
from sphereml.errors import UserError

# They say where a run goes and how fast, not what it is.
_NOT_IN_HASH = ("output", "models")


def compose(overrides: Sequence[str]) -> ExperimentConfig:
    """The experiment described by overrides such as ``experiment=dust_demo training.epochs=3``.

    Raises:
        UserError: an unknown group, key or value; the message names it.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    for word in overrides:
        check_override(word)
    folder = str(resource_folder("configs").resolve())
    try:
        with alone_in_hydra(ExperimentConfig), initialize_config_dir(folder, version_base="1.3"):
            container = hydra_compose("config", overrides=quote_texts(overrides, ExperimentConfig))
    except (HydraException, OmegaConfBaseException) as error:
        raise _refusal(error) from error
    return _onto_schema(container)


def load(path: Path) -> ExperimentConfig:
    """An experiment saved as :func:`to_yaml` writes it.

    Raises:
        UserError: no such file, or not one of ours.
    """
    from omegaconf import OmegaConf

    if not path.is_file():
        raise UserError(f"{path} does not exist", "name a run folder that `sphereml train` made")
    try:
        container = OmegaConf.load(path)
    except Exception as error:
        raise UserError(f"{path} is no YAML file ({_one_line(error)})", "restore it or train again") from error
    if not OmegaConf.is_dict(container) or not container:
        raise UserError(f"{path} holds no configuration", "restore it or train again")
    try:
        return _onto_schema(container)
    except UserError as error:
        raise UserError(f"{path}: {error.what}", error.mend) from error


def to_yaml(config: ExperimentConfig) -> str:
    """The experiment as YAML, complete: every default is spelled out."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def run_hash(config: ExperimentConfig) -> str:
    """Eight hexadecimal digits that change with anything the result of a run depends on."""
    values = {key: value for key, value in asdict(config).items() if key not in _NOT_IN_HASH}
    values["data"] = {key: value for key, value in values["data"].items() if key not in ("stores", "folder")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _onto_schema(container: Any) -> ExperimentConfig:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        # As plain values: a container that already has the schema's type would keep the keys added with "+".
        plain = OmegaConf.to_container(container)
        merged = OmegaConf.merge(OmegaConf.structured(ExperimentConfig), plain)
        config = cast(ExperimentConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise _refusal(error) from error
    validate(config)
    return config


def _refusal(error: Exception) -> UserError:
    """Hydra's and OmegaConf's many lines as one, with the full name of the key."""
    from omegaconf.errors import ConfigKeyError

    inner = error.__cause__ if error.__cause__ is not None else error
    line = _one_line(inner if str(error).startswith(("Could not override", "Error merging")) else error)
    key = str(getattr(inner, "full_key", None) or "")
    if isinstance(inner, ConfigKeyError) and key:
        return unknown_key(key)
    # An override that cannot be parsed has no key yet, but Hydra keeps the word.
    place = key or str(getattr(error, "override", None) or "")
    named = line if not place or place in line else f"{place}: {line}"
    return UserError(named, "see `sphereml config show` for the keys and `sphereml config list` for the names")


def _one_line(error: BaseException) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
