"""``sphere_only.json``: one network on the sphere and on patches, place by place and by the square degree.

Schema: ``experiment``, ``nside``, ``sphere`` and ``baseline`` (names), ``bands``, ``notes``, ``provenance``, ``models``
by name: ``domain``, ``seeds``, ``runs``, and of flat ones ``projection`` and ``degrees``.  An *estimate* is ``mean``,
``sem`` (jackknife over blocks of sky) and ``spread`` (over seeds).  The sections, each absent where it was skipped:

* ``spectra``: model, field, band -> an estimate of r on the held-out sphere, and ``difference`` to the sphere's.
* ``thirds``: flat model -> ``centre``, ``middle``, ``outer``: ``error`` (squared, over the spherical network's; an
  estimate) and ``r`` by band: ``flat``, ``sphere``, ``difference``; ``outer_over_centre``, of the errors.
* ``seams``: flat model -> estimates ``at``, ``elsewhere``, ``at_over_elsewhere`` of the same ratio, ``share`` of the
  sky that lies at seams, and ``overlap``: what overlapping patches differ by, in deviations of the network's output.
* ``latitude``: ``edges`` of |b|, and in ``models`` a list of estimates: squared error over the baseline's.
* ``places``, ``edge``: place, or pixels from the edge -> an estimate of the spherical network's error there over that
  of the same sky elsewhere, or shown whole; ``pixels``, and of places ``control``, the baseline's.
* ``cost``: model -> ``train`` and ``predict``, CPU seconds per 1000 square degrees, and ``square_degrees`` of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from sphereml.data.whole_files import write_atomically
from sphereml.evaluation.pages import number, open_environment, picture
from sphereml.evaluation.protocol import Result
from sphereml.evaluation.terminal_tables import open_console, print_table

Table = tuple[str, list[str], list[list[str]]]


class SphereOnlyResult(Result):
    """What only the sphere shows."""

    file = "sphere_only.json"
    remake: ClassVar[str] = "run `sphereml study experiment=sphere_only` again"

    def rows(self) -> list[dict[str, Any]]:
        """A row a model: r by field and band, errors in the outer third and at seams, cost."""
        return [{"model": name} | dict(self._row(name)) for name in self.content["models"]]

    def _row(self, name: str) -> Iterator[tuple[str, float]]:
        for field, bands in self.content.get("spectra", {}).get(name, {}).items():
            yield from ((f"{field} {band}", one["mean"]) for band, one in bands.items())
        if third := self.content.get("thirds", {}).get(name):
            yield "outer_over_centre", third["outer_over_centre"]["mean"]
        if seam := self.content.get("seams", {}).get(name):
            yield "seam_over_elsewhere", seam["at_over_elsewhere"]["mean"]
        yield from self.content.get("cost", {}).get(name, {}).items()

    def figures(self, folder: Path) -> list[Path]:
        from sphereml.plotting.sphere_only import place_ratios, projection_ratios
        from sphereml.plotting.style import write_pair

        drawn = {"thirds": projection_ratios, "places": place_ratios}
        return [
            write_pair(draw(self.content), folder / "figures" / f"{name}.png")
            for name, draw in drawn.items()
            if name in self.content
        ]

    def report(self, folder: Path, home: Path | None = None) -> Path:
        pictures = {
            name: picture(folder / "figures" / f"{name}.png", self.remake)
            for name in ("thirds", "places")
            if name in self.content
        }
        template = open_environment().get_template("sphere_only/report.html.j2")
        page = template.render(content=self.content, tables=list(self.tables()), pictures=pictures)
        return write_atomically(folder / "report.html", page.encode())

    def table(self) -> None:
        console = open_console()
        for title, headings, lines in self.tables():
            print_table(console, title, headings, lines)
        for note in self.content["notes"]:
            console.print(note, style="dim", highlight=False, soft_wrap=True)

    def tables(self) -> Iterator[Table]:
        """Title, headings and lines of every section, in the terminal and on the page."""
        for section in ("spectra", "thirds", "seams", "latitude", "places", "edge", "cost"):
            if section in self.content:
                yield getattr(self, f"_{section}")(self.content[section])

    def _spectra(self, found: Mapping[str, Any]) -> Table:
        fields = next(iter(found.values()))
        headings = [f"{field} {band}" for field, bands in fields.items() for band in bands]
        lines = []
        for name, own in found.items():
            pairs = [one for bands in own.values() for one in bands.values()]
            shown = [f"{spelt(one)} ({spelt(one['difference'])})" for one in pairs]
            lines.append([name, *([spelt(one) for one in pairs] if name == self.content["sphere"] else shown)])
        edges = ", ".join(f"{name} {lo:g}-{hi:g}" for name, (lo, hi) in self.content["bands"].items())
        return f"r on the held-out sphere, {edges} (less the spherical network's)", ["model", *headings], lines

    def _thirds(self, found: Mapping[str, Any]) -> Table:
        bands = list(next(iter(found.values()))["outer"]["r"])
        headings = [
            *("centre", "middle", "outer", "outer / centre"),
            *(f"{band}, {third}" for band in bands for third in ("centre", "outer")),
        ]
        lines = []
        for name, own in found.items():
            errors = [spelt(own[third]["error"]) for third in ("centre", "middle", "outer")]
            scores = [own[third]["r"].get(band, {}) for band in bands for third in ("centre", "outer")]
            r = [spelt(one.get("difference", {}), 4) for one in scores]
            lines.append([name, *errors, spelt(own["outer_over_centre"]), *r])
        return "thirds of the patch: squared error over the sphere's; r less the sphere's", ["model", *headings], lines

    def _seams(self, found: Mapping[str, Any]) -> Table:
        keys = ("at", "elsewhere", "at_over_elsewhere")
        lines = [
            [name, *(spelt(own[key]) for key in keys), f"{own['share']:.0%}", number(own["overlap"])]
            for name, own in found.items()
        ]
        headings = ["model", "at seams", "elsewhere", "ratio", "share of sky", "patches differ"]
        return "stitched maps: squared error over the sphere's", headings, lines

    def _latitude(self, found: Mapping[str, Any]) -> Table:
        spans = [f"|b| {lo:.0f}-{hi:.0f}" for lo, hi in zip(found["edges"], found["edges"][1:], strict=False)]
        lines = [[name, *(spelt(one) for one in own)] for name, own in found["models"].items()]
        return f"squared error over that of {self.content['baseline']}", ["model", *spans], lines

    def _places(self, found: Mapping[str, Any]) -> Table:
        title = "spherical network: squared error in a place of the grid over that of the same sky elsewhere"
        headings, lines = _listed(found)
        controls = [spelt(own["control"]) for own in found.values()]
        return title, [*headings, self.content["baseline"]], [[*a, b] for a, b in zip(lines, controls, strict=True)]

    def _edge(self, found: Mapping[str, Any]) -> Table:
        title = "spherical network shown the test region alone: squared error over that with the whole sky"
        return title, *_listed(found)

    def _cost(self, found: Mapping[str, Any]) -> Table:
        lines = [
            [name, *(number(own[key], 4) for key in ("train", "predict")), number(own["square_degrees"], 0)]
            for name, own in found.items()
        ]
        headings = ["model", "training step", "prediction", "square degrees a step"]
        return "CPU seconds per 1000 square degrees", headings, lines


def _listed(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    return ["place", "ratio", "pixels"], [[name, spelt(own), str(own["pixels"])] for name, own in found.items()]


def spelt(estimate: Mapping[str, Any], digits: int = 3) -> str:
    """An estimate with its error over blocks, and in brackets its spread over seeds where there are several."""
    spread = estimate.get("spread")
    seeds = "" if spread is None else f" [{number(spread, digits)}]"
    return f"{number(estimate.get('mean'), digits)} ± {number(estimate.get('sem'), digits)}{seeds}"
