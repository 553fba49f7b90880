"""Lists that fit a terminal: what a narrow one has no room for is left out column by column, and no line is cut.

Where stdout is no terminal all columns are there, as wide as they need to be.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..output import print_table, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

LOOK_S = 1.0
GAP = 2  # blanks between two columns
NOTHING = ("", "-")


@dataclass(frozen=True, slots=True)
class Column:
    """`rank`: the greater, the sooner it is left out where there is no room; 0: never."""

    name: str
    cells: Sequence[str]
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """A table, and lines below it."""

    columns: Sequence[Column]
    lines: Sequence[str] = ()

    def fitted(self, width: int | None) -> list[Column]:
        """The columns that say anything, as many as `width` characters hold; None: all."""
        kept = [column for column in self.columns if not column.rank or set(column.cells) - set(NOTHING)]
        while width is not None and _width(kept) > width and any(column.rank for column in kept):
            kept.remove(max(kept, key=lambda column: column.rank))
        return kept

    def wrapped(self, width: int | None) -> list[str]:
        """Its lines, none longer than `width` characters; what goes on is set in."""
        if width is None:
            return list(self.lines)
        return [part for line in self.lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]


def _width(columns: Sequence[Column]) -> int:
    from rich.cells import cell_len

    widths = [max(map(cell_len, (column.name, *column.cells))) for column in columns]
    return sum(widths) + GAP * (len(columns) - 1)


def terminal_width() -> int | None:
    """Characters of a line of stdout, if it is a terminal."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else None


def show(listing: Listing) -> None:
    """Print it once."""
    width = terminal_width()
    columns = listing.fitted(width)
    print_table([column.name for column in columns], _rows(columns))
    for line in listing.wrapped(width):
        print(line)


def show_again(listed: Callable[[], Listing]) -> None:
    """Draw what `listed` gives, every second in place of what was there, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                live.update(_drawn(listed(), console.width), refresh=True)
                time.sleep(LOOK_S)
        except KeyboardInterrupt:  # what was drawn last stays
            return


def _drawn(listing: Listing, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    columns = listing.fitted(width)
    table = table_of([column.name for column in columns], _rows(columns))
    return Group(table, *(Text(line) for line in listing.wrapped(width)))


def _rows(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    return list(zip(*(column.cells for column in columns), strict=True))
