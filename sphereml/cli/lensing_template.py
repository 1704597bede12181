"""``sphereml lensing template --kappa K.fits --e E.fits --out B.fits``: the lensing-B template of kappa and E."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.output import say, tell
from sphereml.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from sphereml.data.column_names import ColumnReference
    from sphereml.data.field_maps import FieldMaps

_ORDERS = ("gradient", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Give E in its best form: an observed, hence lensed, Wiener-filtered E (`sphereml lensing estimate --e-out`) "
        "with --order gradient, or an unlensed one with --order all.  Kappa of `sphereml lensing estimate` is Wiener-"
        "filtered with the N0, response and C_L in its file; any other is taken as it is."
    )
    parser.add_argument("--kappa", metavar="FITS", help="HEALPix map, or image of a patch, of kappa")
    parser.add_argument("--e", metavar="FITS", help="E as one column, or Q and U of which E is taken")
    parser.add_argument("--run", dest="network", metavar="RUN", help="a network that makes kappa (and E) of --qu")
    parser.add_argument("--qu", metavar="FITS", help="Q and U, with --run")
    parser.add_argument("--unit", default="", help="unit of E, or of Q and U with --run, when their file states none")
    parser.add_argument(
        "--order", choices=_ORDERS, default="gradient", help="of the expansion in kappa (default gradient: first order)"
    )
    parser.add_argument(
        "--lmax", type=int, help="highest multipole of E, kappa and the template (default 2 nside, at most 3000)"
    )
    parser.add_argument("--nside", type=int, help="resolution of the template (default that of E)")
    parser.add_argument(
        "--filtered", action="store_true", help="kappa is Wiener-filtered already, whatever its file holds"
    )
    parser.add_argument("--out", required=True, metavar="FITS", help="Q and U, COSMO, of the lensing B alone")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--no-checksum", action="store_true", help="take edited files whose checksum cards are stale")
    parser.set_defaults(mask=None, depth=None, json=False)


def run(options: argparse.Namespace) -> None:
    from sphereml.cli import lensing_patch
    from sphereml.lensing.full_sky import TemplateInputs, e_of_maps
    from sphereml.sky.fields import Field
    from sphereml.sky.grid import HealpixGrid
    from sphereml.sky.maps import SkyMap
    from sphereml.templates.products import refuse_standing, write_sky_map

    if not (options.qu if options.network else options.kappa and options.e):
        raise UserError("a template takes --kappa and --e, or --run and --qu", "give both of a pair")
    if options.qu and not options.network:
        raise UserError("--qu with --kappa and --e, which are all that a template takes", "leave it out, or add --run")
    if lensing_patch.is_patch(options.qu or options.kappa):
        lensing_patch.template(options)
        return
    refuse_standing([Path(options.out)], options.overwrite)
    if options.network:
        _write_of_network(options)
        return
    kappa, e = _scalar(options.kappa, "1", options), _polarization(options)
    if kappa.frame != e.frame:
        raise UserError(f"kappa is in the frame {kappa.frame}, E in {e.frame}", "bring both to one frame")
    nside = HealpixGrid(options.nside or e.grid.nside).nside
    lmax = min(2 * min(nside, e.grid.nside), 3000) if options.lmax is None else options.lmax
    held = 3 * min(nside, e.grid.nside) - 1
    if not 2 <= lmax <= held:
        raise UserError(f"--lmax {lmax} is out of what the maps hold", f"give 2 to {held}")
    rows = e.values[0] * _factor(e)
    inputs = TemplateInputs(
        _kappa(options, kappa, lmax), e_of_maps(rows if len(rows) == 2 else rows[0], lmax), nside, lmax
    )
    template = inputs.template(options.order)
    header = {"EXPANSIO": options.order, "LMAX": lmax}
    field = Field("P", "uK_CMB", spin=2)
    write_sky_map(options.out, SkyMap(template.T, field, "nest", e.frame, header), overwrite=options.overwrite)
    say(f"lensing-B template ({options.order}, lmax {lmax}): {options.out}")


def _write_of_network(options: argparse.Namespace) -> None:
    """The template of a run's kappa; with its unlensed E to all orders, else with the lensed one that it saw."""
    from sphereml.cli.lensing_estimate import open_network, read_observed
    from sphereml.lensing.full_sky import TemplateInputs, wiener_kappa
    from sphereml.sky.fields import Field
    from sphereml.sky.maps import SkyMap
    from sphereml.templates.products import write_sky_map

    network = open_network(options, tell, free=("lmax",))
    observed, frame = read_observed(options)
    found = network.estimate(observed, network.settings())
    if options.order == "all" and found.e is None:
        raise UserError("--order all takes an unlensed E, which the run does not predict", "give --order gradient")
    made, lensing = found.kappa, network.run.config.lensing
    kappa = wiener_kappa(made.kappa, made.power, made.n0, made.response)
    e = made.wiener_e if options.order == "gradient" else found.e
    assert e is not None
    nside, lmax = options.nside or lensing.nside, lensing.lmax_eb if options.lmax is None else options.lmax
    template = TemplateInputs(kappa, e, nside, lmax).template(options.order)
    header = {"EXPANSIO": options.order, "LMAX": lmax, "RUN_ID": network.run.folder.name}
    field = Field("P", "uK_CMB", spin=2)
    write_sky_map(options.out, SkyMap(template.T, field, "nest", frame, header), overwrite=options.overwrite)
    say(f"lensing-B template ({options.order}, lmax {lmax}): {options.out}")


