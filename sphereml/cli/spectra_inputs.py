"""What ``sphereml spectra`` reads: maps, mask, templates, beam, guess, and what its user should be told of them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sphereml.config.bounds import refuse_special
from sphereml.errors import UserError

if TYPE_CHECKING:
    from sphereml.data.field_maps import FieldMaps

_SPINS = {"I": ((0, 0),), "QU": ((2, 2),), "IQU": ((0, 0), (0, 2), (2, 2))}
# Columns of a guess that leaves out what is zero, in the order of the output.
_SHORT_GUESS: dict[str, dict[int, tuple[str, ...]]] = {
    "QU": {2: ("EE", "BB"), 3: ("EE", "EB", "BB")},
    "IQU": {4: ("TT", "EE", "BB", "TE")},
}


@dataclass(frozen=True, eq=False)
class Part:
    """What one pair of spins needs: maps (one, two or splits), templates, guess, noise."""

    spins: tuple[int, int]
    maps: tuple[np.ndarray, ...]
    templates: np.ndarray | None
    second_templates: np.ndarray | None
    labels: tuple[str, ...]
    label_units: tuple[str, ...]
    guess: np.ndarray | None
    noise_variance: np.ndarray | None
    unit: str

    def options(self, covariance: str | None) -> dict[str, Any]:
        """Keyword arguments of ``Workspace.bandpowers``."""
        given = {key: getattr(self, key) for key in ("templates", "guess", "noise_variance", "unit")}
        others = {"second_templates": self.second_templates} if self.spins[0] != self.spins[1] else {}
        return given | others | {"covariance": covariance}


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything read and checked.

    Attributes:
        notes: lines for the user.
    """

    mask: np.ndarray
    edges: list[int]
    beam: np.ndarray | None
    lmax: int
    parts: list[Part]
    notes: list[str] = field(default_factory=list)


def read_inputs(options: argparse.Namespace) -> Inputs:
    """Read every file of the command line.

    Raises:
        UserError: a file cannot be read or does not fit the others; options contradict each other.
    """
    from sphereml.harmonics.workspace import Workspace

    _refuse_contradictions(options)
    spins = sorted({spin for pair in _SPINS[options.field] for spin in pair})
    maps = [{spin: _field(name, spin, options) for spin in spins} for name in (options.map, *options.cross)]
    templates = {spin: [_fields(name, spin, options) for name in options.template] for spin in spins}
    first = maps[0][spins[0]]
    everything = [(name, one[spin]) for name, one in zip((options.map, *options.cross), maps, strict=True)
                  for spin in spins]  # fmt: skip
    everything += [(name, one) for spin in spins for name, one in zip(options.template, templates[spin], strict=True)]
    for name, one in everything:
        _refuse_other_sky(name, one, first)
    notes: list[str] = []
    mask = _mask(options, first, everything, notes)
    lmax = 3 * first.grid.nside - 1 if options.lmax is None else options.lmax
    edges = _edges(options, lmax)
    beam = _beam(options, first.grid.nside, lmax)
    Workspace(mask, edges, beam, lmax=lmax)  # refuses bands, beams and masks before anything is transformed
    if edges[-1] > 2 * first.grid.nside + 1:
        notes.append(
            f"bands above ell = {2 * first.grid.nside} (2 nside) are off by HEALPix's quadrature, by per cents"
        )
    projects = options.mode_projection is not None
    if projects and not np.isin(mask, (0, 1)).all():
        notes.append(
            "the mask's weights are not used: --mode-projection keeps every pixel above 0, and weighs by itself"
        )
    if options.guess and not (options.template or options.covariance or projects):
        notes.append("--guess is not used: there is no --template whose bias it could correct, and no --covariance")
    parts = [_part(pair, maps, templates, options, lmax) for pair in _SPINS[options.field]]
    return Inputs(mask, edges, beam, lmax, parts, notes)


