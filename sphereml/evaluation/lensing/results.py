"""``lensing.json``: everything that was measured of lensing runs, and the files beside it.

Schema (lists hold one value a band of L unless said otherwise; no number is infinite, what is not known is null;
``M`` = ``{"value": [...], "error": [...]}``):

* ``experiment``: name, simulator, noise, beam, taper, size, pixel_arcmin, degrees, patches (of the test), seed; of
  whole skies ``nside``, ``passes`` and, as patches, their number.
* ``bands``: ``edges``, ``ell`` (mean L of the modes).
* ``theory``: ``kappa`` (C_L^kk), ``N0_EB``, ``N0_MV``, ``N0_iterated`` in the bands.
* ``iteration``: the convention of ``N0_iterated`` (see :mod:`~sphereml.lensing.iterated`), or why there is none.
* ``models``: by name ``kind`` (network, ensemble, quadratic), ``label``, ``seconds_train``, ``averaged``, ``seed``,
  ``run``; powers ``auto``, ``truth``; M ``response``, ``noise``, ``correlation``, ``residual``, ``scatter``,
  ``sample_variance``; ``over_n0`` (N_L over its N0; quadratic only); ``ratio``: by quadratic estimator M and
  ``goal`` ``{"value", "error"}``, the mean ratio over the multipoles of ``noise.GOAL``.
* ``e``: the same for E, ``bands`` and by name ``auto``, ``truth``, M ``residual`` and ``correlation``; if predicted.
* ``nulls``: by sky and name M ``cross`` and ``auto``, ``chi2``, ``bands``, ``probability`` (null: too few skies).
* ``omega_c``: ``grid``, ``fiducial`` and by name and omega_c of the sky: ``shift`` (chi2, eq. 16; it has no
  probability), ``paired_shift`` (chi2, probability) and, debiased ``fixed`` or ``corrected``, ``likelihood`` on the
  grid (eq. 17), ``bounded``: whether both edges of the grid are below 1 % of its peak; if so ``mean``, ``sigma``,
  ``offset_sigmas``, else ``lower`` or ``upper``, a limit (95 %) where one edge is.
* ``seeds``: by ensemble ``names``, ``spectra``, ``relative``, ``maps``, ``pixel``, ``pixel_error`` (eq. 18).
* ``uncertainty``: by name ``pull``, ``within_1_sigma``, ``within_2_sigma``, ``rings``, ``pull_by_ring`` (one a ring),
  M ``band_pull``, ``modes_within_1_sigma``, ``modes_within_2_sigma``.
* ``responses``: by what is varied (``A_lens``, ``omega_c``) and name ``slope``, ``error`` and ``collapsed`` (bool).
* ``delensing``: ``bands`` of B, ``cut`` (ell), ``reference``, and in ``models`` by name (``truth``: the true kappa) M
  ``left``, ``ratio`` (a band of B each) and, of the one band below the cut, M ``follows_lensing``, ``follows_other``.
* ``latitude`` (whole skies): ``edges`` of |b| in degrees, and in ``models`` by name M, the squared error of kappa over
  that of the Wiener-filtered first pass.
* ``patch_sizes``: a list of settings: ``degrees``, ``size``, ``noise_level``, ``bands``, ``models`` (M ``noise``,
  ``correlation``, ``ratio``).
* ``paper``, ``notes``: sentences.

``kappa_maps.npz`` holds truth and, of every network, prediction and sigma of the test patches, float32.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.lensing.setting import Setting
from sphereml.evaluation.protocol import Result


class LensingResult(Result):
    """What was measured; ``setting`` holds the maps, after a measurement only."""

    file = "lensing.json"
    remake: ClassVar[str] = "run `sphereml study lensing` again"

    def __init__(self, content: dict[str, Any], setting: Setting | None = None) -> None:
        super().__init__(content)
        self.setting = setting

    def save(self, folder: Path | str) -> Path:
        """Write ``lensing.json`` and ``kappa_maps.npz``."""
        if self.setting is not None:
            write_atomically(Path(folder) / "kappa_maps.npz", self._maps(self.setting))
        return super().save(folder)

    def _maps(self, setting: Setting) -> bytes:
        maps = setting.maps("uncertainty" in self.content)
        stream = io.BytesIO()
        np.savez_compressed(stream, **maps)  # type: ignore[arg-type]
        return stream.getvalue()

    def figures(self, folder: Path) -> list[Path]:
        from sphereml.evaluation.lensing.figures import draw_figures

        return draw_figures(self.content, folder)

    def report(self, folder: Path, home: Path | None = None) -> Path:
        from sphereml.evaluation.lensing.report import write_lensing_report

        return write_lensing_report(self.content, folder, home)

    def table(self) -> None:
        from sphereml.evaluation.lensing.table import lensing_table

        lensing_table(self.content)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"model": name, "L": ell, "noise": noise, "error": error, "correlation": correlation}
            for name, model in self.content["models"].items()
            for ell, noise, error, correlation in zip(
                self.content["bands"]["ell"], *model["noise"].values(), model["correlation"]["value"], strict=True
            )
        ]
