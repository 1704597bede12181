"""``sphereml hough MAP --length 75 --smoothing 30 --threshold 0.7 --orientations 25 --out QU.fits``.

MAP is a HEALPix FITS file, of which one column or several are taken, or a store, of which every channel is.  Channels
are read, transformed and added one by one.  ``--method tensor`` takes the structure tensor in place of the Hough
transform, ``--method derivatives`` the second derivatives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphereml.cli.output import say, tell
from sphereml.errors import UserError
from sphereml.progress import TimeLeft

if TYPE_CHECKING:
    import numpy as np

    from sphereml.data.gas_channels import GasChannels

    Transform = Callable[[np.ndarray], np.ndarray]

_FEW_PIXELS = 3
# What each method reads; what is not given has the default of its settings.
_SETTINGS = {
    "hough": ("length", "smoothing", "threshold", "orientations", "width", "softness", "subpixels"),
    "tensor": ("fine", "coarse", "neighbourhood"),
    "derivatives": ("fine",),
}


@dataclass(frozen=True)
class _Method:
    """Name and settings, as they go into the file, and what turns a channel ``(npix,)`` into Q and U ``(npix, 2)``."""

    name: str
    cards: dict[str, float]
    transform: Callable[[GasChannels], Transform]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("map", metavar="MAP", help="HEALPix FITS file, or a store (all of its channels)")
    parser.add_argument(
        "--out", required=True, metavar="FITS", help="Q and U, in the map's unit (K km/s of channels in K)"
    )
    parser.add_argument("--method", choices=list(_METHODS), default="hough", help="what finds ridges (default hough)")
    parser.add_argument("--length", type=float, help="of the stick, arcmin (default 75)")
    parser.add_argument("--smoothing", type=float, help="FWHM of the unsharp mask, arcmin (default 30)")
    parser.add_argument("--threshold", type=float, help="share of the stick that must shine (default 0.7)")
    parser.add_argument("--orientations", type=int, help="angles over 180 degrees (default 25)")
    parser.add_argument("--width", type=float, help="FWHM of the stick, arcmin (default: a row of pixels)")
    parser.add_argument("--softness", type=float, help="of the thresholds (default 0: Clark's hard ones)")
    parser.add_argument("--subpixels", type=int, help="of the mask, to a pixel's side (default 4; 1 is quick)")
    what = "degrees sigma; of the tensor and the derivatives: smoothing below which nothing counts (default 0.5)"
    parser.add_argument("--fine", type=float, help=what)
    what = "degrees sigma; of the tensor: smoothing above which nothing counts (default 6)"
    parser.add_argument("--coarse", type=float, help=what)
    what = "degrees sigma; over which the tensor is averaged (default 8)"
    parser.add_argument("--neighbourhood", type=float, help=what)
    parser.add_argument("--field", type=int, nargs="+", default=[0], help="columns of the FITS file (default 0)")
    parser.add_argument("--unit", default="", help="of the FITS file, when it states none")
    parser.add_argument("--polcconv", choices=["COSMO", "IAU"], default="COSMO", help="sign of U (default COSMO)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(options: argparse.Namespace) -> None:
    import numpy as np

    from sphereml.data.gas_channels import open_gas

    if Path(options.out).exists() and not options.overwrite:  # before the work
        raise UserError(f"{options.out} exists", "add --overwrite, or choose another name with --out")
    method = _METHODS[options.method](options)
    gas = open_gas(Path(options.map), options.field, options.unit)
    start = time.perf_counter()
    transform, total = method.transform(gas), np.zeros((gas.grid.npix, 2))
    left = TimeLeft(len(gas))
    for channel, intensity in enumerate(gas, start=1):
        total += transform(intensity)
        if channel % 16 == 0:
            tell(f"channel {channel}/{len(gas)}{left(channel)}")
    say(f"{len(gas)} map(s) of Nside {gas.grid.nside}: {time.perf_counter() - start:.1f} s")
    say(f"Q and U ({options.polcconv}): {_write(options, total, gas.unit, method)}")


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of the method that were given; raises UserError for one of another method."""
    given = {name: value for name in chain(*_SETTINGS.values()) if (value := getattr(options, name)) is not None}
    if others := [name for name in given if name not in _SETTINGS[options.method]]:
        own = ", ".join(f"--{name}" for name in _SETTINGS[options.method])
        raise UserError(f"--{others[0]} says nothing to --method {options.method}", f"leave it out; there is {own}")
    return given


def _hough(options: argparse.Namespace) -> _Method:
    from sphereml.filaments.settings import HoughSettings

    settings = HoughSettings(**_given(options))

    def transform(gas: GasChannels) -> Transform:
        import torch

        from sphereml.filaments.hough import HoughTransform

        pixel = 60 * gas.grid.resolution
        if settings.length < _FEW_PIXELS * pixel:
            short = f"a stick of {settings.length:g} arcmin is short for pixels of {pixel:.0f}"
            say(f"note: {short}: it sees little direction")
        hough = HoughTransform(gas.grid, settings)
        return lambda intensity: hough.stokes(torch.from_numpy(intensity[:, None])).numpy()

    cards = {
        "LENGTH": settings.length,
        "SMOOTH": settings.smoothing,
        "THRESH": settings.threshold,
        "ORIENT": settings.orientations,
    }
    return _Method("rolling Hough transform", cards, transform)


def _tensor(options: argparse.Namespace) -> _Method:
    from sphereml.filaments.tensor import FLOOR, TensorSettings, tensor_orientation

    settings = TensorSettings(**_given(options))

    def transform(gas: GasChannels) -> Transform:
        floor = FLOOR * gas.mean()
        return lambda intensity: intensity[:, None] * tensor_orientation(intensity, floor, settings)

    cards = {"FINE": settings.fine, "COARSE": settings.coarse, "NEIGHB": settings.neighbourhood}
    return _Method("structure tensor", cards, transform)


def _derivatives(options: argparse.Namespace) -> _Method:
    from sphereml.filaments.derivatives import second_derivatives

    fine = _given(options).get("fine", 0.5)
    if fine < 0:
        raise UserError(f"--fine {fine:g} is no smoothing", "give 0 degrees or more")

    def transform(gas: GasChannels) -> Transform:
        # Across ridges, as the others: eth^2 is negative there.
        return lambda intensity: -second_derivatives(intensity[:, None], (fine,))[:, 0]

    return _Method("second derivatives", {"FINE": fine}, transform)


_METHODS = {"hough": _hough, "tensor": _tensor, "derivatives": _derivatives}


def _write(options: argparse.Namespace, stokes: np.ndarray, unit: str, method: _Method) -> Path:
    from sphereml import __version__
    from sphereml.templates.products import write_template

    sign = -1 if options.polcconv == "IAU" else 1
    header = {"model": method.name, "code_version": __version__, "POLCCONV": options.polcconv, **method.cards}
    maps = {"Q": stokes[:, 0], "U": sign * stokes[:, 1]}
    return write_template(options.out, maps, unit, header, overwrite=options.overwrite)
