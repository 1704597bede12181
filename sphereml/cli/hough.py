"""``sphereml hough MAP --length 75 --smoothing 30 --threshold 0.7 --orientations 25 --out QU.fits``.

MAP is a HEALPix FITS file, of which one column or several are taken, or a store, of which every channel is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sphereml.cli.output import say, tell
from sphereml.errors import UserError
from sphereml.progress import counted

if TYPE_CHECKING:
    import numpy as np

    from sphereml.filaments.hough import HoughSettings, HoughTransform

_FEW_PIXELS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("map", metavar="MAP", help="HEALPix FITS file, or a store (all of its channels)")
    parser.add_argument(
        "--out", required=True, metavar="FITS", help="Q and U, in the map's unit (K km/s of channels in K)"
    )
    parser.add_argument("--length", type=float, default=75.0, help="of the stick, arcmin (default 75)")
    parser.add_argument("--smoothing", type=float, default=30.0, help="FWHM of the unsharp mask, arcmin (default 30)")
    parser.add_argument("--threshold", type=float, default=0.7, help="share of the stick that must shine (default 0.7)")
    parser.add_argument("--orientations", type=int, default=25, help="angles over 180 degrees (default 25)")
    parser.add_argument("--width", type=float, default=0.0, help="FWHM of the stick, arcmin (default: a row of pixels)")
    parser.add_argument(
        "--softness",
        type=float,
        default=0.0,
        help="width tau of smooth thresholds, a ratio of intensities (default 0: Clark's hard ones)",
    )
    parser.add_argument(
        "--subpixels", type=int, default=4, help="of the mask, to a pixel's side (default 4; 1 is quick)"
    )
    parser.add_argument("--field", type=int, nargs="+", default=[0], help="columns of the FITS file (default 0)")
    parser.add_argument("--unit", default="", help="of the FITS file, when it states none")
    parser.add_argument("--polcconv", choices=["COSMO", "IAU"], default="COSMO", help="sign of U (default COSMO)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(options: argparse.Namespace) -> None:
    from sphereml.filaments.hough import HoughSettings, HoughTransform
    from sphereml.sky.grid import HealpixGrid

    names = ("length", "smoothing", "threshold", "orientations", "width", "softness", "subpixels")
    settings = HoughSettings(**{name: getattr(options, name) for name in names})
    if Path(options.out).exists() and not options.overwrite:  # before the work
        raise UserError(f"{options.out} exists", "add --overwrite, or choose another name with --out")
    inputs, weights, unit = _gas(options)
    transform = HoughTransform(HealpixGrid.of_size(len(inputs)), settings)
    pixel = 60 * transform.grid.resolution
    if settings.length < _FEW_PIXELS * pixel:
        say(f"note: a stick of {settings.length:g} arcmin is short for pixels of {pixel:.0f}: it sees little direction")
    start = time.perf_counter()
    stokes = _transformed(transform, inputs, weights)
    say(f"{inputs.shape[1]} map(s) of Nside {transform.grid.nside}: {time.perf_counter() - start:.1f} s")
    say(f"Q and U ({options.polcconv}): {_write(options, stokes, unit, settings)}")


def _gas(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, str]:
    """Maps ``(npix, nchan)``, the weight of each, and the unit of their weighted sum."""
    import numpy as np

    from sphereml.data.healpix_fits import read_healpix
    from sphereml.data.store import IN_KELVIN, is_store, open_store

    path = Path(options.map)
    if path.is_dir() and is_store(path):
        sky = open_store(path)
        if not sky.input_unit or any(field.spin for field in sky.input_fields):
            raise UserError(f"the inputs of {path} are no channels of one gas", "give a store of channels in one unit")
        if sky.velocity is not None and len(sky.velocity) > 1 and sky.input_unit in IN_KELVIN:
            return sky.inputs, np.abs(np.gradient(sky.velocity)) * IN_KELVIN[sky.input_unit], "K km/s"
        return sky.inputs, np.ones(sky.inputs.shape[1]), sky.input_unit
    if path.is_dir():
        raise UserError(f"{path} is not a sphereml store", "give a store made by this program, or a FITS file")
    maps = read_healpix(path, options.field, options.unit)
    return maps.values, np.ones(maps.values.shape[1]), maps.unit


def _transformed(transform: HoughTransform, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Q and U of the channels' weighted sum, ``(npix, 2)``, one channel in memory at a time."""
    import numpy as np
    import torch

    total = np.zeros((len(inputs), 2))
    for channel, weight in counted(list(enumerate(weights)), "channel", tell):
        one = torch.from_numpy(np.ascontiguousarray(inputs[:, channel : channel + 1], dtype=np.float64))
        total += weight * transform.stokes(one).numpy()
    return total


def _write(options: argparse.Namespace, stokes: np.ndarray, unit: str, settings: HoughSettings) -> Path:
    from sphereml import __version__
    from sphereml.templates.products import write_template

    sign = -1 if options.polcconv == "IAU" else 1
    header = {
        "model": "rolling Hough transform",
        "code_version": __version__,
        "POLCCONV": options.polcconv,
        "LENGTH": settings.length,
        "SMOOTH": settings.smoothing,
        "THRESH": settings.threshold,
        "ORIENT": settings.orientations,
    }
    maps = {"Q": stokes[:, 0], "U": sign * stokes[:, 1]}
    return write_template(options.out, maps, unit, header, overwrite=options.overwrite)
