"""What becomes of a run when a work of it comes to nothing."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Broke, Send
from dflow_protocols.names import NodeId
from dflow_protocols.wire.steps import ClaimPut, Stolen
from dflow_protocols.work import Failed, FailureKind
from tests.unit.protocols.midway import Midway, opened


def test_who_finds_no_room_for_what_it_took_gives_it_back() -> None:
    """A thief without room would hold it for ever, and all would take it for under way."""
    midway = Midway()
    state = midway.node.runs[midway.run].state
    number, call = next(iter(state.calls.items()))
    state.loans.borrow(midway.peer, [Stolen(call.unit, midway.peer)])
    said = opened(midway.node.handle(midway.now, Broke(number, Failed("full", "no room"))))
    assert not state.loans.held()
    claims = [each.message for each in said if isinstance(each, Send) and isinstance(each.message, ClaimPut)]
    assert claims
    assert all(call.unit not in put.units for put in claims)


@pytest.mark.parametrize("kind", ["full", "stopped"])
def test_whose_work_is_given_back_hears_of_it_at_once(kind: FailureKind) -> None:
    """It need be no replica of the step, and would else wait until the thief's last claim has run out."""
    midway = Midway()
    state = midway.node.runs[midway.run].state
    number, call = next(iter(state.calls.items()))
    lender, home = NodeId("e" * 32), NodeId("f" * 32)
    state.loans.borrow(lender, [Stolen(call.unit, home)])
    said = opened(midway.node.handle(midway.now, Broke(number, Failed(kind, "no room"))))
    told = {each.to for each in said if isinstance(each, Send) and isinstance(each.message, ClaimPut)}
    assert {lender, home} <= told