def _kappa(options: argparse.Namespace, kappa: FieldMaps, lmax: int) -> np.ndarray:
    """a_lm of the most likely kappa."""
    import numpy as np

    from sphereml.data.column_names import parse_reference
    from sphereml.harmonics.transforms import analysis
    from sphereml.lensing.full_sky import wiener_kappa

    reach = min(lmax, 3 * kappa.grid.nside - 1)
    curves = None if options.filtered else _curves(parse_reference(options.kappa), options.no_checksum)
    values = np.nan_to_num(kappa.values[0, 0], nan=0.0)
    if curves is None:
        return analysis(values, reach)
    reach = min(reach, len(curves["N0"]) - 1)
    power, n0, response = (curves[name][: reach + 1] for name in ("C_KAPPA", "N0", "RESPONSE"))
    say("kappa is Wiener-filtered with the curves of its file")
    return wiener_kappa(analysis(values, reach), power, n0, response)


def _curves(reference: ColumnReference, edited: bool) -> dict[str, np.ndarray] | None:
    """The curves that stand beside an estimate of ours, None in every other file."""
    import numpy as np
    from astropy.io import fits

    from sphereml.data.fits_checksums import refuse_stale
    from sphereml.data.fits_files import open_fits

    with open_fits(reference.path) as checked:
        unit = next((one for one in checked.units() if str(one.header.get("EXTNAME")).strip() == "CURVES"), None)
        if unit is None:
            return None
        if not edited:
            refuse_stale(unit)
        with fits.open(reference.path) as file:
            table = file[unit.number].data
        return {name: np.asarray(table[name], dtype=np.float64) for name in ("N0", "RESPONSE", "C_KAPPA")}


def _scalar(name: str, unit: str, options: argparse.Namespace) -> FieldMaps:
    from sphereml.data.column_names import parse_reference
    from sphereml.data.field_maps import read_field
    from sphereml.data.healpix_tables import list_columns

    reference = parse_reference(name)
    if not reference.columns and len(list_columns(reference)) != 1:
        raise UserError(f"{name} holds several columns", "choose one, e.g. FILE[KAPPA]")
    return read_field(name, 0, unit, options.no_checksum)


def _polarization(options: argparse.Namespace) -> FieldMaps:
    """E as one column, or Q and U."""
    from sphereml.data.column_names import parse_reference
    from sphereml.data.field_maps import read_field
    from sphereml.data.healpix_tables import list_columns

    reference = parse_reference(options.e)
    columns = reference.columns or tuple(list_columns(reference).values())
    if len(columns) == 1:
        return _scalar(options.e, options.unit, options)
    return read_field(options.e, 2, options.unit, options.no_checksum)


def _factor(e: FieldMaps) -> float:
    from sphereml.data.unit_conversion import conversion_factor

    if not e.unit:
        raise UserError("the file of E states no unit", "give it, e.g. --unit uK_CMB")
    return conversion_factor(e.unit, "uK_CMB")
