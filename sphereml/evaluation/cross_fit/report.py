"""The study of cross-fitting as a page and as tables in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.cross_fit.result import CrossFitResult
from sphereml.evaluation.pages import open_environment, picture
from sphereml.evaluation.terminal_tables import open_console


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
        console.print(_leak_table(rows))
    if covered := result.coverage_rows():
        console.print(_coverage_table(covered))
    for note in result.content["notes"]:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _leak_table(rows: list[dict[str, Any]]) -> Table:
    table = _titled("share of the added CMB in the template (error, sigmas)")
    for heading in ("model", "strength", "of", "ell", "in-sample", "cross-fitted"):
        table.add_column(heading, justify="left" if heading in ("model", "of") else "right")
    cross_fitted = {_place(row): row for row in rows if row["kind"] == "cross_fitted"}
    for row in rows:
        if row["kind"] == "in_sample":
            pair = (_spelt(one) for one in (row, cross_fitted[_place(row)]))
            ell = f"{row['lo']:g}-{row['hi']:g}"
            table.add_row(row["model"], f"{row['strength']:g}", row["component"], ell, *pair)
    return table


def _coverage_table(rows: list[dict[str, Any]]) -> Table:
    table = _titled("truth within 1 and 2 sigma of the cross-fitted template")
    for heading in ("model", "sky", "of", "1 sigma", "2 sigma", "rms residual", "rms sigma"):
        table.add_column(heading, justify="left" if heading in ("model", "sky", "of") else "right")
    for row in rows:
        shares = (f"{row[key]:.1%}" for key in ("within_1_sigma", "within_2_sigma"))
        table.add_row(row["model"], row["sky"], row["field"], *shares, f"{row['rms']:.3g}", f"{row['sigma']:.3g}")
    return table


def _titled(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("model", "strength", "component", "lo"))


def _spelt(row: dict[str, Any]) -> str:
    return f"{row['transfer']:.4f} ({row['error']:.4f}, {row['sigmas']:+.1f})"
