"""Quarantine: what becomes of a run when one of its tasks is at fault. It fails, or goes on without that partition.

Who sees no more than half of a step's roster may be a broken host that was cut off, to whom every task looks faulty:
it waits long for the others before it ends the run on its own evidence. So does who alone is on duty, or has the run's
files, or a device.
"""

from __future__ import annotations

from dataclasses import replace

from ..claiming.failure import Verdict
from ..events import Action, Report
from ..names import MANIFEST, NodeId, Partition, TaskKey
from ..run_state import status as runs
from ..run_state.outbox import Outbox
from ..run_state.run_state import MeshView, RunState
from ..steps.patience import Wait
from ..steps.sealing import sealed_chains_of
from ..wire.steps import Seal, Skip

ALONE_WAIT = 16.0  # suspicion times without most of the roster, before dying engines count against a task


class Quarantine:
    """One run's at one node."""

    def __init__(self, state: RunState, outbox: Outbox) -> None:
        self._state = state
        self._outbox = outbox
        self._told: set[TaskKey] = set()  # what people have heard to be left out, by the first step that is without it

    def judge(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Look at what is known of failures: fail the run, or leave partitions out, if that says so."""
        run = self._state
        if not run.failures.known:
            return

        def able(task: TaskKey) -> frozenset[NodeId]:
            chains = [chain.stages for chain in run.plan(task.step).chains if chain.stages[0] == task.stage]
            stages = chains[0] if chains else (task.stage,)
            able = run.ability.able(stages, run.me, mesh.living, mesh.offers)
            return able & mesh.on_duty or able  # where all on duty have withdrawn, those that are drained may yet do it

        done_before = run.position.step if run.position is not None else 0
        for verdict in run.failures.verdicts(able):
            if not run.is_active:
                return
            if verdict.task.step < done_before or self._is_done(now, verdict.task, mesh):
                continue  # somebody did it after all
            if verdict.task not in self._state.skipped:
                self._watch_company(now, verdict, mesh)
                if not self._is_doubtful(now, verdict, mesh):
                    self._decide(verdict, mesh, out)

    def _is_done(self, now: float, task: TaskKey, mesh: MeshView) -> bool:
        """Whether a partition of an open step has its records."""
        position = self._state.position
        chains = [chain for chain in self._state.plan(task.step).chains if chain.stages[0] == task.stage]
        if position is None or not isinstance(task.part, Partition) or not chains:
            return False
        view = next((v for v in self._state.views(now, mesh, position) if v.step.number == task.step), None)
        if view is None:
            return False
        done = view.progress_of(chains[0]).done[task.part.index]
        return len(done) == len(chains[0].stages)

    def _watch_company(self, now: float, verdict: Verdict, mesh: MeshView) -> None:
        step = self._state.step(verdict.task.step)
        if not verdict.same_error and step.roster is not None:
            company = mesh.on_duty - self._state.ability.without_means(self._state.me, mesh.on_duty)
            here = sum(1 for node in step.roster.members if node in company)
            step.patience.follow(now, 2 * here <= len(step.roster.members), Wait.COMPANY)

    def _is_doubtful(self, now: float, verdict: Verdict, mesh: MeshView) -> bool:
        """Whether most of the roster may come back, or may work again, and show that it is good."""
        patience = self._state.step(verdict.task.step).patience
        is_alone = not verdict.same_error and patience.is_waiting(Wait.COMPANY)
        return is_alone and patience.lasts(now, Wait.COMPANY) <= ALONE_WAIT * mesh.suspicion_s

    def _decide(self, verdict: Verdict, mesh: MeshView, out: list[Action]) -> None:
        run, task, first = self._state, verdict.task, verdict.evidence[0]
        nodes = tuple(sorted({failure.node for failure in verdict.evidence}))
        if self._may_skip(verdict):
            run.skip(Skip(task, first.kind, first.digest, first.error, nodes))
            if not self._is_all(task):
                return
        told = f"{task} failed: {first.error}"
        evidence = [[failure.node, failure.attempt, failure.kind, failure.error] for failure in verdict.evidence]
        self._outbox.end(runs.FAILED, {"error": told, "evidence": evidence}, mesh, out)

    def tell_skipped(self, manifest: Seal, out: list[Action]) -> None:
        """What a settled manifest leaves out, once. Before it is settled somebody may do it after all: who is no
        replica knows that a task failed, and not that it was done elsewhere."""
        run = self._state
        self._told = {task for task in self._told if task.step >= run.freed_before}
        for skip in manifest.skipped:
            at_first = replace(skip.task, step=run.pipeline.schedule.place(skip.task.step).first)
            if at_first not in self._told:
                self._told.add(at_first)
                fields = {"run": run.id, "task": str(skip.task), "kind": skip.kind, "error": skip.error}
                out.append(Report("task.skipped", {**fields, "nodes": " ".join(skip.nodes)}, "warning"))

    def _may_skip(self, verdict: Verdict) -> bool:
        """Only rollouts and demonstrations may be left out; where weights are a function of the spec, only for an
        error that any host would have found."""
        run, task = self._state, verdict.task
        if run.pipeline.on_poison != "skip" or not isinstance(task.part, Partition):
            return False
        if run.pipeline.reproducibility == "exact" and not verdict.same_error:
            return False
        return any(chain.stages[0] == task.stage for chain in sealed_chains_of(run.plan(task.step), MANIFEST))

    def _is_all(self, task: TaskKey) -> bool:
        """Whether no partition is left to train on."""
        chains = sealed_chains_of(self._state.plan(task.step), MANIFEST)
        due = sum(chain.partitions for chain in chains if chain.stages[0] == task.stage)
        return due == sum((each.step, each.stage) == (task.step, task.stage) for each in self._state.skipped)
