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
    *("data", "split", "loss", "bands", "patches.max_masked", "patches.projection"),
    *(
        "model.inputs",
        "model.moments",
        "model.scales",
        "model.features",
        "model.guess",
        "model.gains",
        "model.gain_limit",
    ),
    *("training.join_validation", "training.footprint", "training.rotations"),
    *("evaluation.apodization", "evaluation.block_nside", "evaluation.cuts"),
    *("evaluation.study", "evaluation.forecast", "evaluation.cross_fit"),
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

    With ``model.domain=sphere`` whole skies of ``nside`` take their place, drawn from ``seed`` and stored with the
    features of the network (:mod:`sphereml.sources.lensed_skies`), which is trained on tiles of
    ``training.tile_nside``.  There ``simulator``, ``patches_per_sky``, ``taper``, ``lensed_eb`` and ``loss`` say
    nothing.

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
        lmin_b: B below is kept from networks and estimators, 0 for none; 300 to delens there without bias
        passes: estimates of kappa in the physical form, each from B delensed with the one before
        loss: pixel: mean squared error in pixels; fourier: of modes, each over the target's power
        outputs: fields to predict, of e, kappa, q, u (on the sphere of e and kappa)
        nside: of whole skies
        lmax_kappa: highest multipole of kappa on whole skies; 0: lmax_eb
        features: on whole skies all, or scalars: E and kappa alone
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
    lmin_b: int = 0
    passes: int = 1
    loss: str = "pixel"
    outputs: list[str] = field(default_factory=lambda: ["e", "kappa"])
    nside: int = 512
    lmax_kappa: int = 0
    features: str = "all"


def lensing_faults(config: ExperimentConfig) -> Iterator[UserError]:
    """What a lensing experiment cannot be, beside the limits of every experiment."""
    lensing, model = config.lensing, config.model
    if not 0 <= lensing.seed < 2**31:
        yield UserError(f"lensing.seed={lensing.seed}", "give 0 to 2147483647")
    for name, unit in (("noise", "uK-arcmin"), ("beam", "arcmin (FWHM)"), ("taper", "arcmin")):
        if getattr(lensing, name) < 0:
            yield UserError(f"lensing.{name}={getattr(lensing, name):g} is impossible", f"give 0 or more, in {unit}")
    if lensing.noise == 0 and model.form == "physical":
        what = "lensing.noise=0 with model.form=physical: without noise a patch's covariance has no inverse"
        yield UserError(what, "give a small noise, e.g. 0.1 uK-arcmin, or choose model.form=plain")
    if model.arch not in ("unet", "resunet", "stack") or model.domain == "none":
        what = f"model.arch={model.arch} with model.domain={model.domain} cannot learn lensing"
        yield UserError(what, "choose unet, resunet or stack, flat or on the sphere")
    if not 0 <= lensing.lmin_b < lensing.lmax_eb:
        yield UserError(f"lensing.lmin_b={lensing.lmin_b}", f"give 0 for none, or up to lmax_eb {lensing.lmax_eb}")
    if not 1 <= lensing.passes <= 9:
        yield UserError(f"lensing.passes={lensing.passes}", "give 1 to 9; beyond 4 little is gained")
    if lensing.passes > 1 and model.form == "plain":
        yield UserError("lensing.passes with model.form=plain, which has no estimate", "leave it out")
    yield from _sphere_faults(config) if model.domain == "sphere" else _patch_faults(config)


def _patch_faults(config: ExperimentConfig) -> Iterator[UserError]:
    lensing = config.lensing
    extent = config.patches.size * config.patches.pixel_arcmin
    if 2 * lensing.taper >= extent:
        yield UserError(f"lensing.taper={lensing.taper:g} leaves nothing of {extent:g} arcmin", "give less than half")
    nyquist = math.pi / math.radians(config.patches.pixel_arcmin / 60)
    yield from _band_faults(lensing, min(nyquist, lensing.spectra_lmax))
    if lensing.simulator == "curved":
        yield from _sky_faults(lensing)
    yield from _output_faults(lensing, ("e", "kappa", "q", "u"))
    if lensing.features != "all":
        yield UserError(f"lensing.features={lensing.features} is of whole skies", "leave it out, patches show all")
    if config.patches.size % 2:
        yield UserError(f"patches.size={config.patches.size}", "lensing is done on even sizes")


def _sphere_faults(config: ExperimentConfig) -> Iterator[UserError]:
    lensing, nside, tiles = config.lensing, config.lensing.nside, config.training.tile_nside
    if nside < 1 or nside & (nside - 1):
        yield UserError(f"lensing.nside={nside}", "give a power of two")
    elif nside >> config.model.poolings < tiles:
        what = f"tiles of training.tile_nside={tiles} cannot be pooled {config.model.poolings} times from Nside {nside}"
        yield UserError(what, "lower training.tile_nside or model.depth")
    yield from _band_faults(lensing, min(3 * nside - 1, lensing.spectra_lmax))
    yield from _sky_faults(lensing)
    yield from _output_faults(lensing, ("e", "kappa"))
    yield from _tile_faults(config)
    if lensing.features == "scalars" and config.model.form == "plain":
        what = "lensing.features=scalars with model.form=plain, whose features are Q and U, leaves no input"
        yield UserError(what, "choose model.form=physical, or features=all")
    if lensing.lmax_kappa and not 2 <= lensing.lmax_kappa <= lensing.lmax_eb:
        what = f"lensing.lmax_kappa={lensing.lmax_kappa} with lensing.lmax_eb={lensing.lmax_eb}"
        yield UserError(what, "give 2 to lmax_eb, or 0 for lmax_eb")


def _tile_faults(config: ExperimentConfig) -> Iterator[UserError]:
    """Batches of more tiles of a sky than there are; both parts have batches of one size."""
    lensing, size, tiles = config.lensing, config.training.batch_size, 12 * config.training.tile_nside**2
    train = lensing.skies - lensing.test_skies - lensing.validation_skies
    skies = max(1, min(train, lensing.validation_skies))
    if size > tiles * skies:
        what = f"training.batch_size={size} asks for more than the {tiles} tiles of each of {skies} skies"
        yield UserError(what, "lower it, or raise training.tile_nside")


def _band_faults(lensing: LensingConfig, top: float) -> Iterator[UserError]:
    if not 2 <= lensing.lmin < lensing.lmax_eb <= top:
        what = f"lensing.lmin={lensing.lmin} and lensing.lmax_eb={lensing.lmax_eb}"
        yield UserError(what, f"give 2 <= lmin < lmax_eb <= {top:.0f}, what pixels and spectra hold")


def _sky_faults(lensing: LensingConfig) -> Iterator[UserError]:
    if lensing.lmax < lensing.lmax_eb:
        what = f"lensing.lmax={lensing.lmax} of the skies is below lensing.lmax_eb={lensing.lmax_eb} of the estimators"
        yield UserError(what, "raise lensing.lmax and simulate, or lower lmax_eb")


def _output_faults(lensing: LensingConfig, known: tuple[str, ...]) -> Iterator[UserError]:
    chosen = lensing.outputs
    if not chosen or not set(chosen) <= set(known) or len(set(chosen)) < len(chosen):
        yield UserError(f"lensing.outputs={chosen}", f"choose from {', '.join(known)}, each once")
