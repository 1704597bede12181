"""``sphereml marginalize --sky MAP --mask MASK --template FITS [...] --out FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.output import MANNER, say
from sphereml.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from sphereml.data.healpix_fits import UnsaidCards
    from sphereml.sky.grid import HealpixGrid
    from sphereml.templates.cleaning import Cleaning
    from sphereml.templates.map_choice import ChosenMaps

_OUTPUTS = ("cleaned.fits", "marginalization.json", "spectra.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Columns: FILE takes the first of the sky and the mask, and every scalar one of a template; FILE[NAME], "
        "FILE[#2] (from 0) and FILE+1[NAME] (in HDU 1) choose one, FILE[Q,U] polarization, fitted as one field."
    )
    parser.add_argument("--sky", required=True, metavar="FITS", help="HEALPix map to clean")
    parser.add_argument(
        "--field", type=int, default=None, help="number of its column, from 0 (as FILE[#2]; default: the first)"
    )
    parser.add_argument("--unit", default="", help="unit of the sky, when its file states none")
    parser.add_argument("--mask", required=True, metavar="FITS", help="weights, 1 = keep; missing pixels are dropped")
    parser.add_argument("--threshold", type=float, metavar="W", help="make the mask 0 and 1: keep weights above W")
    parser.add_argument("--template", required=True, nargs="+", metavar="FITS", help="foreground templates")
    parser.add_argument("--template-unit", default="", help="unit of the templates whose file states none")
    parser.add_argument(
        "--apodize", type=float, default=0.0, metavar="DEG", help="width of the mask's taper, degrees (default 0)"
    )
    parser.add_argument("--lmin", type=int, default=2, help="lowest multipole of the fit (default 2)")
    parser.add_argument("--lmax", type=int, default=None, help="highest multipole of the fit (default 2 nside)")
    parser.add_argument("--no-checksum", action="store_true", help="take edited files whose checksum cards are stale")
    parser.add_argument(
        "--out", default="marginalized", metavar="FOLDER", help="where to write (default ./marginalized)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--json", action="store_true", help="print marginalization.json in place of words")


def run(options: argparse.Namespace) -> None:
    """Fit amplitudes, subtract, and write ``cleaned.fits``, ``marginalization.json`` and ``spectra.png``."""
    from sphereml.config.schema import BandsConfig
    from sphereml.data.healpix_fits import UnsaidCards
    from sphereml.data.whole_files import appearing_together
    from sphereml.harmonics.bands import Bands
    from sphereml.plotting.spectra import power_curves
    from sphereml.plotting.style import write_png
    from sphereml.templates.cleaning import clean
    from sphereml.templates.map_choice import choose_sky, choose_templates, refuse_unfit

    folder = Path(options.out)
    _refuse_standing(folder, options.overwrite)
    known = UnsaidCards(edited=options.no_checksum)
    sky = choose_sky(options.sky, options.field, options.unit, known)
    mask = _weights(options, sky.maps.grid, known)
    templates = [choose_templates(path, sky.maps, options.template_unit, known) for path in options.template]
    for one in (sky, *templates):
        refuse_unfit(one, sky.maps, mask)
    result = clean(sky, templates, mask, Bands(**vars(BandsConfig())), lmin=options.lmin, lmax=options.lmax)
    with appearing_together(folder) as scratch:
        result.save(scratch)
        write_png(power_curves(*_curves(result), sky.maps.unit, title="masked sky"), scratch / "spectra.png")
    if MANNER.json:
        say((folder / "marginalization.json").read_text().rstrip())
        return
    _report(result)
    _say_choices(options, mask, [sky, *templates])
    say(f"cleaned map: {folder / 'cleaned.fits'}")


def _weights(options: argparse.Namespace, grid: HealpixGrid, known: UnsaidCards) -> np.ndarray:
    """The mask as the fit takes it, float64 ``(npix,)`` in 0..1."""
    import numpy as np

    from sphereml.data.healpix_fits import read_weights
    from sphereml.sky.masks import apodize

    weights = read_weights(options.mask, grid, known)
    if options.threshold is not None:
        if not 0 <= options.threshold < 1:
            raise UserError(f"--threshold {options.threshold:g} is no weight", "give 0 or more and below 1")
        weights = (weights > options.threshold).astype(np.float64)
        if not weights.any():
            raise UserError(f"no weight of the mask is above --threshold {options.threshold:g}", "lower it")
    return weights * apodize(weights, grid, options.apodize) if options.apodize else weights


def _curves(result: Cleaning) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, None]]]:
    """Multipoles from 2, and the spectra before and after by their names."""
    import numpy as np

    several = len(result.spectra) > 1
    curves = {
        f"{name} {when}" if several else when: (cl[2:], None)
        for name, pair in result.spectra.items()
        for when, cl in zip(("before", "after"), pair, strict=True)
    }
    first, _ = next(iter(curves.values()))
    return np.arange(2, 2 + len(first)), curves


def _report(result: Cleaning) -> None:
    unit = result.sky.maps.unit
    for (label, other), amplitude, error in zip(result.labels, result.fit.amplitudes, result.fit.errors, strict=True):
        ratio = "" if other == unit else f" {unit or 1} per {other or 1}"
        say(f"{label}: amplitude {amplitude:.5g} ± {error:.2g}{ratio}")
    for name, ratios in result.power_left().items():
        which = f"{name} " if len(result.spectra) > 1 else ""
        for band, left in ratios.items():
            lo, hi = result.bands[band]
            say(f"{which}power after / before, {band} ({lo:g}-{hi:g}): {left:.3f}")


def _say_choices(options: argparse.Namespace, mask: np.ndarray, chosen: list[ChosenMaps]) -> None:
    """What was taken from the files where they hold more than one thing."""
    if options.threshold is None and not options.apodize and ((mask > 0) & (mask < 1)).any():
        say("mask: its weights between 0 and 1 are used as they are (--threshold W makes them 0 and 1)")
    for one in chosen:
        for line in one.said:
            say(line)


def _refuse_standing(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file", "choose another folder with --out")
    standing = next((folder / name for name in _OUTPUTS if (folder / name).exists()), None)
    if standing and not overwrite:
        raise UserError(f"{standing} exists", "add --overwrite, or choose another folder with --out")
