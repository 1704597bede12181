"""``sphereml data list|fetch|verify|prepare|info|stokes|clean``: products, their files here, and stores."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphereml.cli.experiment import add_overrides
from sphereml.cli.output import say, say_json, tell
from sphereml.config.compose import compose
from sphereml.errors import UserError
from sphereml.progress import BARS, TimeLeft

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from sphereml.config.schema import DataConfig
    from sphereml.data.holdings import Holdings
    from sphereml.data.manifests import Product
    from sphereml.sky.fields import Field


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the products that the manifests describe, and which files are here")
    _add_places(listing, "--in")
    listing.add_argument("--json", action="store_true", help="print one JSON list of the products")
    fetch = actions.add_parser("fetch", help="download or adopt the files of products")
    fetch.add_argument("products", nargs="+", metavar="PRODUCT", help="names of products, or of whole manifests")
    _add_places(fetch, "--to")
    fetch.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="adopt files that are already there")
    fetch.add_argument("--offline", action="store_true", help="download nothing")
    fetch.add_argument("--dry-run", action="store_true", help="say which files are lacking, and stop")
    fetch.add_argument("--jobs", type=int, default=4, metavar="N", help="downloads at a time (default 4)")
    fetch.add_argument("--accept-changed", action="store_true", help="take and pin files of another checksum")
    verify = actions.add_parser("verify", help="check the files that are here")
    verify.add_argument("products", nargs="*", metavar="PRODUCT", help="all that are here when none is named")
    _add_places(verify, "--in")
    prepare = actions.add_parser("prepare", help="read the maps of an experiment into a store")
    add_overrides(prepare)
    info = actions.add_parser("info", help="what a store holds")
    info.add_argument("store", type=Path, metavar="STORE", help="a store made by this program, NAME.zarr")
    info.add_argument("--html", type=Path, metavar="FILE", help="write the quick-look page too")
    info.add_argument(
        "--split", nargs="+", action="extend", default=[], metavar="NAME", help="splits to draw and to write beside it"
    )
    stokes = actions.add_parser("stokes", help="sum Clark & Hensley's Stokes cubes (HDF5, IAU) into a map (COSMO)")
    stokes.add_argument("folder", type=Path, metavar="FOLDER", help="holds I_v_*.h5, Q_v_*.h5 and U_v_*.h5")
    stokes.add_argument("--out", type=Path, required=True, metavar="FITS", help="I, Q and U in K km/s")
    stokes.add_argument(
        "--channels",
        type=int,
        nargs=2,
        default=[],
        metavar=("FIRST", "LAST"),
        help="first and last channel, from 0 (default: all)",
    )
    stokes.add_argument("--overwrite", action="store_true", help="replace an existing file")
    clean = actions.add_parser("clean", help="remove prepared stores that nothing reads any more")
    clean.add_argument("folder", nargs="?", type=Path, default=Path("stores"), help="of stores (default: stores)")
    clean.add_argument("--all", action="store_true", help="remove those that may be read again too; they are rebuilt")


def run(options: argparse.Namespace) -> None:
    actions = {"list": _list, "fetch": _fetch, "verify": _verify, "prepare": _prepare, "info": _info}
    (actions | {"stokes": _stokes, "clean": _clean})[options.action](options)


def _clean(options: argparse.Namespace) -> None:
    from sphereml.data.holdings import spell_bytes
    from sphereml.data.store_cleaning import clean_stores

    removed, kept, swept = clean_stores(options.folder, options.all)
    for one in removed:
        say(f"removed: {one.path} ({spell_bytes(one.size)}{f'; it {one.fault}' if one.fault else ''})")
    for path in swept:
        say(f"removed: {path} (of a process that was killed)")
    for one in kept:
        say(f"kept: {one.path} ({spell_bytes(one.size)})")
    freed = spell_bytes(sum(one.size for one in removed))
    say(f"{len(removed)} stores removed ({freed}), {len(kept)} kept in {options.folder}")


def _add_places(parser: argparse.ArgumentParser, flag: str) -> None:
    where = "the data folder (else $SPHEREML_DATA, else ~/.cache/sphereml)"
    parser.add_argument(flag, dest="folder", type=Path, metavar="FOLDER", help=where)
    parser.add_argument("--manifests", type=Path, metavar="FOLDER", help="another folder of manifests")


def _list(options: argparse.Namespace) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from sphereml.data.holdings import open_holdings
    from sphereml.data.manifests import list_products
    from sphereml.evaluation.terminal_tables import open_console

    holdings = open_holdings(options.folder)
    products = list_products(options.manifests)
    if options.json:
        say_json([_described(product, holdings) for product in products])
        return
    console = open_console()
    table = Table("product", "files", "here", "Nside", "unit", box=SIMPLE_HEAD, pad_edge=False)
    for product in products:
        about = _described(product, holdings)
        nsides, units = ", ".join(map(str, about["nside"])), ", ".join(about["units"])
        name = Group(product.name, Padding(escape(product.title), (0, 0, 0, 2), style="dim"))
        table.add_row(name, *_presence(product, holdings), nsides, units)
    console.print(table)
    console.print(f"data folder: {holdings.folder}", soft_wrap=True, highlight=False, markup=False)


def _described(product: Product, holdings: Holdings) -> dict[str, Any]:
    """A product as JSON; ``files`` is null where their number is not known before they are here."""
    from sphereml.data.verify import count_present

    here, total = count_present(product, holdings)
    return {
        "name": product.name,
        "title": product.title,
        "files": total,
        "here": here,
        "nside": sorted({file.nside for file in product.files}),
        "units": sorted({file.unit for file in product.files if file.unit}),
    }


def _presence(product: Product, holdings: Holdings) -> tuple[str, str]:
    from sphereml.data.verify import count_present

    here, total = count_present(product, holdings)
    return "?" if total is None else str(total), "all" if here == total else str(here or "-")


def _fetch(options: argparse.Namespace) -> None:
    from sphereml.data.fetch import Request, fetch_products
    from sphereml.data.holdings import open_holdings
    from sphereml.data.manifests import find_products

    products = find_products(options.products, options.manifests)
    holdings = open_holdings(options.folder)
    if options.dry_run:
        for product in products:
            files, here = _presence(product, holdings)
            say(f"{product.name}: {files} files, {here} of them in {holdings.folder}")
        return
    request = Request(holdings, options.source, options.offline, options.accept_changed, options.jobs)
    try:
        with _screen() as screen:
            fetched = fetch_products(products, request, screen)
    except KeyboardInterrupt:
        say("what came so far is kept; the same line goes on where it stopped")
        raise
    counts = Counter(one.how for one in fetched)
    places = sorted({str(one.path.parent) for one in fetched})
    say(f"{', '.join(f'{count} {how}' for how, count in sorted(counts.items()))}: {', '.join(places)}")


def _verify(options: argparse.Namespace) -> None:
    from sphereml.data.holdings import open_holdings
    from sphereml.data.manifests import find_products, list_products
    from sphereml.data.verify import count_present, verify_products

    holdings = open_holdings(options.folder)
    if options.products:
        products = find_products(options.products, options.manifests)
    else:
        products = [one for one in list_products(options.manifests) if count_present(one, holdings)[0]]
    findings = verify_products(products, holdings)
    if not options.products:
        findings = [finding for finding in findings if finding.state != "missing"]
    for finding in findings:
        words = {"right": "right", "new": f"no checksum is known; it has {finding.checksum}"}
        say(f"{finding.name}: {words.get(finding.state) or f'{finding.state}: {finding.fault}'}")
    faulty = [finding for finding in findings if finding.state not in ("right", "new")]
    if faulty:
        first = f"{faulty[0].path or faulty[0].name}: {faulty[0].fault}"
        raise UserError(
            f"{len(faulty)} of {len(findings)} files are not as they should be ({first})",
            "remove what is wrong and bring it with `sphereml data fetch`",
        )
    say(f"{len(findings)} files, nothing wrong" if findings else f"no file of any product is in {holdings.folder}")


class _Screen:
    """Lines, and on a terminal a bar for each file under way."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        self._bars.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def show(self, name: str, done: int, total: int | None) -> None:
        if self._bars.disable:
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total, visible=done != total)


