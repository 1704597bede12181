"""``sphereml lensing n0 --noise 1 --beam 1 --lmin 30 --lmax 4000 [--json]``: noise of quadratic lensing estimators."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import fields
from typing import Any

from sphereml.cli.output import say
from sphereml.config.documentation import document_keys
from sphereml.config.lensing import Cosmology
from sphereml.errors import UserError

_SHOWN = (2, 10, 30, 100, 300, 500, 1000, 1500, 2000, 2500, 3000, 4000, 5000)
# Spelled out here so that --help imports neither the estimators nor CAMB.
_RESIDUALS, _E_FILTERS = ("ratio", "camb", "first"), ("lensed", "unlensed")
_FIDUCIAL = Cosmology()
_CURVES = ("N0_EB", "N0_EB_iterated", "N0_EE", "N0_MV")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--noise", type=float, default=1.0, help="noise of Q and U, uK-arcmin (default 1)")
    parser.add_argument("--beam", type=float, default=1.0, help="FWHM of the beam, arcmin (default 1)")
    parser.add_argument("--lmin", type=int, default=30, help="lowest multipole of E and B (default 30)")
    parser.add_argument("--lmax", type=int, default=4000, help="highest multipole of E and B (default 4000)")
    parser.add_argument(
        "--Lmax", type=int, default=None, help="highest multipole of kappa (default 3000, or what --lmax reaches)"
    )
    parser.add_argument(
        "--residual", choices=_RESIDUALS, default="ratio", help="what delensing leaves of B (default ratio)"
    )
    parser.add_argument(
        "--e-filter", choices=_E_FILTERS, default="lensed", help="E in delensing's filter (default lensed)"
    )
    parser.add_argument(
        "--spectra-lmax", type=int, default=6000, help="highest multipole of CAMB's spectra (default 6000)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, every L from 2; null where infinite")
    cosmology = parser.add_argument_group(
        "cosmology", "flat LCDM; the defaults are Planck 2013's, as in arXiv:1810.01483"
    )
    for name, document in document_keys(Cosmology, {}).items():
        about = f"{document} (default {getattr(_FIDUCIAL, name):g})"
        cosmology.add_argument(f"--{name}", type=float, default=getattr(_FIDUCIAL, name), metavar="X", help=about)


def run(options: argparse.Namespace) -> None:
    curves = _n0(options)
    if options.json:
        say(json.dumps(curves))
        return
    timed = curves["seconds"]
    say(f"N0 of kappa; residual {options.residual}, E filter {options.e_filter}, {curves['steps']} steps")
    say("     L" + "".join(f"{name:>16}" for name in _CURVES))
    for ell in (ell for ell in _SHOWN if ell <= curves["L"][-1]):
        say(f"{ell:6d}" + "".join(f"{_spell(curves[name][ell - 2]):>16}" for name in _CURVES))
    say("  ".join(f"{name} {seconds:.2f} s" for name, seconds in timed.items()))


def _n0(options: argparse.Namespace) -> dict[str, Any]:
    from sphereml.lensing.iterated import Iteration, iterate_eb
    from sphereml.lensing.noise import NoiseModel, combined
    from sphereml.lensing.observation import Observation
    from sphereml.simulate.cmb_spectra import load_spectra

    observation = Observation(options.noise, options.beam, options.lmin, options.lmax)
    _refuse_short(options)
    given = {one.name: getattr(options, one.name) for one in fields(Cosmology)}
    start = time.perf_counter()
    spectra = load_spectra(options.spectra_lmax, Cosmology(**given))
    loaded = time.perf_counter()
    model = NoiseModel(spectra, observation, _lmax_kappa(options))
    eb, ee = model.eb(), model.ee()
    estimated = time.perf_counter()
    iterated = iterate_eb(model, Iteration(options.residual, options.e_filter))
    seconds = {"spectra": loaded - start, "N0": estimated - loaded, "iterated": time.perf_counter() - estimated}
    curves = dict(zip(_CURVES, (eb, iterated.n0, ee, combined(eb, ee)), strict=True))
    return {
        "L": list(range(2, model.lmax_kappa + 1)),
        **{name: _finite(curve[2:].tolist()) for name, curve in curves.items()},
        "residual": options.residual, "e_filter": options.e_filter, "steps": iterated.steps,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }  # fmt: skip


def _finite(curve: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in curve]


def _spell(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.5e}"


def _lmax_kappa(options: argparse.Namespace) -> int:
    chosen: int = min(3000, 2 * options.lmax - 1) if options.Lmax is None else options.Lmax
    if chosen < 2:
        raise UserError(f"--Lmax {chosen} is impossible", "give 2 or more")
    return chosen


def _refuse_short(options: argparse.Namespace) -> None:
    """Before CAMB runs."""
    if options.lmax > options.spectra_lmax:
        what = f"--lmax {options.lmax} is above --spectra-lmax {options.spectra_lmax}"
        raise UserError(what, "lower --lmax or raise --spectra-lmax (CAMB is exact well below it)")
    _lmax_kappa(options)
