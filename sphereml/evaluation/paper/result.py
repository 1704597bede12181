"""``dust_paper.json``: every row of the study in one table, and which of the paper's conclusions hold.

Schema: ``experiment``; ``skies``: by title (data and split) a comparison as in ``comparison.json`` and its ``claims``
(``text``, ``paper``, ``holds`` true, false or null, ``rows``, ``difference`` by band, ``wins`` of ``of``) and its
``domains`` (:func:`~sphereml.evaluation.paper.domains.compare_domains`); ``overfitting``: a list of ``weights``,
``channels``, ``scales``, ``train`` and ``test`` (band -> r); ``notes``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich import box
from rich.table import Table

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.maps.comparison import Comparison
from sphereml.evaluation.maps.ranking import CLEAR
from sphereml.evaluation.maps.report import captioned_figures
from sphereml.evaluation.maps.table import shown_rows
from sphereml.evaluation.pages import links, number, open_environment
from sphereml.evaluation.protocol import Result
from sphereml.evaluation.terminal_tables import open_console, print_table

# What the notes of the paper at hand state for a row of its first split: patches won against the integrated column.
_PAPER = {"unet_flat": "764 889 of 1000"}
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
        from sphereml.evaluation.paper.figures import draw_paper

        paths = [path for name, one in self.comparisons.items() for path in one.figures(folder / "skies" / name)]
        main = next(iter(self.comparisons.values()), None)
        if main is not None and main.drawing is not None:
            paths += draw_paper(main.drawing, self.content["overfitting"], folder)
        return paths

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"sky": name, "row": row} | _scores(entry, "" if index else _PAPER.get(row.split(",")[0], ""))
            for index, (name, sky) in enumerate(self.content["skies"].items())
            for row, entry in shown_rows(sky).items()
        ]

    def table(self) -> None:
        console = open_console()
        for title, headings, lines in self._tables():
            if "conclusion" in headings:  # sentences, which wrap
                table = Table(*headings, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
                for line in lines:
                    table.add_row(*line)
                console.print(table)
            elif lines:
                named = [[" ".join(line[:2]), *line[2:]] for line in (headings, *lines)]
                print_table(console, title, named[0], named[1:])
        for note in self.content["notes"]:
            console.print(note, style="dim", highlight=False, soft_wrap=True)

    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, headings and lines of what is shown, in the terminal and on the page."""
        rows, skies = self.rows(), self.content["skies"].items()
        headings = list(dict.fromkeys(key for row in rows for key in row))
        domains = [line for name, sky in skies for line in _domain_lines(name, sky)]
        claims = [line for name, sky in skies for line in _claim_lines(name, sky, stated=name == next(iter(skies))[0])]
        return [
            ("rows", headings, [[_text(row.get(key)) for key in headings] for row in rows]),
            ("the sphere against the plane, less unet_flat", ["sky", "model", "on", *_DOMAIN_HEADINGS], domains),
            ("conclusions of arXiv:1904.13265", ["sky", "conclusion", "", "difference", "in the paper"], claims),
            ("linear weights, by their number", *_weight_lines(self.content["overfitting"])),
        ]

    def report(self, folder: Path, home: Path | None = None) -> Path:
        for name, comparison in self.comparisons.items():
            comparison.report(folder / "skies" / name)
        template = open_environment().get_template("paper/report.html.j2")
        page = template.render(
            content=self.content,
            tables=[(title, headings, lines) for title, headings, lines in self._tables() if lines],
            figures=captioned_figures(folder / "figures", self.remake),
            pages=links((folder, home or folder), [f"skies/{name}/report.html" for name in self.content["skies"]]),
        )
        return write_atomically(folder / "report.html", page.encode())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.content['skies'])})"


def _scores(entry: Mapping[str, Any], stated: str) -> dict[str, Any]:
    flat = {f"flat {band}": _with_error(entry[band]) for band in ("r50", "r150") if entry.get(band)}
    errors = entry["sphere_sem"]
    sphere = {
        f"sphere {band}": _with_error({"mean": value, "sem": errors.get(band)})
        for band, value in entry["sphere"].items()
        if value is not None
    }
    wins = entry.get("wins_vs_integrated")
    won = {"wins": f"{wins['r50']} {wins['r150']} of {wins['of']}", "the paper's": stated} if wins else {}
    return flat | won | sphere | {"train s": f"{entry['seconds_train']:.0f}"}


_DOMAIN_HEADINGS = ("r50", "r150", "r50 over seeds", "bins", "chi2", "p", "not below", "r50 above by 2 errors")


def _claim_lines(name: str, sky: Mapping[str, Any], stated: bool) -> list[list[str]]:
    """Claims that were checked; ``stated``: with the paper's numbers, which are those of its first split."""
    return [
        [name, claim["text"], _HOLDS[claim["holds"]], _evidence(claim), claim["paper"] if stated else ""]
        for claim in sky["claims"]
        if claim["holds"] is not None
    ]


def _weight_lines(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    bands = [(part, band) for part in ("train", "test") for band in (rows[0][part] if rows else ())]
    keys = ["weights", "channels", "scales"]
    lines = [[*(str(row[key]) for key in keys), *(number(row[part][band]) for part, band in bands)] for row in rows]
    return [*keys, *(f"{part} {band}" for part, band in bands)], lines


def _domain_lines(name: str, sky: Mapping[str, Any]) -> list[list[str]]:
    """Paired differences of the sphere and the plane, a line for held-out patches and one for maps of the sphere."""
    found = [(model, place, pair[place]) for model, pair in sky["domains"].items() for place in ("patches", "sphere")]
    return [
        [
            *(name, model, place),
            *(_with_error(one["bands"][band], 4) if band in one["bands"] else "" for band in ("r50", "r150")),
            _with_error(one["seeds"]["r50"], 4) if one["seeds"] else "",
            *(str(one["bins"]), number(one["chi2"], 1), number(one["probability"], 3)),
            *(_yes(one["holds"]), _yes(one["bands"]["r50"]["sigmas"] > CLEAR)),
        ]
        for model, place, one in found
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _with_error(value: Mapping[str, Any], digits: int = 3) -> str:
    return f"{number(value['mean'], digits)} ± {number(value['sem'], digits)}"


def _evidence(claim: Mapping[str, Any]) -> str:
    found = [
        f"{band} {number(one['mean'], 4)} ± {number(one['sem'], 4)} (on {claim['wins'][band]} of {claim['of']})"
        for band, one in claim["difference"].items()
    ]
    return ", ".join(found)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
