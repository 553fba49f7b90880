"""The inbox: what a member's message changes in the state of a run. Nothing that cannot be is taken."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from ..controllers.checkpoints import Checkpoints
from ..controllers.quarantine import Quarantine
from ..controllers.stealing import Stealing
from ..events import Action, Send
from ..names import NodeId, Partition, TaskKey
from ..run_state.long_seals import joined
from ..run_state.outbox import LEASE, Outbox
from ..run_state.run_state import MeshView, RunState
from ..steps.admission import MAX_JUMP, is_failure, is_header, is_of_gradient, is_record, is_seal, is_single, is_unit
from ..versions.lineage import is_chain
from ..wire.books import Holding, TaskClaim
from ..wire.steps import (
    LOST,
    Bring,
    Brought,
    BucketGet,
    BucketPut,
    CheckpointPut,
    ClaimPut,
    Failure,
    FailurePut,
    HeaderGet,
    HeaderPut,
    Keep,
    Kept,
    OutputsPut,
    Record,
    RecordPut,
    RecordsAsk,
    RecordsHeld,
    RosterPut,
    Seal,
    SealAck,
    SealNames,
    SealPut,
    StealAsk,
    StealGrant,
    StealRefuse,
    StepMessage,
)
from .anti_entropy import AntiEntropy
from .relaying import Relaying


class Inbox:
    """One run's at one node."""

    def __init__(
        self,
        state: RunState,
        anti_entropy: AntiEntropy,
        checkpoints: Checkpoints,
        quarantine: Quarantine,
        stealing: Stealing,
        relaying: Relaying,
        outbox: Outbox,
    ) -> None:
        self._state = state
        self._outbox = outbox
        self._relaying = relaying
        self._anti_entropy = anti_entropy
        self._checkpoints = checkpoints
        self._quarantine = quarantine
        self._stealing = stealing

    def take(self, now: float, mesh: MeshView, source: NodeId, message: StepMessage, out: list[Action]) -> bool:
        """A member's message about this run. Whether anything new may follow from it here: not from a question, nor
        from what is only said again. With a thousand members nearly all that a replica hears is one of these."""
        run = self._state
        match message:
            case BucketGet():
                self._anti_entropy.answer_books(now, mesh, source, message, out)
            case HeaderGet(version=version):
                self._anti_entropy.answer_header(source, version, out)
            case RecordsAsk(step=number, records=asked) if number in run.steps:
                self._anti_entropy.answer_records(source, run.steps[number], asked, out)
            case RecordsHeld(records=()) if run.is_near(message.step):
                self._anti_entropy.compare(source, message, out)
            case ClaimPut(step=number, units=units) if run.is_near(number):
                fits = [unit for unit in units if is_unit(unit, run.plan(number))]
                is_new = run.step(number).claim(now, source, fits, now + LEASE * mesh.suspicion_s)
                return run.loans.learn_claims(source, fits) or is_new
            case _:
                self._learn_from(now, mesh, source, message, out)
                return True
        return False

    def _learn_from(self, now: float, mesh: MeshView, source: NodeId, message: StepMessage, out: list[Action]) -> None:
        """What a message says that cannot be is left out; nothing is believed twice."""
        run = self._state
        match message:
            case RecordPut(records=records):
                for record in records:
                    self._learn(record, (source,), frozenset((source,)))
                for number in sorted({record.task.step for record in records} & run.steps.keys()):
                    run.steps[number].learn_own(source, [record.id for record in records])
            case OutputsPut(outputs=outputs):
                run.holdings.come_along(outputs)
            case RecordsHeld() if self._state.is_near(message.step):
                self._anti_entropy.compare(source, message, out)
            case StealAsk():
                self._stealing.answer(now, mesh, source, message, out)
            case StealGrant(units=stolen):
                near = [each for each in stolen if self._state.is_near(each.unit.step)]
                known = [each for each in near if is_single(each.unit, run.plan(each.unit.step))]
                self._stealing.take_grant(source, message, known)
            case StealRefuse():
                self._stealing.take_refusal(now, mesh, source, message)
            case FailurePut(attempt=attempt, failures=failures) if attempt == run.status.attempt:
                self._learn_failures(source, failures)
                self._quarantine.judge(now, mesh, out)
            case BucketPut(step=number, records=held, claims=claims, page=page) if self._state.is_near(number):
                taken = [self._learn(each.record, each.holders, mesh.living) for each in held]
                if page is not None and all(taken) and number in run.steps:
                    run.steps[number].learn_page(source, page)
                self._learn_claims(now, mesh, number, claims)
            case SealPut() | SealNames():
                self._take_any_seal(mesh, source, message, out)
            case SealAck(step=number, seal=seal_id) if number in run.steps:
                acks = run.steps[number].acks.get(seal_id)
                if acks is not None:
                    acks.add(source)
            case HeaderPut():
                self._take_header(message)
            case RosterPut(roster=roster) if self._state.is_near(roster.step):
                run.step(roster.step).take_roster(roster)
            case CheckpointPut():
                self._checkpoints.take(source, message)
            case Keep(shards=shards):
                run.keep(shards, source)
                self._anti_entropy.keep_promises(now, mesh, out)
            case Kept(shards=shards):
                run.holdings.credit(source, shards)
            case Bring() | Brought():
                self._relaying.take(now, mesh, source, message)
            case RecordsHeld() | RecordsAsk() | ClaimPut() | BucketPut() | SealAck() | RosterPut() | FailurePut():
                pass  # of a step that this node keeps no books of, or of another attempt
            case BucketGet() | HeaderGet():
                pass  # questions
            case _:
                assert_never(message)

    def _learn(self, record: Record, holders: Iterable[NodeId], may_hold: Collection[NodeId]) -> bool:
        """Take a record that can be one of the run's, and who of those that may hold its outputs is said to. False of
        any other, which may be one later."""
        state, number = self._state, record.task.step
        is_known = number in state.steps and record.id in state.steps[number].by_id  # it is told of by each holder
        if not state.is_near(number) or not (is_known or self._fits(record)):
            return False
        state.step(number).add(record)
        for holder in holders:
            if holder in may_hold:
                state.holdings.credit(holder, [ref.id for ref in record.shards])
        return True

    def _fits(self, record: Record) -> bool:
        plan, position = self._state.plan(record.task.step), self._state.position
        if not is_record(record, plan):
            return False
        training = plan.training_of(record.task.stage)
        if training is None or isinstance(record.task.part, Partition):  # of demonstrations, which the stage makes
            return True
        return position is not None and is_of_gradient(record, position.state, training)

    def _learn_failures(self, source: NodeId, failures: tuple[Failure, ...]) -> None:
        """Each tells its own; who failed at a task is not at work on it."""
        state = self._state
        for failure in failures:
            number = failure.task.step
            is_told = failure.node == source and state.is_near(number)
            if is_told and is_failure(failure, state.plan(number)) and state.failures.add(failure):
                state.step(number).learn_failed(source, failure.task)

    def _learn_claims(self, now: float, mesh: MeshView, number: int, claims: tuple[TaskClaim, ...]) -> None:
        by_node: dict[NodeId, list[TaskKey]] = {}
        for claim in claims:
            is_member = claim.node != self._state.me and claim.node in mesh.living
            if is_member and is_unit(claim.unit, self._state.plan(number)):
                by_node.setdefault(claim.node, []).append(claim.unit)
        for node, units in by_node.items():
            self._state.step(number).learn_claim(now, node, units, now + LEASE * mesh.suspicion_s)

    def _may_keep(self, seal: Seal) -> bool:
        """Whether a seal can be one of the run's, and not so far ahead of those known that none could follow it."""
        run = self._state
        if not self._state.is_near(seal.step) or seal.spec != run.spec:
            return False
        admitted = run.steps[seal.step].by_id if seal.step in run.steps else ()
        if not is_seal(seal, run.plan(seal.step), admitted):
            return False
        known = [other.generation for other in run.step(seal.step).seals.values() if other.kind == seal.kind]
        return seal.generation <= max(known, default=0) + MAX_JUMP

    def _take_any_seal(self, mesh: MeshView, source: NodeId, told: SealPut | SealNames, out: list[Action]) -> None:
        """A long one if its records came before it; else it is asked for again."""
        if self._state.is_near(told.seal.step):
            put = told if isinstance(told, SealPut) else joined(told, self._state.step(told.seal.step))
            if put is not None:
                self._take_seal(mesh, source, put, out)

    def _take_seal(self, mesh: MeshView, source: NodeId, put: SealPut, out: list[Action]) -> None:
        run, seal = self._state, put.seal
        put = replace(put, holdings=tuple(_holdings(put, mesh.living | {source})))
        if not self._may_keep(seal):
            return
        if run.pipeline.on_poison != "skip" and any(skip.kind != LOST for skip in seal.skipped):
            return
        if not run.plan(seal.step).is_carried and any(skip.kind == LOST for skip in seal.skipped):
            return
        step = run.step(seal.step)
        step.keep(seal)
        for shard, holders in put.holders:
            for holder in holders:
                run.holdings.credit(holder, [shard])
        if put.settled:
            step.settled.add(seal.id)
            self._pass_on(mesh, put, out)
        else:
            out.append(Send(source, SealAck(run.id, seal.step, seal.id)))
        if put.roster is not None and put.roster.step == run.pipeline.rostered_with(seal.step):
            run.step(put.roster.step).take_roster(put.roster)

    def _pass_on(self, mesh: MeshView, put: SealPut, out: list[Action]) -> None:
        """A settled seal goes on to whom its sender named, once, as it came; of a long one, of which the sender said
        beside the records who holds what it names, with what this node knows of that."""
        run = self._state
        onward = tuple(node for node in dict.fromkeys(put.onward) if node in mesh.living and node != run.me)
        if onward and run.step(put.seal.step).passes_on(put.seal.id):
            holdings = put.holdings or self._outbox.holdings(mesh.living, put.seal)
            self._outbox.pass_on(replace(put, holdings=holdings, onward=onward), out)

    def _take_header(self, put: HeaderPut) -> None:
        """A header that was asked for. Its samples and step are not in its id, so they must be those that were
        claimed; one that belied true claims of the version would keep it from being copied for ever."""
        run, header, seal, roster = self._state, put.header, put.seal, put.roster
        asked = run.catch_up.asked
        if asked is None or asked.head != header.head or not is_header(header, run.pipeline):
            return
        if seal is not None and (seal.id, seal.parent, seal.step + 1) != (header.seal, header.parent, header.step):
            return
        before = put.before if is_chain(header.head, put.before) else ()
        run.versions.learn(header, before)
        if put.begun is not None and put.begun.head in before and is_header(put.begun, run.pipeline):
            run.versions.learn(put.begun)
        if seal is not None and self._may_keep(seal):
            run.step(seal.step).keep(seal)
            run.step(seal.step).settled.add(seal.id)
        if roster is not None and roster.step == header.step:
            run.step(header.step).take_roster(roster)


def _holdings(put: SealPut, may_hold: Collection[NodeId]) -> Iterator[Holding]:
    """Who of these is said to hold what a seal names. Each place once, and each node once a place: what is said in few
    bytes of many of both would be told on as all of their pairs."""
    left = set(range(len(put.seal.shards)))
    for holding in put.holdings:
        nodes = tuple(node for node in dict.fromkeys(holding.nodes) if node in may_hold)
        places = tuple(place for place in dict.fromkeys(holding.places) if place in left)
        left.difference_update(places)
        if nodes and places:
            yield Holding(places, nodes)
