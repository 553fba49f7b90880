"""Quarantine: what becomes of a run when one of its tasks is at fault. It fails, or goes on without that partition.

Who sees no more than half of a step's roster may be a broken host that was cut off, to whom every task looks faulty:
it waits long for the others before it ends the run on its own evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..claiming.failure import Verdict
from ..events import Action, Report
from ..names import NodeId, TaskKey
from ..run_state import status as runs
from ..steps.sealing import MANIFEST, sealed_chains_of
from ..wire.steps import Skip

if TYPE_CHECKING:
    from ..runs.run import Run, Surroundings

ALONE_WAIT = 16.0  # suspicion times without most of the roster, before dying engines count against a task


class Quarantine:
    """One run's at one node. `skipped`: partitions (by their chain's first stage) that the manifest will lack."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.skipped: dict[TaskKey, Skip] = {}

    def judge(self, now: float, around: Surroundings, out: list[Action]) -> None:
        """Look at what is known of failures: fail the run, or leave partitions out, if that says so."""
        run = self.run
        if not run.failures.known:
            return

        def able(task: TaskKey) -> frozenset[NodeId]:
            chains = [chain.stages for chain in run.plan(task.step).chains if chain.stages[0] == task.stage]
            stages = chains[0] if chains else (task.stage,)
            return run.ability.able(stages, run.me, around.living, around.offers)

        done_before = run.position.step if run.position is not None else 0
        for verdict in run.failures.verdicts(able):
            if not run.is_active:
                return
            if verdict.task.step < done_before or self._is_done(now, verdict.task, around):
                continue  # somebody did it after all
            if verdict.task not in self.skipped and not self._is_doubtful(now, verdict, around):
                self._decide(verdict, around, out)

    def _is_done(self, now: float, task: TaskKey, around: Surroundings) -> bool:
        """Whether a partition of the open step has its records."""
        position = self.run.position
        chains = [chain for chain in self.run.plan(task.step).chains if chain.stages[0] == task.stage]
        if position is None or position.step != task.step or task.part[0] != "p" or not chains:
            return False
        desk = self.run.desk(now, around, position)
        done = desk.step.chain(chains[0], int(task.part[1:]), position.id, desk.counts)
        return len(done) == len(chains[0].stages)

    def _is_doubtful(self, now: float, verdict: Verdict, around: Surroundings) -> bool:
        step = self.run.step(verdict.task.step)
        if verdict.same_error or step.roster is None:
            return False
        here = sum(1 for node in step.roster.members if node in around.living)
        if 2 * here > len(step.roster.members):
            step.since.pop("alone", None)
            return False
        return step.waited(now, "alone") <= ALONE_WAIT * around.suspicion_s

    def forget_steps_before(self, number: int) -> None:
        self.skipped = {task: skip for task, skip in self.skipped.items() if task.step >= number}

    def _decide(self, verdict: Verdict, around: Surroundings, out: list[Action]) -> None:
        run, task, first = self.run, verdict.task, verdict.evidence[0]
        nodes = tuple(sorted({failure.node for failure in verdict.evidence}))
        if self._may_skip(verdict):
            self.skipped[task] = Skip(task, first.kind, first.digest, first.error, nodes)
            fields = {"run": run.id, "task": str(task), "kind": first.kind, "error": first.error}
            out.append(Report("task.skipped", {**fields, "nodes": " ".join(nodes)}, "warning"))
            if not self._is_all(task):
                return
        told = f"{task} failed: {first.error}"
        evidence = [[failure.node, failure.attempt, failure.kind, failure.error] for failure in verdict.evidence]
        run.ending.end(runs.FAILED, {"error": told, "evidence": evidence}, around, out)

    def _may_skip(self, verdict: Verdict) -> bool:
        """Only rollouts and demonstrations may be left out; where weights are a function of the spec, only for an
        error that any host would have found."""
        run, task = self.run, verdict.task
        if run.pipeline.on_poison != "skip" or task.part[0] != "p":
            return False
        if run.pipeline.reproducibility == "exact" and not verdict.same_error:
            return False
        return any(chain.stages[0] == task.stage for chain in sealed_chains_of(run.plan(task.step), MANIFEST))

    def _is_all(self, task: TaskKey) -> bool:
        """Whether no partition is left to train on."""
        chains = sealed_chains_of(self.run.plan(task.step), MANIFEST)
        due = sum(chain.partitions for chain in chains if chain.stages[0] == task.stage)
        return due == sum((each.step, each.stage) == (task.step, task.stage) for each in self.skipped)
