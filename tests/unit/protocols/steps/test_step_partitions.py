"""Whose a partition is: what a node keeps of that is always what follows from its books, derived from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow_protocols.claiming.ability import Ability
from dflow_protocols.names import MANIFEST, NodeId, Partition, TaskKey
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.simulator.toy import ROLE, TOY_PARTITIONS, two_steps, with_role
from dflow_protocols.steps.duties import OpenDuties
from dflow_protocols.steps.duty import Due, watch_homes
from dflow_protocols.steps.partitions import OpenPartitions
from dflow_protocols.steps.progress import Progress
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.steps.sealing import sealed_chains
from dflow_protocols.steps.view import StepView, partition_homes
from dflow_protocols.wire.steps import Skip, Stolen, Withdrawal
from tests.unit.protocols.books import RUN, finished_partition, later, learn, view, who

UNITS = [TaskKey(0, "roll", Partition(p)) for p in range(TOY_PARTITIONS)]

units = st.sampled_from(UNITS)
others = st.integers(2, 4)
changes = st.one_of(
    st.tuples(st.just("record"), st.integers(0, TOY_PARTITIONS - 1), st.integers(0, 2), others),
    st.tuples(st.just("gone"), others),
    st.tuples(st.just("claim"), st.integers(1, 4), st.lists(units, max_size=2), st.floats(0, 3)),
    st.tuples(st.just("hearsay"), others, st.lists(units, max_size=2), st.floats(0, 3)),
    st.tuples(st.just("lend"), units, others),
    st.tuples(st.just("borrow"), units, others),
    st.tuples(st.just("lapse")),
    st.tuples(st.just("give up"), units),
    st.tuples(st.just("fail"), units, st.integers(1, 4)),
    st.tuples(st.just("withdraw"), others, st.booleans()),
    st.tuples(st.just("skip"), units),
    st.tuples(st.just("time"), st.floats(0, 2)),
    st.tuples(st.just("living"), st.sets(others)),
    st.tuples(st.just("drained"), st.sets(st.integers(1, 4), max_size=3)),
    st.tuples(st.just("roster"), st.sets(st.integers(1, 4), min_size=1)),
    st.tuples(st.just("idle"), st.booleans()),
)


def change(at: StepView, what: str, *of: Any) -> StepView:
    """One thing that may happen to what a node knows of a step."""
    match what, *of:
        case "record", partition, stage, number:
            learn(at, finished_partition(partition)[stage], holders=(number,))
        case "gone", number:
            at.step.forget(who(number))
            at.holdings.forget(who(number))
        case "claim", number, named, seconds:
            at.step.claim(at.now, who(number), named, at.now + seconds)
            at.loans.learn_claims(who(number), named)
        case "hearsay", number, named, seconds:
            at.step.learn_claim(at.now, who(number), named, at.now + seconds)
        case "lend", unit, number:
            at.loans.lend([unit], who(number), at.now + 1.0)
        case "borrow", unit, number:
            at.loans.borrow(who(number), [Stolen(unit, who(number))])
        case ("lapse",):
            at.loans.lapse(at.now, at.living)
        case "give up", unit:
            at.loans.give_up(unit)
        case "fail", unit, number:
            at.failures.record(unit, who(number), "engine", "")
        case "withdraw", number, is_gone:
            at.ability.learn(who(number), (Withdrawal("score", "failed", ""),) if is_gone else ())
        case "skip", unit:
            return replace(at, skipped={**at.skipped, unit: Skip(unit, "user", "", "", ())})
        case "time", seconds:
            return later(at, at.now + seconds)
        case "living", numbers:
            return later(at, at.now, living=numbers | {1})
        case "drained", numbers:
            return replace(at, drained=frozenset(who(number) for number in numbers) & at.living)
        case "roster", numbers:
            nodes = [who(number) for number in numbers]
            generation = at.step.roster.generation + 1 if at.step.roster is not None else 0
            at.step.take_roster(make_roster(0, generation, nodes, nodes))
        case "idle", is_idle:
            return replace(at, is_idle=is_idle)
    return at


def told(due: Due) -> tuple[object, ...]:
    """What is due, and which homes are seen to be silent."""
    return {duty.unit: duty for duty in due.here}, set(due.silent)


@settings(max_examples=300)
@given(st.lists(changes, max_size=25), st.integers(1, 4))
def test_what_is_kept_is_what_is_derived_from_scratch(happened: list[tuple[Any, ...]], ask_every: int) -> None:
    """Else a partition would be run twice, or by nobody, for a reason that no books show."""
    at, kept = view(members=(1, 2, 3, 4)), OpenDuties()
    chains = sealed_chains(at, MANIFEST)
    for number, what in enumerate([*happened, ("time", 0.0)]):
        at = replace(change(at, *what))  # a view is of one moment
        if number % ask_every == 0:
            scratch = OpenDuties().due(replace(at, kept=Progress()), chains, None)
            due = kept.due(at, chains, None)
            assert told(due) == told(scratch)
            watch_homes(at, due)
            waits = dict(at.step.patience.since)
            watch_homes(at, scratch)
            assert at.step.patience.since == waits, "waiting for a home ends alike"


def test_a_claim_that_has_ended_beside_one_that_lasts_makes_nothing_derived_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two that claimed a partition the one whose claim ended may say nothing for the rest of the step."""
    at, kept, all_again = view(members=(1, 2, 3)), OpenDuties(), list[float]()
    derive_all = OpenPartitions._derive_all

    def noted(self: OpenPartitions, seen: StepView, able: frozenset[NodeId]) -> None:
        all_again.append(seen.now)
        derive_all(self, seen, able)

    monkeypatch.setattr(OpenPartitions, "_derive_all", noted)
    at.step.claim(at.now, who(2), UNITS[:1], at.now + 1.0)
    at.step.claim(at.now, who(3), UNITS[:1], at.now + 9.0)
    chains = sealed_chains(at, MANIFEST)[:1]
    for seconds in (0.0, 2.0, 2.5, 3.0):
        kept.due(later(at, at.now + seconds), chains, None)
    assert all_again == [at.now, at.now + 2.0]


