"""What a daemon writes of a run for people: the lines of its files, and how those of all members become one answer.

A line is a JSON object in a file of STATE/runs/RUN; an older part of a file has `.1` behind its name. Members' parts
are put together alike whether they answer or only their files are left. Reads and writes no file. In lines and in
members' parts a `step` is a version's number; in what people get of them it is the pipeline's.

    metrics      one row a version that the node adopted: its figures are functions of sealed sums and alike on every
                 node; its times are the node's own. {"abandoned_after": s}: rows after s do not count
    samples      completions that people may read
    tasks        tasks that ended here
    costs        what a step cost this node's slots, in one life of its daemon; a later line of a step replaces earlier
    times        when the node heard of the run, and of its end
    checkpoints  folders that were written

A step's row, of all members and of all updates that were made in the step, once the last of them is:

    step_s      seconds from beginning the step to adopting the version it made, the longest of any node
    compute_s   seconds that slots were busy with the step, summed over nodes
    idle_frac   the share of step_s that the slots of all members together were not busy
    mesh_s      step_s less the time the own slot was busy, the least of any node: what is not compute. Clocks are not
                compared between nodes, so this is a bound from above, tight where one node is busy all the time
    seconds     seconds by stage, summed over nodes; `STAGE.reduce` and `STAGE.apply` are parts of training
    sampler_idle_frac, trainer_idle_frac
                the share of the time in which it was made that slots did nothing for the run, over the nodes that
                sampled in it, and over those that computed gradients; what ran may be of later steps
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from .metrics import LEARNING_RATE, finish, merge
from .pipeline.schedule import Schedule

METRICS: Final = "metrics"
SAMPLES: Final = "samples"
TASKS: Final = "tasks"
COSTS: Final = "costs"
TIMES: Final = "times"
CHECKPOINTS: Final = "checkpoints"
SAMPLER: Final = "sampler"  # a node in whose slots rollouts were sampled
TRAINER: Final = "trainer"  # and gradients computed
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


def first_version(schedule: Schedule, step: int) -> int:
    """Number of the first version of which a step's row tells; row s is of what led to the end of s steps."""
    return schedule.first(step - 1) + 1 if step > 0 else 0


def place_of(schedule: Schedule, number: int) -> dict[str, int]:
    """In a row: the step that a version begins or goes on with, and where that makes several updates the next one."""
    place = schedule.nearest(number)
    return {"step": place.step} | ({"update": place.update} if place.updates > 1 else {})


def told_task(schedule: Schedule, row: Mapping[str, Any]) -> dict[str, Any]:
    """A task's row as people get it: by steps of the pipeline."""
    source = row.get("samples_from")
    begun = {} if source is None else {"samples_from": schedule.nearest(int(source)).step}
    return {**row, **place_of(schedule, int(row["step"])), **begun}


def merge_rows(reports: Sequence[Mapping[str, Any]], schedule: Schedule) -> list[dict[str, Any]]:
    """One row a step whose last update is made, from the reports of all members, the asked one's first, whose figures
    count if it has any."""
    steps: dict[int, list[_Version]] = {}
    for number, version in sorted(_versions(reports).items()):
        if version.row and number <= schedule.versions:
            steps.setdefault(schedule.steps_to(number), []).append(version)
    return [_merged_row(step, made) for step, made in steps.items() if made[-1].row["step"] == schedule.first(step)]


def merge_abandoned(reports: Sequence[Mapping[str, Any]], schedule: Schedule) -> list[dict[str, Any]]:
    """One row a version that lost the fork choice, with `abandoned` set, by step."""
    found: dict[tuple[int, str], Mapping[str, Any]] = {}
    for report in reports:
        for row in report["abandoned"]:
            key = (int(row["step"]), str(row["version"]))
            if not found.get(key, {}).get("sums"):
                found[key] = row
    lost = [(schedule.steps_to(key[0]), _Version(found[key])) for key in sorted(found)]
    return [_merged_row(step, [version]) | {"abandoned": True} for step, version in lost]


