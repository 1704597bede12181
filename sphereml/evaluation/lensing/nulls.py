"""Null tests: what an estimator sees where there is nothing to see (eq. 14 and fig. 11 of arXiv:1810.01483).

Two skies that know nothing of the kappa that stands beside them: the polarization before lensing, and Gaussian skies
with the spectra of the lensed one.  ``<C^{hat k, k}> / R_L`` must be zero within its error; the auto power over R_L^2
is noise alone, and on Gaussian skies, for the quadratic estimator, N0.

Errors and the covariance of the bands are jackknives over groups of patches.  Where there are too few groups for that
covariance it is of patches, which patches of one sky fall short of, and chi^2 has no probability.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sphereml.evaluation.lensing.chi_square import ChiSquare, Covariance
from sphereml.evaluation.lensing.noise import Judged, Measured
from sphereml.evaluation.statistics import jackknife_error, leave_one_out, pseudovalues
from sphereml.lensing.patch_spectra import PatchPowers


@dataclass(frozen=True, eq=False)
class NullTest:
    """Cross power with a kappa that is not in the data, and auto power, after the response; one value a band."""

    cross: Measured
    auto: Measured
    chi_square: ChiSquare

    def to_json(self) -> dict[str, Any]:
        return {"cross": self.cross.to_json(), "auto": self.auto.to_json(), **self.chi_square.to_json()}


def null_test(powers: PatchPowers, judged: Judged, groups: np.ndarray) -> NullTest:
    """Of an estimate's powers on a null set whose patches are of these groups, with the response of ``judged``.

    Raises:
        UserError: there are too few patches for a covariance of the bands.
    """
    cross, auto = powers.cross / judged.response, powers.auto / judged.response**2
    return NullTest(_mean(cross, groups), _mean(auto, groups), _chi_square(cross, groups))


def _mean(powers: np.ndarray, groups: np.ndarray) -> Measured:
    samples = leave_one_out(powers, groups)
    return Measured(samples[0], jackknife_error(samples))


def _chi_square(cross: np.ndarray, groups: np.ndarray) -> ChiSquare:
    rows = pseudovalues(cross, groups)
    enough = len(rows) >= cross.shape[1] + 3
    rows = rows if enough else cross
    found = Covariance(rows).test(cross.mean(axis=0), 1 / len(rows))
    return found if enough else replace(found, probability=None)
