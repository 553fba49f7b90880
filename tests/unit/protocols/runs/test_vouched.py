"""Vouched: what is kept of whom vouches for which records is always what books and holders say, from scratch."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dflow_protocols.events import Action
from dflow_protocols.names import NodeId, RecordId, chunk_count
from dflow_protocols.runs.vouched import Vouched
from dflow_protocols.steps.step import MAX_PER_TASK
from dflow_protocols.steps.view import StepView
from dflow_protocols.wire.steps import Record
from tests.unit.protocols.books import ZERO, finished_partition, learn, shard, view, who

RECORDS = [record for p in range(2) for take in "ab" for record in finished_partition(p, take=take)]
SHARDS = [record.shards[0] for record in RECORDS]

records, others = st.sampled_from(RECORDS), st.integers(2, 3)
changes = st.one_of(
    st.tuples(st.just("record"), records, st.booleans()),
    st.tuples(st.just("says"), others, st.lists(records, max_size=4)),
    st.tuples(st.just("says no more"), others),
    st.tuples(st.just("holder"), st.sampled_from(SHARDS), others),
    st.tuples(st.just("lacking"), st.sampled_from(SHARDS), others),
    st.tuples(st.just("here"), st.sampled_from(SHARDS)),
    st.tuples(st.just("lost"), st.sampled_from(SHARDS)),
    st.tuples(st.just("dropped"), st.lists(st.sampled_from(SHARDS), max_size=3)),
    st.tuples(st.just("gone"), others),
)


def change(at: StepView, what: str, *of: Any) -> None:
    """One thing that may happen to a step's books, or to who holds what."""
    holdings, out = at.holdings, list[Action]()
    match what, *of:
        case "record", record, own:
            at.step.add(record, own)
        case "says", number, said:
            at.step.learn_own(who(number), [record.id for record in said])
        case "says no more", number:
            at.step.forget_own(who(number))
        case "holder", ref, number:
            holdings.credit(who(number), [ref.id])
        case "lacking", ref, number:
            holdings.failed(at.now, ref.id, (0, chunk_count(ref.nbytes)), [who(number)], out)
        case "here", ref:
            holdings.keep(ref)
        case "lost", ref:
            holdings.lose(ref.id)
        case "dropped", refs:
            holdings.drop([ref.id for ref in refs], out)
        case "gone", number:
            holdings.forget(who(number))
            at.step.forget(who(number))


def vouched(at: StepView, node: NodeId) -> set[RecordId]:
    """For which records `node` vouches, from scratch."""
    said = at.step.mine if node == at.me else at.step.said_own.get(node, ())
    here = at.holdings.local
    return {
        record.id
        for record in at.step.all_records()
        if record.id in said
        and (
            all(ref.id in here for ref in record.shards)
            if node == at.me
            else at.holdings.has_said(node, [ref.id for ref in record.shards])
        )
    }


@settings(max_examples=300)
@given(st.lists(changes, max_size=30), st.integers(1, 5))
def test_what_is_kept_is_what_is_derived_from_scratch(happened: list[tuple[Any, ...]], ask_every: int) -> None:
    """Else two nodes whose books are alike would ask each other for records for ever, or never."""
    at = view()
    kept = Vouched(at.step, at.holdings)
    for number, what in enumerate(happened):
        change(at, *what)
        if number % ask_every == 0:
            assert {node: set(kept.by(who(node))) for node in (1, 2, 3)} == {n: vouched(at, who(n)) for n in (1, 2, 3)}


def test_who_is_forgotten_in_a_flood_is_vouched_for_no_more() -> None:
    """A record that the books gave up for want of room must be asked for again."""
    at = view()
    first = finished_partition(0)[0]
    learn(at, first, holders=(2,))
    at.step.learn_own(who(2), [first.id])
    kept = Vouched(at.step, at.holdings)
    assert set(kept.by(who(2))) == {first.id}
    for number in range(MAX_PER_TASK):
        at.step.add(Record(first.task, (ZERO.id,), (("rollout", shard(f"flood/{number}")),), (), ()))
    assert first.id not in at.step.by_id
    assert not kept.by(who(2))
    assert first.shards[0].id not in at.step.named_by