@contextmanager
def _screen() -> Iterator[_Screen]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console()
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn(True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (console.is_terminal and BARS.get())) as bars:
        yield _Screen(bars)


def _prepare(options: argparse.Namespace) -> None:
    config = compose(options.overrides)
    from sphereml.data.prepare import store_path

    if config.data.kind == "survey":
        _prepare_survey(config.data, config.scheduler)
        return
    from sphereml.sources.sky import load_sky

    sky = load_sky(config.data, tell)
    say(f"store: {store_path(config.data)}")
    say(
        f"  Nside {sky.grid.nside}, {len(sky.input_fields)} channels in {_units(sky.input_fields)}, "
        f"target in {_units(sky.target_fields)}"
    )


def _units(fields: Sequence[Field]) -> str:
    return ", ".join(dict.fromkeys(one.unit or "no unit" for one in fields))


def _prepare_survey(data: DataConfig, scheduler: str) -> None:
    """Never holds the cube, so neither does its summary."""
    from sphereml.data.store import open_dataset
    from sphereml.data.survey import prepare_survey

    try:
        with _step_bars() as progress:
            path = prepare_survey(data, progress, scheduler)
    except KeyboardInterrupt:
        say("the maps made so far are kept; the same line goes on where it stopped")
        raise
    with open_dataset(path) as store:
        units = {name: store[name].attrs["units"] for name in ("inputs", "targets")}
        say(f"store: {path}")
        say(
            f"  Nside {store.attrs['nside']}, {store.sizes['channel']} channels in {units['inputs']}, "
            f"target in {units['targets']}"
        )


