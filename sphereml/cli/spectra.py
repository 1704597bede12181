"""``sphereml spectra MAP.fits --field I|QU --mask M.fits --edges 2,10,18,...``: decoupled bandpowers of masked maps."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphereml.cli.experiment import say
from sphereml.cli.projected_spectra import project, settle_projection
from sphereml.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from sphereml.cli.explicit_templates import ExplicitFit
    from sphereml.cli.spectra_inputs import Inputs, Part
    from sphereml.harmonics.bandpowers import Bandpowers
    from sphereml.harmonics.workspace import Workspace

# Spelled out here so that --help imports no transforms.
_KINDS = ("improved", "narrow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Files: FILE, or FILE[NAME] and FILE[#2] (from 0) for a column; NAME of Q and U is Q's, or what both have in "
        "common.  Without --lmax coefficients reach to 3 nside - 1, as NaMaster's; any lower one is possible, at the "
        "price of what the mask mixes in from beyond.  Above 2 nside HEALPix's own quadrature is off by per cents."
    )
    parser.add_argument("map", metavar="MAP", help="HEALPix map")
    parser.add_argument("--field", choices=("I", "QU", "IQU"), default="I", help="what to expand (default I)")
    parser.add_argument(
        "--cross",
        nargs="+",
        action="extend",
        default=[],
        metavar="MAP",
        help="cross spectrum with another map or splits",
    )
    parser.add_argument("--mask", metavar="FITS", help="weights, used as they are; of --mode-projection: kept above 0")
    parser.add_argument(
        "--apodize", type=float, default=0.0, metavar="DEG", help="width of the mask's taper, degrees (default 0)"
    )
    parser.add_argument("--unit", default="", help="unit of the maps, when their files state none")
    parser.add_argument(
        "--mode-projection", type=int, metavar="NSIDE",
        help="exact estimator in pixels for ell <= 3 NSIDE (16 at most) of the degraded map; --guess weighs the modes",
    )  # fmt: skip
    _add_bands(parser)
    _add_cleaning(parser)
    output = parser.add_argument_group("errors and output")
    output.add_argument(
        "--covariance", nargs="?", const="auto", choices=("auto", *_KINDS),
        help="Gaussian covariance: narrow (the guess as it stands; the default with --guess) or improved",
    )  # fmt: skip
    output.add_argument(
        "--jackknife", type=int, metavar="NSIDE", help="covariance by leaving out superpixels of this Nside"
    )
    output.add_argument("--workspace", metavar="FILE", help="keep the coupling here (npz), and use it again")
    output.add_argument("--out", metavar="FILE", help="write .fits, .csv, .json or .nc")
    output.add_argument("--windows", action="store_true", help="bandpower windows in --json too")
    output.add_argument("--json", action="store_true", help="one JSON object on standard output")
    output.add_argument("--no-checksum", action="store_true", help="take edited files whose checksum cards are stale")


def _add_bands(parser: argparse.ArgumentParser) -> None:
    bands = parser.add_argument_group("bands and beams")
    bands.add_argument("--edges", metavar="2,10,...", help="edges of half-open bands")
    bands.add_argument("--width", type=int, metavar="N", help="bands of N multipoles from --lmin to --lmax")
    bands.add_argument("--lmin", type=int, default=2, help="lowest multipole, where --width starts (default 2)")
    bands.add_argument("--lmax", type=int, help="highest multipole of the maps' coefficients (default 3 nside - 1)")
    bands.add_argument("--dl", action="store_true", help="ell(ell+1)/2pi C_ell")
    bands.add_argument("--beam", metavar="FILE|ARCMIN", help="b_ell from ell = 0, one a line; or a Gaussian's FWHM")
    bands.add_argument("--pixel-window", action="store_true", help="undo the averaging over pixels too")


def _add_cleaning(parser: argparse.ArgumentParser) -> None:
    cleaning = parser.add_argument_group("purification and templates")
    cleaning.add_argument("--purify-b", action="store_true", help="pure B (the mask must fall smoothly)")
    cleaning.add_argument("--purify-e", action="store_true", help="pure E")
    cleaning.add_argument(
        "--template", nargs="+", action="extend", default=[], metavar="FITS", help="templates to deproject"
    )
    cleaning.add_argument(
        "--explicit", action="store_true",
        help="fit one amplitude per template (for Q and U together) and subtract; default: implicit, that is deproject",
    )  # fmt: skip
    cleaning.add_argument(
        "--guess", metavar="FILE",
        help="spectra in the maps, beam included, a column each (order of the output; QU also EE, BB), from ell = 0: "
        "corrects the bias of deprojection; default: the bandpowers' own fit",
    )  # fmt: skip
    cleaning.add_argument(
        "--noise-variance",
        metavar="FITS",
        help="variance of a pixel's noise, in the map's unit squared: its bias is taken from an auto spectrum",
    )


def run(options: argparse.Namespace) -> None:
    """Read, estimate, and print or write bandpowers."""
    from sphereml.cli.explicit_templates import subtract_explicit
    from sphereml.cli.spectra_inputs import read_inputs
    from sphereml.data.bandpower_files import as_dict, write_bandpowers, writer_of
    from sphereml.harmonics.bandpowers import combine

    if options.out:
        writer_of(Path(options.out))
    if options.mode_projection is not None:
        settle_projection(options)
    inputs = read_inputs(options)
    parts = inputs.parts
    fits = [subtract_explicit(part, inputs.mask) for part in parts] if options.explicit else []
    results = [_estimate(part, inputs, options) for part in ([one.part for one in fits] or parts)]
    result = combine(results)
    facts = _facts(inputs, options) | _amplitudes(parts, fits, results)
    if options.out:
        write_bandpowers(options.out, result, facts)
    if options.json:
        say(json.dumps(as_dict(result, facts, options.windows)))
        for note in inputs.notes:
            print(note, file=sys.stderr)
        return
    _report(result, facts)


def _estimate(part: Part, inputs: Inputs, options: argparse.Namespace) -> Bandpowers:
    from sphereml.harmonics.jackknife import jackknife

    if options.mode_projection is not None:
        return project(part, inputs, options)
    workspace = _workspace(part, inputs, options)
    told = part.options(_covariance(part, options))
    if options.jackknife:
        return jackknife(workspace, part.maps, options.jackknife, **told)
    return workspace.bandpowers(*part.maps, **told)


def _covariance(part: Part, options: argparse.Namespace) -> str | None:
    if options.covariance != "auto":
        kind: str | None = options.covariance
        return kind
    return "narrow" if part.guess is not None and len(part.maps) == 1 else "improved"


def _workspace(part: Part, inputs: Inputs, options: argparse.Namespace) -> Workspace:
    """A new workspace, or the kept one when it is of the same mask, bands and settings."""
    from sphereml.harmonics.workspace import Workspace
    from sphereml.harmonics.workspace_file import fingerprint, read_fingerprint

    purify = {key: getattr(options, key) and 2 in part.spins for key in ("purify_e", "purify_b")}
    made = Workspace(
        inputs.mask, inputs.edges, inputs.beam, part.spins, lmax=inputs.lmax, dl=options.dl, **purify
    )  # fmt: skip
    if not options.workspace:
        return made
    path = Path(options.workspace)
    if not path.exists():
        made.save(path)
        return made
    if read_fingerprint(path) != fingerprint(made):
        raise UserError(f"{path} is of another mask, beam, bands or settings", "name another file, or remove it")
    return Workspace.load(path)


def _facts(inputs: Inputs, options: argparse.Namespace) -> dict[str, Any]:
    """What the output says beside the numbers."""
    kind = "projected" if options.mode_projection is not None else "explicit" if options.explicit else "implicit"
    treatment = kind if options.template else "none"
    return {"field": options.field, "lmax": inputs.lmax, "templates": treatment, "notes": list(inputs.notes)}


def _amplitudes(parts: list[Part], fits: list[ExplicitFit], results: list[Bandpowers]) -> dict[str, Any]:
    """Amplitudes ``(nmap, nt)`` with names, units and, where they were fitted explicitly, errors."""
    if fits:
        found = [{"values": one.amplitudes.tolist(), "errors": one.errors.tolist()} for one in fits]
    else:
        found = [{"values": one.amplitudes.tolist()} if one.amplitudes is not None else {} for one in results]
    # Parts of two different fields hold nothing that those of one field do not.
    named = [
        {"spectra": list(result.names), "names": list(part.labels), "units": list(part.label_units)} | one
        for part, result, one in zip(parts, results, found, strict=True)
        if part.labels and part.spins[0] == part.spins[1]
    ]
    return {"amplitudes": named} if named else {}


def _report(result: Bandpowers, facts: dict[str, Any]) -> None:
    for note in facts["notes"]:
        say(note)
    for one in facts.get("amplitudes", ()):
        for i, (label, unit) in enumerate(zip(one["names"], one["units"], strict=True)):
            values = [f"{row[i]:.5g}" for row in one["values"]]
            if "errors" in one:
                values = [f"{value} ± {row[i]:.2g}" for value, row in zip(values, one["errors"], strict=True)]
            say(f"{label}: amplitude {', '.join(values)} {unit}".rstrip() + f" ({facts['templates']})")
    errors = result.errors
    say(f"{'D' if result.dl else 'C'}_ell in {result.unit or 'map units squared'}, lo <= ell < hi")
    titles = [title for name in result.names for title in ([name] if errors is None else [name, "±"])]
    say(f"{'lo':>6}{'hi':>6}" + "".join(f"{title:>14}" for title in titles))
    for i, (lo, hi) in enumerate(zip(result.lower, result.upper, strict=True)):
        say(f"{lo:6d}{hi:6d}" + "".join(f"{value:14.5e}" for value in _row(result, errors, i)))


def _row(result: Bandpowers, errors: np.ndarray | None, band: int) -> list[float]:
    if errors is None:
        return [float(value) for value in result.values[:, band]]
    return [float(value) for pair in zip(result.values[:, band], errors[:, band], strict=True) for value in pair]
