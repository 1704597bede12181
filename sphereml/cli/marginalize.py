"""``sphereml marginalize --sky MAP --mask MASK --template FITS [...] --out FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sphereml.cli.experiment import say
from sphereml.errors import UserError

_OUTPUTS = ("cleaned.fits", "marginalization.json", "spectra.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sky", required=True, metavar="FITS", help="HEALPix map to clean")
    parser.add_argument("--field", type=int, default=0, help="its column (default 0)")
    parser.add_argument("--unit", default="", help="its unit, when the file states none")
    parser.add_argument("--mask", required=True, metavar="FITS", help="1 = keep")
    parser.add_argument("--template", required=True, nargs="+", metavar="FITS", help="foreground templates")
    parser.add_argument("--apodize", type=float, default=0.0, metavar="DEG", help="taper of the mask (default 0)")
    parser.add_argument("--lmin", type=int, default=2)
    parser.add_argument("--lmax", type=int, default=None, help="default 2 nside")
    parser.add_argument("--out", default="marginalized", metavar="FOLDER")
    parser.add_argument("--overwrite", action="store_true")


def run(options: argparse.Namespace) -> None:
    """Fit amplitudes, subtract, and write ``cleaned.fits``, ``marginalization.json`` and ``spectra.png``."""
    from sphereml.config.schema import BandsConfig
    from sphereml.data.healpix_fits import read_healpix, read_mask
    from sphereml.harmonics.bands import Bands
    from sphereml.plotting.spectra import power_curves
    from sphereml.plotting.style import write_png
    from sphereml.sky.masks import apodize
    from sphereml.templates.marginalization import marginalize, save
    from sphereml.templates.products import write_template

    folder = Path(options.out)
    _refuse_standing(folder, options.overwrite)
    # Pixels may be missing where the mask is zero.
    sky = read_healpix(options.sky, [options.field], options.unit, allow_missing=True)
    mask = read_mask(options.mask, sky.grid)
    templates = [read_healpix(path, allow_missing=True) for path in options.template]
    for path, maps in zip([options.sky, *options.template], [sky, *templates], strict=True):
        _refuse_other_grid(path, maps.grid.nside, sky.grid.nside)
        _refuse_missing(path, maps.values[mask])
    weights = apodize(mask, sky.grid, options.apodize) if options.apodize else mask.astype(np.float64)
    names = [Path(path).stem + (f":{name}" if len(t.names) > 1 else "")
             for path, t in zip(options.template, templates, strict=True) for name in t.names]  # fmt: skip
    stack = np.concatenate([template.values.T for template in templates]).astype(np.float64)
    bands = Bands(**vars(BandsConfig()))
    result = marginalize(
        sky.values[:, 0].astype(np.float64), stack, weights, lmin=options.lmin, lmax=options.lmax, bands=bands
    )
    cleaned = write_template(folder / "cleaned.fits", {"I": result.cleaned}, sky.unit, overwrite=options.overwrite)
    save(result, folder / "marginalization.json")
    curves = {"before": (result.before[2:], None), "after": (result.after[2:], None)}
    write_png(power_curves(result.ell[2:], curves, sky.unit, title="masked sky"), folder / "spectra.png")
    for name, amplitude, error in zip(names, result.amplitudes, result.errors, strict=True):
        say(f"{name}: amplitude {amplitude:.5g} ± {error:.2g}")
    for name, (lo, hi) in result.bands.items():
        kept = np.arange(int(np.ceil(lo)), int(np.ceil(hi)))
        ratio = ((2 * kept + 1) * result.after[kept]).sum() / ((2 * kept + 1) * result.before[kept]).sum()
        say(f"power after / before, {name} ({lo:g}-{hi:g}): {ratio:.3f}")
    say(f"cleaned map: {cleaned}")


def _refuse_standing(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file", "choose another folder with --out")
    standing = next((folder / name for name in _OUTPUTS if (folder / name).exists()), None)
    if standing and not overwrite:
        raise UserError(f"{standing} exists", "add --overwrite, or choose another folder with --out")


def _refuse_missing(path: str, values: np.ndarray) -> None:
    missing = ~np.isfinite(values).all(axis=1)
    if missing.any():
        raise UserError(f"{path} misses {missing.sum()} pixels that the mask keeps", "set the mask to 0 there")


def _refuse_other_grid(path: str, nside: int, wanted: int) -> None:
    if nside != wanted:
        raise UserError(f"{path} has Nside {nside}, the sky has {wanted}", "bring all maps to one Nside")
