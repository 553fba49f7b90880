"""Stealing, message by message: what a victim gives and keeps, what a thief takes, and what a late cut does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dflow_protocols.claiming.loans import Loans
from dflow_protocols.events import Action, Began, Finished, Received, Send, Start, Stop, Trim
from dflow_protocols.names import Block, NodeId, Partition, TaskKey, VersionId
from dflow_protocols.node import Node
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.runs.run import Run
from dflow_protocols.simulator.goals import node
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.steps import RecordPut, StealAsk, StealGrant, StealRefuse, Stolen
from dflow_protocols.work import BlockWork, ChainWork
from tests.support.simulated import mesh
from tests.unit.protocols.books import who
from tests.unit.protocols.midway import opened

WIDE = two_steps(partitions=12, leaves=8)
UNIT = TaskKey(0, "roll", Partition(3))


class Victim:
    """A node of two in the middle of a kind of work, and the other one as a thief that one speaks for."""

    def __init__(self, work: type, pipeline: Pipeline = WIDE) -> None:
        self.world, self.id = mesh(2, pipeline=pipeline, steals=False)
        self.host, self.thief = self.world.hosts[0], World.id_of(1)
        self.work = work
        self.world.expect(30.0, self._is_at_it, "the node is at work")

    def _is_at_it(self) -> bool:
        return any(isinstance(call.work, self.work) for call in self.host.calls.values())

    @property
    def node(self) -> Node:
        return node(self.host)

    @property
    def run(self) -> Run:
        return self.node.runs[self.id]

    @property
    def now(self) -> float:
        return self.host.clock.read(self.world.now)

    def tell(self, message: Any) -> list[Action]:
        actions = self.node.handle(self.now, Received(self.thief, message))
        self.node.check()
        return opened(actions)

    def ask(self, request: int, version: VersionId | None = None, pace: tuple[tuple[str, float], ...] = ()) -> StealAsk:
        own, opened = self.run.state.versions.own, self.run.stealing.open
        assert own is not None
        assert opened is not None
        manifest = opened.batch.manifest.id if opened.batch is not None else ""
        return StealAsk(self.id, request, version or own.id, pace, manifest)


def told(actions: list[Action], kind: type, to: NodeId) -> list[Any]:
    return [a.message for a in actions if isinstance(a, Send) and a.to == to and isinstance(a.message, kind)]


def test_a_victim_gives_the_later_half_and_takes_it_out_of_its_slot() -> None:
    """What runs is never moved; what waits behind it in the slot's queue may be."""
    victim = Victim(ChainWork)
    running = next(iter(victim.host.calls.values())).task
    before = victim.run.stealing.backlog()
    actions = victim.tell(victim.ask(1))
    (grant,) = told(actions, StealGrant, victim.thief)
    assert len(grant.units) == (before + 1) // 2
    assert running not in [each.unit for each in grant.units]
    assert {each.home for each in grant.units} == {victim.host.id}
    assert not [a for a in actions if isinstance(a, Start) and a.task in {each.unit for each in grant.units}]
    while told(victim.tell(victim.ask(len(victim.run.state.loans.lent) + 10)), StealGrant, victim.thief):
        pass  # until only what runs is left
    assert [call.unit for call in victim.run.state.calls.values()] == [running]


def test_what_a_slot_took_meanwhile_is_no_longer_given_away() -> None:
    """The slot says what it took: a node that counts its slots would be wrong while one still gives up a call."""
    victim = Victim(ChainWork)
    running, queued = sorted(victim.host.calls)
    victim.node.handle(victim.now, Began(queued))
    request = 1
    while told(victim.tell(victim.ask(request)), StealGrant, victim.thief):
        request += 1
    assert sorted(victim.run.state.calls) == [running, queued]


def test_a_repeated_request_gets_the_same_grant() -> None:
    """Either message may be lost, and no unit may be given twice for one idle slot."""
    victim = Victim(ChainWork)
    (first,) = told(victim.tell(victim.ask(1)), StealGrant, victim.thief)
    assert told(victim.tell(victim.ask(1)), StealGrant, victim.thief) == [first]


def test_a_request_about_another_version_is_refused_with_the_true_backlog() -> None:
    """A thief that is a step behind, or ahead, could only waste its time."""
    victim = Victim(ChainWork)
    (refusal,) = told(victim.tell(victim.ask(1, version=VersionId("ab" * 32))), StealRefuse, victim.thief)
    assert refusal.backlog == victim.run.stealing.backlog() > 0
    assert refusal.wait_s > 0


