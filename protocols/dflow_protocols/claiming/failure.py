"""Failures: what failed where, and what follows from it for a task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ..names import NodeId, TaskKey, content_id
from ..wire.steps import Failure


@dataclass
class Failures:
    """What failed where. User code that fails twice alike ends the run; anything else only after three tries, and not
    while a living node is left (of three at most) that has not tried: a broken host must not take the run with it."""

    known: dict[tuple[TaskKey, NodeId, int], Failure] = field(default_factory=dict)
    own_attempts: dict[TaskKey, int] = field(default_factory=dict)

    SAME_USER_ERROR = 2
    ANY_ERROR = 3
    MAX_KNOWN = 1_000

    def record(self, task: TaskKey, node: NodeId, kind: str, error: str) -> Failure:
        """A failure on this node."""
        attempt = self.own_attempts.get(task, 0) + 1
        self.own_attempts[task] = attempt
        failure = Failure(task, node, attempt, kind, content_id("error", error), error[:2000])
        self.add(failure)
        return failure

    def add(self, failure: Failure) -> None:
        if len(self.known) < self.MAX_KNOWN:
            self.known[(failure.task, failure.node, failure.attempt)] = failure

    def nodes(self, unit: TaskKey) -> frozenset[NodeId]:
        """Where a unit failed."""
        return frozenset(node for task, node, _ in self.known if task == unit)

    def block_nodes(self, step: int, stage: str, leaf: int) -> frozenset[NodeId]:
        """Where a block of leaves failed that this leaf is in."""
        found = set()
        for task, node, _ in self.known:
            if (task.step, task.stage) == (step, stage) and leaf in task.leaves:
                found.add(node)
        return frozenset(found)

    def forget_steps_before(self, number: int) -> None:
        """What failed there succeeded elsewhere."""
        self.known = {key: failure for key, failure in self.known.items() if key[0].step >= number}
        self.own_attempts = {task: count for task, count in self.own_attempts.items() if task.step >= number}

    def fatal(self, living: Collection[NodeId]) -> Failure | None:
        """The failure that ends the run, if any does."""
        by_task: dict[TaskKey, list[Failure]] = {}
        for _, failure in sorted(self.known.items()):
            by_task.setdefault(failure.task, []).append(failure)
        for failures in by_task.values():
            user = [failure.digest for failure in failures if failure.kind == "user"]
            alike = [failure for failure in failures if user.count(failure.digest) >= self.SAME_USER_ERROR]
            nodes = {failure.node for failure in failures}
            if alike:
                return alike[0]
            if len(failures) >= self.ANY_ERROR and len(nodes) >= min(self.ANY_ERROR, len(living)):
                return failures[0]
        return None
