"""``cross_fit.json``: the CMB in templates, in-sample and cross-fitted, and the coverage of their errors.

Schema: ``experiment``, ``settings`` (``evaluation.cross_fit``), ``notes``, and ``models`` by name: ``receptive_field``
and ``buffer`` (degrees); ``bands`` (``[lo, hi)``); ``leak`` by strength, kind (``in_sample``, ``cross_fitted``) and
component: lists over the bands ``transfer``, ``error``, ``sigmas`` (their ratio), ``correlation``, ``control``;
``calibration`` by sky: ``fields`` by name ``within_1_sigma``, ``within_2_sigma``, ``rms``, ``sigma`` (the target's
unit), and ``bands_within`` by component.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from sphereml.evaluation.protocol import Result


class CrossFitResult(Result):
    """What cross-fitting is worth."""

    file = "cross_fit.json"
    remake: ClassVar[str] = "run `sphereml study experiment=NAME evaluation.study=cross_fit` again"

    def rows(self) -> list[dict[str, Any]]:
        return list(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        for model, entry in self.content["models"].items():
            for strength, kinds in entry.get("leak", {}).items():
                for kind, components in kinds.items():
                    for component, lists in components.items():
                        named = {"model": model, "strength": float(strength), "kind": kind, "component": component}
                        for number, (lo, hi) in enumerate(entry["bands"]):
                            values = {key: values[number] for key, values in lists.items()}
                            yield named | {"lo": lo, "hi": hi} | values

    def coverage_rows(self) -> list[dict[str, Any]]:
        """A row a model, sky and field."""
        return [
            {"model": model, "sky": sky, "field": field} | values
            for model, entry in self.content["models"].items()
            for sky, found in entry.get("calibration", {}).items()
            for field, values in found["fields"].items()
        ]

    def figures(self, folder: Path) -> list[Path]:
        from sphereml.plotting.leak import transfer_curves
        from sphereml.plotting.style import write_pair

        models = {name: entry for name, entry in self.content["models"].items() if "leak" in entry}
        return [write_pair(transfer_curves(models), folder / "figures" / "transfer.png")] if models else []

    def report(self, folder: Path, home: Path | None = None) -> Path:
        from sphereml.evaluation.cross_fit.report import write_cross_fit_report

        return write_cross_fit_report(self, folder)

    def table(self) -> None:
        from sphereml.evaluation.cross_fit.report import print_tables

        print_tables(self)