def _refuse_contradictions(options: argparse.Namespace) -> None:
    if (options.edges is None) == (options.width is None):
        what = "no bands" if options.edges is None else "both --edges and --width"
        raise UserError(what, "give --edges 2,20,60 or --width 20")
    if options.field == "I" and (options.purify_b or options.purify_e):
        raise UserError("nothing to purify in intensity", "leave out --purify, or ask for --field QU")
    if options.workspace and options.field == "IQU":
        raise UserError("a workspace is of one pair of spins", "use --workspace with --field I or QU")
    if options.covariance and options.jackknife is not None:
        raise UserError("both --covariance and --jackknife", "give one of the two")
    if options.explicit and not options.template:
        raise UserError("--explicit without --template", "give templates to fit")
    if options.noise_variance and (options.cross or options.field == "IQU"):
        raise UserError("--noise-variance is of one auto spectrum", "leave out --cross, and ask for --field I or QU")


def _field(name: str, spin: int, options: argparse.Namespace) -> FieldMaps:
    from sphereml.data.field_maps import read_field

    return read_field(name, spin, options.unit, options.no_checksum)


def _fields(name: str, spin: int, options: argparse.Namespace) -> FieldMaps:
    from sphereml.data.field_maps import read_fields

    return read_fields(name, spin, edited=options.no_checksum)


def _refuse_other_sky(name: str, one: FieldMaps, first: FieldMaps) -> None:
    if one.grid != first.grid:
        raise UserError(f"{name} has Nside {one.grid.nside}, the map {first.grid.nside}", "bring all to one Nside")
    if one.frame != first.frame:
        raise UserError(f"{name} is in the frame {one.frame}, the map in {first.frame}", "bring all to one frame")


def _mask(
    options: argparse.Namespace, first: FieldMaps, maps: list[tuple[str, FieldMaps]], notes: list[str]
) -> np.ndarray:
    """Weights, zero wherever a map or a template is missing."""
    from sphereml.data.healpix_fits import read_sky_weights
    from sphereml.data.healpix_tables import UnsaidCards
    from sphereml.sky.masks import apodize

    weights = np.ones(first.grid.npix)
    if options.mask:
        silent = UnsaidCards(frame=first.frame, edited=options.no_checksum)
        mask = read_sky_weights(options.mask, first.grid, silent, any_frame=True)
        if mask.frame != first.frame:
            raise UserError(
                f"the mask is in the frame {mask.frame}, the map in {first.frame}", "bring both to one frame"
            )
        weights = mask.values
    if options.apodize:
        weights = weights * apodize(weights, first.grid, options.apodize)
    for name, one in maps:
        lost = one.missing & (weights > 0)
        if lost.any():
            notes.append(f"{name}: {lost.sum()} pixels are missing that the mask keeps; they get mask 0")
            weights = np.where(lost, 0.0, weights)
    if not weights.any():
        raise UserError("no pixel is left: where the mask keeps the sky, maps are missing", "check mask and maps")
    if (options.purify_b or options.purify_e) and (np.isin(weights, (0, weights.max())).all() or len(notes)):
        notes.append("pure B needs a mask that falls smoothly to 0, around missing pixels too (--apodize)")
    return weights


def _edges(options: argparse.Namespace, lmax: int) -> list[int]:
    if options.width is not None:
        if options.width < 1 or not 0 <= options.lmin <= lmax + 1 - options.width:
            raise UserError(f"--width {options.width} from {options.lmin} to {lmax}", "give at least one whole band")
        return list(range(options.lmin, lmax + 2, options.width))
    try:
        edges = [int(word) for word in options.edges.replace(",", " ").split()]
    except ValueError:
        raise UserError(f"--edges {options.edges!r} are no integers", "give e.g. 2,10,18") from None
    if len(edges) < 2 or edges[0] < 0 or any(lo >= hi for lo, hi in pairwise(edges)):
        raise UserError(f"--edges {options.edges} do not increase", "give two or more, e.g. 2,10,18")
    return edges


def _beam(options: argparse.Namespace, nside: int, lmax: int) -> np.ndarray | None:
    from sphereml.harmonics.filters import gaussian_beam
    from sphereml.harmonics.pixel_window import pixel_window

    beam = None
    if options.beam:
        try:
            width = float(options.beam)
        except ValueError:
            beam = _columns(options.beam)[:, -1]
        else:
            if not 0 <= width < np.inf:
                raise UserError(f"a beam of {width:g} arcmin", "give a FWHM of 0 or more, or a file")
            beam = gaussian_beam(lmax, width)
        if len(beam) <= lmax:
            raise UserError(f"{options.beam} ends at ell = {len(beam) - 1}", f"give it to {lmax}, or lower --lmax")
    if options.pixel_window:
        window = pixel_window(nside, lmax)
        beam = window if beam is None else beam[: lmax + 1] * window
    return beam


