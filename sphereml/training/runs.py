"""A run on disk: ``<output>/<experiment>/<model>-<hash>/``, named by the hash of what its weights depend on.

It holds ``config.json`` (every key that its task uses), ``model.safetensors`` (weights, with metadata),
``scaling.json`` (means, units, first guess), ``manifest.json`` (code and library versions, checksums, seeds, times),
``README.md`` (a model card), what the task must remember (``split.fits``), ``checkpoints/``, ``logs/``.  The manifest
says ``"complete": true`` only when everything is there.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphereml import __version__
from sphereml.config.compose import load, run_hash, to_json
from sphereml.config.schema import ExperimentConfig
from sphereml.data.file_checksums import file_checksum
from sphereml.data.whole_files import read_sealed_json, sealed_json, write_atomically
from sphereml.errors import UserError

if TYPE_CHECKING:
    import torch

    from sphereml.data.sky_on_disk import ReadableSky
    from sphereml.sky.maps import SkyMap
    from sphereml.training.predictor import Predictor

_FIRST = ("integrated", "linear", "hough", "structure_tensor")


@dataclass(frozen=True)
class Run:
    """One trained (or to be trained) model; ``folder`` need not exist yet.

    Example:
        >>> import sphereml as sm
        >>> run = sm.open_run("runs/demo/linear-0123abcd")  # doctest: +SKIP
    """

    folder: Path
    config: ExperimentConfig

    @classmethod
    def of(cls, config: ExperimentConfig, identity: Mapping[str, str] | None = None) -> Run:
        """The run that a configuration belongs to, with the checksums of the files that it names."""
        name = f"{config.model.name}-{run_hash(config, identity)}"
        return cls(Path(config.output) / config.name / name, config)

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """A finished run.

        Raises:
            UserError: no run, one of an earlier version, unfinished, or not as it was trained.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file() and (folder / "config.yaml").is_file():
            raise UserError(f"{folder} was trained by an earlier sphereml, which kept other files", "train again")
        run = cls(folder, load(folder / "config.json"))
        manifest = run.manifest()
        if not manifest:
            raise UserError(f"{folder} has no manifest.json", "restore it, or remove the run folder and train again")
        if manifest.get("config_sha256") != file_checksum(folder / "config.json"):
            raise UserError(
                f"{folder} was trained with another configuration than its config.json says",
                "restore the file or train again",
            )
        if not manifest.get("complete"):
            mend = "go on with `sphereml train ... --resume`, or name the folders of finished runs alone"
            raise UserError(f"the training in {folder} is not finished", mend)
        for path, key in run._sealed():
            if not path.is_file():
                raise UserError(f"{path} is missing", "restore it or train again")
            if key in manifest and file_checksum(path) != manifest[key]:
                raise UserError(f"{path} is not the file that was trained", "restore it or train again")
        return run

    def _sealed(self) -> Iterator[tuple[Path, str]]:
        """Files whose checksums the manifest holds, and under which key."""
        yield self.weights_path, "weights_sha256"
        yield self.scaling_path, "scaling_sha256"
        if "split_sha256" in self.manifest():
            yield self.split_path, "split_sha256"

    def __repr__(self) -> str:
        facts = self.manifest()
        state = f"{facts['seconds_train']:.0f} s" if facts.get("complete") else "not finished"
        return f"Run({self.name}, task {self.config.task}, {state}, {self.folder})"

    def _repr_html_(self) -> str:
        facts = {"model": self.name, "task": self.config.task, "folder": self.folder} | {
            key: value
            for key, value in self.manifest().items()
            if key in ("epochs", "val_loss", "seconds_train", "code")
        }
        rows = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in facts.items())
        return f"<table>{rows}</table>"

    @property
    def name(self) -> str:
        return self.config.model.name

    @property
    def weights_path(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def scaling_path(self) -> Path:
        return self.folder / "scaling.json"

    @property
    def split_path(self) -> Path:
        return self.folder / "split.fits"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def manifest(self) -> dict[str, Any]:
        """What is known of the run so far; empty when it was never started."""
        path = self.folder / "manifest.json"
        if not path.is_file():
            return {}
        try:
            return read_sealed_json(path)
        except (OSError, ValueError):
            raise UserError(f"{path} is damaged", "restore it, or remove the run folder and train again") from None

    def start(self, data: dict[str, Any], **facts: Any) -> None:
        """Write the configuration and an incomplete manifest, with the provenance of the data.

        Raises:
            UserError: the folder cannot be written.
        """
        import torch

        path = write_atomically(
            self.folder / "config.json", to_json(self.config).encode(), "choose another output=FOLDER"
        )
        self.update(
            complete=False,
            config_sha256=file_checksum(path),
            code=__version__,
            python=platform.python_version(),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            seed=self.config.training.seed,
            data=data,
            **facts,
        )

    def finish(self, tensors: dict[str, torch.Tensor], scaling: dict[str, Any], **facts: Any) -> None:
        """Write weights and scaling; then, in one write, their hashes, the facts, and that the run is complete."""
        from safetensors.torch import save

        # One entry: several would be written in a random order, and equal weights would make other bytes.
        metadata = {"sphereml": json.dumps({"version": __version__, "task": self.config.task, "model": self.name})}
        # Not save_file, whose files are for their owner alone whatever the umask says.
        content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
        write_atomically(self.weights_path, content)
        self.write_scaling(scaling)
        hashes = {
            "weights_sha256": file_checksum(self.weights_path),
            "scaling_sha256": file_checksum(self.scaling_path),
        }
        self.update(**hashes, **facts, complete=True)

    def write_scaling(self, scaling: dict[str, Any]) -> None:
        write_atomically(self.scaling_path, json.dumps(scaling, indent=1).encode())

    def update(self, **facts: Any) -> None:
        """Add facts to the manifest."""
        known = self.manifest() | facts
        write_atomically(self.folder / "manifest.json", sealed_json(dict(sorted(known.items()))))

    def record_test(self) -> None:
        """Add to the manifest when the test side was first scored: what is chosen later has seen it.

        A folder that is for reading alone keeps no time.
        """
        if "tested" not in self.manifest():
            with suppress(UserError):
                self.update(tested=datetime.now(UTC).isoformat(timespec="seconds"))

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained tensors, on the CPU; raises UserError when the file holds none, whatever its checksum."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.weights_path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{self.weights_path} holds no weights ({error})", "restore it or train again") from None

    def scaling(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.scaling_path.read_text())
        return values

    def check_config(self) -> None:
        """Raise UserError when ``config.json`` is not what the training was started with."""
        path = self.folder / "config.json"
        if not path.is_file() or self.manifest().get("config_sha256") != file_checksum(path):
            raise UserError(
                f"{path} is not what the training was started with", "restore it, or train with --overwrite"
            )

    def check_data(self, data: dict[str, Any]) -> None:
        """Raise UserError when the run was trained on other data than these, by their provenance."""
        trained = self.manifest().get("data", {})
        if trained.get("files") != data.get("files") or trained.get("seed") != data.get("seed"):
            raise UserError(f"the input maps changed since {self.folder} was started", "train again with --overwrite")

    def predictor(self) -> Predictor:
        """The trained model, ready to predict."""
        from sphereml.training.predictor import Predictor

        return Predictor(self)

    def predict(self, sky: ReadableSky | None = None) -> SkyMap:
        """Full-sky maps of the outputs, from the sky that the run was trained on or from another one.

        Raises:
            UserError: the sky's inputs are not of the kind that the run was trained on, or the task has no full sky.
        """
        return self.predictor().predict(sky)


def find_runs(folder: Path) -> list[Run]:
    """The finished runs in a folder (or the folder itself if it is one), baselines first, then by name.

    Raises:
        UserError: no folder, or no finished run in it.
    """
    if (folder / "manifest.json").is_file() or (folder / "config.json").is_file():
        return [Run.open(folder)]
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "train first: `sphereml train experiment=NAME`")
    found = {path.parent for name in ("config.json", "config.yaml") for path in folder.glob(f"*/{name}")}
    if not found:
        raise UserError(f"{folder} holds no run", "train first: `sphereml train experiment=NAME`")
    runs = [Run.open(path) for path in sorted(found)]
    return sorted(runs, key=_place)


def _place(run: Run) -> tuple[int, str, int]:
    first = _FIRST.index(run.name) if run.name in _FIRST else len(_FIRST)
    return first, run.name, run.config.training.seed
