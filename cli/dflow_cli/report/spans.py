"""Tasks on a common clock: the intervals in which nodes worked on a run, and to which phase of its step each belongs.

A step has four phases, and each waits for all of the one before: partitions' chains, blocks of gradients, slices of
their sum, the update. Evaluations run beside the first three, and the update waits for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from dflow_protocols.names import Block, Once, Partition, Slice, part_of


class Phase(IntEnum):
    """When in its step a task runs; OTHER waits for nothing of it."""

    OTHER = 0  # the first weights, checkpoints
    CHAIN = 1
    BLOCK = 2
    SLICE = 3
    APPLY = 4


@dataclass(frozen=True, slots=True)
class Span:
    """One task on its node. `name`: what its time is counted as, the stage or a part of training (`learn.apply`).
    `units`: equal shares of work in it (leaves, chunks; a partition is one). Seconds since 1970."""

    node: str
    step: int
    stage: str
    name: str
    part: str
    phase: Phase
    begin: float
    end: float
    units: int = 1
    origin: str = "dealt"
    is_failed: bool = False
    evaluates: bool = False
    samples_from: int | None = None  # the step that the version began or went on with which it sampled from, if it did
    update: int = 0  # which of its step's updates it is of

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def behind(self) -> int:
        """How many steps what it sampled is behind its own; 0 of what sampled nothing."""
        return 0 if self.samples_from is None else self.step - self.samples_from


def spans_of(tasks: Iterable[Mapping[str, Any]], evaluating: Collection[str], ahead: Mapping[str, float]) -> list[Span]:
    """Tasks that have ended, by their beginning. `evaluating`: stages that only measure. `ahead`: node -> seconds by
    which its clock is ahead of the others', which are taken off."""
    found = [_span(task, evaluating, ahead.get(str(task["node"]), 0.0)) for task in tasks if task.get("ended")]
    return sorted(found, key=lambda span: (span.begin, span.end, span.node, span.name, span.part))


def _span(task: Mapping[str, Any], evaluating: Collection[str], ahead_s: float) -> Span:
    stage, text = str(task["stage"]), str(task["id"]).rpartition("/")[2]
    phase, name, units = _place(stage, text)
    begin, end = float(task["started"]) - ahead_s, float(task["ended"]) - ahead_s
    return Span(
        node=str(task["node"]),
        step=int(task["step"]),
        stage=stage,
        name=name,
        part=text,
        phase=phase,
        begin=begin,
        end=max(begin, end),
        units=units,
        origin=str(task.get("origin", "dealt")),
        is_failed=task.get("state") == "failed",
        evaluates=stage in evaluating,
        samples_from=task.get("samples_from"),
        update=int(task.get("update", 0)),
    )


def _place(stage: str, text: str) -> tuple[Phase, str, int]:
    """The phase of a task by its part, the name its time goes under (see books.py), and its units."""
    match part_of(text):
        case Partition():
            return Phase.CHAIN, stage, 1
        case Block(first, end):
            return Phase.BLOCK, stage, end - first
        case Slice(first, end):
            return Phase.SLICE, f"{stage}.reduce", end - first
        case Once("apply"):
            return Phase.APPLY, f"{stage}.apply", 1
        case Once(word):
            return Phase.OTHER, word, 1
