"""The forecast of r as a page and as a table in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.forecast.result import CARRIED, ForecastResult
from sphereml.evaluation.pages import open_environment, picture
from sphereml.evaluation.terminal_tables import open_console, print_table


def write_forecast_report(result: ForecastResult, folder: Path) -> Path:
    """Write ``folder/report.html``; raises UserError when a figure is missing."""
    template = open_environment().get_template("forecast/report.html.j2")
    surveys = result.content["surveys"]
    pictures = {name: picture(folder / "figures" / f"r_{name}.png", result.remake) for name in surveys}
    contamination = result.contamination_rows()
    tables = {"rows": result.rows(), "carried": CARRIED, "contamination": contamination}
    page = template.render(content=result.content, pictures=pictures, **tables)
    return write_atomically(folder / "report.html", page.encode())


def print_forecast(result: ForecastResult) -> None:
    """Bias of r, its standard error and the stated error, by survey, template and method."""
    carried = [heading for kind in ("carried", "measured") for heading in (f"bias, {kind}", f"sigma, {kind}")]
    rows = [
        [
            f"{row['survey']} {row['template']} {row['method']} {row['r']}",
            *(text for kind in ("", *(f"_{one}" for one in CARRIED)) for text in _spelt(row, kind)),
        ]
        for row in result.rows()
    ]
    console, names = open_console(), "survey, template, method, r"
    print_table(console, "bias of r (error) and stated sigma", [names, "bias", "sigma", *carried], rows)
    if rows := [_contamination_cells(row) for row in result.contamination_rows()]:
        title = "1000 times: r with the CMB of the sky in the template's target, less r without (error)"
        headings = ["model, template, method", "strength", "all of it", "by that CMB"]
        print_table(console, title, headings, rows)
    for note in result.content["notes"]:
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def _spelt(row: dict[str, Any], kind: str) -> tuple[str, str]:
    """Bias with its error, and sigma; dashes in a result of before they were measured."""
    if f"bias{kind}" not in row:
        return "-", "-"
    return f"{row['bias' + kind]:.4f} ({row['error' + kind]:.4f})", f"{row['sigma' + kind]:.4f}"


def _contamination_cells(row: dict[str, Any]) -> list[str]:
    changes = (f"{1e3 * row[key]['mean']:.3f} ({1e3 * row[key]['error']:.3f})" for key in ("change", "shared"))
    return [f"{row['model']} {row['kind'].replace('_', '-')} {row['method']}", f"{row['strength']:g}", *changes]
