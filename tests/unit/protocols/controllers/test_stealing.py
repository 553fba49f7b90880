"""Stealing: who has nothing to run asks one who has, and gets what waits there; both sides, without a mesh."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from dflow_protocols.controllers.stealing import REPEAT_AFTER, REPEATS, Open, Stealing
from dflow_protocols.events import Action, Send
from dflow_protocols.names import MANIFEST, Partition, TaskKey, VersionId
from dflow_protocols.run_state import outbox
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.batch import Batch
from dflow_protocols.steps.duty import Duty
from dflow_protocols.steps.partitions import OpenPartitions
from dflow_protocols.steps.sealing import sealed_chains
from dflow_protocols.steps.view import StepView
from dflow_protocols.wire.steps import StealAsk, StealGrant, StealRefuse, Stolen
from tests.unit.protocols.books import RUN, SUSPICION_S, ZERO, heartbeat, who
from tests.unit.protocols.controllers.a_run import ALL, ARun


class Party:
    """A node in the midst of its rollouts. `busy`: whether it has something that waits; `is_idle`: a slot."""

    is_idle = True

    def __init__(self, busy: bool) -> None:
        self.run = ARun(two_steps(partitions=12))
        self.stealing = Stealing(self.run.state, self.run.calls, self.run.outbox, random.Random(1))
        view = self.run.view()
        chains = sealed_chains(view, MANIFEST)
        self.duties: list[Duty] = (
            [duty for chain in chains for duty in OpenPartitions(chain).due(view).here] if busy else []
        )
        self.stealing.enter(Open(0, ZERO.id, chains, None))
        self.stealing.settle(self.duties)

    def seek(self, now: float) -> list[StealAsk]:
        out: list[Action] = []
        self.stealing.seek(now, ALL, self.is_idle, out)
        return [a.message for a in out if isinstance(a, Send) and isinstance(a.message, StealAsk)]

    def hear(self, node: int, backlog: int) -> bool:
        return self.stealing.observe(who(node), replace(heartbeat(ZERO), backlog=backlog))

    def answer(self, ask: StealAsk, now: float = 0.0) -> list[object]:
        out: list[Action] = []
        self.stealing.answer(now, ALL, who(2), ask, out)
        return [action.message for action in out if isinstance(action, Send) and action.to == who(2)]


def ask(number: int, version: VersionId = ZERO.id) -> StealAsk:
    return StealAsk(RUN, number, version, (), "")


def test_a_node_that_has_work_of_its_own_asks_nobody() -> None:
    """It would take what it cannot begin."""
    party = Party(busy=True)
    party.hear(2, 5)
    assert party.seek(0.0) == []


def test_an_idle_node_asks_one_who_says_that_work_waits_there() -> None:
    """A backlog rides on every frame: no timer lies between becoming idle and asking."""
    party = Party(busy=False)
    assert party.hear(2, 5)
    (message,) = party.seek(0.0)
    assert message.version == ZERO.id


def test_where_members_are_many_empty_books_name_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only replicas hear of all records and claims: to all others every home seems to have its work before it, and all
    would ask at once as soon as they are idle."""
    monkeypatch.setattr(outbox, "FEW", 0)
    monkeypatch.setattr(StepView, "replicas", ())
    party = Party(busy=False)
    assert party.seek(0.0) == []
    party.run.state.step(0).polled(0.0)
    assert len(party.seek(0.0)) == 1


def test_what_was_said_before_the_manifest_came_here_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each says once what waits there: forgotten, it is not said again, and who is idle waits until it has polled."""
    monkeypatch.setattr(outbox, "FEW", 0)
    monkeypatch.setattr(StepView, "replicas", ())
    party = Party(busy=False)
    party.hear(2, 5)
    assert party.stealing.open is not None
    batch = cast("Batch", SimpleNamespace(manifest=SimpleNamespace(id="m")))
    party.stealing.enter(replace(party.stealing.open, batch=batch))
    assert len(party.seek(0.0)) == 1


def test_a_seat_beside_others_is_worth_asking_for_partitions_and_for_nothing_else() -> None:
    """A leaf would wait there until all partitions are done, which its owner would not have it do."""
    for batch, count in ((None, 1), (cast("Batch", "leaves"), 0)):
        party = Party(busy=False)
        party.is_idle = False
        assert party.stealing.open is not None
        party.stealing.open = replace(party.stealing.open, batch=batch)
        party.hear(2, 5)
        assert len(party.seek(0.0)) == count


def test_a_request_is_repeated_as_it_was_and_given_up_after_a_while() -> None:
    """Either message may be lost; the same number gets the same grant."""
    party = Party(busy=False)
    party.hear(2, 5)
    first = party.seek(0.0)
    asked = [message for n in range(8) for message in party.seek(n * (REPEAT_AFTER + 0.01) * SUSPICION_S)]
    assert asked[:REPEATS] == first * REPEATS


def test_a_grant_is_borrowed_and_has_to_be_claimed() -> None:
    """The lease ends by itself: only a claim says that the work is on its way."""
    party = Party(busy=False)
    party.hear(2, 5)
    (message,) = party.seek(0.0)
    unit = TaskKey(0, "roll", Partition(0))
    grant = StealGrant(RUN, message.request, ZERO.id, (Stolen(unit, who(2)),))
    party.stealing.take_grant(who(3), grant, grant.units)
    assert not party.stealing.must_claim, "somebody else answers"
    party.stealing.take_grant(who(2), grant, grant.units)
    assert party.stealing.must_claim
    assert party.run.state.loans.held() == [unit]
    assert party.run.state.loans.concerned() == [who(2)]


def test_half_of_what_waits_is_lent_and_a_repeat_lends_no_more() -> None:
    """The later half, so that what this node begins next is not given away."""
    party = Party(busy=True)
    waiting = [duty.unit for duty in party.duties]
    (grant,) = party.answer(ask(1))
    assert isinstance(grant, StealGrant)
    units = [stolen.unit for stolen in grant.units]
    assert units == waiting[len(waiting) - len(units) :]
    assert len(units) == len(waiting) // 2
    assert party.answer(ask(1)) == [grant]
    assert set(party.run.state.loans.lent) == set(units)


def test_who_works_from_another_version_is_refused() -> None:
    """Its rollouts would be of other weights."""
    party = Party(busy=True)
    (refusal,) = party.answer(ask(1, VersionId("f" * 64)))
    assert isinstance(refusal, StealRefuse)
    assert party.run.state.loans.lent == {}


def test_a_node_that_leaves_gives_nothing_and_seeks_nothing() -> None:
    """What it lends would be nobody's in a moment."""
    busy, idle = Party(busy=True), Party(busy=False)
    idle.hear(2, 5)
    for party in (busy, idle):
        party.run.state.leave(frozenset())
    assert idle.seek(0.0) == []
    (refusal,) = busy.answer(ask(1))
    assert isinstance(refusal, StealRefuse)


def test_a_member_that_died_is_no_longer_waited_for() -> None:
    """Its answer never comes."""
    party = Party(busy=False)
    party.hear(2, 5)
    party.seek(0.0)
    party.stealing.forget(who(2))
    party.hear(3, 4)
    assert len(party.seek(0.1)) == 1
