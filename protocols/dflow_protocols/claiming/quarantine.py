"""Quarantine: what becomes of a run when one of its tasks is at fault. It fails, or goes on without that partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import runs
from ..machine import Action, Report
from ..names import NodeId, TaskKey
from ..sealing import MANIFEST, sealed_chains_of
from ..wire.steps import Skip
from .failure import Verdict

if TYPE_CHECKING:
    from ..run import Run, Surroundings


class Quarantine:
    """One run's at one node. `skipped`: partitions (by their chain's first stage) that the manifest will lack."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.skipped: dict[TaskKey, Skip] = {}

    def judge(self, around: Surroundings, out: list[Action]) -> None:
        """Look at what is known of failures: fail the run, or leave partitions out, if that says so."""
        run = self.run

        def able(task: TaskKey) -> frozenset[NodeId]:
            return run.ability.able((task.stage,), run.me, around.living, around.offers)

        for verdict in run.failures.verdicts(able):
            if not run.is_active:
                return
            if verdict.task not in self.skipped:
                self._decide(verdict, around, out)

    def forget_steps_before(self, number: int) -> None:
        self.skipped = {task: skip for task, skip in self.skipped.items() if task.step >= number}

    def _decide(self, verdict: Verdict, around: Surroundings, out: list[Action]) -> None:
        run, task, first = self.run, verdict.task, verdict.evidence[0]
        nodes = tuple(sorted({failure.node for failure in verdict.evidence}))
        if self._may_skip(verdict):
            self.skipped[task] = Skip(task, first.kind, first.digest, first.error, nodes)
            fields = {"run": run.id, "task": str(task), "kind": first.kind, "error": first.error, "nodes": nodes}
            out.append(Report("task.skipped", fields, "warning"))
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
