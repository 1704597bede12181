"""Bandpowers as files: FITS, CSV, JSON and netCDF, chosen by the name's ending, whole or not at all.

Conventions: bands are half-open, ``lo <= ell < hi``.  FITS: a table BANDPOWERS (LO, HI, ELL, one column a spectrum, its
error in NAME_ERR), a table COUPLED (pseudo-spectra and their bias by ell), images WINDOWS ``(ncl, nbin, ncl, nell)``
and COVARIANCE ``(ncl, nbin, ncl, nbin)``, with the spectra's names in the cards SPEC1, ...  CSV: the first table.
JSON: all. netCDF: the xarray of :meth:`~sphereml.harmonics.bandpowers.Bandpowers.to_xarray`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sphereml.data.whole_files import write_atomically
from sphereml.errors import UserError
from sphereml.harmonics.bandpowers import Bandpowers


def write_bandpowers(path: Path | str, result: Bandpowers, facts: Mapping[str, Any]) -> Path:
    """Write bandpowers in the format that the file's name ends in.

    Args:
        facts: of their making (files, notes, amplitudes), for JSON and the FITS header's history.
    Raises:
        UserError: another ending than .fits, .csv, .json or .nc, or a folder that cannot be written.
    """
    path = Path(path)
    return write_atomically(path, writer_of(path)(result, facts))


def writer_of(path: Path) -> Callable[[Bandpowers, Mapping[str, Any]], bytes]:
    """The writer for a file's ending; raises UserError for one that there is not."""
    if path.suffix not in _WRITERS:
        raise UserError(f"no format is known for {path.name}", f"end it in {', '.join(_WRITERS)}")
    return _WRITERS[path.suffix]


def as_dict(result: Bandpowers, facts: Mapping[str, Any] | None = None, windows: bool = True) -> dict[str, Any]:
    """Bandpowers as plain lists: ``lo``, ``hi`` and the values of each spectrum under ``cl`` (or ``dl``) first."""
    content: dict[str, Any] = {
        "lo": result.lower.tolist(),
        "hi": result.upper.tolist(),
        "dl" if result.dl else "cl": _by_name(result, result.values),
        "ell": result.ell.tolist(),
        "unit": result.unit,
        "coupled": _by_name(result, result.coupled),
        "bias": _by_name(result, result.bias),
    }
    errors = result.errors
    if errors is not None and result.covariance is not None:
        content["errors"] = _by_name(result, errors)
        blocks = zip(result.names, result.covariance, strict=True)
        content["covariance"] = {
            "kind": result.covariance_kind,
            **{f"{a}{b}": _finite(block[:, j]) for a, block in blocks for j, b in enumerate(result.names)},
        }
    if windows:
        content["windows"] = {
            f"{a}{b}": result.windows[i, :, j].tolist()
            for i, a in enumerate(result.names) for j, b in enumerate(result.names)
        }  # fmt: skip
    return content | dict(facts or {})


def _by_name(result: Bandpowers, rows: np.ndarray) -> dict[str, list[float]]:
    return dict(zip(result.names, rows.tolist(), strict=True))


def _finite(block: np.ndarray) -> list[list[float]] | None:
    return None if np.isnan(block).any() else block.tolist()


def _json(result: Bandpowers, facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(as_dict(result, facts), indent=1) + "\n").encode()


def _csv(result: Bandpowers, facts: Mapping[str, Any]) -> bytes:
    stream = io.StringIO()
    columns = _columns(result)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([name.lower() if name in ("LO", "HI", "ELL") else name for name, _, _ in columns])
    writer.writerows(zip(*(values.tolist() for _, values, _ in columns), strict=True))
    return stream.getvalue().encode()


def _columns(result: Bandpowers) -> list[tuple[str, np.ndarray, str]]:
    """Name, values and unit of the table's columns."""
    columns = [("LO", result.lower, ""), ("HI", result.upper, ""), ("ELL", result.ell, "")]
    errors = result.errors
    for i, name in enumerate(result.names):
        columns.append((name, result.values[i], result.unit))
        if errors is not None:
            columns.append((f"{name}_ERR", errors[i], result.unit))
    return columns


def _fits(result: Bandpowers, facts: Mapping[str, Any]) -> bytes:
    table = _table("BANDPOWERS", _columns(result))
    table.header["QUANTITY"] = "D_ell" if result.dl else "C_ell"
    for note in facts.get("notes", ()):
        table.header.add_history(note.encode("ascii", "replace").decode())
    coupled = [("ELL", np.arange(result.coupled.shape[1]), "")]
    for i, name in enumerate(result.names):
        coupled += [(name, result.coupled[i], result.unit), (f"{name}_BIAS", result.bias[i], result.unit)]
    hdus = [fits.PrimaryHDU(), table, _table("COUPLED", coupled), fits.ImageHDU(result.windows, name="WINDOWS")]
    if result.covariance is not None:
        hdus.append(fits.ImageHDU(result.covariance, name="COVARIANCE"))
        hdus[-1].header["KIND"] = result.covariance_kind
    for hdu in hdus[1:]:
        hdu.header.update({f"SPEC{i + 1}": name for i, name in enumerate(result.names)})
    stream = io.BytesIO()
    for hdu in hdus:
        hdu.add_checksum(when="of the HDU")
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


def _table(name: str, columns: list[tuple[str, np.ndarray, str]]) -> fits.BinTableHDU:
    made = [
        fits.Column(key, "K" if values.dtype.kind == "i" else "D", unit=unit or None, array=values)
        for key, values, unit in columns
    ]
    return fits.BinTableHDU.from_columns(made, name=name)


def _netcdf(result: Bandpowers, facts: Mapping[str, Any]) -> bytes:
    return bytes(result.to_xarray().to_netcdf(engine="scipy"))


_WRITERS: dict[str, Callable[[Bandpowers, Mapping[str, Any]], bytes]] = {
    ".fits": _fits, ".csv": _csv, ".json": _json, ".nc": _netcdf,
}  # fmt: skip
