"""What a daemon writes of a run for people: the lines of its files, and how those of all members become one answer.

A line is a JSON object in a file of STATE/runs/RUN; an older part of a file has `.1` behind its name. Members' parts
are put together alike whether they answer or only their files are left. Reads and writes no file.

    metrics      one row a version that the node adopted: its figures are functions of sealed sums and alike on every
                 node; its times are the node's own. {"abandoned_after": s}: rows after s do not count
    samples      completions that people may read
    tasks        tasks that ended here
    costs        what a step cost this node's slots, in one life of its daemon; a later line of a step replaces earlier
    times        when the node heard of the run, and of its end
    checkpoints  folders that were written

A step's row, of all members:

    step_s      seconds from beginning the step to adopting the version it made, the longest of any node
    compute_s   seconds that slots were busy with the step, summed over nodes
    idle_frac   the share of step_s that the slots of all members together were not busy
    mesh_s      step_s less the time the own slot was busy, the least of any node: what is not compute. Clocks are not
                compared between nodes, so this is a bound from above, tight where one node is busy all the time
    seconds     seconds by stage, summed over nodes; `STAGE.reduce` and `STAGE.apply` are parts of training
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .metrics import finish

METRICS: Final = "metrics"
SAMPLES: Final = "samples"
TASKS: Final = "tasks"
COSTS: Final = "costs"
TIMES: Final = "times"
CHECKPOINTS: Final = "checkpoints"
ROWS_KEPT: Final = 100_000  # of a run and kind in memory; a file keeps as many as it has room for
NEEDED: Final[Mapping[str, Mapping[str, type | tuple[type, ...]]]] = {
    METRICS: {"step": int, "version": str, "samples_total": int, "time_s": float, "sums": dict},
    SAMPLES: {"step": int},
    TASKS: {"id": str, "stage": str, "step": int, "state": str, "stolen": bool, "origin": str, "started": float},
    COSTS: {"life": float, "step": int, "busy_s": float, "seconds": dict},
    TIMES: {},
    CHECKPOINTS: {"step": int, "folder": str},
}
"""By file, what a line has to have; of metrics those that are no mark of abandoned ones."""


def file_of(name: str) -> str:
    return f"{name}.jsonl"


def older(file: str) -> str:
    return f"{file}.1"


def parse(name: str, data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a file, and how many there are that are damaged."""
    rows: list[dict[str, Any]] = []
    damaged = 0
    for line in data.split(b"\n"):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and _is_whole(name, row):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def _is_whole(name: str, row: Mapping[str, Any]) -> bool:
    if name == METRICS and "abandoned_after" in row:
        return isinstance(row["abandoned_after"], int)
    return all(isinstance(row.get(key), (int, float) if kind is float else kind) for key, kind in NEEDED[name].items())


