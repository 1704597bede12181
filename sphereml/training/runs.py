"""A run on disk: ``<output>/<experiment>/<model>-<hash>/``, named by the hash of its complete configuration.

It holds ``config.yaml``, ``manifest.json`` (code and library versions, input checksums, seeds, weights' hash, times),
``weights.safetensors`` with ``scaling.json`` beside it, ``checkpoints/`` and ``logs/``.  The manifest says
``"complete": true`` only when everything is there.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from sphereml import __version__
from sphereml.config.compose import load, run_hash, to_yaml
from sphereml.config.schema import ExperimentConfig
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError


@dataclass(frozen=True)
class Run:
    """One trained (or to be trained) model; ``folder`` need not exist yet."""

    folder: Path
    config: ExperimentConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> Run:
        """The run a configuration belongs to."""
        name = f"{config.model.name}-{run_hash(config)}"
        return cls(Path(config.output) / config.name / name, config)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A finished run.

        Raises:
            UserError: no run, unfinished, or its configuration was changed after training.
        """
        run = cls(folder, load(folder / "config.yaml"))
        manifest = run.manifest()
        if not manifest:
            raise UserError(f"{folder} has no manifest.json", "restore it, or remove the run folder and train again")
        if manifest.get("config_sha256") != file_sha256(folder / "config.yaml"):
            raise UserError(
                f"{folder} was trained with another configuration than its config.yaml says",
                "restore the file or train again",
            )
        if not manifest.get("complete"):
            raise UserError(f"the training in {folder} is not finished", "go on with `sphereml train ... --resume`")
        for path, known in (
            (run.weights_path, manifest["weights_sha256"]),
            (run.scaling_path, manifest["scaling_sha256"]),
        ):
            if file_sha256(path) != known:
                raise UserError(f"{path} is not the file that was trained", "restore it or train again")
        return run

    @property
    def name(self) -> str:
        return self.config.model.name

    @property
    def weights_path(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def scaling_path(self) -> Path:
        return self.folder / "scaling.json"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def manifest(self) -> dict[str, Any]:
        """What is known of the run so far; empty when it was never started."""
        path = self.folder / "manifest.json"
        if not path.is_file():
            return {}
        try:
            values = json.loads(path.read_text())
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise UserError(f"{path} is damaged", "remove the run folder and train again")
        return values

    def start(self, data: dict[str, Any], **facts: Any) -> None:
        """Write the configuration and an incomplete manifest, with the provenance of the data.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / "config.yaml", to_yaml(self.config))
        except OSError as error:
            raise UserError(f"cannot write {self.folder} ({error.strerror})", "choose another output=FOLDER") from error
        self.update(
            complete=False,
            config_sha256=file_sha256(self.folder / "config.yaml"),
            code=__version__,
            python=platform.python_version(),
            torch=torch.__version__,
            seed=self.config.training.seed,
            data=data,
            **facts,
        )

    def finish(self, tensors: dict[str, torch.Tensor], scaling: dict[str, Any], **facts: Any) -> None:
        """Write weights and scaling; then, in one write, their hashes, the facts, and that the run is complete."""
        # Not save_file, whose files are for their owner alone whatever the umask says.
        content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        write_atomically(self.weights_path, content)
        self.write_scaling(scaling)
        hashes = {"weights_sha256": file_sha256(self.weights_path), "scaling_sha256": file_sha256(self.scaling_path)}
        self.update(**hashes, **facts, complete=True)

    def write_scaling(self, scaling: dict[str, Any]) -> None:
        _write(self.scaling_path, json.dumps(scaling, indent=1))

    def update(self, **facts: Any) -> None:
        _write(self.folder / "manifest.json", json.dumps(self.manifest() | facts, indent=1, sort_keys=True))

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.weights_path)

    def scaling(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.scaling_path.read_text())
        return values

    def check_data(self, data: dict[str, Any]) -> None:
        """Raise UserError when the run was trained on other data than these, by their provenance."""
        trained = self.manifest().get("data", {})
        if trained.get("files") != data.get("files") or trained.get("seed") != data.get("seed"):
            raise UserError(f"the input maps changed since {self.folder} was started", "train again with --overwrite")


def find_runs(folder: Path) -> list[Run]:
    """The finished runs in a folder (or the folder itself if it is one), baselines first, then by name.

    Raises:
        UserError: no folder, or no finished run in it.
    """
    if (folder / "config.yaml").is_file():
        return [Run.open(folder)]
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "train first: `sphereml train experiment=NAME`")
    runs = [Run.open(path.parent) for path in sorted(folder.glob("*/config.yaml"))]
    if not runs:
        raise UserError(f"{folder} holds no run", "train first: `sphereml train experiment=NAME`")
    baselines = ["integrated", "linear"]
    return sorted(runs, key=lambda run: (baselines.index(run.name) if run.name in baselines else 9, run.name))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; raises UserError when it is missing."""
    if not path.is_file():
        raise UserError(f"{path} is missing", "restore it or train again")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def as_tensor(array: np.ndarray | float) -> torch.Tensor:
    return torch.from_numpy(np.atleast_1d(np.asarray(array, dtype=np.float64)))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)
