"""Advancing: a sealed update is applied when all its slices are here, and what the step gave is told."""

from __future__ import annotations

from dflow_protocols.controllers.advance import UNCOMMITTED, Advance
from dflow_protocols.events import Action, Fetch, Send
from dflow_protocols.names import UPDATE, Once, TaskKey
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.wire.steps import Header, Record, Seal
from dflow_protocols.work import ApplyWork, Done, Made
from tests.unit.protocols.books import SPEC, ZERO, record, shard, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun

SLICE = shard("slice")


def update(*entries: Record, parent: Header = ZERO) -> Seal:
    return Seal(SPEC, parent.step, parent.id, parent.id, UPDATE, 0, 20, entries)


TRAINED = update(record("learn", "s0-1", (), SLICE))


def test_a_step_that_trained_on_nothing_hands_its_state_on() -> None:
    """All groups were flat: the next step begins from the same weights, and the run goes on."""
    run = ARun()
    run.state.step(0).keep(update())
    advance = Advance(run.state, run.outbox)
    assert advance.apply(run.view(), ALL, update(), run.out) == []
    own = run.state.versions.own
    assert own is not None
    assert (own.step, own.parent, own.state, own.samples) == (1, ZERO.id, ZERO.state, 20)
    assert {action.to for action in run.out if isinstance(action, Send)} == {who(2), who(3)}


def test_slices_are_brought_before_they_are_applied() -> None:
    """A version is made whole and at once, or not at all."""
    run = ARun()
    run.state.holdings.credit(who(2), [SLICE.id])
    advance = Advance(run.state, run.outbox)
    assert advance.apply(run.view(), ALL, TRAINED, run.out) == []
    assert [(action.ref, action.holders) for action in run.out if isinstance(action, Fetch)] == [(SLICE, (who(2),))]
    run.state.holdings.keep(SLICE)
    (duty,) = advance.apply(run.view(), ALL, TRAINED, [])
    assert duty.unit == TaskKey(0, "learn", Once("apply"))
    assert isinstance(duty.work, ApplyWork)
    assert (duty.work.state, duty.work.slices, duty.reads) == (ZERO.state, (SLICE,), (ZERO.id, TRAINED.id))


def test_a_node_does_not_run_far_ahead_of_what_others_hold() -> None:
    """What only it has would be lost with it, and must be kept until somebody has a copy."""
    run, own = ARun(Pipeline.from_dict({**two_steps().to_dict(), "steps": 6})), ZERO
    for number in range(UNCOMMITTED):
        own = version(f"v{number}", own, samples=4)
        run.hold(own)
    run.state.holdings.keep(SLICE)
    ahead = update(record("learn", "s0-1", (), SLICE, step=own.step), parent=own)
    advance = Advance(run.state, run.outbox)
    assert advance.apply(run.view(), ALL, ahead, run.out) == []
    run.state.commit(1)
    assert advance.apply(run.view(), ALL, ahead, run.out) != []


def test_what_was_applied_is_held_and_told_with_what_the_step_gave() -> None:
    """The metrics of a step are those of the records that its seals name."""
    run = ARun()
    run.state.holdings.keep(SLICE)
    step = run.state.step(0)
    step.open(1.0)
    step.keep(TRAINED)
    advance, out = Advance(run.state, run.outbox), list[Action]()
    (duty,) = advance.apply(run.view(), ALL, TRAINED, [])
    call = run.calls.take(run.calls.begin(2.0, duty, ZERO, []))
    assert call is not None
    made = Made("learn", version("next").state, (("grad_norm", 0.5),))
    for _, ref in made.outputs:
        run.state.holdings.keep(ref, is_state=True)
    advance.applied(4.0, ALL, call, Done((made,)), out)
    own = run.state.versions.own
    assert own is not None
    assert (own.step, own.state, own.seal) == (1, version("next").state, TRAINED.id)
    assert run.state.advanced_at == 4.0


def test_what_was_applied_to_a_version_that_was_left_meanwhile_is_dropped() -> None:
    """The own head went elsewhere; the result must not be taken for its successor."""
    run = ARun()
    run.state.holdings.keep(SLICE)
    run.state.step(0).keep(TRAINED)
    advance = Advance(run.state, run.outbox)
    (duty,) = advance.apply(run.view(), ALL, TRAINED, [])
    call = run.calls.take(run.calls.begin(0.0, duty, ZERO, []))
    other = version("other", ZERO, samples=40)
    run.hold(other)
    assert call is not None
    advance.applied(1.0, ALL, call, Done((Made("learn", version("next").state),)), run.out)
    assert run.state.versions.own == other
