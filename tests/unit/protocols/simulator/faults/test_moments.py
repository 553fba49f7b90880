"""Moments at which faults strike, on hand-made actions."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Persist, Send
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.simulator.faults import When
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.steps import RunGet

RUN = RunId("ab" * 16)
ASKS = Send(NodeId("n1"), Frame(None, (RunGet(RUN),)))
WRITES = Persist("key", b"1")


@pytest.mark.parametrize(
    ("moment", "strikes_at"),
    [
        (When("send run_get", 0), 0),
        (When("send run_get", 2), 4),
        (When("send run_get", 1, node=1), 4),
        (When("persist", 1), 3),
        (When("settle", 0), None),
    ],
)
def test_a_fault_strikes_at_the_nth_action_of_its_kind_there(moment: When, strikes_at: int | None) -> None:
    """So that it falls between two actions that belong together, wherever these are in time."""
    actions: list[tuple[int, Action]] = [(0, ASKS), (0, WRITES), (1, ASKS), (1, WRITES), (1, ASKS), (0, ASKS)]
    strikes = moment.trigger()
    struck = [index for index, (node, action) in enumerate(actions) if strikes(node, index, action)]
    assert struck == ([] if strikes_at is None else [strikes_at])


def test_an_event_that_is_none_is_refused() -> None:
    """A moment that is misspelt would never come."""
    with pytest.raises(AssertionError, match="no event is called send run_gte"):
        When("send run_gte", 0)
