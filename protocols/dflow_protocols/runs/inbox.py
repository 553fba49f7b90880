"""A run's messages: what is put where, what is answered, and what is said again while a step waits.

Puts are hints that spare waiting; the books of the step's replicas, asked for while a step waits, are what heals any
loss. Nothing here is a promise that a message arrives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from ..events import Action, Send
from ..names import NodeId, RecordId, SealId, ShardId, ShardRef, TaskKey
from ..steps.admission import MAX_JUMP, is_failure, is_header, is_of_gradient, is_record, is_seal, is_single, is_unit
from ..steps.duties import Desk
from ..steps.step import Step, digest_of
from ..versions.lineage import is_chain
from ..wire.steps import (
    BucketGet,
    BucketPut,
    CheckpointPut,
    ClaimPut,
    FailurePut,
    HeaderGet,
    HeaderPut,
    Held,
    Keep,
    Kept,
    Record,
    RecordPut,
    RecordsAsk,
    RecordsHeld,
    Roster,
    RosterPut,
    Seal,
    SealAck,
    SealPut,
    StealAsk,
    StealGrant,
    StealRefuse,
    TaskClaim,
)

if TYPE_CHECKING:
    from .run import Run, Surroundings

LEASE = 2.0  # suspicion times that a claim lives without renewal
REFRESH = 0.5  # suspicion times between two looks at a step that waits: twice within the shortest other delay
MAX_KEPT = 4_096  # shards that a node keeps for members that left
RECORDS_A_MESSAGE = 256  # a record has 1-2 KB; a message must fit into a frame
IDS_A_MESSAGE = 8_192
STEPS_AHEAD = 2  # books of later steps that a node opens on hearsay: peers are at most that far ahead of what it knows


class Postbox:
    """The messages of one run at one node."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.refreshed_at = 0.0
        self.polls = 0
        self.keep_for: set[tuple[ShardRef, NodeId]] = set()  # shards that leaving members asked this node to keep

    # Out ------------------------------------------------------------------------------------------------------------

    def tell_all(self, around: Surroundings, message: Any, out: list[Action]) -> None:
        """To every living member; `None` is a frame with nothing but the own standing."""
        out.extend(Send(node, message) for node in sorted(around.living) if node != self.run.me)

    def _tell(self, nodes: Iterable[NodeId], message: Any, out: list[Action]) -> None:
        out.extend(Send(node, message) for node in dict.fromkeys(nodes) if node != self.run.me)

    def put_records(self, desk: Desk, records: list[Record], out: list[Action], owners: Iterable[NodeId] = ()) -> None:
        """To the step's replicas; blocks and slices to the trainers too, who sum and apply them; `owners`: whom the
        work was stolen from."""
        for_all = tuple(records)
        for_trainers = tuple(record for record in records if record.task.part[0] in "bs")
        self._tell([*desk.replicas, *sorted(owners)], RecordPut(self.run.id, for_all), out)
        if for_trainers:
            others = [node for node in desk.trainers if node in desk.living and node not in desk.replicas]
            self._tell(others, RecordPut(self.run.id, for_trainers), out)

    def put_claims(self, desk: Desk, out: list[Action], owners: Iterable[NodeId] = ()) -> None:
        """What runs here or was taken from others, to the step's replicas and to those it was taken from. Nobody is
        told while there is no roster. `owners`: whom something was taken from that is given back."""
        if desk.step.roster is None:
            return
        running = [call.unit for call in self.run.calls.values() if call.parent == desk.header.id]
        units = tuple(dict.fromkeys([*running, *self.run.stealing.held()]))
        desk.step.claim(self.run.me, units, desk.now + LEASE * desk.suspicion_s)
        others = [*desk.replicas, *self.run.stealing.owners(), *owners]
        self._tell(others, ClaimPut(self.run.id, desk.step.number, units), out)

    def put_seal(self, desk: Desk, seal: Seal, out: list[Action]) -> None:
        """A seal that is to be settled, to the replicas that have not acknowledged it."""
        acked = desk.step.acks[seal.id]
        message = SealPut(self.run.id, seal, False, self._holders(desk, seal), None)
        self._tell([node for node in desk.replicas if node not in acked], message, out)

    def announce_seal(self, desk: Desk, seal: Seal, roster: Roster | None, out: list[Action]) -> None:
        """A settled seal, to everybody alive: who is in the roster acts on it, who is not may follow."""
        message = SealPut(self.run.id, seal, True, self._holders(desk, seal), roster)
        self._tell(sorted(desk.living), message, out)

    def _holders(self, desk: Desk, seal: Seal) -> tuple[tuple[ShardId, tuple[NodeId, ...]], ...]:
        shards = [ref.id for record in seal.entries for ref in record.shards]
        return tuple((shard, desk.holdings.live_holders(shard, desk.living)) for shard in dict.fromkeys(shards))

    # While a step waits ---------------------------------------------------------------------------------------------

    def refresh(self, now: float, around: Surroundings, at_once: bool = False) -> list[Action]:
        """Say again what others may not have heard, and ask for what this node may not have heard."""
        out: list[Action] = []
        run, period = self.run, REFRESH * around.suspicion_s
        header = run.position
        if not run.is_active or (now - self.refreshed_at < period and not at_once):
            return out
        waited = run.advanced_at <= self.refreshed_at
        self.refreshed_at = now
        if header is None:
            run.checkpoints.tell(around.living, out)
            return out
        self._keep_promises(now, around, out)
        if run.leaving.is_begun:
            run.leaving.hand_over(around, out)
        step = run.step(header.step)
        if step.roster is None:
            self._poll(sorted(around.living), step.number, "", out)
            return out
        desk = run.desk(now, around, header)
        if desk.running or run.stealing.held():
            self.put_claims(desk, out)
        if waited or at_once:
            if run.checkpoints.mine:
                run.checkpoints.tell(around.living, out)
            failed = run.failures.of_step(run.me, step.number)
            if failed:
                self.tell_all(around, FailurePut(run.id, failed[:RECORDS_A_MESSAGE]), out)
            if step.mine:
                self._tell(desk.replicas, RecordsHeld(run.id, step.number, digest_of(self._own(step)), ()), out)
            for seal_id in step.acks:
                if seal_id not in step.settled:
                    self.put_seal(desk, step.seals[seal_id], out)
            others = [node for node in desk.replicas if node != run.me] or sorted(around.living)
            self._poll(others, step.number, step.digest(), out)
        return out

    def _own(self, step: Step) -> dict[RecordId, Record]:
        """The records that this node vouches for: it made them, and their outputs lie here."""
        here = self.run.holdings.local
        return {name: record for name, record in step.mine.items() if all(ref.id in here for ref in record.shards)}

    def _compare(self, source: NodeId, held: RecordsHeld, out: list[Action]) -> None:
        """What a member says to have made: ask for what is not known of that."""
        step, holdings = self.run.step(held.step), self.run.holdings
        if held.records and digest_of(held.records) == held.digest:
            step.told.pop(source, None)  # these are all: others that it told of before it has no more
        for record in step.hear_own(source, held.records):
            holdings.credit(source, [ref.id for ref in record.shards])
        known = step.told_by(source, lambda record: holdings.has_said(source, [ref.id for ref in record.shards]))
        if not held.records and digest_of(known) != held.digest:
            out.append(Send(source, RecordsAsk(self.run.id, held.step, ())))
        lacking = tuple(name for name in held.records if name not in known)
        if lacking:
            out.append(Send(source, RecordsAsk(self.run.id, held.step, lacking)))

    def _answer_records(self, source: NodeId, step: Step, asked: tuple[RecordId, ...], out: list[Action]) -> None:
        """The ids of the own records, or those that were asked for."""
        own = self._own(step)
        if not asked:
            ids, digest = tuple(own), digest_of(own)
            for at in range(0, len(ids), IDS_A_MESSAGE):
                some = ids[at : at + IDS_A_MESSAGE]
                out.append(Send(source, RecordsHeld(self.run.id, step.number, digest, some)))
        wanted = [own[name] for name in dict.fromkeys(asked) if name in own]
        for at in range(0, len(wanted), RECORDS_A_MESSAGE):
            out.append(Send(source, RecordPut(self.run.id, tuple(wanted[at : at + RECORDS_A_MESSAGE]))))

    def _poll(self, nodes: list[NodeId], step: int, known: str, out: list[Action]) -> None:
        others = [node for node in nodes if node != self.run.me]
        if others:
            self.polls += 1
            out.append(Send(others[self.polls % len(others)], BucketGet(self.run.id, step, known)))

    def _keep_promises(self, now: float, around: Surroundings, out: list[Action]) -> None:
        """Fetch what leaving members asked this node to keep, and say so once it is here."""
        kept: dict[NodeId, list[ShardId]] = {}
        for ref, source in sorted(self.keep_for):
            if self.run.holdings.want(now, ref, around.living, out, others=[source], is_state=True):
                kept.setdefault(source, []).append(ref.id)
            elif source in around.living:
                continue
            self.keep_for.remove((ref, source))
        for source, shards in kept.items():
            out.append(Send(source, Kept(self.run.id, tuple(shards))))

    # In -------------------------------------------------------------------------------------------------------------

    def take(self, now: float, around: Surroundings, source: NodeId, message: Any) -> list[Action]:
        """A member's message about this run. What it says that cannot be is left out; nothing is believed twice."""
        out: list[Action] = []
        run = self.run
        match message:
            case RecordPut(records=records):
                for record in records:
                    self._learn(record, (source,), frozenset((source,)))
                for number in sorted({record.task.step for record in records} & run.steps.keys()):
                    run.steps[number].hear_own(source, [record.id for record in records])
            case RecordsHeld() if self._is_near(message.step):
                self._compare(source, message, out)
            case RecordsAsk(step=number, records=asked) if number in run.steps:
                self._answer_records(source, run.steps[number], asked, out)
            case ClaimPut(step=number, units=units) if self._is_near(number):
                fits = [unit for unit in units if is_unit(unit, run.plan(number))]
                run.step(number).claim(source, fits, now + LEASE * around.suspicion_s)
                run.stealing.loans.hear_claims(source, fits)
            case StealAsk():
                run.stealing.answer(now, around, source, message, out)
            case StealGrant(units=stolen):
                near = [each for each in stolen if self._is_near(each.unit.step)]
                known = [each for each in near if is_single(each.unit, run.plan(each.unit.step))]
                run.stealing.take_grant(source, message, known)
            case StealRefuse():
                run.stealing.take_refusal(now, around, source, message)
            case FailurePut(failures=failures):
                for failure in failures:
                    number = failure.task.step
                    is_told = failure.node == source and self._is_near(number)
                    if is_told and is_failure(failure, run.plan(number)) and run.failures.add(failure):
                        run.step(number).hear_failed(source, failure.task)
                run.quarantine.judge(now, around, out)
            case BucketGet(step=number, known=known):
                self._answer(now, around, source, number, known, out)
            case BucketPut(step=number, records=held, claims=claims) if self._is_near(number):
                for each in held:
                    self._learn(each.record, each.holders, around.living)
                self._learn_claims(now, around, number, claims)
            case SealPut():
                self._take_seal(around, source, message, out)
            case SealAck(step=number, seal=seal_id) if number in run.steps:
                acks = run.steps[number].acks.get(seal_id)
                if acks is not None:
                    acks.add(source)
            case HeaderGet(version=version):
                self._answer_header(source, version, out)
            case HeaderPut():
                self._take_header(message)
            case RosterPut(roster=roster) if self._is_near(roster.step):
                run.step(roster.step).take_roster(roster)
            case CheckpointPut(heads=heads):
                run.checkpoints.hear(source, heads)
            case Keep(shards=shards):
                self.keep_for.update((ref, source) for ref in shards[: MAX_KEPT - len(self.keep_for)])
                self._keep_promises(now, around, out)
            case Kept(shards=shards):
                run.holdings.credit(source, shards)
        return out

    def _is_near(self, number: int) -> bool:
        """Whether books of this step are kept: not yet freed, and not further ahead than anybody can be."""
        best = max((head.step for head in self.run.versions.heads.values()), default=0)
        own = self.run.versions.own
        newest = max(best, own.step if own is not None else 0)
        return self.run.ending.freed_before <= number <= min(newest + STEPS_AHEAD, self.run.last_step)

    def _learn(self, record: Record, holders: Iterable[NodeId], may_hold: Collection[NodeId]) -> None:
        """Take a record that can be one of the run's, and who of those that may hold its outputs is said to."""
        if self._is_near(record.task.step) and self._fits(record):
            self.run.step(record.task.step).add(record)
            for holder in holders:
                if holder in may_hold:
                    self.run.holdings.credit(holder, [ref.id for ref in record.shards])

    def _fits(self, record: Record) -> bool:
        plan, position = self.run.plan(record.task.step), self.run.position
        if not is_record(record, plan):
            return False
        if record.task.part[0] == "p" or plan.training is None:
            return True
        return position is not None and is_of_gradient(record, position.state, plan.training.model)

    def _learn_claims(self, now: float, around: Surroundings, number: int, claims: tuple[TaskClaim, ...]) -> None:
        by_node: dict[NodeId, list[TaskKey]] = {}
        for claim in claims:
            is_member = claim.node != self.run.me and claim.node in around.living
            if is_member and is_unit(claim.unit, self.run.plan(number)):
                by_node.setdefault(claim.node, []).append(claim.unit)
        for node, units in by_node.items():
            self.run.step(number).hear_claim(now, node, units, now + LEASE * around.suspicion_s)

    def _may_keep(self, seal: Seal) -> bool:
        """Whether a seal can be one of the run's, and not so far ahead of those known that none could follow it."""
        run = self.run
        if not self._is_near(seal.step) or seal.spec != run.spec or not is_seal(seal, run.plan(seal.step)):
            return False
        known = [other.generation for other in run.step(seal.step).seals.values() if other.kind == seal.kind]
        return seal.generation <= max(known, default=0) + MAX_JUMP

    def _take_seal(self, around: Surroundings, source: NodeId, put: SealPut, out: list[Action]) -> None:
        run, seal = self.run, put.seal
        if not self._may_keep(seal):
            return
        if seal.skipped and run.pipeline.on_poison != "skip":
            return
        step = run.step(seal.step)
        step.keep(seal)
        named = {ref.id for record in seal.entries for ref in record.shards}
        for shard, holders in put.holders:
            for holder in holders:
                if shard in named and (holder in around.living or holder == source):
                    run.holdings.credit(holder, [shard])
        if put.settled:
            step.settled.add(seal.id)
        else:
            out.append(Send(source, SealAck(run.id, seal.step, seal.id)))
        if put.roster is not None and put.roster.step == seal.step + 1:
            run.step(seal.step + 1).take_roster(put.roster)

    def _take_header(self, put: HeaderPut) -> None:
        """A header that was asked for. Its samples and step are not in its id, so they must be those that were
        claimed; one that belied true claims of the version would keep it from being copied for ever."""
        run, header, seal, roster = self.run, put.header, put.seal, put.roster
        asked = run.follower.asked
        if asked is None or asked.head != header.head or not is_header(header, run.pipeline):
            return
        if seal is not None and (seal.id, seal.parent, seal.step + 1) != (header.seal, header.parent, header.step):
            return
        run.versions.learn(header, put.before if is_chain(header.head, put.before) else ())
        if seal is not None and self._may_keep(seal):
            run.step(seal.step).keep(seal)
            run.step(seal.step).settled.add(seal.id)
        if roster is not None and roster.step == header.step:
            run.step(header.step).take_roster(roster)

    def _answer(
        self, now: float, around: Surroundings, source: NodeId, number: int, known: str, out: list[Action]
    ) -> None:
        """What this node's books say of a step, seals first."""
        run = self.run
        step = run.steps.get(number)
        if step is None or step.digest() == known:
            return
        following = run.steps.get(number + 1)
        for seal_id, seal in sorted(step.seals.items()):
            if seal_id in step.settled:
                roster = following.roster if following is not None and seal.kind == "update" else None
                out.append(Send(source, SealPut(run.id, seal, True, self._known_holders(around, seal), roster)))
        if step.roster is not None:
            out.append(Send(source, RosterPut(run.id, step.roster)))
        held = tuple(
            Held(record, tuple(sorted(set.intersection(*_holder_sets(run, around, record)))))
            for record in step.all_records()
            if record.shards
        )
        bare = tuple(Held(record, ()) for record in step.all_records() if not record.shards)
        claims = tuple(TaskClaim(unit, node) for unit, node in step.first_hand_claims(now))
        for at in range(0, max(1, len(held + bare)), RECORDS_A_MESSAGE):
            some = (held + bare)[at : at + RECORDS_A_MESSAGE]
            out.append(Send(source, BucketPut(run.id, number, some, claims if at == 0 else ())))

    def _known_holders(self, around: Surroundings, seal: Seal) -> tuple[tuple[ShardId, tuple[NodeId, ...]], ...]:
        shards = dict.fromkeys(ref.id for record in seal.entries for ref in record.shards)
        return tuple((shard, self.run.holdings.live_holders(shard, around.living)) for shard in shards)

    def _answer_header(self, source: NodeId, version: str, out: list[Action]) -> None:
        run = self.run
        for header in run.versions.headers.values():
            if header.id == version:
                made_in = run.steps.get(header.step - 1)
                seal = made_in.seals.get(SealId(header.seal)) if made_in is not None else None
                step = run.steps.get(header.step)
                before = run.versions.lineage.before(header.head)
                out.append(Send(source, HeaderPut(run.id, header, before, seal, step.roster if step else None)))


def _holder_sets(run: Run, around: Surroundings, record: Record) -> list[set[NodeId]]:
    return [set(run.holdings.live_holders(ref.id, around.living)) for ref in record.shards]
