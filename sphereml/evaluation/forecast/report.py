"""The forecast of r as a page and as a table in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.forecast.result import CARRIED, ForecastResult
from sphereml.evaluation.pages import open_environment, picture
from sphereml.evaluation.terminal_tables import open_console


def write_forecast_report(result: ForecastResult, folder: Path) -> Path:
    """Write ``folder/report.html``; raises UserError when a figure is missing."""
    template = open_environment().get_template("forecast/report.html.j2")
    surveys = result.content["surveys"]
    pictures = {name: picture(folder / "figures" / f"r_{name}.png", result.remake) for name in surveys}
    contamination = result.contamination_rows()
    tables = {"rows": result.rows(), "carried": CARRIED, "contamination": contamination}
    page = template.render(content=result.content, pictures=pictures, **tables)
    return write_atomically(folder / "report.html", page.encode())


def print_table(result: ForecastResult) -> None:
    """Bias of r, its standard error and the stated error, by survey, template and method."""
    table = Table(title="bias of r (error) and stated sigma", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("survey", "template", "method", "r", "bias", "sigma", "carried", "sigma", "measured", "sigma"):
        table.add_column(heading, justify="left" if heading in ("survey", "template", "method") else "right")
    for row in result.rows():
        table.add_row(
            *(str(row[key]) for key in ("survey", "template", "method", "r")),
            *(text for kind in ("", *(f"_{one}" for one in CARRIED)) for text in _spelt(row, kind)),
        )
    console = open_console()
    console.print(table)
    if rows := result.contamination_rows():
        console.print(_contamination_table(rows))
    for note in result.content["notes"]:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _spelt(row: dict[str, Any], kind: str) -> tuple[str, str]:
    """Bias with its error, and sigma; dashes in a result of before they were measured."""
    if f"bias{kind}" not in row:
        return "-", "-"
    return f"{row['bias' + kind]:.4f} ({row['error' + kind]:.4f})", f"{row['sigma' + kind]:.4f}"


def _contamination_table(rows: list[dict[str, Any]]) -> Table:
    title = "r with the CMB of the sky in the template's target, less r without (error)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "template", "method", "strength", "all of it", "by that CMB"):
        table.add_column(heading, justify="right" if heading == "strength" else "left")
    for row in rows:
        changes = (f"{row[key]['mean']:.4f} ({row[key]['error']:.4f})" for key in ("change", "shared"))
        table.add_row(row["model"], row["kind"], row["method"], f"{row['strength']:g}", *changes)
    return table