@dataclass(slots=True)
class Steps:
    """Rows of one node: those that stand, by step, and those of versions that lost the fork choice after a split."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    abandoned: list[dict[str, Any]] = field(default_factory=list)

    def add(self, entry: Mapping[str, Any]) -> None:
        """A line of the file, in its order."""
        if "abandoned_after" in entry:
            self.abandon(int(entry["abandoned_after"]))
        else:
            self.rows[int(entry["step"])] = dict(entry)
            if len(self.rows) > ROWS_KEPT:
                del self.rows[next(iter(self.rows))]

    def abandon(self, fork_step: int) -> None:
        """Versions after `fork_step` lost the fork choice: their rows tell of training that does not count."""
        for step in [step for step in self.rows if step > fork_step]:
            self.abandoned.append(self.rows.pop(step))
        del self.abandoned[:-ROWS_KEPT]


def steps_of(entries: Iterable[Mapping[str, Any]]) -> Steps:
    steps = Steps()
    for entry in entries:
        steps.add(entry)
    return steps


@dataclass(slots=True)
class StepCost:
    """What a step cost on a node: seconds by stage, and in which its slots were busy at all."""

    seconds: dict[str, float] = field(default_factory=dict)
    busy_s: float = 0.0

    def add_busy(self, seconds: float) -> None:
        self.busy_s += seconds

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def add_all(self, other: StepCost) -> None:
        self.add_busy(other.busy_s)
        for name, seconds in other.seconds.items():
            self.add(name, seconds)


def costs_of(entries: Iterable[Mapping[str, Any]], but: float | None = None) -> dict[int, StepCost]:
    """By step, over all lives of a daemon but one: in each the last line of a step counts."""
    last = {(entry["life"], int(entry["step"])): entry for entry in entries if entry["life"] != but}
    found: dict[int, StepCost] = {}
    for (_, step), entry in last.items():
        found.setdefault(step, StepCost()).add_all(StepCost(entry["seconds"], entry["busy_s"]))
    return found


def times_of(entries: Iterable[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """When a node heard of the run, and that it is over; seconds since 1970."""
    began_s = ended_s = None
    for entry in entries:
        began_s, ended_s = entry.get("began_s", began_s), entry.get("ended_s", ended_s)
    return began_s, ended_s


def own_report(
    rows: list[dict[str, Any]], abandoned: list[dict[str, Any]], costs: Mapping[int, StepCost], slots: int
) -> dict[str, Any]:
    """What one node answers when asked for its share of `metrics`. A task of step s is a cost of row s + 1."""
    return {
        "rows": rows,
        "abandoned": abandoned,
        "slots": slots,
        "costs": [[step + 1, cost.busy_s, cost.seconds] for step, cost in sorted(costs.items())],
    }


def merge_rows(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a step from the reports of all members, the asked one's first, whose figures count if it has any."""
    figures: dict[int, Mapping[str, Any]] = {}
    walls: dict[int, list[tuple[float, float, int]]] = {}
    seconds: dict[int, dict[str, float]] = {}
    busy: dict[int, float] = {}
    for report in reports:
        costs = {int(step): (float(busy_s), by_stage) for step, busy_s, by_stage in report["costs"]}
        for step, (busy_s, by_stage) in costs.items():
            busy[step] = busy.get(step, 0.0) + busy_s
            total = seconds.setdefault(step, {})
            for stage, value in by_stage.items():
                total[stage] = total.get(stage, 0.0) + value
        for row in report["rows"]:
            step = int(row["step"])
            if not figures.get(step, {}).get("sums"):  # who copied a version knows no figures of it
                figures[step] = row
            if row["own_step_s"] is not None:
                own_busy = costs[step][0] if step in costs else 0.0
                walls.setdefault(step, []).append((float(row["own_step_s"]), own_busy, int(report["slots"])))
    return [
        _merged_row(figures[step], walls.get(step, []), busy.get(step, 0.0), seconds.get(step, {}))
        for step in sorted(figures)
    ]


def merge_abandoned(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a version that lost the fork choice, with `abandoned` set, by step."""
    found: dict[tuple[int, str], Mapping[str, Any]] = {}
    for report in reports:
        for row in report["abandoned"]:
            key = (int(row["step"]), str(row["version"]))
            if not found.get(key, {}).get("sums"):
                found[key] = row
    return [_merged_row(found[key], [], 0.0, {}) | {"abandoned": True} for key in sorted(found)]


def _merged_row(
    row: Mapping[str, Any], walls: list[tuple[float, float, int]], busy_s: float, seconds: dict[str, float]
) -> dict[str, Any]:
    sums = row["sums"]
    merged: dict[str, Any] = {
        "step": row["step"],
        "version": row["version"],
        "samples_total": row["samples_total"],
        "time_s": row["time_s"],
        **finish(sums),
        "compute_s": busy_s,
        "seconds": dict(sorted(seconds.items())),
    }
    if walls:
        step_s = max(wall for wall, _, _ in walls)
        capacity_s = step_s * sum(slots for _, _, slots in walls)
        merged["step_s"] = step_s
        merged["mesh_s"] = min(max(0.0, wall - own_busy) for wall, own_busy, _ in walls)
        if capacity_s > 0:
            merged["idle_frac"] = min(1.0, max(0.0, 1.0 - busy_s / capacity_s))
        if step_s > 0 and "generated_tokens" in merged:
            merged["tokens_per_s"] = merged["generated_tokens"] / step_s
    return merged
