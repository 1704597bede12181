"""The configuration of the CMB lensing task: cosmology, simulated skies, the observation, what is to be measured.

Conventions: angles in arcmin unless the name says otherwise; noise is that of Q and of U in uK-arcmin (no sqrt 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Cosmology:
    """Flat LCDM; the defaults are the Planck 2013 values of DeepCMB (arXiv:1810.01483).

    Not frozen, as OmegaConf takes no overrides of a frozen dataclass: nothing may change one that is shared.
    """

    H0: float = 67.94
    ombh2: float = 0.0222
    omch2: float = 0.1185
    tau: float = 0.0943
    As: float = 2.21e-9
    ns: float = 0.9624
    mnu: float = 0.06  # sum of neutrino masses, eV


@dataclass
class LensingConfig:
    """Lensed patches and their observation; ``patches`` of the experiment says how large they are.

    ``simulator``: ``flat`` draws fresh patches by FFT wherever the training runs; ``curved`` takes those that
    `sphereml simulate lensing` cut from ``skies`` full skies, ``patches_per_sky`` each, with a_lm up to ``lmax``; the
    last ``test_skies`` of them test, the ``validation_skies`` before those validate; ``lensed_eb`` stores the lensed E
    and B as well.
    ``taper`` is the width of the mask's cosine edge.  Estimators use E and B for ``lmin <= ell <= lmax_eb``.  CAMB's
    spectra reach ``spectra_lmax``.
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
    loss: str = "pixel"  # mean squared error in pixels, or "fourier": of modes, each over the target's power
    outputs: list[str] = field(default_factory=lambda: ["e", "kappa"])
