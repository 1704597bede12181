"""``sphereml runs list [FOLDER ...]``: one table of runs, e.g. of a sweep."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sphereml.cli.output import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    about = "model, task, state, the settings that differ, and scores of every run below folders"
    listing = actions.add_parser("list", help=about, description=about.capitalize() + ".")
    listing.add_argument("folders", nargs="*", default=["runs"], metavar="FOLDER", help="where to look (default: runs)")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list of the rows")
    form.add_argument("--csv", action="store_true", help="print the rows as CSV")


def run(options: argparse.Namespace) -> None:
    from sphereml.training.run_table import list_runs

    rows = list_runs([Path(folder) for folder in options.folders])
    if options.json:
        say(json.dumps(rows, indent=1))
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if options.csv:
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_table(rows, columns)


def _print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    from rich.markup import escape

    from sphereml.evaluation.terminal_tables import open_console, print_table

    cells = [[escape(_spelled(row.get(column))) for column in columns] for row in rows]
    print_table(open_console(), "", columns, cells)


def _spelled(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