@contextmanager
def _step_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step of a preparation on a terminal, else lines."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (console.is_terminal and BARS.get())) as bars:
        tasks: dict[str, TaskID] = {}
        clocks: dict[str, TimeLeft] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step], clocks[step] = bars.add_task(step, total=total), TimeLeft(total, done)
            bars.update(tasks[step], completed=done)
            # A log has a line at every tenth.
            if bars.disable and 10 * done // max(total, 1) > 10 * (done - 1) // max(total, 1):
                tell(f"{step} {done}/{total}{clocks[step](done)}")

        yield show


def _info(options: argparse.Namespace) -> None:
    from sphereml.data.split_files import write_split
    from sphereml.data.splits import build_split
    from sphereml.data.store import open_store
    from sphereml.evaluation.overview import write_overview
    from sphereml.evaluation.store_summary import describe, summarize_store

    summary = summarize_store(options.store)
    for line in describe(summary):
        say(line)
    splits = []
    if options.split:
        sky = open_store(options.store)
        splits = [build_split(compose([f"split={name}"]).split, sky) for name in options.split]
    for split in splits:
        beside = options.html or options.store
        say(f"split: {write_split(beside.with_name(f'{beside.stem}-{split.name}.fits'), split)}")
    if options.html:
        say(f"page: {write_overview(summary, options.html, splits)}")


def _stokes(options: argparse.Namespace) -> None:
    from sphereml.data.stokes_cubes import read_stokes_cubes
    from sphereml.templates.products import write_sky_map

    if options.out.exists() and not options.overwrite:  # before the work
        raise UserError(f"{options.out} exists", "add --overwrite, or choose another name with --out")
    maps = read_stokes_cubes(options.folder, options.channels)
    say(f"I, Q and U (COSMO): {write_sky_map(options.out, maps, overwrite=options.overwrite)}")