def _columns(path: str) -> np.ndarray:
    """Numbers of a text file, ``(row, column)``, without a first column that counts 0, 1, 2, ..."""
    refuse_special(Path(path).expanduser())
    try:
        table = np.loadtxt(Path(path).expanduser(), ndmin=2)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})", "check the file name") from None
    except ValueError as error:
        raise UserError(f"{path} is no table of numbers ({error})", "give a line for each ell from 0") from None
    if not table.size or not np.isfinite(table).all():
        raise UserError(f"{path} is empty or holds values that are not finite", "give a line for each ell from 0")
    counts = table.shape[1] > 1 and np.array_equal(table[:, 0], np.arange(len(table)))
    return table[:, 1:] if counts else table


def _part(
    spins: tuple[int, int],
    maps: list[dict[int, FieldMaps]],
    templates: dict[int, list[FieldMaps]],
    options: argparse.Namespace,
    lmax: int,
) -> Part:
    first, second = spins
    fields = [one[first] for one in maps]
    if first != second:
        if len(maps) > 2:
            raise UserError("TE and TB of more than two splits", "ask for --field I and --field QU")
        fields = [maps[0][first], maps[-1][second]]
    stacks = {spin: _stack(templates[spin], spin) for spin in set(spins)}
    noise = _noise(options, maps[0][first]) if options.noise_variance else None
    units = [one.unit for one in (fields[0], fields[-1])]
    return Part(
        spins,
        tuple(_plain(one.values[0], one_spin) for one, one_spin in zip(fields, _each(spins, len(fields)), strict=True)),
        stacks[first],
        stacks[second],
        tuple(name for one in templates[first] for name in one.names),
        tuple(_ratio(fields[0].unit, one.unit) for one in templates[first] for _ in one.names),
        _guess(options, spins, lmax) if options.guess else None,
        noise,
        _product(units),
    )


def _each(spins: tuple[int, int], count: int) -> tuple[int, ...]:
    return spins if spins[0] != spins[1] else (spins[0],) * count


def _plain(values: np.ndarray, spin: int) -> np.ndarray:
    return values if spin else values[0]


def _stack(templates: list[FieldMaps], spin: int) -> np.ndarray | None:
    if not templates:
        return None
    values = np.concatenate([one.values for one in templates])
    return values if spin else values[:, 0]


def _product(units: list[str]) -> str:
    if not any(units):
        return ""
    return f"{units[0]}^2" if units[0] == units[1] else " ".join(unit or "1" for unit in units)


def _ratio(unit: str, template: str) -> str:
    """Unit of an amplitude, empty for a pure number."""
    return "" if unit == template else f"{unit or '1'} per {template or '1'}"


def _noise(options: argparse.Namespace, first: FieldMaps) -> np.ndarray:
    from sphereml.data.field_maps import read_field

    noise = read_field(options.noise_variance, 0, "1", options.no_checksum)
    _refuse_other_sky(options.noise_variance, noise, first)
    return np.asarray(np.nan_to_num(noise.values[0, 0], nan=0.0))


def _guess(options: argparse.Namespace, spins: tuple[int, int], lmax: int) -> np.ndarray:
    """The rows of the guess that belong to one pair of spins, ``(ncl, lmax + 1)``."""
    from sphereml.harmonics.bandpowers import spectrum_names

    names = [name for pair in _SPINS[options.field] for name in spectrum_names(pair)]
    table = _columns(options.guess)
    given = _SHORT_GUESS.get(options.field, {}).get(table.shape[1], tuple(names))
    if table.shape[1] != len(given):
        raise UserError(f"{options.guess} has {table.shape[1]} columns", f"give {len(names)}: {', '.join(names)}")
    if len(table) <= lmax:
        raise UserError(f"{options.guess} ends at ell = {len(table) - 1}", f"give it to {lmax}, or lower --lmax")
    columns = dict(zip(given, table[: lmax + 1].T, strict=True))
    if "EB" in columns:
        columns.setdefault("BE", columns["EB"])
    return np.stack([columns.get(name, np.zeros(lmax + 1)) for name in spectrum_names(spins)])
