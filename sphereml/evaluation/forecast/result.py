"""``forecast.json``: bias and error of r by survey, template and way of cleaning.

Schema: ``experiment``, ``frequencies`` (GHz), ``dust_scaling`` (uK_CMB per uK_RJ at 353 GHz), ``skies``,
``residual_prior``, ``notes``; ``surveys`` by name ``fsky``, ``noise`` (uK_CMB-arcmin), ``held_out`` (no pixel of it was
trained on), ``bands`` (``lo``, ``hi``, half-open), ``tensor`` (BB bandpowers of r = 1) and ``lensing``, C_ell in
uK_CMB^2, and ``templates``: by name and method (``explicit``, ``implicit``) ``amplitudes`` (one a frequency, mean),
``left`` (BB beyond tensors and lensing, mean), ``expected`` (of it, from where the template learnt), and ``r``: a list
with ``r``, ``plain`` and ``with_uncertainty``, each ``bias``, its standard ``error``, ``sigma`` as the likelihood
states it, and the ``scatter`` of the skies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from sphereml.evaluation.protocol import Result


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
                        carried = {f"{key}_with_uncertainty": x for key, x in one["with_uncertainty"].items()}
                        names = {"survey": survey, "template": template, "method": method, "r": one["r"]}
                        yield names | one["plain"] | carried

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
