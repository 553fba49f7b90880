"""A run's rows for people from the files of daemons that have ended (see dflow_protocols/books.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dflow_protocols import books
from dflow_protocols.names import NodeId
from dflow_protocols.pipeline.schedule import Schedule

from ..mesh.statefiles import node_folders

SLOTS = 1  # of a daemon of a local mesh


def entries(node: Path, run: str, name: str) -> list[dict[str, Any]]:
    """The lines that a daemon wrote of a run, as far as they are whole."""
    file = node / "state" / "runs" / run / books.file_of(name)
    found: list[dict[str, Any]] = []
    for path in (file.with_name(books.older(file.name)), file):
        with contextlib.suppress(OSError):
            found += books.parse(name, path.read_bytes())[0]
    return found


def metrics(folder: Path, run: str, schedule: Schedule) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows, abandoned rows) of all daemons together, as a mesh tells them."""
    reports = []
    for node in node_folders(folder):
        steps = books.steps_of(entries(node, run, books.METRICS))
        costs = books.costs_of(entries(node, run, books.COSTS))
        rows = [row for _, row in sorted(steps.rows.items())]
        reports.append(books.own_report(rows, steps.abandoned, costs, SLOTS))
    return books.merge_rows(reports, schedule), books.merge_abandoned(reports, schedule)


def samples(folder: Path, run: str, schedule: Schedule) -> list[dict[str, Any]]:
    rows = sorted(_named(folder, run, books.SAMPLES), key=lambda row: int(row["step"]))
    return [{**row, "step": schedule.nearest(int(row["step"])).step} for row in rows]


def tasks(folder: Path, run: str, schedule: Schedule) -> list[dict[str, Any]]:
    rows = sorted(_named(folder, run, books.TASKS), key=lambda row: (row["started"], row["id"]))
    return [books.told_task(schedule, row) for row in rows]


def times(folder: Path, run: str) -> tuple[float | None, float | None]:
    """When the first daemon heard of the run, and of its end; seconds since 1970."""
    told = [books.times_of(entries(node, run, books.TIMES)) for node in node_folders(folder)]
    began = [began_s for began_s, _ in told if began_s is not None]
    ended = [ended_s for _, ended_s in told if ended_s is not None]
    return min(began, default=None), min(ended, default=None)


def _named(folder: Path, run: str, name: str) -> Iterator[dict[str, Any]]:
    for node in node_folders(folder):
        for entry in entries(node, run, name):
            entry.pop("life", None)
            yield {**entry, "node": node.name, "node_id": NodeId("")}
