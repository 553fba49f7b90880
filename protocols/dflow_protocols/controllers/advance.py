"""Advancing: from a settled update seal to the next version, whole and at once.

A node holds v or v + 1, never something between: the new state is made beside the old one, and becomes the own head
when all of it is here. What a step gave is told with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from .. import metrics
from ..events import Action, Advanced, Report
from ..names import MANIFEST, Block, Once, SealId, Slice, TaskKey
from ..pipeline.plan import Chain, StepPlan
from ..ranges import State, in_order
from ..run_state import references
from ..run_state.outbox import Outbox
from ..run_state.run_state import Call, MeshView, RunState
from ..steps.batch import Batch, kept_by_round, make_batch, rounds_of, slice_records
from ..steps.duties import slice_pieces
from ..steps.duty import Duty
from ..steps.patience import Wait
from ..steps.reduction import cover
from ..steps.sealing import sealed_chains_of
from ..steps.view import StepView
from ..versions import coefficients, facts, kept, lagged
from ..versions.lineage import LostBranch
from ..versions.shares import shares
from ..wire.steps import Header, Seal
from ..work import ApplyWork, Done, Product

UNCOMMITTED = 2  # versions beyond the committed one that a node makes at most: bounds what it must keep


class Advance:
    """One run's way from version to version at one node."""

    def __init__(self, state: RunState, outbox: Outbox) -> None:
        self._state = state
        self._outbox = outbox

    def apply(self, view: StepView, mesh: MeshView, update: Seal, out: list[Action]) -> list[Duty]:
        """Fetch all slices and apply them, or hand the state on unchanged if the step trained on nothing."""
        header = view.trains
        if header.step - self._state.committed_step >= UNCOMMITTED:
            return []  # nobody else has what this node made last: wait for a second copy before making more
        if self._is_left_to_others(view):
            return []
        if not self.is_followed(update, header):
            return []  # the manifest comes or is made again, or the version is copied
        made = [record for record in update.entries if isinstance(record.task.part, Slice)]
        training = view.plan.training_of(made[0].task.stage) if made else None
        if training is None:
            self._adopt(view.now, mesh, update, header.state, {}, out)
            return []
        slices = tuple(record.shards[0] for record in made)
        ahead = [node for node, head in self._state.versions.heads.items() if head.step > header.step]
        want = partial(self._state.holdings.want, view.now, product=Product.SLICE)
        here = [want(ref, mesh.living, out, others=ahead) for ref in slices]
        if not all(here):
            return []
        self._free_blocks(view, training.stage, out)
        work = ApplyWork(
            header.step,
            training.stage,
            kept.own(lagged.own(header.state)),
            slices,
            training.update,
            training.updates,
            training.keep_optimizer,
        )
        unit = TaskKey(header.step, training.stage, Once("apply"))
        return [Duty(-1, unit, work, tuple((ref, None) for _, ref in work.state), (header.id, update.id))]

    def _is_left_to_others(self, view: StepView) -> bool:
        """Whether updates fail here, and somebody else may make this one yet: all may be as this node is."""
        if not self._state.own_updates.are_left(view.trains.step + 1) or view.on_duty <= {view.me}:
            return False
        view.step.patience.start(view.now, Wait.UPDATE)
        return view.step.patience.lasts(view.now, Wait.UPDATE) <= view.suspicion_s

    def failed(self, running: Call, error: str, out: list[Action]) -> None:
        """The own next version could not be made here."""
        state, number = self._state, running.unit.step + 1
        if state.own_updates.failed(number):
            until = state.told_step(state.own_updates.left_before)
            fields = {"run": state.id, "step": state.told_step(number), "until": until, "error": error}
            out.append(Report("update.withdrawn", fields, "warning"))

    def _free_blocks(self, view: StepView, stage: str, out: list[Action]) -> None:
        """All that blocks were summed for is here, and whoever lacks a slice finds it here: their memory is needed for
        the new state."""

        def is_block(task: TaskKey) -> bool:
            return task.step == view.step.number and task.stage == stage and isinstance(task.part, Block)

        known = references.all_records(self._state)
        blocks = [ref.id for record in known if is_block(record.task) for ref in record.shards]
        references.free(self._state, blocks, (record for record in known if not is_block(record.task)), out)

    def _adopt(
        self,
        now: float,
        mesh: MeshView,
        update: Seal,
        state: State,
        made: dict[str, float],
        out: list[Action],
    ) -> None:
        """Hold the version that `update` makes of the own one. `state`: its own, without what it carries along."""
        parent = self._state.versions.own
        assert parent is not None
        manifest = self._manifest(update)
        step = self._state.pipeline.schedule.place(update.step).step
        out += self._shortages(manifest, step)
        pipeline, number = self._state.pipeline, parent.step + 1
        header = Header(
            parent.id,
            number,
            parent.samples + update.samples,
            update.id,
            kept.carry(pipeline, number, parent.state, lagged.carry(pipeline, parent, state)),
            facts.merge(
                parent.facts,
                facts.evaluated(pipeline, update, step),
                facts.left_out(manifest, step),
                facts.timed_out(manifest, step),
            ),
            coefficients.after(pipeline, parent.coefficients, update, manifest),
        )
        self._state.versions.hold(header)
        self.moved(now, mesh, parent, made, out, update)

    def _manifest(self, update: Seal) -> Seal | None:
        """What an update was trained on, if it was on anything and that is known here."""
        return self._state.step(update.step).seals.get(SealId(update.previous))

    def is_followed(self, update: Seal, parent: Header) -> bool:
        """Whether all is here from which coefficients follow, if there are any."""
        return not parent.coefficients or update.previous == parent.id or self._manifest(update) is not None

    def _refilled(self, manifest: Seal | None) -> Iterator[tuple[Chain, int, int]]:
        """Of each chain that a manifest settled in rounds: the chain, how many these were, and how many of their groups
        are kept. What was made for an update before is told with that."""
        plan = self._state.plan(manifest.step) if manifest is not None else None
        if manifest is None or plan is None or plan.is_carried:
            return
        for chain in sealed_chains_of(plan, MANIFEST):
            if chain.rounds.counted:
                yield chain, rounds_of(manifest, chain), sum(kept_by_round(manifest, chain))

    def _shortages(self, manifest: Seal | None, step: int) -> list[Report]:
        """Chains that gave too few groups in all rounds that they may have: training goes on with what there is."""
        run, told = self._state.id, []
        for chain, rounds, groups in self._refilled(manifest):
            if groups < (until := chain.rounds.until):
                fields = {"run": run, "step": step, "rounds": rounds, "kept": groups, "until": until}
                told.append(Report("step.short", fields, "warning"))
        return told

    def moved(
        self,
        now: float,
        mesh: MeshView,
        before: Header | None,
        made: dict[str, float],
        out: list[Action],
        update: Seal | None = None,
        lost: LostBranch | None = None,
    ) -> None:
        """The own newest version is another one: tell everybody, what the step gave, and what was given up."""
        own = self._state.versions.own
        assert own is not None
        opened = self._state.step(before.step).opened_at if before is not None else None
        self._state.advanced(now)
        if lost is not None and lost.teller == self._state.me:
            cost = {"fork_step": lost.fork_step, "steps": lost.steps, "samples": lost.samples}
            versions = {"version": lost.head.version, "kept": own.id}
            out.append(Report("run.branch_lost", {"run": self._state.id, **versions, **cost}, "warning"))
        out.append(
            Advanced(
                self._state.id,
                own.head,
                is_copied=update is None and own.parent is not None,
                metrics=dict(metrics.merge([made.items(), *self._step_metrics(update)])),
                seconds=None if opened is None or update is None else now - opened,
                fork_step=None if lost is None else lost.fork_step,
            )
        )
        self._outbox.tell_advance(self._state.view(now, mesh, own), mesh, out)

    def _step_metrics(self, update: Seal | None) -> list[Iterable[tuple[str, float]]]:
        """Of the records that the step's seals name, and of blocks that cover the gradient."""
        if update is None:
            return []
        step = self._state.step(update.step)
        pipeline = self._state.pipeline
        parts: list[Iterable[tuple[str, float]]] = [
            shares(pipeline, record.task.stage, record.metrics) for record in update.entries
        ]
        if (parent := self._state.versions.headers.get(update.parent)) is not None:
            at = pipeline.schedule.place(update.step).step
            parts.append(coefficients.told(pipeline, parent.coefficients, at))
        manifest = self._manifest(update)
        if manifest is None:
            return parts
        step_plan = self._state.plan(update.step)
        if not step_plan.is_carried:  # what was made for an update before is told with that
            parts += [shares(pipeline, record.task.stage, record.metrics) for record in manifest.entries]
        for gap in self._gaps(step_plan, manifest):
            parts.append(((metrics.VERSION_GAP_MAX, float(gap)), (metrics.VERSION_GAP_MIN, float(gap))))
        for chain, rounds, groups in self._refilled(manifest):
            surplus = max(0, groups - chain.rounds.until)
            figures = metrics.ROUNDS, metrics.GROUPS_KEPT, metrics.GROUPS_SURPLUS
            parts.append(zip(figures, map(float, (rounds, groups, surplus)), strict=True))
        inputs = (update.parent, manifest.id)
        for training in step_plan.trainings:
            gradient = partial(step.gradient, training.stage, inputs=inputs, counts=lambda record: True)
            found = cover(Block(0, training.leaves), make_batch(manifest, training).needed, gradient)
            parts += [record.metrics for _, record in found or ()]
        return parts

    def _gaps(self, step_plan: StepPlan, manifest: Seal) -> set[int]:
        """How many steps behind what trains on them rollouts were. Of what was made for an update before that was told
        with it."""
        versions, place = self._state.versions, self._state.pipeline.schedule.place
        header = versions.headers.get(manifest.parent)
        numbers: set[int] = set()
        if step_plan.is_carried or header is None:
            return numbers
        if step_plan.lag:
            numbers = {step_plan.samples_from}
        elif step_plan.max_staleness:
            led: dict[str, int] = {head.version: head.step for head in (header.head, *versions.led_to(header))}
            numbers = {led[name] for each in manifest.entries if (name := each.inputs[0]) in led}
        return {place(manifest.step).step - place(number).step for number in numbers}

    def prefetch(self, view: StepView, batch: Batch, out: list[Action]) -> None:
        """Bring what the next tasks read as soon as it is there: pieces of blocks for the own slices, and slices."""
        holdings = self._state.holdings
        for ref, chunks in slice_pieces(view, batch):
            holdings.want(view.now, ref, view.living, out, chunks, product=Product.BLOCK)
        is_left = self._state.own_updates.are_left(view.trains.step + 1)
        if self._state.catch_up.target is None and not is_left:  # only who applies them needs the slices
            for record in slice_records(view, batch):
                if record is not None:
                    holdings.want(view.now, record.shards[0], view.living, out, product=Product.SLICE)

    def applied(self, now: float, mesh: MeshView, running: Call, done: Done, out: list[Action]) -> None:
        if self._state.own_updates.made():
            out.append(Report("update.resumed", {"run": self._state.id}))
        own = self._state.versions.own
        update = self._state.step(running.unit.step).seals.get(SealId(running.reads[1]))
        if own is None or own.id != running.parent or update is None or not self.is_followed(update, own):
            return  # the own head went elsewhere meanwhile; what was made is freed with the step
        state = in_order(entry for made in done.made for entry in made.outputs)
        made = {name: value for each in done.made for name, value in each.metrics}
        self._adopt(now, mesh, update, state, made, out)
