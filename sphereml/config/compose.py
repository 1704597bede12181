"""Compose an experiment from the YAML files in ``configs/`` and ``key=value`` overrides, checked against the schema.

Hydra's Compose API builds the container; it is then merged onto the structured schema, which refuses unknown keys
(``+typo=1`` included) and values of the wrong type.  All faults end as UserError.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, cast

from sphereml.config.bounds import refuse_bomb
from sphereml.config.documentation import commented_yaml, document_keys
from sphereml.config.experiment_files import named_experiment
from sphereml.config.outer_hydra import ROOT, alone_in_hydra
from sphereml.config.overrides import check_override, experiment_schema, given_keys, unknown_key
from sphereml.config.quoting import quote_texts
from sphereml.config.resources import config_folders
from sphereml.config.schema import ExperimentConfig
from sphereml.config.tasks import dotted_keys, refuse_unused, used_values
from sphereml.config.validation import allowed_values, validate
from sphereml.errors import UserError

# They say where a run goes, how fast it gets there or how it is scored, not what its weights are.
_NOT_IN_HASH = (
    *("output", "scheduler", "models", "rows", "seeds", "evaluation", "data.stores", "data.folder"),
    *("training.threads", "training.processes", "training.logger"),
)
# Keys that came after runs were named: at these values they name no run anew.
_LATER_KEYS = {"patches.projection": "gnomonic"}


def compose(overrides: Sequence[str]) -> ExperimentConfig:
    """The experiment described by overrides such as ``experiment=dust_demo training.epochs=3``.

    A word that ends in ``.yaml`` or ``.yml`` is the file of an experiment.  Names are looked up in
    :func:`~sphereml.config.resources.config_folders`.

    Raises:
        UserError: an unknown group, key or value, a key that the experiment's task does not use, or a file that is
            missing or no experiment; the message names it.
    """
    with named_experiment(overrides) as words:
        for word in words:
            check_override(word)
        keys, values = list(given_keys(words)), _composed(words)
    task = str(values["task"])
    for key in keys:
        refuse_unused(task, key)
    # What the defaults of configs/sphereml.yaml say of other tasks is nobody's wish.
    return _onto_schema(used_values(task, values))


def _composed(words: Sequence[str]) -> Any:
    """What Hydra makes of checked words, as nested dicts."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    schema = experiment_schema()
    try:
        with alone_in_hydra(schema, config_folders()):
            return OmegaConf.to_container(hydra_compose(ROOT, overrides=quote_texts(words, schema)))
    except (YAMLError, ValueError) as error:
        raise UserError(f"a configuration is no YAML ({_one_line(error)})", "mend the file") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise _refusal(error, words) from error


def load(path: Path) -> ExperimentConfig:
    """An experiment saved as :func:`to_yaml` or :func:`to_json` writes it (JSON is YAML).

    Raises:
        UserError: no such file, or not one of ours.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist", "name a run folder that `sphereml train` made")
    refuse_bomb(path.read_text(errors="replace"), path)
    try:
        container: Any = _read(path)
    except Exception as error:
        raise UserError(f"{path} is no YAML file ({_one_line(error)})", "restore it or train again") from error
    if not isinstance(container, dict) or not container:
        raise UserError(f"{path} holds no configuration", "restore it or train again")
    try:
        for key in dotted_keys(container):
            refuse_unused(str(container.get("task", ExperimentConfig.task)), key)
        return _onto_schema(container)
    except UserError as error:
        raise UserError(f"{path}: {error.what}", error.mend) from error


def _read(path: Path) -> Any:
    from omegaconf import OmegaConf

    try:
        return json.loads(path.read_text())  # a hundred times faster than YAML, and what runs hold
    except ValueError:
        return OmegaConf.to_container(OmegaConf.load(path))


def used_settings(config: ExperimentConfig) -> dict[str, Any]:
    """The experiment as nested dicts of plain values: every key that its task uses, defaults spelled out."""
    return used_values(config.task, asdict(config))


def to_yaml(config: ExperimentConfig) -> str:
    """:func:`used_settings` as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(used_settings(config)))


def to_commented_yaml(config: ExperimentConfig) -> str:
    """:func:`used_settings` as YAML, with what each key means as a comment above it."""
    documents = document_keys(experiment_schema(), allowed_values(config.task))
    return commented_yaml(used_settings(config), documents)


def to_json(config: ExperimentConfig) -> str:
    """:func:`used_settings` as JSON."""
    return json.dumps(used_settings(config), indent=1) + "\n"


def run_hash(config: ExperimentConfig, identity: Mapping[str, str] | None = None) -> str:
    """Eight hexadecimal digits that change with anything the weights of a run depend on.

    Args:
        identity: contents of files that the configuration names, by their role (checksums).
    """
    values = used_settings(config)
    for key in (*_NOT_IN_HASH, *_LATER_KEYS):
        *path, name = key.split(".")
        place = values
        for part in path:
            place = place.get(part, {})
        if key in _NOT_IN_HASH or place.get(name) == _LATER_KEYS[key]:
            place.pop(name, None)
    described = json.dumps([values, dict(identity or {})], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:8]


def _onto_schema(values: dict[str, Any]) -> ExperimentConfig:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    schema: Any = experiment_schema()
    try:
        merged = OmegaConf.merge(_structured(schema), values)
        config = cast(ExperimentConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise _refusal(error) from error
    validate(config)
    return config


@cache
def _structured(schema: type) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.structured(schema)


def _refusal(error: Exception, words: Sequence[str] = ()) -> UserError:
    """Hydra's and OmegaConf's many lines as one, with the full name of the key."""
    from omegaconf.errors import ConfigKeyError

    # Hydra raises its refusal of a file's key without naming its cause.
    beneath = error.__context__ if str(error).startswith("In '") else error.__cause__
    inner = error if beneath is None else beneath
    line = _one_line(inner if str(error).startswith(("Could not override", "Error merging", "In '")) else error)
    key = str(getattr(inner, "full_key", None) or "")
    if isinstance(inner, ConfigKeyError) and key:
        # OmegaConf names a key of a list's item without the list.
        lists = [word.partition("=")[0] for word in words if re.search(rf"[{{,]\s*{re.escape(key)}\s*:", word)]
        return unknown_key(f"{lists[0]}.{key}" if lists and "." not in key else key)
    # An override that cannot be parsed has no key yet, but Hydra keeps the word.
    place = key or str(getattr(error, "override", None) or "")
    named = line if not place or place in line else f"{place}: {line}"
    return UserError(named, "see `sphereml config show` for the keys and `sphereml config list` for the names")


def _one_line(error: BaseException) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
