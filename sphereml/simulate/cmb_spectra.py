"""Spectra of the lensed CMB and of its lensing potential from CAMB, kept on disk once computed.

Conventions: C_ell in uK^2 from ell = 0 (CAMB is always told ``raw_cl=True``), monopole and dipole zero; ``potential``
is ``C_L^phiphi`` without factors of L, kappa = L(L+1)/2 phi.  The primordial B is zero.  Nonlinear structure enters the
potential by mead2020 (takahashi differs by 4 % at L = 3000), at lens_potential_accuracy 8: accuracy 1 is 14 % low in
``C^kappakappa`` and 6 % in the lensed B at ell = 3000.  Ask for an lmax well above the multipoles used: 6000 serves up
to 4000.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sphereml.config.lensing import Cosmology
from sphereml.data.array_files import read_arrays, write_arrays
from sphereml.data.holdings import open_holdings
from sphereml.errors import UserError

PLANCK_2013 = Cosmology()
_ACCURACY = 8
_NONLINEAR = "mead2020"
LMAX = 6000
# CAMB takes hours and gigabytes beyond.
_HIGHEST = 50_000


@dataclass(frozen=True, eq=False)
class CmbSpectra:
    """Unlensed E, lensed E and B, and the potential, each ``(lmax + 1,)`` float64."""

    ee: np.ndarray
    ee_lensed: np.ndarray
    bb_lensed: np.ndarray
    potential: np.ndarray

    @property
    def lmax(self) -> int:
        return len(self.ee) - 1

    @property
    def kappa(self) -> np.ndarray:
        """``C_L^kappakappa``, ``(lmax + 1,)``."""
        ell = np.arange(self.lmax + 1.0)
        power: np.ndarray = (ell * (ell + 1) / 2) ** 2 * self.potential
        return power


def compute_spectra(lmax: int = LMAX, cosmology: Cosmology = PLANCK_2013) -> CmbSpectra:
    """Run CAMB: 13 s on two cores at lmax 6000.

    Raises:
        UserError: lmax is below 2, or CAMB refuses the cosmology.
    """
    if not 2 <= lmax <= _HIGHEST:
        raise UserError(f"lmax {lmax} of the spectra is impossible", f"give 2 to {_HIGHEST}")
    results = run_camb(lmax, cosmology)
    units = {"lmax": lmax, "CMB_unit": "muK", "raw_cl": True}
    plain = results.get_unlensed_scalar_cls(**units).T
    lensed = results.get_lensed_scalar_cls(**units).T
    potential = results.get_lens_potential_cls(lmax=lmax, raw_cl=True)[:, 0]
    chosen = (plain[1], lensed[1], lensed[2], potential)
    return CmbSpectra(*(np.ascontiguousarray(values, dtype=np.float64) for values in chosen))


def tensor_spectra(lmax: int, cosmology: Cosmology = PLANCK_2013) -> tuple[np.ndarray, np.ndarray]:
    """EE and BB of primordial gravitational waves, each ``(lmax + 1,)``, for r = 1 at 0.05 / Mpc.

    The tilt is zero, as n_t = -r / 8 is of the small r that these are scaled to.

    Raises:
        UserError: CAMB refuses the cosmology.
    """
    spectra = run_camb(max(lmax, 2), cosmology, r=1.0).get_tensor_cls(lmax=max(lmax, 2), CMB_unit="muK", raw_cl=True)
    return np.ascontiguousarray(spectra[: lmax + 1, 1]), np.ascontiguousarray(spectra[: lmax + 1, 2])


def run_camb(lmax: int, cosmology: Cosmology, r: float = 0.0) -> Any:
    """``camb.CAMBdata`` of a cosmology with the settings above (CAMB has no types), with tensors when r is above 0.

    Raises:
        UserError: CAMB refuses the cosmology.
    """
    import camb

    parameters = camb.CAMBparams()
    primordial = ("As", "ns")
    parameters.WantTensors = r > 0
    try:
        parameters.set_cosmology(**{name: x for name, x in vars(cosmology).items() if name not in primordial})
        parameters.InitPower.set_params(**{name: getattr(cosmology, name) for name in primordial}, r=r, nt=0.0)
        parameters.set_for_lmax(lmax, lens_potential_accuracy=_ACCURACY)
        parameters.NonLinear = camb.model.NonLinear_lens
        parameters.NonLinearModel.set_params(halofit_version=_NONLINEAR)
        return camb.get_results(parameters)
    except (camb.CAMBError, ValueError) as error:
        raise UserError(f"CAMB refuses {cosmology}: {error}", "give other parameters") from None


def spectra_path(lmax: int = LMAX, cosmology: Cosmology = PLANCK_2013, folder: Path | None = None) -> Path:
    """Where these spectra are kept: in ``folder``, else in ``spectra`` of the data folder ($SPHEREML_DATA)."""
    import camb

    what = asdict(cosmology) | {"lmax": lmax, "accuracy": _ACCURACY, "nonlinear": _NONLINEAR, "camb": camb.__version__}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return (folder or open_holdings().folder / "spectra") / f"camb-{digest[:12]}.npz"


def load_spectra(lmax: int = LMAX, cosmology: Cosmology = PLANCK_2013, folder: Path | None = None) -> CmbSpectra:
    """The spectra from disk, computed and written there the first time, and again when the file is damaged.

    Raises:
        UserError: as :func:`compute_spectra`, or the folder cannot be written.
    """
    path = spectra_path(lmax, cosmology, folder)
    kept = read_arrays(path)
    if kept is not None:
        return CmbSpectra(**kept)
    spectra = compute_spectra(lmax, cosmology)
    write_arrays(path, {field.name: getattr(spectra, field.name) for field in fields(spectra)})
    return spectra
