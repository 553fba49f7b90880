"""What daemons tell of a task's life: asked for, and put into the order in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dflow_protocols import story
from dflow_protocols.names import NodeId, RecordId, RunId, TaskKey, part_of
from dflow_protocols.story import Entry, What

from ..mesh.client import Client


def ask(client: Client, about: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A mesh's answer about TASK or RUN, or RUN/TASK. Raises CliError."""
    run, task = parse(about)
    return client.call("story", {"run": run, "task": task, **params})


def parse(about: str) -> tuple[str, str]:
    """(run, task), each empty where it is not named: `RUN`, `STEP/STAGE/PART` or both with a slash between them."""
    first, slash, rest = about.partition("/")
    if not slash:
        return first, ""
    return (first, rest) if rest.count("/") == 2 else ("", about)


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an answer, so that none comes before one that it follows from."""
    stories: dict[NodeId, list[Entry]] = {}
    row_of: dict[int, dict[str, Any]] = {}
    for row in rows:
        entry = _entry(row)
        row_of[id(entry)] = row
        stories.setdefault(NodeId(row["node_id"]), []).append(entry)
    for entries in stories.values():
        entries.sort(key=lambda entry: entry.cause)
    return [row_of[id(entry)] for _, entry in story.in_order(stories)]


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(
        int(row["cause"]),
        float(row["time_s"]),
        What(row["what"]),
        RunId(""),
        tuple(_task(text) for text in row["tasks"]),
        tuple(NodeId(peer) for peer in row["peers"]),
        str(row["join"]),
        tuple(RecordId(name) for name in row["records"]),
        row["began"],
        str(row["detail"]),
    )


def _task(text: str) -> TaskKey:
    step, stage, part = text.split("/")
    return TaskKey(int(step), stage, part_of(part))
