"""``forecast.json``: bias and error of r by survey, template and way of cleaning.

Schema: ``experiment``, ``frequencies`` (GHz), ``dust_scaling`` (uK_CMB per uK_RJ at 353 GHz), ``skies``,
``residual_prior``, ``notes``; ``surveys`` by name ``fsky``, ``noise`` (uK_CMB-arcmin), ``held_out`` (no pixel of it was
trained on), ``bands`` (``lo``, ``hi``, half-open), ``tensor`` (BB bandpowers of r = 1) and ``lensing``, C_ell in
uK_CMB^2, and ``templates``: by name and method (``explicit``, ``implicit``) ``amplitudes`` (one a frequency, mean),
``left`` (BB beyond tensors and lensing, mean), ``expected`` (of it, from where the template learnt), ``measured`` (from
the survey's own target), and ``r``: a list with ``r``, ``plain``, ``with_uncertainty`` and ``with_measured_residual``,
each ``bias``, its standard ``error``, ``sigma`` as the likelihood states it, and the ``scatter`` of the skies.
``contamination`` by model: ``strength`` of the CMB in the target, ``level`` that the survey scales the dust by, and by
kind (``in_sample``, ``cross_fitted``) and method: ``control`` (as ``plain``), ``change`` and ``shared`` of r
(:mod:`~sphereml.evaluation.forecast.contamination`), each ``mean`` and ``error``; ``amplitudes``, the control's too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from sphereml.evaluation.protocol import Result

# How what a template leaves is known where it is carried.
CARRIED = ("with_uncertainty", "with_measured_residual")


class ForecastResult(Result):
    """What templates do to r."""

    file = "forecast.json"
    remake: ClassVar[str] = "run `sphereml study experiment=r_forecast` again"

    def rows(self) -> list[dict[str, Any]]:
        return list(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        for survey, entry in self.content["surveys"].items():
            for template, methods in entry["templates"].items():
                for method, found in methods.items():
                    for one in found["r"]:
                        names = {"survey": survey, "template": template, "method": method, "r": one["r"]}
                        carried = {f"{key}_{kind}": x for kind in CARRIED for key, x in one.get(kind, {}).items()}
                        yield names | one["plain"] | carried

    def contamination_rows(self) -> list[dict[str, Any]]:
        """A row a model, kind of template and method."""
        return [
            {"model": model, "strength": entry["strength"], "kind": kind, "method": method} | entry[kind][method]
            for model, entry in self.content.get("contamination", {}).items()
            for kind in ("in_sample", "cross_fitted")
            for method in entry[kind]
        ]

    def figures(self, folder: Path) -> list[Path]:
        from sphereml.plotting.forecast import ratio_biases
        from sphereml.plotting.style import write_pair

        surveys = self.content["surveys"].items()
        return [write_pair(ratio_biases(name, entry), folder / "figures" / f"r_{name}.png") for name, entry in surveys]

    def report(self, folder: Path, home: Path | None = None) -> Path:
        from sphereml.evaluation.forecast.report import write_forecast_report

        return write_forecast_report(self, folder)

    def table(self) -> None:
        from sphereml.evaluation.forecast.report import print_forecast

        print_forecast(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.content['surveys'])})"
