"""Rosters: each step has one with somebody alive to train, and the smaller part of a split waits if asked to."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.controllers.rosters import Rosters
from dflow_protocols.events import Report, Send
from dflow_protocols.names import UPDATE, SealId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.wire.steps import RosterPut, Seal
from tests.unit.protocols.books import RUN, SPEC, ZERO, heartbeat, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh

PAUSES = Pipeline.from_dict({**two_steps().to_dict(), "on_split": "pause_minority"})


def test_a_roster_with_a_living_trainer_is_left_as_it_is() -> None:
    """A new one deals the step anew, which is work done twice."""
    run = ARun()
    assert Rosters(run.state, run.outbox).ensure(run.view(), ALL, run.out)
    assert run.out == []


def test_where_all_trainers_are_dead_a_roster_is_issued_after_a_suspicion_time() -> None:
    """One of them may come back meanwhile, and nobody else holds the version."""
    run, left = ARun(members=3), mesh(1)
    run.state.step(0).take_roster(make_roster(0, 1, [who(2), who(3)], [who(2), who(3)]))
    rosters = Rosters(run.state, run.outbox)
    both = mesh(1, 4)
    assert rosters.ensure(run.view(0.0, both), both, run.out)
    assert run.out == []
    assert rosters.ensure(run.view(1.1, both), both, run.out)
    issued = run.state.step(0).roster
    assert issued == make_roster(0, 2, [who(1), who(4)], [who(1)])
    assert run.out == [Send(who(4), RosterPut(RUN, issued))]
    assert left.living == {who(1)}


def test_the_smaller_part_of_a_split_waits_and_says_so_once() -> None:
    """It would train a branch that is given up when the parts meet."""
    run = ARun(PAUSES)
    rosters, alone = Rosters(run.state, run.outbox), mesh(1)
    for now in (0.0, 1.0):
        rosters.check_split(run.view(now, alone), run.out)
    fields = {"run": RUN, "step": 0, "here": 1, "roster": 3}
    assert run.state.is_paused
    assert run.out == [Report("run.paused", fields, "warning")]
    rosters.check_split(run.view(2.0), run.out)
    assert not run.state.is_paused
    assert run.out[1:] == [Report("run.unpaused", {**fields, "here": 3})]


def test_a_person_who_says_that_the_others_are_gone_ends_the_wait() -> None:
    """Deaths of most look like a split, and only a person can tell them apart."""
    run, alone = ARun(PAUSES), mesh(1)
    rosters = Rosters(run.state, run.outbox)
    rosters.check_split(run.view(0.0, alone), run.out)
    rosters.go_on(1.0, alone, run.out)
    assert not run.state.is_paused
    assert run.state.step(0).roster == make_roster(0, 1, [who(1)], [who(1)])


def test_the_next_roster_takes_whoever_is_stable_and_lets_train_who_holds_the_version() -> None:
    """Who has just come may go again; who must copy the version first would keep all others waiting."""
    run = ARun()
    run.state.versions.observe(who(2), heartbeat(ZERO))
    view = mesh(1, 2, 3, stable=(1, 2, 3))
    update = Seal(SPEC, 0, ZERO.id, ZERO.id, UPDATE, 0, 0, ())
    rosters = Rosters(run.state, run.outbox)
    assert rosters.after(run.view(), update, view) == make_roster(1, 0, [who(1), who(2), who(3)], [who(1), who(2)])
    drained = replace(view, drained=frozenset((who(2),)))
    del run.state.steps[1]
    assert rosters.after(run.view(), update, drained) == make_roster(1, 0, [who(1), who(3)], [who(1)])
    last = version("last", version("one", ZERO))
    run.hold(last)
    after_the_last = Seal(SPEC, 2, last.id, SealId(last.id), UPDATE, 0, 0, ())
    assert rosters.after(run.view(), after_the_last, view) is None