Waited: TypeAlias = Mapping[str, Sequence[float]]
"""By role that a node had in a step: seconds in which its slots did nothing for the run, and of how many."""


def idle_by_role(waited: Iterable[Waited]) -> dict[str, float]:
    """The share of their time that slots did nothing for the run, of several nodes or versions that a step made; of
    the roles that some of them had."""
    seconds: dict[str, tuple[float, float]] = {}
    for each in waited:
        for role, (left_s, whole_s) in each.items():
            before = seconds.get(role, (0.0, 0.0))
            seconds[role] = before[0] + left_s, before[1] + whole_s
    return {role: left_s / whole_s for role, (left_s, whole_s) in sorted(seconds.items()) if whole_s > 0}


def step_sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of a step, from the rows of the versions that it made, in their order: all updates together. Of facts of an
    update the largest counts, of learning rates the last."""
    sums = dict(merge(row["sums"].items() for row in rows))
    rates = [row["sums"][LEARNING_RATE] for row in rows if LEARNING_RATE in row["sums"]]
    return sums | ({LEARNING_RATE: rates[-1]} if rates else {})


@dataclass(slots=True)
class _Version:
    """What members tell of the making of a version: a row of one of them, (seconds, own busy seconds, slots) of each
    that made it, what it cost them all, and what their slots waited."""

    row: Mapping[str, Any] = field(default_factory=dict)
    walls: list[tuple[float, float, int]] = field(default_factory=list)
    cost: StepCost = field(default_factory=StepCost)
    waited: list[Waited] = field(default_factory=list)

    def add(self, row: Mapping[str, Any], own_busy_s: float, slots: int) -> None:
        if not self.row.get("sums"):  # who copied a version knows no figures of it
            self.row = row
        self.waited.append(row.get("waited", {}))
        if row["own_step_s"] is not None:
            self.walls.append((float(row["own_step_s"]), own_busy_s, slots))

    @property
    def step_s(self) -> float:
        return max(wall for wall, _, _ in self.walls)

    @property
    def capacity_s(self) -> float:
        return self.step_s * sum(slots for _, _, slots in self.walls)

    @property
    def mesh_s(self) -> float:
        return min(max(0.0, wall - own_busy) for wall, own_busy, _ in self.walls)


def _versions(reports: Sequence[Mapping[str, Any]]) -> dict[int, _Version]:
    found: dict[int, _Version] = {}
    for report in reports:
        costs = {int(step): StepCost(by_stage, float(busy_s)) for step, busy_s, by_stage in report["costs"]}
        for step, cost in costs.items():
            found.setdefault(step, _Version()).cost.add_all(cost)
        for row in report["rows"]:
            step = int(row["step"])
            own_busy_s = costs[step].busy_s if step in costs else 0.0
            found.setdefault(step, _Version()).add(row, own_busy_s, int(report["slots"]))
    return found


def _merged_row(step: int, made: Sequence[_Version]) -> dict[str, Any]:
    """Of a step, from the versions that it made."""
    last, cost = made[-1].row, StepCost()
    waited = [each for version in made for each in version.waited]
    for version in made:
        cost.add_all(version.cost)
    merged: dict[str, Any] = {
        "step": step,
        "version": last["version"],
        "samples_total": last["samples_total"],
        "time_s": last["time_s"],
        **finish(step_sums([version.row for version in made])),
        "compute_s": cost.busy_s,
        "seconds": dict(sorted(cost.seconds.items())),
        **{f"{role}_idle_frac": share for role, share in idle_by_role(waited).items()},
    }
    if all(version.walls for version in made):
        merged["step_s"] = step_s = sum(version.step_s for version in made)
        merged["mesh_s"] = sum(version.mesh_s for version in made)
        capacity_s = sum(version.capacity_s for version in made)
        if capacity_s > 0:
            merged["idle_frac"] = min(1.0, max(0.0, 1.0 - cost.busy_s / capacity_s))
        if step_s > 0 and "generated_tokens" in merged:
            merged["tokens_per_s"] = merged["generated_tokens"] / step_s
    return merged
