"""A task's life as a table: one line an event on a node, times by that node's clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import EXIT_FAILED, CliError
from ..output import note, note_missing, print_table

HEARD = ("stolen", "claim heard", "record heard", "seal kept", "seal heard")  # from the peers of the line
SHORT = 8  # digits of an id


def print_story(answer: Mapping[str, Any]) -> None:
    """The title and the table, on stdout."""
    rows, names = answer["entries"], answer["names"]
    about = answer["task"] or "all tasks"
    print(f"{about} of run {answer['run'][:SHORT]} ({answer['name']}), since {_stamp(rows[0]['time_s'])}")
    print_table(
        ("at", "node", "what", "with", "task", "event", "by", "more"),
        [_line(row, rows[0]["time_s"], names) for row in rows],
    )


def _line(row: Mapping[str, Any], start_s: float, names: Mapping[str, str]) -> list[Any]:
    peers = ", ".join(sorted(names.get(peer, peer[:SHORT]) for peer in row["peers"]))
    towards = "from" if row["what"] in HEARD else "to"
    records = row["records"]
    ids = [row["join"][:SHORT]] if row["join"] else []
    ids += [f"record {records[0][:SHORT]}"] if len(records) == 1 else []
    more = "; ".join([*filter(None, [row["detail"]]), *ids])
    return [
        f"{row['time_s'] - start_s:+.3f}",
        row["node"],
        row["what"],
        f"{towards} {peers}" if peers else None,
        _tasks(row["tasks"]),
        row["cause"],
        row["began"],
        more or None,
    ]


def _tasks(tasks: list[str]) -> str:
    return tasks[0] if len(tasks) == 1 else f"{tasks[0]} and {len(tasks) - 1} more"


def note_gaps(answer: Mapping[str, Any]) -> None:
    """Say who told nothing, and who does not remember the beginning."""
    note_missing(answer)
    if answer["gone"]:
        gone = ", ".join(f"{name} ({state})" for name, state in sorted(answer["gone"].items()))
        note(f"gone, and what only they knew with them: {gone}")
    rows = answer["entries"]
    late = {name: since for name, since in answer["since"].items() if rows and since > rows[0]["time_s"]}
    if late:
        note(f"what came before is not known any more on {_since(late.items())}")


def refuse_nothing(answer: Mapping[str, Any], step: int | None) -> CliError:
    """Why nothing is told."""
    about = answer["task"] or f"run {answer['run'][:SHORT]}" + (f" in step {step}" if step is not None else "")
    asked = int(answer["task"].partition("/")[0]) if answer["task"] else step
    if answer["state"] == "active" and asked is not None and asked > answer["step"]:
        hint = f"step {asked} has not begun: the run is at step {answer['step']}"
    else:
        hint = f"daemons remember their own life and the latest of it: {_since(answer['since'].items())}"
    return CliError(f"nobody tells anything of {about}", hint=hint, exit_code=EXIT_FAILED)


def _since(known: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} since {_stamp(since)}" for name, since in sorted(known))


def _stamp(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at_s))
