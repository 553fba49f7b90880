"""Watching a run: asks now and then, gathers what a view shows, and ends with the run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import EXIT_NO_DAEMON, EXIT_TIMEOUT, CliError
from ..mesh.client import Client
from ..mesh.reach import meet
from ..output import seconds
from .outcome import Outcome, read_outcome
from .pace import kinds, left_s
from .stages import stage_names

RETRY_S = 1.0  # between two tries of a mesh that does not answer
LONG_POLL_S = 15.0  # daemons answer a `wait` after twenty seconds at the latest
SILENCE_S = 15.0  # for a mesh that does not answer while daemons die and return
NEVER = 1 << 31  # a step that no run reaches: only the end of the run answers a `wait` early
LATE_ROWS = 3  # rows of the newest steps may still gain figures, so they are asked for again
SAMPLES = 12  # as many as a tall terminal shows


@dataclass(slots=True)
class Picture:
    """What is known of a run at a moment. `rows`: figures by step, in step order. `doing`: node name -> the stages
    that it is running. `kinds`: what each step of the run trains. `stages`: ids in the pipeline's order."""

    outcome: Outcome
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    members: list[dict[str, Any]] = field(default_factory=list)
    doing: dict[str, list[str]] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()

    @property
    def newest(self) -> Mapping[str, Any]:
        return self.rows[max(self.rows)] if self.rows else {}

    def column(self, name: str) -> list[tuple[int, float]]:
        """(step, figure) of every step that has this figure."""
        return [(step, float(row[name])) for step, row in self.rows.items() if row.get(name) is not None]

    def by_stage(self, name: str) -> dict[str, float]:
        """The newest step's figure of each stage alone, where several have one."""
        start = f"{name}/"
        return {key.removeprefix(start): float(value) for key, value in self.newest.items() if key.startswith(start)}

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Figures of steps, in place of what was known of these."""
        self.rows |= {int(row["step"]): dict(row) for row in rows}
        self.rows = dict(sorted(self.rows.items()))

    def set_tasks(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """What runs now, of the latest tasks."""
        self.doing = {}
        for task in tasks:
            if task.get("state") == "running":
                stages = self.doing.setdefault(str(task["node"]), [])
                if task["stage"] not in stages:
                    stages.append(str(task["stage"]))

    def update(self, outcome: Outcome, samples: list[dict[str, Any]], members: list[dict[str, Any]]) -> None:
        """What is known now; what did not answer, and is empty, is left as it was."""
        self.outcome = outcome
        self.samples, self.members = samples or self.samples, members or self.members

    def left_s(self) -> float | None:
        """Seconds to the end, as far as its pace is known."""
        return left_s(self.rows, self.kinds, self.outcome.step)


class Viewer(Protocol):
    """Who shows the picture, every `look_s` seconds."""

    @property
    def look_s(self) -> float: ...
    def show(self, picture: Picture) -> None: ...


def follow(client: Client, folder: Path, run: str, viewer: Viewer) -> Picture:
    """Show the run until it ends; the end is told at once. Raises CliError when the mesh falls silent."""
    picture: Picture | None = None
    while True:
        outcome = await_end(client, run, viewer.look_s if picture is not None else 0.0)
        if picture is None:
            picture = Picture(outcome, kinds=kinds(outcome.spec), stages=stage_names(outcome.spec))
        gather(client, folder, picture, outcome)
        viewer.show(picture)
        if outcome.is_final:
            return picture


def await_end(client: Client, run: str, patience_s: float) -> Outcome:
    """How the run stands when it ends, or `patience_s` seconds from now. Raises CliError."""
    until = time.monotonic() + patience_s
    heard = time.monotonic()
    while True:
        poll_s = min(max(until - time.monotonic(), 0.0), LONG_POLL_S)
        params = {"run": run, "timeout_s": poll_s, "known_step": NEVER}
        try:
            outcome = read_outcome(client.call("wait", params, deadline_s=poll_s + 5.0))
        except CliError as problem:
            if problem.exit_code != EXIT_NO_DAEMON or time.monotonic() > heard + SILENCE_S:
                raise
            time.sleep(RETRY_S)
            continue
        heard = time.monotonic()
        if outcome.is_final or heard >= until:
            return outcome


def wait(client: Client, run: str, timeout_s: float | None) -> Outcome:
    """The run's outcome once it has ended. Raises CliError, of exit code 4 after `timeout_s` seconds."""
    outcome = await_end(client, run, float("inf") if timeout_s is None else timeout_s)
    if not outcome.is_final:
        raise CliError(
            f"run {outcome.run} is still active after {seconds(timeout_s or 0.0)}, at step {outcome.step} of "
            f"{outcome.steps}" + (f"; {outcome.remark}" if outcome.remark else ""),
            hint=f"it goes on; wait again, or look with `dflow watch {outcome.run[:8]}`",
            exit_code=EXIT_TIMEOUT,
        )
    return outcome


def acquaint(client: Client, folder: Path) -> None:
    """Learn who else there is while the first daemon answers, to be able to ask on when it is gone."""
    meet(client, folder, client.call("nodes")["nodes"])


def gather(client: Client, folder: Path, picture: Picture, outcome: Outcome) -> None:
    """Bring the picture up to date."""
    run = outcome.run
    since = max(picture.rows, default=0) - LATE_ROWS
    picture.add_rows(_ask(client, "metrics", {"run": run, "since_step": max(since, 0)}).get("rows") or ())
    samples = _ask(client, "samples", {"run": run, "limit": SAMPLES}).get("samples", [])
    members = _ask(client, "nodes", {}).get("nodes", [])
    if members:
        meet(client, folder, members)
    picture.update(outcome, samples, members)
    picture.set_tasks(_ask(client, "tasks", {"run": run, "limit": 50}).get("tasks", []))


def _ask(client: Client, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return client.call(method, params, deadline_s=2.0)
    except CliError:
        return {}