def test_who_cannot_do_a_stage_is_dealt_nothing_of_it_and_the_deal_stays_as_it_is() -> None:
    """Hosts that sample beside hosts that train: were the others dealt their share all the same, it would be dealt
    again after each partition that is done, and to each host otherwise, by what it has heard."""
    pipeline, done = with_role(two_steps(partitions=24)), range(10)
    offers = {who(number): frozenset({ROLE} if number in (1, 2) else ()) for number in range(1, 5)}
    at = replace(view(members=range(1, 5)), plan=plan(pipeline, 0), ability=Ability(RUN, pipeline), offers=offers)
    (chain,) = (chain for chain in at.plan.chains if "score" in chain.stages)
    before = {unit.part: home for unit, home in partition_homes(at, chain).items()}
    assert set(before.values()) == {who(1), who(2)}
    learn(at, *(record for partition in done for record in finished_partition(partition)))
    after = {unit.part: home for unit, home in partition_homes(at, chain).items()}
    assert len(after) == len(before) - len(done)
    assert after.items() <= before.items()


def test_what_the_dead_left_has_one_home_however_much_of_it_is_done() -> None:
    """Were it dealt again as it is done, it would have another home at each node, by what that has heard: claims are
    put to replicas alone, so two would do it."""
    at = later(view(members=range(1, 6)), 0.0, living={1, 2, 3})
    (chain,) = sealed_chains(at, MANIFEST)
    before = partition_homes(at, chain)
    assert set(before.values()) == {who(1), who(2), who(3)}
    learn(at, *(record for partition in range(0, TOY_PARTITIONS, 2) for record in finished_partition(partition)))
    after = partition_homes(at, chain)
    assert 0 < len(after) < len(before)
    assert after.items() <= before.items()
