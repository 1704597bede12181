"""``comparison.json``: scores of every model on the held-out sky, and what is drawn and written from them.

Schema (version 3; bands are ``r50``, ``r150`` and on the sphere ``r_low``; null where the map resolves none of a band):

* ``version``, ``split``, ``ell_bands`` (band -> [lo, hi]), ``target`` (name of the column), ``experiment`` (name, data,
  seed), ``notes``.
* ``models``: by name ``domain``, ``form``, ``run``, ``seconds_train``, ``seconds_predict``, ``seam`` (of stitched
  maps); by band of the patches ``{"mean", "sem"}``; ``wins_vs_integrated`` (band -> n, ``of``; null without that
  model); ``sphere`` and ``sphere_sem`` (band -> r) of the test region, ``sphere_without_cuts`` and its ``_sem`` of the
  same without the discs of ``evaluation.cuts``.
* ``groups``: by name the mean of models that differ in their seed alone, with the keys of a model but ``run``;
  ``members`` names them, ``spread`` and ``sphere_spread`` (band -> standard deviation over the seeds, n - 1) how far
  they come apart.
* ``paired``: by model or group, baseline and band ``{"mean", "sem", "sigmas"}`` of the difference on patches;
  ``paired_sphere``: the same by region (``test``, ``without_cuts``).
* ``best``: by place (``flat``, ``sphere``, ``sphere_without_cuts``) and band the model or group that is above every
  other one (groups in place of their members) by two standard errors of the paired difference; null where none is.
* ``spectra``: by model or group ``flat`` and ``sphere``, each with ``ell``, ``r`` and ``sem``.
* ``other_targets``: by column ``models`` to ``spectra``, where there are several targets; Q and U are E, then B.
* ``polarization``: by model, for ``sphere``, ``sphere_without_cuts`` and ``flat``, ``ee_bb``, ``te``, ``tb`` and ``eb``
  by band ``{"mean", "sem"}``, the truth's as ``true_ee_bb`` ..., and on the sphere ``left_ee``, ``left_bb``
  and ``angles``, a list of ``{"fraction", "mean", "sem"}`` (:mod:`~sphereml.evaluation.maps.polarization`).
* ``power``: by model or group, on the sphere: ``ell``, C_ell of ``target``, ``prediction`` and ``residual``,
  ``transfer`` (C^tp / C^tt) with ``transfer_sem``, and ``amplitude`` (band -> ``{"mean", "sem"}``).
* ``covariance``: by model or group ``bands`` and the ``correlation`` of their errors; ``latitude``: ``edges`` of |b| in
  degrees and by model and band r of the patches between them.
* ``training``: by run ``parameters``, ``epochs``, ``best_epoch``, ``val_loss``, ``seed``, ``threads``, ``curves``.
* ``setting`` and ``provenance``: what was done, and date, version, commit, command, machine and libraries.
* ``marginalization``: what templates leave of dust and CMB (of ``sphereml demo``).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from sphereml.data.sky_on_disk import ReadableSky
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.evaluation.maps.scores import TargetScores
from sphereml.evaluation.protocol import Result

VERSION = 3


@dataclass(frozen=True, eq=False)
class Drawing:
    """What figures are drawn from: scores; predictions on patches ``(n, size, size, O)`` and sphere ``(npix, O)``."""

    scores: Mapping[str, TargetScores]
    sky: ReadableSky
    patches: Mapping[str, np.ndarray]
    spheres: Mapping[str, np.ndarray]
    targets: np.ndarray


class Comparison(Result):
    """Scores of models; the drawing is at hand after a measurement only."""

    file = "comparison.json"
    remake: ClassVar[str] = "run `sphereml compare` for this run again"

    def __init__(self, content: dict[str, Any], drawing: Drawing | None = None) -> None:
        super().__init__({"version": VERSION} | content)
        self.drawing = drawing

    def save(self, folder: Path | str) -> Path:
        """Write ``comparison.json``, its numbers as ``comparison.csv`` and its spectra as ``comparison.nc``.

        A marginalization that the folder already holds of the same runs is kept.
        """
        self.remember(Path(folder))
        write_atomically(Path(folder) / "comparison.csv", self._csv().encode())
        write_atomically(Path(folder) / "comparison.nc", bytes(self.to_xarray().to_netcdf(engine="scipy")))
        return super().save(folder)

    def remember(self, folder: Path) -> None:
        if "marginalization" not in self.content and (folder / self.file).is_file():
            try:
                known = Comparison.load(folder).content
            except UserError:
                known = {}
            if "marginalization" in known and _runs(known) == _runs(self.content):
                self.content["marginalization"] = known["marginalization"]

    def _csv(self) -> str:
        rows, text = self.rows(), io.StringIO()
        columns = dict.fromkeys(key for row in rows for key in row)
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        found = super().load(folder)
        if fault := _fault(found.content):
            raise UserError(f"{Path(folder) / cls.file} {fault}", cls.remake)
        return found

    def figures(self, folder: Path) -> list[Path]:
        from sphereml.evaluation.maps.figures import draw_figures

        if self.drawing is None:
            return sorted((folder / "figures").glob("*.png"))
        return draw_figures(self.drawing, self.content, folder)

    def report(self, folder: Path, home: Path | None = None) -> Path:
        from sphereml.evaluation.maps.report import write_report

        return write_report(self, folder, home)

    def table(self) -> None:
        from sphereml.evaluation.maps.table import comparison_table

        comparison_table(self.content)

    def rows(self) -> list[dict[str, Any]]:
        content = self.content
        listed = content["models"] | content.get("groups", {})
        return [{"model": name} | _flattened(entry) for name, entry in listed.items()]

    def to_xarray(self) -> Any:
        """r(ell) with its standard error, on the sphere and on patches, as an xarray Dataset over model and ell."""
        import xarray

        spectra = self.content["spectra"]
        first = next(iter(spectra.values()))
        variables = {
            f"{what}_{where}": (("model", f"ell_{where}"), np.array([s[where][what] for s in spectra.values()], float))
            for where, what in product(("sphere", "flat"), ("r", "sem"))
            if what in first[where]
        }
        coordinates = {"model": list(spectra)} | {f"ell_{where}": first[where]["ell"] for where in ("sphere", "flat")}
        found = xarray.Dataset(variables, coords=coordinates, attrs={"split": self.content["split"]})
        return found.merge(self._power(), join="outer") if self.content.get("power") else found

    def _power(self) -> Any:
        """C_ell of target, prediction and residual and the transfer function, over model and ell_power."""
        import xarray

        models = self.content["power"]
        columns = ("target", "prediction", "residual", "transfer", "transfer_sem")
        variables = {
            name if name.startswith("transfer") else f"cl_{name}": (
                ("model", "ell_power"), np.array([one[name] for one in models.values()], float)
            )
            for name in columns
        }  # fmt: skip
        ell = next(iter(models.values()))["ell"]
        return xarray.Dataset(variables, coords={"model": list(models), "ell_power": ell})


def _flattened(entry: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            row |= _flattened(value, f"{start}{key}.")
        else:
            row[f"{start}{key}"] = " ".join(value) if isinstance(value, list) else value
    return row


def _runs(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: model.get("run") for name, model in content["models"].items()}


def _fault(content: Mapping[str, Any]) -> str | None:
    """What the comparison lacks, in words, or None."""
    if content.get("version", VERSION) > VERSION:
        return f"has version {content['version']}, of a later sphereml"
    missing = [key for key in ("split", "ell_bands", "models") if key not in content]
    if missing:
        return f"lacks {', '.join(missing)}"
    if not isinstance(content["models"], dict) or not content["models"]:
        return "names no model"
    for name, model in content["models"].items():
        for band in ("r50", "r150"):
            if not isinstance(model, dict) or not isinstance(model.get(band), dict | None) or band not in model:
                return f"lacks {band} of model {name}"
    return None