def test_a_slow_thief_gets_less_than_half() -> None:
    """It would hold everybody up with what it took last."""
    victim = Victim(ChainWork)
    victim.run.calls.pace["roll"] = 0.2
    (grant,) = told(victim.tell(victim.ask(1, pace=(("roll", 0.8),))), StealGrant, victim.thief)
    assert 1 <= len(grant.units) <= 2
    other = Victim(ChainWork)
    other.run.calls.pace["roll"] = 0.2
    assert told(other.tell(other.ask(1, pace=(("roll", 60.0),))), StealRefuse, other.thief)


def test_the_upper_leaves_of_a_running_block_are_given_and_the_engine_is_told_where_to_stop() -> None:
    """Else a slow trainer keeps all its leaves from the moment it begins with the first."""
    victim = Victim(BlockWork)
    actions = victim.tell(victim.ask(1))
    (grant,) = told(actions, StealGrant, victim.thief)
    assert all(len(each.unit.leaves) == 1 for each in grant.units)
    assert len(grant.units) == 2  # of three that it has not begun: one aligned block
    (trim,) = [action for action in actions if isinstance(action, Trim)]
    assert trim.end == grant.units[0].unit.leaves[0]
    assert not [action for action in actions if isinstance(action, Stop)]


def test_who_has_no_manifest_yet_is_given_no_leaves() -> None:
    """It could not begin them, and has leaves of its own as soon as it has one."""
    victim = Victim(BlockWork)
    (refusal,) = told(victim.tell(replace(victim.ask(1), manifest="")), StealRefuse, victim.thief)
    assert refusal.backlog > 0


def test_a_block_that_was_cut_too_late_is_recorded_as_what_it_is() -> None:
    """The engine was past the cut: its sum holds all leaves, and must not pass for the sum of the first ones."""
    victim = Victim(BlockWork)
    call, start = next(iter(victim.host.calls.items()))
    assert isinstance(start.work, BlockWork)
    victim.tell(victim.ask(1))
    done = victim.world.engines[victim.id].run(start.work)
    for made in done.made:
        for _, ref in made.outputs:
            victim.host.store.put(victim.id, ref)
    actions = opened(victim.node.handle(victim.now, Finished(call, done)))
    records = [r for each in told(actions, RecordPut, victim.thief) for r in each.records]
    assert [record.task.part for record in records] == [Block(start.work.first, start.work.end)]


def test_what_was_lent_and_never_claimed_comes_back() -> None:
    """The grant was lost, or the thief is gone: then its home does it."""
    loans = Loans(who(1))
    loans.lend([UNIT], who(2), until=5.0)
    loans.lapse(4.0, {who(1), who(2)})
    assert UNIT in loans.lent
    loans.lapse(4.5, {who(1)})
    assert UNIT not in loans.lent
    loans.lend([UNIT], who(2), until=5.0)
    loans.lapse(6.0, {who(1), who(2)})
    assert UNIT not in loans.lent


def test_a_borrowed_unit_that_is_lent_on_keeps_its_first_home() -> None:
    """Who lent it in between need not live for it to be found again."""
    loans = Loans(who(2))
    loans.borrow(who(1), [Stolen(UNIT, who(1))])
    assert loans.lend([UNIT], who(3), until=5.0) == (Stolen(UNIT, who(1)),)
    assert not loans.borrowed


@pytest.mark.parametrize(("claimant", "keeps_away"), [(1, False), (2, False), (3, True)])
def test_only_strangers_claims_keep_a_thief_from_what_it_borrowed(claimant: int, keeps_away: bool) -> None:
    """The lender's last word, from before it gave the unit away, may still be on its way."""
    loans = Loans(who(2))
    loans.borrow(who(1), [Stolen(UNIT, who(1))])
    assert bool(loans.believed(UNIT, [who(claimant)])) == keeps_away


def test_a_claim_of_a_block_takes_up_all_leaves_that_were_lent() -> None:
    """From then on the thief's claims stand for them, for as long as it renews them."""
    loans = Loans(who(1))
    leaves = [TaskKey(0, "learn", Block.of_leaf(leaf)) for leaf in (2, 3)]
    loans.lend(leaves, who(2), until=5.0)
    loans.learn_claims(who(2), [TaskKey(0, "learn", Block(2, 4))])
    assert not loans.lent
