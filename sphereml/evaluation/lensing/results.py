"""``lensing.json``: everything that was measured, and the files beside it.

Schema (lists hold one value a band of L unless said otherwise; no number is infinite, what is not known is null;
``M`` = ``{"value": [...], "error": [...]}``):

* ``experiment``: name, simulator, noise, beam, taper, size, pixel_arcmin, degrees, patches (of the test), seed.
* ``bands``: ``edges``, ``ell`` (mean L of the modes).
* ``theory``: ``kappa`` (C_L^kk), ``N0_EB``, ``N0_MV``, ``N0_iterated`` in the bands.
* ``models``: by name ``kind`` (network, ensemble, quadratic), ``label``, ``seconds_train``, ``averaged``, ``seed``,
  ``run``; powers ``auto``, ``truth``; M ``response``, ``noise``, ``correlation``, ``residual``, ``scatter``,
  ``sample_variance``; ``over_n0`` (N_L over its N0; quadratic only); ``ratio``: by quadratic estimator M and
  ``goal`` ``{"value", "error"}``, the mean ratio over 300 < L < 2000.
* ``e``: the same for E, ``bands`` and by name ``auto``, ``truth``, M ``residual`` and ``correlation``; if predicted.
* ``nulls``: by sky and name M ``cross`` and ``auto``, ``chi2``, ``bands``, ``probability``.
* ``omega_c``: ``grid``, ``fiducial`` and by name and omega_c of the sky: ``shift`` (chi2, eq. 16) and, debiased
  ``fixed`` or ``corrected``, ``mean``, ``sigma``, ``offset_sigmas``, ``likelihood`` on the grid (eq. 17).
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

from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.evaluation.lensing.entries import main_part, notes_of, omega_c_entry, setting_entry
from sphereml.evaluation.lensing.sentences import PAPER
from sphereml.evaluation.lensing.study import LensingStudy, run_names, settings_of
from sphereml.training.runs import Run

SECTIONS = ("nulls", "omega_c", "uncertainty")


def measure_runs(runs: Sequence[Run], say: Callable[[str], None], skip: Collection[str] = ()) -> LensingResult:
    """Measure finished runs; the first setting in full, the others' noise.

    Args:
        skip: of ``SECTIONS``, what is not measured.

    Raises:
        UserError: a run that is not of lensing, or too few test patches for the bands.
    """
    names = dict(zip((id(run) for run in runs), run_names(runs), strict=True))
    settings = settings_of(runs)
    studies = [LensingStudy({names[id(run)]: run for run in setting}, say) for setting in settings]
    main = studies[0]
    _refuse_few(main)
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


def _refuse_few(study: LensingStudy) -> None:
    bands, patches = len(study.bands.edges) - 1, study.config.evaluation.patches
    if patches < bands + 3:
        what = f"{patches} test patches for {bands} bands of L"
        raise UserError(what, f"raise evaluation.patches to {bands + 3} or more, better to {10 * bands}")


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
