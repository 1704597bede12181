"""The configuration of the CMB lensing task: cosmology, simulated skies, the observation, what is to be measured.

Conventions: angles in arcmin unless the name says otherwise; noise is that of Q and of U in uK-arcmin (no sqrt 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.config.schema import ExperimentConfig

# Keys that lensing has no use for: it draws its skies itself, on patches, and its first guess is the estimator.
LENSING_FREE = (
    *("data", "split", "loss", "bands", "patches.max_masked"),
    *("model.features", "model.guess", "model.gains", "model.gain_limit"),
    *("training.join_validation", "training.footprint", "training.tile_nside", "training.rotations"),
    *("evaluation.apodization", "evaluation.block_nside", "evaluation.cuts", "evaluation.cross_fit"),
)


@dataclass
class Cosmology:
    """Flat LCDM; the defaults are the Planck 2013 values of DeepCMB (arXiv:1810.01483).

    Not frozen, as OmegaConf takes no overrides of a frozen dataclass: nothing may change one that is shared.

    Args:
        H0 [km/s/Mpc]: Hubble constant
        ombh2: density of baryons
        omch2: density of cold dark matter
        tau: optical depth of reionization
        As: amplitude of the primordial spectrum at 0.05 / Mpc
        ns: its tilt
        mnu [eV]: sum of neutrino masses

    Raises:
        UserError: a value that no universe, or no recombination that CAMB knows, has.
    """

    H0: float = 67.94
    ombh2: float = 0.0222
    omch2: float = 0.1185
    tau: float = 0.0943
    As: float = 2.21e-9
    ns: float = 0.9624
    mnu: float = 0.06

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            # CAMB takes a negative mass for none, and fails in its own words far outside.
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name}={getattr(self, name):g} is impossible", f"give {low:g} to {high:g}")


# Helium from the nucleosynthesis table of CAMB ends at ombh2 0.005 and 0.04.
_LIMITS = {
    "H0": (20.0, 150.0),
    "ombh2": (0.005, 0.04),
    "omch2": (0.001, 0.99),
    "tau": (0.0, 0.8),
    "As": (1e-12, 1e-6),
    "ns": (0.2, 2.0),
    "mnu": (0.0, 5.0),
}


@dataclass
class LensingConfig:
    """Lensed patches and their observation; ``patches`` of the experiment says how large they are.

    ``simulator``: ``flat`` draws fresh patches by FFT wherever the training runs; ``curved`` takes those that
    `sphereml simulate lensing` cut from ``skies`` full skies, ``patches_per_sky`` each, with a_lm up to ``lmax``; the
    last ``test_skies`` of them test, the ``validation_skies`` before those validate; ``lensed_eb`` stores the lensed E
    and B as well.
    ``taper`` is the width of the mask's cosine edge.  Estimators use E and B for ``lmin <= ell <= lmax_eb``.  CAMB's
    spectra reach ``spectra_lmax``.

    Args:
        simulator: flat (drawn as the training runs) or curved (cut from stored skies)
        skies: number of full skies
        patches_per_sky: patches cut from each
        validation_skies: skies that validate
        test_skies: skies that test
        lmax: highest multipole of the curved skies
        spectra_lmax: highest multipole of CAMB's spectra
        seed: of the skies
        lensed_eb: store the lensed E and B as well
        cosmology: of the simulations and the estimators
        noise [uK-arcmin]: white noise of Q and of U
        beam [arcmin]: FWHM
        taper [arcmin]: cosine edge of a patch's mask
        lmin: lowest multipole of E and B in the estimators
        lmax_eb: highest multipole of E and B in the estimators
        loss: pixel: mean squared error in pixels; fourier: of modes, each over the target's power
        outputs: fields to predict, of e, kappa, q, u
    """

    simulator: str = "flat"
    skies: int = 70
    patches_per_sky: int = 160
    validation_skies: int = 7
    test_skies: int = 7
    lmax: int = 5000
    spectra_lmax: int = 6000
    seed: int = 1
    lensed_eb: bool = False
    cosmology: Cosmology = field(default_factory=Cosmology)
    noise: float = 1.0
    beam: float = 1.0
    taper: float = 28.0
    lmin: int = 30
    lmax_eb: int = 4000
    loss: str = "pixel"
    outputs: list[str] = field(default_factory=lambda: ["e", "kappa"])


def lensing_faults(config: ExperimentConfig) -> Iterator[UserError]:
    """What a lensing experiment cannot be, beside the limits of every experiment."""
    lensing, model = config.lensing, config.model
    if not 0 <= lensing.seed < 2**31:
        yield UserError(f"lensing.seed={lensing.seed}", "give 0 to 2147483647")
    for name, unit in (("noise", "uK-arcmin"), ("beam", "arcmin (FWHM)"), ("taper", "arcmin")):
        if getattr(lensing, name) < 0:
            yield UserError(f"lensing.{name}={getattr(lensing, name):g} is impossible", f"give 0 or more, in {unit}")
    extent = config.patches.size * config.patches.pixel_arcmin
    if 2 * lensing.taper >= extent:
        yield UserError(f"lensing.taper={lensing.taper:g} leaves nothing of {extent:g} arcmin", "give less than half")
    nyquist = math.pi / math.radians(config.patches.pixel_arcmin / 60)
    top = min(nyquist, lensing.spectra_lmax)
    if not 2 <= lensing.lmin < lensing.lmax_eb <= top:
        what = f"lensing.lmin={lensing.lmin} and lensing.lmax_eb={lensing.lmax_eb}"
        yield UserError(what, f"give 2 <= lmin < lmax_eb <= {top:.0f}, what pixels and spectra hold")
    if lensing.simulator == "curved" and lensing.lmax < lensing.lmax_eb:
        what = f"lensing.lmax={lensing.lmax} of the skies is below lensing.lmax_eb={lensing.lmax_eb} of the estimators"
        yield UserError(what, "raise lensing.lmax and simulate, or lower lmax_eb")
    chosen = lensing.outputs
    if not chosen or not set(chosen) <= {"e", "kappa", "q", "u"} or len(set(chosen)) < len(chosen):
        yield UserError(f"lensing.outputs={chosen}", "choose from e, kappa, q, u, each once")
    if lensing.noise == 0 and model.form == "physical":
        what = "lensing.noise=0 with model.form=physical: without noise a patch's covariance has no inverse"
        yield UserError(what, "give a small noise, e.g. 0.1 uK-arcmin, or choose model.form=plain")
    if config.patches.size % 2:
        yield UserError(f"patches.size={config.patches.size}", "lensing is done on even sizes")
    if model.arch not in ("unet", "resunet") or model.domain != "flat":
        what = f"model.arch={model.arch} with model.domain={model.domain} cannot learn lensing"
        yield UserError(what, "choose unet or resunet on flat patches")
