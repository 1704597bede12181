"""CMB lensing from polarization: the noise of quadratic estimators, by one estimate and iterated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["n0"]


def n0(
    noise: float = 1.0,
    beam: float = 1.0,
    lmin: int = 30,
    lmax: int = 4000,
    *,
    lmax_kappa: int | None = None,
    **cosmology: Any,
) -> dict[str, np.ndarray]:
    """Reconstruction noise N0 of kappa: EB, EE, both together, and EB iterated (Smith et al. 2012).

    Args:
        noise: of Q and of U, uK-arcmin.
        beam: FWHM, arcmin.
        lmin, lmax: of E and B.
        lmax_kappa: of kappa; 3000, or what lmax reaches, when None.
        cosmology: parameters of :class:`sphereml.config.lensing.Cosmology`, e.g. ``omch2=0.12``.

    Returns:
        ``L`` from 2, ``N0_EB``, ``N0_EB_iterated``, ``N0_EE``, ``N0_MV`` (C_L of kappa, infinite where nothing is
        measured) and ``kappa``, C_L of the signal.

    Raises:
        UserError: an impossible observation or cosmology.

    Example:
        >>> import sphereml as sm
        >>> sm.lensing.n0(noise=1, beam=1, lmax=3000)["N0_EB"][98]  # doctest: +SKIP
        1.2e-08
    """
    import numpy as np

    from sphereml.config.lensing import Cosmology
    from sphereml.lensing.iterated import Iteration, iterate_eb
    from sphereml.lensing.noise import NoiseModel, combined
    from sphereml.lensing.observation import Observation
    from sphereml.simulate.cmb_spectra import load_spectra

    reach = min(3000, 2 * lmax - 1) if lmax_kappa is None else lmax_kappa
    model = NoiseModel(load_spectra(cosmology=Cosmology(**cosmology)), Observation(noise, beam, lmin, lmax), reach)
    eb, ee = model.eb(), model.ee()
    curves = {"N0_EB": eb, "N0_EB_iterated": iterate_eb(model, Iteration()).n0, "N0_EE": ee, "N0_MV": combined(eb, ee)}
    curves |= {"kappa": model.spectra.kappa[: reach + 1]}
    return {"L": np.arange(2, reach + 1)} | {name: curve[2:] for name, curve in curves.items()}
