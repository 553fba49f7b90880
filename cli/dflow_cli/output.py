"""What a command prints: one JSON object for scripts, a table for people, notes on stderr for both."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .streams import say

if TYPE_CHECKING:
    from rich.table import Table


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line of stdout. Figures that are no finite number become null: JSON has no NaN."""
    is_narrow = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(plain(value), ensure_ascii=is_narrow, allow_nan=False), flush=True)


def plain(value: Any) -> Any:
    """`value` as JSON can say it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def table_of(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A plain table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    return table


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A plain table; as wide as it needs where stdout is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 400
    console = Console(width=width, highlight=False, markup=False)
    with console.capture() as text:
        console.print(table_of(columns, rows))
    return [line.rstrip() for line in text.get().splitlines()]  # rich fills the last column up with blanks


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A plain table on stdout."""
    for line in table_lines(columns, rows):
        print(line)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def escaped(text: str) -> str:
    """A text of a user or a model on one line: line breaks, and what would steer a terminal, as Python writes them."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    say(text)


def note_missing(answer: Mapping[str, Any]) -> None:
    """Name the daemons that did not answer in time, so that nobody takes a part for the whole."""
    if answer.get("cut"):
        note("too long for one answer: only the newest part is shown")
    if answer.get("missing"):
        note(f"no answer from: {', '.join(str(name) for name in answer['missing'])}")


def amount(nbytes: float) -> str:
    """Bytes as people read them: `812 B`, `1.5 MB`, `12 GB`."""
    value, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.3g} {unit}"


def seconds(value: float) -> str:
    """A duration as people say it: `0.4 s`, `48 s`, `3 min 12 s`, `2 h 5 min`."""
    if value < 9.95:
        return f"{value:.2f} s" if 0.005 < value < 0.095 else f"{value:.1f}".removesuffix(".0") + " s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two_units(*divmod(whole, 60), "min", "s")
    return _two_units(*divmod(round(value / 60), 60), "h", "min")


def about(value: float) -> str:
    """A duration that is estimated, no finer than anybody knows it: `about 40 s`, `about 3 min`, `about 2 h 10 min`."""
    grain = next(grain for limit, grain in _GRAINS if value < limit)
    return f"about {seconds(max(grain * round(value / grain), grain))}"


# (below so many seconds, in such steps)
_GRAINS = ((10, 1), (60, 5), (180, 10), (7_200, 60), (86_400, 600), (float("inf"), 3_600))


def _two_units(large: int, small: int, name: str, lesser: str) -> str:
    return f"{large} {name}" + (f" {small} {lesser}" if small else "")
