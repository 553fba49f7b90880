"""The outbox: how word spreads where members are too many for one to tell them all."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Send
from dflow_protocols.names import UPDATE, NodeId, Slice, TaskKey
from dflow_protocols.run_state.outbox import FEW, Outbox
from dflow_protocols.wire.steps import Seal, SealPut
from tests.unit.protocols.books import RUN, SPEC, ZERO, who
from tests.unit.protocols.controllers.a_run import ARun, mesh

MANY = tuple(range(1, 100))
SEAL = Seal(SPEC, 0, ZERO.id, ZERO.id, UPDATE, 0, 0, ())


def told(out: list[Action]) -> dict[NodeId, object]:
    return {each.to: each.message for each in out if isinstance(each, Send)}


def test_a_settled_seal_comes_to_everybody_and_nobody_tells_more_than_a_few() -> None:
    """One host that told a thousand others would send the seal a thousand times."""
    outbox: Outbox = ARun().outbox
    heard, waiting = list[NodeId](), [SealPut(RUN, SEAL, True, (), None, tuple(who(number) for number in MANY))]
    while waiting:
        out: list[Action] = []
        outbox.pass_on(waiting.pop(), out)
        assert len(out) <= FEW
        for node, put in told(out).items():
            heard.append(node)
            assert isinstance(put, SealPut)
            waiting += [put] if put.onward else []
    assert sorted(heard) == [who(number) for number in MANY]


@pytest.mark.parametrize("count", [3, len(MANY)])
def test_who_hears_of_a_claimed_slice_is_who_may_take_it(count: int) -> None:
    """Among few all know from the blocks that it is due; among many those whom replicas have told so, and of the claim
    with it."""
    run, there = ARun(members=count), mesh(*range(1, count + 1))
    view = run.view(members=there)
    run.state.gather(0.0, [TaskKey(0, "learn", Slice(0, 1))])
    run.outbox.put_claims(view, run.out)
    everybody = {who(number) for number in range(1, count + 1)}
    expected = everybody if count <= FEW else set(view.replicas)
    assert told(run.out).keys() == expected - {who(1)}


def test_an_advance_is_told_to_all_where_they_are_few_and_to_the_next_replicas_where_they_are_many() -> None:
    """A thousand that tell a thousand each would be a million frames a step."""
    for count in (3, len(MANY)):
        run, there = ARun(members=count), mesh(*range(1, count + 1))
        view = run.view(members=there)
        run.outbox.tell_advance(view, there, run.out)
        everybody = {who(number) for number in range(1, count + 1)} - {who(1)}
        is_for_all = count <= FEW or who(1) in view.replicas
        assert told(run.out).keys() == (everybody if is_for_all else set(view.replicas))
