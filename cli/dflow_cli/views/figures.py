"""A run's figures in the forms that other programs read: JSON lines, a CSV table, events of TensorBoard."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from ..errors import CliError
from ..output import plain, print_json

FORMS = ("jsonl", "csv")
LEADING = ("step", "reward_mean", "accuracy", "loss")  # the first columns of a table
Rows = Sequence[Mapping[str, Any]]


class Form(Protocol):
    def write(self, rows: Rows) -> None: ...


def check_form(form: str, as_json: bool, follow: bool) -> None:
    """Raises CliError for a form that is not known, or that cannot be had in pieces."""
    if form not in FORMS:
        raise CliError(f"no form `{form}`", where="--format", hint=f"forms are {', '.join(FORMS)}")
    if form == "csv" and as_json:
        raise CliError("--json and --format csv are two forms", where="--format", hint="leave one of them out")
    if form == "csv" and follow:
        hint = "take `--format jsonl`, or leave --follow out"
        raise CliError("the columns of a table are known at the end only", where="--follow", hint=hint)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without nesting: `seconds` by stage become `seconds/STAGE`."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{key}": item for key, item in value.items()}
        else:
            found[name] = value
    return found


class JsonForm:
    """One object a step, on stdout."""

    def write(self, rows: Rows) -> None:
        for row in rows:
            print_json(row)


class CsvForm:
    """A table on stdout, with a column for every figure that some step has; empty where a step has it not."""

    def write(self, rows: Rows) -> None:
        import csv

        table = [flat(plain(row)) for row in rows]
        names = {name for row in table for name in row}
        columns = [name for name in LEADING if name in names] + sorted(names - set(LEADING))
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


class TensorBoardForm:
    """Scalars by their names, in `folder`: what was written there before is replaced. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Raises CliError where tensorboardX is not installed."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            hint = "pip install '.[tensorboard]' in the checkout; it needs no torch"
            raise CliError("tensorboardX is not installed", where="--tensorboard", hint=hint) from None
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()

    def write(self, rows: Rows) -> None:
        for row in rows:
            for name, value in flat(plain(row)).items():
                if name not in ("step", "time_s") and isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(name, value, int(row["step"]), walltime=row.get("time_s"))
        self._writer.flush()


def mesh_time(rows: Rows) -> str:
    """Everything of a step but compute: what the mesh itself costs. Empty where no step says."""
    times = sorted(1000.0 * float(row["mesh_s"]) for row in rows if row.get("mesh_s") is not None)
    if not times:
        return ""
    high = times[min(len(times) * 9 // 10, len(times) - 1)]
    return f"mesh time of a step: median {statistics.median(times):.0f} ms, p90 {high:.0f} ms, of {len(times)} steps"
