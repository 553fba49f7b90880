"""Failures: what failed where, and when a task is at fault instead of the host that it ran on.

A task is quarantined when user code raised one error twice on it, or when it failed three times, on three different
nodes (on all that are able, if they are fewer). What failed on a host that has withdrawn says nothing of the task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ..names import NodeId, TaskKey, content_id
from ..wire.steps import Failure
from ..work import FailureKind

ERROR_CHARACTERS = 2_000
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")  # that `repr` shows of an object: another one in each process


@dataclass(frozen=True, slots=True)
class Verdict:
    """A task is at fault. `same_error`: user code raised the same twice, else engines died or errors differed."""

    task: TaskKey
    same_error: bool
    evidence: tuple[Failure, ...]


@dataclass
class Failures:
    """What one node knows of a run's failures."""

    known: dict[tuple[TaskKey, NodeId, int], Failure] = field(default_factory=dict)
    own_attempts: dict[TaskKey, int] = field(default_factory=dict)
    changes: int = 0  # of what is known, so far

    SAME_USER_ERROR = 2
    ANY_ERROR = 3
    MAX_OF_A_NODE = 256  # its oldest are forgotten first: one host that fails fast must not hide what others found

    def record(self, task: TaskKey, node: NodeId, kind: FailureKind, error: str) -> Failure:
        """A failure on this node."""
        attempt = self.own_attempts.get(task, 0) + 1
        self.own_attempts[task] = attempt
        digest = content_id("error", ADDRESS.sub("0x", error))
        failure = Failure(task, node, attempt, kind, digest, error[:ERROR_CHARACTERS])
        self.add(failure)
        return failure

    def add(self, failure: Failure) -> bool:
        """True if it was new."""
        if (failure.task, failure.node, failure.attempt) in self.known:
            return False
        self.known[(failure.task, failure.node, failure.attempt)] = failure
        self.changes += 1
        of_node = [key for key in self.known if key[1] == failure.node]
        if len(of_node) > self.MAX_OF_A_NODE:
            del self.known[of_node[0]]
        return True

    def nodes(self, unit: TaskKey) -> frozenset[NodeId]:
        """Where a unit failed, or a block with this leaf."""
        return frozenset(node for task, node, _ in self.known if task.holds(unit))

    def doubted(self, node: NodeId) -> frozenset[TaskKey]:
        """Tasks on which user code failed on this node."""
        return frozenset(task for (task, who, _), each in self.known.items() if who == node and each.kind == "user")

    def of_step(self, node: NodeId, step: int) -> tuple[Failure, ...]:
        """A node's failures at a step."""
        return tuple(failure for (task, who, _), failure in self.known.items() if who == node and task.step == step)

    def forget_steps_before(self, number: int) -> None:
        """What failed there succeeded elsewhere."""
        over = [key for key in self.known if key[0].step < number]
        for key in over:
            del self.known[key]
        self.changes += len(over)
        self.own_attempts = {task: count for task, count in self.own_attempts.items() if task.step >= number}

    def verdicts(self, able: Callable[[TaskKey], Collection[NodeId]]) -> list[Verdict]:
        """The tasks at fault. `able`: who can run a task and has not withdrawn from it.

        Of a block each leaf is counted for itself: one that kills engines is tried in other blocks at other nodes.
        """
        by_task: dict[TaskKey, list[Failure]] = {}
        for _, failure in sorted(self.known.items()):
            by_task.setdefault(failure.task, []).append(failure)
        found = []
        for task, failures in by_task.items():
            user = [failure.digest for failure in failures if failure.kind == "user"]
            alike = [failure for failure in failures if user.count(failure.digest) >= self.SAME_USER_ERROR]
            if alike:
                found.append(Verdict(task, True, tuple(alike)))
                continue
            trusted = able(task)
            for single in task.singles:
                held = [failure for key, failure in sorted(self.known.items()) if key[0].holds(single)]
                counted = [failure for failure in held if failure.node in trusted]
                nodes = {failure.node for failure in counted}
                if len(counted) >= self.ANY_ERROR and len(nodes) >= min(self.ANY_ERROR, len(trusted)):
                    found.append(Verdict(task, False, tuple(counted)))
                    break
        return found
