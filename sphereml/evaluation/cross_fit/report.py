"""The study of cross-fitting as a page and as tables in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.cross_fit.result import CrossFitResult
from sphereml.evaluation.pages import open_environment, picture
from sphereml.evaluation.terminal_tables import open_console, print_table


def write_cross_fit_report(result: CrossFitResult, folder: Path) -> Path:
    """Write ``folder/report.html``; raises UserError when the figure is missing."""
    template = open_environment().get_template("cross_fit/report.html.j2")
    rows = result.rows()
    page = template.render(
        content=result.content,
        rows=rows,
        coverage=result.coverage_rows(),
        figure=picture(folder / "figures" / "transfer.png", result.remake) if rows else None,
    )
    return write_atomically(folder / "report.html", page.encode())


def print_tables(result: CrossFitResult) -> None:
    """The leak by model, strength and band with both kinds side by side, then the coverage of the errors."""
    console = open_console()
    if rows := result.rows():
        headings = ["model, strength, of, ell", "in-sample", "cross-fitted"]
        print_table(console, "share of the added CMB in the template (error, sigmas)", headings, _leak_cells(rows))
    if covered := result.coverage_rows():
        headings = ["model, sky, of", "1 sigma", "2 sigma", "rms residual", "rms sigma"]
        title = "truth within 1 and 2 sigma of the cross-fitted template"
        print_table(console, title, headings, [_coverage_cells(row) for row in covered])
    for note in result.content["notes"]:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _leak_cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    cross_fitted = {_place(row): row for row in rows if row["kind"] == "cross_fitted"}
    return [
        [
            f"{row['model']} {row['strength']:g} {row['component']} {row['lo']:g}-{row['hi']:g}",
            *(_spelt(one) for one in (row, cross_fitted[_place(row)])),
        ]
        for row in rows
        if row["kind"] == "in_sample"
    ]


def _coverage_cells(row: dict[str, Any]) -> list[str]:
    shares = (f"{row[key]:.1%}" for key in ("within_1_sigma", "within_2_sigma"))
    return [f"{row['model']} {row['sky']} {row['field']}", *shares, f"{row['rms']:.3g}", f"{row['sigma']:.3g}"]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("model", "strength", "component", "lo"))


def _spelt(row: dict[str, Any]) -> str:
    return f"{row['transfer']:.4f} ({row['error']:.4f}, {row['sigmas']:+.1f})"
