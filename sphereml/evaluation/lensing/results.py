"""``lensing.json``: everything that was measured, and the files beside it.

Schema (lists hold one value a band of L unless said otherwise; no number is infinite, what is not known is null;
``M`` = ``{"value": [...], "error": [...]}``):

* ``experiment``: name, simulator, noise, beam, taper, size, pixel_arcmin, degrees, patches (of the test), seed.
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
  M ``band_pull``.
* ``patch_sizes``: a list of settings: ``degrees``, ``size``, ``noise_level``, ``bands``, ``models`` (M ``noise``,
  ``correlation``, ``ratio``).
* ``paper``, ``notes``: sentences.

``kappa_maps.npz`` holds truth and, of every network, prediction and sigma of the test patches, float32.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.config.schema import ExperimentConfig
from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.evaluation.lensing.entries import main_part, notes_of, omega_c_entry, setting_entry
from sphereml.evaluation.lensing.noise import output_bands
from sphereml.evaluation.lensing.sentences import PAPER
from sphereml.evaluation.lensing.study import LensingStudy, run_names, settings_of
from sphereml.training.runs import Run


def measure_runs(runs: Sequence[Run], say: Callable[[str], None], skip: Collection[str] = ()) -> LensingResult:
    """Measure finished runs; the first setting in full, the others' noise.

    Args:
        skip: of ``nulls``, ``omega_c`` and ``uncertainty``, what is not measured.

    Raises:
        UserError: a run that is not of lensing, or too few test patches for the bands.
    """
    names = dict(zip((id(run) for run in runs), run_names(runs), strict=True))
    settings = settings_of(runs)
    studies = [LensingStudy({names[id(run)]: run for run in setting}, say) for setting in settings]
    main = studies[0]
    refuse_few(main.config)
    content = main_part(main)
    content["patch_sizes"] = [setting_entry(study) for study in studies]
    if "nulls" not in skip:
        content["nulls"] = _json(main.null_tests())
    if "omega_c" not in skip:
        content["omega_c"] = omega_c_entry(main)
    if "uncertainty" not in skip:
        content["uncertainty"] = _json(main.calibrations())
    content["paper"], content["notes"] = PAPER, notes_of(main, studies, content, skip)
    return LensingResult(finite(content), main)


@dataclass(frozen=True, eq=False)
class LensingResult:
    """``content`` of ``lensing.json``, and the study it comes from, for its maps."""

    content: dict[str, Any]
    study: LensingStudy

    def save(self, folder: Path) -> Path:
        """Write ``lensing.json`` and ``kappa_maps.npz``; raises UserError when the folder cannot be written."""
        write_atomically(folder / "kappa_maps.npz", self._maps())
        text = json.dumps(self.content, indent=1, allow_nan=False)
        return write_atomically(folder / "lensing.json", text.encode())

    def _maps(self) -> bytes:
        test = self.study.test
        maps = {"truth": test.truth["kappa"].numpy()}
        for name in self.study.runs:
            maps[name] = test.images[name]["kappa"].numpy()
            if "uncertainty" in self.content:
                maps[f"{name}_sigma"] = self.study.sigma(name).numpy()
        stream = io.BytesIO()
        np.savez_compressed(stream, **maps)  # type: ignore[arg-type]
        return stream.getvalue()


def refuse_few(config: ExperimentConfig) -> None:
    """Raise UserError when there are too few test or validation patches for a covariance of the bands of kappa."""
    bands, lensing = len(output_bands(config)), config.lensing
    if config.evaluation.patches < bands + 3:
        what = f"{config.evaluation.patches} test patches for {bands} bands of L"
        raise UserError(what, f"raise evaluation.patches to {bands + 3} or more, better to {10 * bands}")
    skies = min(lensing.test_skies, lensing.validation_skies)
    if lensing.simulator == "curved" and (skies < 2 or skies * lensing.patches_per_sky < bands + 3):
        what = f"{skies} skies of {lensing.patches_per_sky} patches to test (or to validate) for {bands} bands of L"
        raise UserError(what, "an error takes two skies or more: raise lensing.test_skies and lensing.validation_skies")


def _json(parts: Any) -> Any:
    """Nested dicts of results as JSON values."""
    return {key: _json(part) for key, part in parts.items()} if isinstance(parts, dict) else parts.to_json()


def finite(value: Any) -> Any:
    """The same tree with null for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
