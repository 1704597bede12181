"""``dust_paper.json``: every row of the study in one table, and which of the paper's conclusions hold.

Schema: ``experiment``; ``skies``: by title (data and split) a comparison as in ``comparison.json`` and its ``claims``
(``text``, ``paper``, ``holds`` true, false or null, ``rows``, ``difference`` by band, ``wins`` of ``of``);
``overfitting``: a list of ``weights``, ``channels``, ``scales``, ``train`` and ``test`` (band -> r); ``notes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from rich import box
from rich.console import Console
from rich.table import Table

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.maps.comparison import Comparison
from sphereml.evaluation.maps.table import shown_rows
from sphereml.evaluation.pages import number
from sphereml.evaluation.protocol import Result

_HOLDS = {True: "holds", False: "does not hold", None: "not run"}


class DustPaperResult(Result):
    """The rows of all skies; the comparisons' figures are drawn right after the measurement only."""

    file = "dust_paper.json"
    remake: ClassVar[str] = "run `sphereml study experiment=dust_paper` again"

    def __init__(self, content: dict[str, Any], comparisons: Mapping[str, Comparison] | None = None) -> None:
        super().__init__(content)
        self.comparisons = comparisons or {}

    def save(self, folder: Path | str) -> Path:
        for name, comparison in self.comparisons.items():
            comparison.save(Path(folder) / "skies" / name)
        return super().save(folder)

    def figures(self, folder: Path) -> list[Path]:
        return [path for name, one in self.comparisons.items() for path in one.figures(folder / "skies" / name)]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"sky": name, "row": row} | _scores(entry)
            for name, sky in self.content["skies"].items()
            for row, entry in shown_rows(sky).items()
        ]

    def table(self) -> None:
        console = Console(width=None if Console().is_terminal else 140)
        for title, headings, lines in self._tables():
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
            for heading in headings:
                table.add_column(heading)
            for line in lines:
                table.add_row(*line)
            console.print(table)
        for note in self.content["notes"]:
            console.print(note, style="dim", highlight=False, soft_wrap=True)

    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, headings and lines of what is shown, in the terminal and on the page."""
        rows = self.rows()
        headings = list(dict.fromkeys(key for row in rows for key in row))
        claims = [
            [name, claim["text"], _HOLDS[claim["holds"]], _evidence(claim), claim["paper"]]
            for name, sky in self.content["skies"].items()
            for claim in sky["claims"]
            if claim["holds"] is not None
        ]
        weights = [
            [str(row["weights"]), str(row["channels"]), str(row["scales"])]
            + [number(row[part][band]) for part in ("train", "test") for band in row[part]]
            for row in self.content["overfitting"]
        ]
        bands = list(self.content["overfitting"][0]["train"]) if weights else []
        return [
            ("rows", headings, [[_text(row.get(key)) for key in headings] for row in rows]),
            ("conclusions of arXiv:1904.13265", ["sky", "conclusion", "", "difference", "in the paper"], claims),
            (
                "linear weights, by their number",
                ["weights", "channels", "scales", *(f"{part} {band}" for part in ("train", "test") for band in bands)],
                weights,
            ),
        ]

    def report(self, folder: Path, home: Path | None = None) -> Path:
        style = files("sphereml.evaluation").joinpath("report.css").read_text()
        parts = [f"<h1>{escape(self.content['experiment'])}: the dust paper</h1>"]
        for title, headings, lines in self._tables():
            head = "".join(f"<th>{escape(one)}</th>" for one in headings)
            body = "".join("<tr>" + "".join(f"<td>{escape(x)}</td>" for x in line) + "</tr>" for line in lines)
            parts.append(f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table>")
        for name, comparison in self.comparisons.items():
            comparison.report(folder / "skies" / name)
        links = (f'<a href="skies/{name}/report.html">{escape(name)}</a>' for name in self.content["skies"])
        parts.append(f"<p>Maps, spectra and patches: {', '.join(links)}.</p>")
        parts += [f"<p>{escape(note)}</p>" for note in self.content["notes"]]
        page = f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{style}</style>{"".join(parts)}</html>'
        return write_atomically(folder / "report.html", page.encode())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.content['skies'])})"


def _scores(entry: Mapping[str, Any]) -> dict[str, Any]:
    flat = {f"flat {band}": _with_error(entry[band]) for band in ("r50", "r150") if entry.get(band)}
    errors = entry["sphere_sem"]
    sphere = {
        f"sphere {band}": _with_error({"mean": value, "sem": errors.get(band)})
        for band, value in entry["sphere"].items()
        if value is not None
    }
    wins = entry.get("wins_vs_integrated")
    won = {"wins": f"{wins['r50']} {wins['r150']} of {wins['of']}"} if wins else {}
    return {"domain": entry["domain"]} | flat | sphere | won | {"train s": f"{entry['seconds_train']:.0f}"}


def _with_error(value: Mapping[str, Any]) -> str:
    return f"{number(value['mean'])} ± {number(value['sem'])}"


def _evidence(claim: Mapping[str, Any]) -> str:
    found = [
        f"{band} {number(one['mean'], 4)} ± {number(one['sem'], 4)} (on {claim['wins'][band]} of {claim['of']})"
        for band, one in claim["difference"].items()
    ]
    return ", ".join(found)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
