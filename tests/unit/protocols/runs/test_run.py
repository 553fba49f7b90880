"""One run of several at a node: what goes wrong in it is its own."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Persist, Report, Send, Start, Submitted
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.wire.steps import RunPut
from tests.unit.protocols.midway import Midway, opened

GONE: dict[str, int] = {}


def test_a_run_that_breaks_costs_the_others_nothing_of_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of this program that shows in one run would else keep every other one from being heard of, kept and
    worked on."""
    midway = Midway()
    broken = midway.node.runs[midway.run]
    monkeypatch.setattr(broken.quarantine, "judge", lambda *_: 1 / 0)
    event = Submitted(7, two_steps().canonical(), "/spec", midway.peer, "another")
    actions = opened(midway.node.handle(midway.now, event))
    (report,) = [action for action in actions if isinstance(action, Report) and action.name == "run.broken"]
    assert (report.fields["run"], report.fields["error"]) == (midway.run, "ZeroDivisionError: division by zero")
    assert any(isinstance(action, Persist) for action in actions)
    assert any(isinstance(action, Send) and isinstance(action.message, RunPut) for action in actions)


def test_a_fault_is_told_once_however_often_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are many in a second: a log that is full of one fault hides the next one."""
    midway = Midway()
    run = midway.node.runs[midway.run]
    told: list[str] = []
    for fault in (lambda *_: 1 / 0, lambda *_: 1 / 0, lambda *_: GONE["gone"], lambda *_: GONE["gone"]):
        monkeypatch.setattr(run.quarantine, "judge", fault)
        run.state.revision.bump()
        reports = [action for action in midway.node.act(midway.now) if isinstance(action, Report)]
        told += [str(report.fields["error"]) for report in reports if report.name == "run.broken"]
    assert told == ["ZeroDivisionError: division by zero", "KeyError: 'gone'"]


def test_what_a_run_began_before_it_broke_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its books have it by then: a slot that nobody gave it would count as taken for ever."""
    midway = Midway()
    run = midway.node.runs[midway.run]
    for number in list(run.state.calls):
        run.state.end_call(number)
    monkeypatch.setattr(run.alarm, "reconcile", lambda *_: 1 / 0)
    run.state.revision.bump()
    actions = midway.node.act(midway.now)
    assert {action.call for action in actions if isinstance(action, Start)} == run.state.calls.keys() != set()
