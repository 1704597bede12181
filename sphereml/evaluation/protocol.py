"""What a study and its result are, and the studies by their names.

A *study* measures finished runs, of one task or of any; its *result* is a JSON document (no NaN, what is not known is
null) with what must stand beside it.  ``save`` and ``load`` go through a folder, so that figures, table and report can
be made again from the files alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

from sphereml.config.schema import EvaluationConfig, ExperimentConfig
from sphereml.data.whole_files import read_sealed_json, sealed_json, write_atomically
from sphereml.errors import UserError
from sphereml.training.runs import Run

STUDIES: dict[str, str] = {
    "maps": "sphereml.evaluation.maps.study:MapStudy",
    "dust_paper": "sphereml.evaluation.paper.study:DustPaperStudy",
    "lensing": "sphereml.evaluation.lensing.study:LensingStudy",
    "cross_fit": "sphereml.evaluation.cross_fit.study:CrossFitStudy",
    "r_forecast": "sphereml.evaluation.forecast.study:ForecastStudy",
    "sphere_only": "sphereml.evaluation.sphere_only.study:SphereOnlyStudy",
}


@dataclass(frozen=True)
class StudyOptions:
    """How runs are measured.

    Args:
        say: takes lines of progress.
        skip: sections of the study that are left out.
        evaluation: settings of the measurement; None: those that the first run was trained with.
    """

    say: Callable[[str], None] = print
    skip: Collection[str] = ()
    evaluation: EvaluationConfig | None = None


class Result(ABC):
    """What was measured: ``content`` of the file ``file``, which stands in the folder of the result.

    Example:
        >>> import sphereml as sm
        >>> sm.load_result("runs/demo").to_dataframe()  # doctest: +SKIP
    """

    file: ClassVar[str]
    remake: ClassVar[str]

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def save(self, folder: Path | str) -> Path:
        """Write the result into a folder; raises UserError when it cannot be written."""
        return write_atomically(Path(folder) / self.file, sealed_json(finite(self.content)))

    def text(self) -> str:
        """The result as JSON."""
        return sealed_json(finite(self.content)).decode()

    def remember(self, folder: Path) -> None:
        """Take over what the result that ``folder`` already holds knows of the same runs, and this one does not."""
        return

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """The result that a folder holds.

        Raises:
            UserError: there is none, or it is damaged.
        """
        return cls(read_json(Path(folder) / cls.file, cls.remake))

    @abstractmethod
    def figures(self, folder: Path) -> list[Path]:
        """Draw what the result shows into ``folder/figures``; needs what only the study held, or saved, of maps."""

    @abstractmethod
    def report(self, folder: Path, home: Path | None = None) -> Path:
        """Write ``folder/report.html`` from the files of the folder.

        Args:
            home: where the page will stand, when ``folder`` is taken there; it links to files of both.
        """

    @abstractmethod
    def table(self) -> None:
        """Print the result."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The numbers of the result, a row a model, a column a quantity."""

    def to_dataframe(self) -> Any:
        """:meth:`rows` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format="%.3f"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.content.get('models', {}))})"


class Study(ABC):
    """Measures runs.

    Args:
        runs: finished ones, of the tasks that the study is for.
    """

    sections: ClassVar[tuple[str, ...]] = ()
    result: ClassVar[type[Result]]

    def __init__(self, runs: Sequence[Run], options: StudyOptions) -> None:
        self.runs, self.options = list(runs), options

    @classmethod
    def refuse(cls, configs: Sequence[ExperimentConfig]) -> None:
        """Raise UserError for settings that could not be measured, before the trainings."""
        return

    def measure(self) -> Result:
        """Score the runs; the manifest of each keeps when that was first done (``tested``)."""
        result = self._measure()
        for run in self.runs:
            run.record_test()
        return result

    @abstractmethod
    def _measure(self) -> Result: ...

    def write_templates(self, folder: Path, overwrite: bool = True) -> list[Path]:
        """One FITS file a run, in its outputs' units; all of them or none if one stands there."""
        raise UserError(f"{self.runs[0].folder} is a run of {self.runs[0].config.task}, on patches alone",
                        "try `sphereml compare`")  # fmt: skip


def study_class(name: str) -> type[Study]:
    """A study by its name; raises UserError when there is none."""
    if name not in STUDIES:
        raise UserError(f"there is no study {name!r}", f"choose {', '.join(STUDIES)}")
    module, _, attribute = STUDIES[name].partition(":")
    found: type[Study] = getattr(import_module(module), attribute)
    return found


def open_study(runs: Sequence[Run], options: StudyOptions) -> Study:
    """The study that the task of these runs names.

    Raises:
        UserError: the runs are of different tasks.
    """
    from sphereml.tasks import task_class

    tasks = {run.config.task for run in runs}
    if len(tasks) > 1:
        raise UserError(f"runs of {' and of '.join(sorted(tasks))} cannot be compared", "name runs of one task")
    return study_class(task_class(tasks.pop()).study)(runs, options)


def load_result(folder: Path | str) -> Result:
    """The result of whatever study wrote into a folder; raises UserError when none did.

    Example:
        >>> import sphereml as sm
        >>> sm.load_result("runs/demo")  # doctest: +SKIP
        Comparison(integrated, linear, unet_flat_plain, unet_sphere_plain, unet_flat, unet_sphere)
    """
    if not Path(folder).is_dir():
        raise UserError(f"there is no folder {folder}", "name one with comparison.json or lensing.json")
    kinds = [study_class(name).result for name in STUDIES]
    found = [kind for kind in reversed(kinds) if (Path(folder) / kind.file).is_file()]
    return (found or kinds)[0].load(folder)


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """The JSON object of a file; raises UserError with this advice when it is missing, damaged or something else."""
    try:
        return read_sealed_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", mend) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})", mend) from None


def finite(value: Any) -> Any:
    """The same tree with null for every number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
