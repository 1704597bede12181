"""CMB lensing from polarization: noise curves, estimates of kappa from maps, templates of the lensing B.

Maps go in and out as :class:`~sphereml.sky.maps.SkyMap`, or as bare arrays whose order is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from sphereml.lensing.kappa_map import KappaMap
    from sphereml.lensing.lensed_b import Expansion
    from sphereml.lensing.sphere_filter import Say
    from sphereml.sky.maps import Maps, Order, SkyMap

__all__ = ["estimate", "n0", "template"]


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


def estimate(
    qu: Maps,
    mask: Maps | None = None,
    *,
    depth: Maps | None = None,
    order: Order | None = None,
    cosmology: dict[str, float] | None = None,
    say: Say | None = None,
    **settings: Any,
) -> KappaMap:
    """Kappa from Q and U of the whole or a masked sky by a quadratic estimator.

    Args:
        qu: Q and U in uK (CMB), COSMO; missing pixels NaN.  Bare arrays are ``(2, npix)`` or ``(npix, 2)``, others here
            ``(npix,)``.
        mask: weights in 0..1, which multiply the inverse variance: 0 is not seen; not to be apodized.
        depth: rms noise of Q and of U by pixel, uK-arcmin.
        order: of bare arrays, ``"ring"`` or ``"nest"``.
        cosmology: fiducial parameters of :class:`sphereml.config.lensing.Cosmology`.
        say: takes lines of progress.
        settings: ``noise``, ``beam``, ``lmin``, ``lmax``, ``lmax_kappa``, ``estimator`` (EB, EE, MV), ``mean_field``
            and others of :class:`sphereml.lensing.full_sky.EstimateSettings`.

    Raises:
        UserError: an array without its order, maps that do not fit each other, impossible settings.

    Example:
        >>> import sphereml as sm
        >>> qu = sm.read_map("qu.fits")  # doctest: +SKIP
        >>> kappa = sm.lensing.estimate(qu, noise=1, beam=1, lmax=1500, estimator="EB")  # doctest: +SKIP
        >>> kappa.n0[100], kappa.response[100], kappa.wiener_e()  # doctest: +SKIP
    """
    from sphereml.config.lensing import Cosmology
    from sphereml.lensing.full_sky import EstimateSettings, ObservedMaps, estimate_kappa
    from sphereml.lensing.kappa_map import KappaMap
    from sphereml.simulate.cmb_spectra import load_spectra
    from sphereml.sky.grid import HealpixGrid

    observed = ObservedMaps(
        _rows(qu, order, "the map of Q and U", 2),
        None if mask is None else _rows(mask, order, "the mask", 1)[0],
        None if depth is None else _rows(depth, order, "the depth", 1)[0],
    )
    spectra = load_spectra(cosmology=Cosmology(**(cosmology or {})))
    made = estimate_kappa(observed, EstimateSettings(**settings), spectra, say)
    return KappaMap(made, HealpixGrid.of_size(observed.maps.shape[1]).nside, getattr(qu, "frame", "G"))


def template(
    kappa: Maps,
    e: Maps,
    *,
    lmax: int | None = None,
    expansion: Expansion = "gradient",
    filtered: bool = False,
    order: Order | None = None,
) -> SkyMap:
    """The lensing-B template, Q and U of B alone: ``B of grad phi . grad P_E``, or E remapped to all orders.

    Args:
        kappa: a :class:`~sphereml.lensing.kappa_map.KappaMap`, which is Wiener-filtered with its own N0 and response,
            or any map of kappa, taken as it is.
        e: E, one column, or Q and U of which E is taken; the most likely one (``kappa.wiener_e()``), uK.
        lmax: of E, kappa and template; 2 nside, at most 3000, when None.
        expansion: ``"gradient"`` for an observed, hence lensed E; ``"all"`` for an unlensed one.
        filtered: take a KappaMap as it is, too.
        order: of bare arrays.

    Raises:
        UserError: an array without its order, or maps that do not fit each other.

    Example:
        >>> import sphereml as sm
        >>> kappa = sm.lensing.estimate(sm.read_map("qu.fits"), noise=1, beam=1)  # doctest: +SKIP
        >>> sm.lensing.template(kappa, kappa.wiener_e())  # doctest: +SKIP
        SkyMap(P [uK_CMB] spin 2; nside=2048, NEST, frame G)
    """
    from sphereml.harmonics.transforms import analysis
    from sphereml.lensing.full_sky import TemplateInputs, e_of_maps, wiener_kappa
    from sphereml.lensing.kappa_map import KappaMap
    from sphereml.sky.fields import Field
    from sphereml.sky.grid import HealpixGrid
    from sphereml.sky.maps import SkyMap

    rows = _rows(e, order, "the map of E")
    nside = HealpixGrid.of_size(rows.shape[1]).nside
    top = min(2 * nside, 3000) if lmax is None else lmax
    if isinstance(kappa, KappaMap) and not filtered:
        alm = wiener_kappa(kappa.estimate.kappa, kappa.estimate.power, kappa.n0, kappa.response)
    else:
        alm = analysis(_rows(kappa, order, "the map of kappa", 1)[0], top)
    inputs = TemplateInputs(alm, e_of_maps(rows[0] if len(rows) == 1 else rows, top), nside, top)
    return SkyMap(inputs.template(expansion).T, Field("P", "uK_CMB", spin=2), "nest", getattr(e, "frame", "G"))


def _rows(maps: Maps, order: Order | None, name: str, columns: int | None = None) -> np.ndarray:
    """Rows ``(columns, npix)`` in NEST order; raises UserError for another number of columns (1 or 2 when None)."""
    from sphereml.errors import UserError
    from sphereml.sky.maps import nest_columns

    rows = nest_columns(maps, order, name).T
    if len(rows) not in ((1, 2) if columns is None else (columns,)):
        raise UserError(f"{name} has {len(rows)} columns", "choose them, e.g. maps['KAPPA'] with its order")
    return rows
