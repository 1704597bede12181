"""Tables in the terminal: columns that do not fit side by side go below, each block under the rows' names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 3
# In logs and pipes nobody resizes a window; wide tables are whole there.
_WIDE = 140


def open_console() -> Console:
    """The terminal in its own width, or a wide page without colours."""
    return Console(width=None if Console().is_terminal else _WIDE)


def print_table(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells (rich markup) under headings, in as many blocks as the console's width asks for."""
    widths = [
        max(Text.from_markup(line).cell_len for cell in column for line in cell.split("\n"))
        for column in zip(headings, *rows, strict=True)
    ]
    for number, block in enumerate(_blocks(widths, console.width)):
        table = Table(title=title if number == 0 else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for index in block:
            table.add_column(headings[index], justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(row[index] for index in block))
        console.print(table)


def _blocks(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Columns of each block; the first one, of names, leads them all."""
    block, used = [0], widths[0]
    for index, width in enumerate(widths[1:], start=1):
        if used + _GAP + width > room - 2 and len(block) > 1:
            yield block
            block, used = [0], widths[0]
        block.append(index)
        used += _GAP + width
    yield block
