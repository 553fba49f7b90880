"""What a report is made from: every question that is asked of the mesh, or of the folder that it left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dflow_protocols.pipeline import Pipeline, SpecError

from ..kept.source import FROM_FOLDER, Source, all_rows
from ..runs.outcome import Outcome, read_outcome

MANY = 100_000  # tasks and samples at most
EVENTS = 10_000
BEFORE_S = 5.0  # that daemons were started in, before the run was submitted

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Of one run. `submitted_s`: None where nobody knows; `names`: of nodes by id; `missing`: who did not answer;
    `pipeline`: None where it is not kept or of another release; `folder`: that answered, where no daemon did."""

    outcome: Outcome
    submitted_s: float | None
    rows: Rows
    tasks: Rows
    samples: Rows
    nodes: Rows
    events: Rows
    names: Mapping[str, str]
    missing: Sequence[str]
    pipeline: Pipeline | None
    folder: str
    asked_s: float


def gather(source: Source, run: str) -> Gathered:
    """Raises CliError where there is no such run, and where nobody answers."""
    asked_s = time.time()
    about = source.call("run", {"run": run})
    outcome = read_outcome(about)
    of_run = {"run": outcome.run}
    rows = all_rows(source, "metrics", "rows", of_run)
    tasks = all_rows(source, "tasks", "tasks", {**of_run, "limit": MANY})
    samples = source.call("samples", {**of_run, "limit": MANY})
    nodes = source.call("nodes", of_run)
    submitted_s = about.get("submitted_s")
    events = source.call("events", {"limit": EVENTS, "level": "info", "since_s": _first_s(submitted_s, tasks)})
    answers = (about, samples, nodes, events)
    return Gathered(
        outcome=outcome,
        submitted_s=None if submitted_s is None else float(submitted_s),
        rows=rows,
        tasks=tasks,
        samples=samples["samples"],
        nodes=nodes["nodes"],
        events=events["events"],
        names={**{str(task["node_id"]): str(task["node"]) for task in tasks}, **events["names"]},
        missing=sorted({str(name) for answer in answers for name in answer.get("missing", ())}),
        pipeline=_pipeline(outcome.spec),
        folder=str(about.get(FROM_FOLDER, "")),
        asked_s=asked_s,
    )


def _first_s(submitted_s: float | None, tasks: Rows) -> float:
    known = [float(task["started"]) for task in tasks[:1]]
    if submitted_s is not None:
        known.append(float(submitted_s))
    return min(known, default=0.0) - BEFORE_S


def _pipeline(spec: bytes) -> Pipeline | None:
    try:
        return Pipeline.from_canonical(spec)
    except SpecError:
        return None
