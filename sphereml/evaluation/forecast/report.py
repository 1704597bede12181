"""The forecast of r as a page and as a table in the terminal."""

from __future__ import annotations

from pathlib import Path

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.forecast.result import ForecastResult
from sphereml.evaluation.pages import open_environment, picture
from sphereml.evaluation.terminal_tables import open_console, print_table


def write_forecast_report(result: ForecastResult, folder: Path) -> Path:
    """Write ``folder/report.html``; raises UserError when a figure is missing."""
    template = open_environment().get_template("forecast/report.html.j2")
    surveys = result.content["surveys"]
    pictures = {name: picture(folder / "figures" / f"r_{name}.png", result.remake) for name in surveys}
    page = template.render(content=result.content, rows=result.rows(), pictures=pictures)
    return write_atomically(folder / "report.html", page.encode())


def print_forecast(result: ForecastResult) -> None:
    """Bias of r, its standard error and the stated error, by survey, template and method."""
    headings = ["survey, template, method, r", "bias", "sigma", "bias, carried", "sigma, carried"]
    rows = [
        [
            f"{row['survey']} {row['template']} {row['method']} {row['r']}",
            f"{row['bias']:.4f} ({row['error']:.4f})",
            f"{row['sigma']:.4f}",
            f"{row['bias_with_uncertainty']:.4f} ({row['error_with_uncertainty']:.4f})",
            f"{row['sigma_with_uncertainty']:.4f}",
        ]
        for row in result.rows()
    ]
    console = open_console()
    print_table(console, "bias of r (error) and stated sigma", headings, rows)
    for note in result.content["notes"]:
        console.print(note, style="dim", highlight=False, soft_wrap=True)
