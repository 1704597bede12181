"""``sphereml lensing estimate --qu QU.fits --noise 1 --beam 1 --out KAPPA.fits``: kappa from a user's maps.

The file holds, in this order: KAPPA (a HEALPix map, RING, in the frame of Q and U); CURVES (L, N0, RESPONSE, C_L of the
fiducial kappa); FILTERS by ell; and MEANFIELD, a map, where one was simulated.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphereml.cli.lensing_run_flags import refuse_beside_run
from sphereml.cli.output import say, tell
from sphereml.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from astropy.io import fits

    from sphereml.data.field_maps import FieldMaps
    from sphereml.evaluation.lensing.own_sky import SkyNetwork
    from sphereml.lensing.full_sky import EstimateSettings, ObservedMaps
    from sphereml.lensing.kappa_map import KappaMap
    from sphereml.lensing.sphere_filter import Say

# Spelled out here so that --help imports no estimator.
_ESTIMATORS = ("EB", "EE", "MV")
_SHOWN = (2, 10, 30, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Files: FILE, or FILE[NAME] and FILE[#2] (from 0) for a column.  A sky without mask and depth is analysed "
        "directly up to lmax = 2 nside; every other one is filtered by conjugate gradients.  Masks need no apodization."
    )
    parser.add_argument("--qu", required=True, metavar="FITS", help="HEALPix map, or image of a patch, of Q and U")
    parser.add_argument("--unit", default="", help="unit of Q and U, when their file states none")
    parser.add_argument("--noise", type=float, help="noise of Q and U, uK-arcmin (default 1, or that of the depth)")
    parser.add_argument("--beam", type=float, help="FWHM of the beam, arcmin (default 1)")
    parser.add_argument("--lmin", type=int, help="lowest multipole of E and B (default 30)")
    parser.add_argument("--lmin-b", type=int, help="lowest multipole of B, e.g. 300 to delens below (default --lmin)")
    parser.add_argument("--lmax", type=int, help="highest multipole of E and B (default 2 nside, at most 3000)")
    parser.add_argument("--lmax-kappa", type=int, help="highest multipole of kappa (default --lmax)")
    parser.add_argument("--estimator", choices=_ESTIMATORS, help="default MV, EB and EE together")
    parser.add_argument("--run", dest="network", metavar="RUN", help="a trained network in place of the estimator")
    patch = parser.add_argument_group("flat patches")
    patch.add_argument("--taper", type=float, help="cosine edge of the mask, arcmin (default 14)")
    what = "above 1: the most likely kappa, each pass on B delensed with the one before (default 1)"
    parser.add_argument("--passes", type=int, metavar="N", help=what)
    parser.add_argument("--pixel-window", action="store_true", help="the maps are averages over their pixels")
    masked = parser.add_argument_group("masked and inhomogeneous skies")
    masked.add_argument("--mask", metavar="FITS", help="weights of the inverse variance, 0 = not seen")
    masked.add_argument("--depth", metavar="FITS", help="noise of Q and U in every pixel, uK-arcmin")
    masked.add_argument("--tolerance", type=float, help="relative residual at which the filter stops (default 1e-4)")
    masked.add_argument(
        "--mean-field",
        type=int,
        default=0,
        metavar="N",
        help="simulations of mean field and response (default 0: none)",
    )
    masked.add_argument("--seed", type=int, help="seed of the simulations (default 1)")
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, metavar="FITS", help="kappa with N0, response, filters, mean field")
    output.add_argument("--e-out", metavar="FITS", help="the most likely E, for `sphereml lensing template`")
    output.add_argument("--overwrite", action="store_true", help="replace existing files")
    output.add_argument("--json", action="store_true", help="one JSON object; null where N0 is infinite")
    parser.add_argument("--no-checksum", action="store_true", help="take edited files whose checksum cards are stale")


def run(options: argparse.Namespace) -> None:
    from sphereml.cli import lensing_patch
    from sphereml.lensing.full_sky import estimate_kappa
    from sphereml.lensing.kappa_map import KappaMap
    from sphereml.simulate.cmb_spectra import LMAX, load_spectra
    from sphereml.sky.grid import HealpixGrid
    from sphereml.templates.products import refuse_standing

    if lensing_patch.is_patch(options.qu):
        lensing_patch.estimate(options)
        return
    products = [Path(name) for name in (options.out, options.e_out) if name]
    if len(set(products)) < len(products):
        raise UserError("--out and --e-out are one file", "give two names")
    refuse_standing(products, options.overwrite)
    network = open_network(options, tell) if options.network else None
    observed, frame = read_observed(options)
    settings, npix = _settings(options), observed.maps.shape[1]
    if network is not None:
        settings = network.settings(options.pixel_window, settings.tolerance)
    settings.reconstruction(npix, observed.weights, observed.depth, _no_spectra())  # refuses before CAMB runs
    if network is None:
        made = estimate_kappa(observed, settings, load_spectra(max(LMAX, options.lmax or 0)), tell)
    else:
        made = network.estimate(observed, settings).kappa
    del observed
    kappa = KappaMap(made, HealpixGrid.of_size(npix).nside, frame)
    _write(kappa, products)
    _report(kappa, options)


def open_network(options: argparse.Namespace, progress: Say, free: tuple[str, ...] = ()) -> SkyNetwork:
    """The run that is named; raises UserError for flags that it does not allow (:func:`refuse_beside_run`)."""
    from sphereml.evaluation.lensing.own_sky import SkyNetwork
    from sphereml.training.runs import Run

    network = SkyNetwork(Run.open(options.network), progress)
    refuse_beside_run(options, network.run.config, free)
    return network


def _settings(options: argparse.Namespace) -> EstimateSettings:
    from sphereml.lensing.full_sky import EstimateSettings

    if options.taper is not None:
        raise UserError("--taper is for flat patches; masks of the sky need none", "leave it out")
    if options.passes is not None and not 1 <= options.passes <= 9:
        raise UserError(f"--passes {options.passes}", "give 1 to 9; beyond 4 little is gained")
    if options.mean_field < 0 or options.mean_field == 1:
        raise UserError(f"--mean-field {options.mean_field}", "give 0 for none, or at least 2")
    if options.seed is not None and not 0 <= options.seed < 2**31:
        raise UserError(f"--seed {options.seed}", "give 0 to 2147483647")
    names = [one.name for one in fields(EstimateSettings) if one.name != "folder"]
    return EstimateSettings(**{name: getattr(options, name) for name in names if getattr(options, name) is not None})


def _no_spectra() -> Any:
    """Spectra for checks that look at none."""
    import numpy as np

    from sphereml.simulate.cmb_spectra import CmbSpectra

    return CmbSpectra(*[np.ones(3)] * 4)


def read_observed(options: argparse.Namespace) -> tuple[ObservedMaps, str]:
    """The maps, in uK (CMB) and single precision, with mask and depth; and their frame."""
    from sphereml.data.field_maps import read_field
    from sphereml.data.unit_conversion import conversion_factor
    from sphereml.lensing.full_sky import ObservedMaps

    field = read_field(options.qu, 2, options.unit, options.no_checksum)
    if not field.unit:
        raise UserError(f"{options.qu} states no unit", "give it, e.g. --unit uK_CMB")
    maps = field.values[0].astype("f4")
    maps *= conversion_factor(field.unit, "uK_CMB")
    observed, lost = ObservedMaps(maps, _mask(options, field), _depth(options, field)).without_gaps()
    if lost:
        tell(f"{options.qu}: {lost} pixels are missing that the mask keeps; they get mask 0")
    return observed, field.frame


def _mask(options: argparse.Namespace, field: FieldMaps) -> np.ndarray | None:
    from sphereml.data.healpix_fits import read_sky_weights
    from sphereml.data.healpix_tables import UnsaidCards

    if not options.mask:
        return None
    mask = read_sky_weights(options.mask, field.grid, UnsaidCards("", field.frame, options.no_checksum), any_frame=True)
    _refuse_frame("the mask", mask.frame, field.frame)
    return mask.values


def _depth(options: argparse.Namespace, field: FieldMaps) -> np.ndarray | None:
    from sphereml.data.column_names import parse_reference
    from sphereml.data.healpix_tables import UnsaidCards, read_raw

    if not options.depth:
        return None
    raw = read_raw(parse_reference(options.depth), (), UnsaidCards("", field.frame, options.no_checksum), True, True)
    _refuse_frame("the depth", raw.frame, field.frame)
    if raw.grid != field.grid:
        raise UserError(f"{options.depth} has Nside {raw.grid.nside}, the map {field.grid.nside}", "bring both to one")
    if raw.values.shape[1] != 1:
        raise UserError(f"{options.depth} holds {raw.values.shape[1]} columns", "choose one, e.g. FILE[#0]")
    return raw.values[:, 0].astype("f8")


def _refuse_frame(name: str, own: str, frame: str) -> None:
    if own != frame:
        raise UserError(f"{name} is in the frame {own}, the map in {frame}", "bring both to one frame")


def _write(kappa: KappaMap, products: list[Path]) -> None:
    """All products or none."""
    from sphereml.data.whole_files import write_together
    from sphereml.templates.products import serialize_sky_map

    first, *rest = products
    contents = {path: serialize_sky_map(kappa.wiener_e()) for path in rest}
    write_together({first: serialize_sky_map(kappa, _tables(kappa))} | contents)


def _tables(kappa: KappaMap) -> list[fits.BinTableHDU]:
    import numpy as np

    from sphereml.templates.products import curve_table, map_table

    made = kappa.estimate
    ell = np.arange(len(made.n0))
    curves = {"L": ell, "N0": made.n0, "RESPONSE": made.response, "C_KAPPA": made.power}
    weights = made.weights
    filters = {"ELL": np.arange(len(weights["WIENER_E"])), **weights}
    tables = [curve_table("CURVES", curves), curve_table("FILTERS", filters)]
    field = kappa.mean_field()
    return tables if field is None else [*tables, map_table({"MEANFIELD": field.values[:, 0]}, "1", name="MEANFIELD",
                                                            frame=kappa.frame)]  # fmt: skip


def _report(kappa: KappaMap, options: argparse.Namespace) -> None:
    made = kappa.estimate
    if options.json:
        curves: dict[str, Any] = {"L": list(range(2, len(made.n0)))}
        curves["N0"] = [value if math.isfinite(value) else None for value in made.n0[2:].tolist()]
        curves["response"] = made.response[2:].tolist()
        facts = {
            "estimator": options.network or options.estimator or "MV",
            "simulations": made.simulations,
            "filter": made.facts or None,
        }
        say(json.dumps(curves | facts))
        return
    say("     L              N0        response")
    for ell in (ell for ell in _SHOWN if ell < len(made.n0)):
        say(f"{ell:6d}{made.n0[ell]:16.5e}{made.response[ell]:16.4f}")
    if made.facts:
        say("filter: {steps} steps of {seconds_per_step} s, {transform_seconds_per_step} s of that in transforms; "
            "residual {residual:.1e} of {tolerance:.0e}".format(**made.facts))  # fmt: skip
    if options.network:
        say("kappa is the network's; its response and noise are those of a simulated sky")
    elif (options.passes or 1) > 1:
        say("kappa is the most likely one; its response and noise are what theory expects")
    elif not made.simulations and (options.mask or options.depth):
        say("no mean field was subtracted and the response is not measured (--mean-field N)")
    say(f"kappa: {options.out}")
