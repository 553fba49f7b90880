"""Beginnings: a run starts from the best version that is left anywhere, and from version 0 only where there is none."""

from __future__ import annotations

from collections.abc import Iterable

from dflow_protocols.controllers.advance import Advance
from dflow_protocols.controllers.beginning import LOAD_WAIT, SAY_WAIT, Beginning, load_unit
from dflow_protocols.controllers.checkpoints import Checkpoints
from dflow_protocols.events import Action, Drop, Report, Start
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.calls import FreeSlots
from dflow_protocols.wire.steps import Header
from dflow_protocols.work import Done, Failed, InitWork, LoadWork, Made, Work
from tests.unit.protocols.books import RUN, ZERO, heartbeat, version, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh

ONE = version("one", ZERO, samples=4)
TWO = version("two", ONE, samples=4)


class Begun:
    """A run of which this node holds no version."""

    def __init__(self, saved: Iterable[Header] = (), restored: bool = True, unread: Iterable[str] = ()) -> None:
        self.run = ARun(own=None, restored=restored)
        self.checkpoints = Checkpoints(self.run.state, self.run.calls, self.run.outbox, saved, unread)
        advance = Advance(self.run.state, self.run.outbox)
        self.beginning = Beginning(self.run.state, self.run.calls, self.checkpoints, advance, self.run.outbox)

    def works(self, now: float, slots: int = 1) -> list[Work]:
        """What is started at a reconcile."""
        out: list[Action] = []
        self.beginning.reconcile(now, ALL, FreeSlots(slots), out)
        self.run.out += out
        return [action.work for action in out if isinstance(action, Start)]

    def all_have_spoken(self, *of_two: Header) -> None:
        self.checkpoints.learn(who(2), tuple(header.head for header in of_two))
        self.checkpoints.learn(who(3), ())


def test_a_run_that_was_just_submitted_makes_version_zero_at_once() -> None:
    """Nobody can have got anywhere with it."""
    begun = Begun(restored=False)
    (work,) = begun.works(0.0)
    assert isinstance(work, InitWork)
    assert begun.works(1.0) == []


def test_without_a_free_slot_nothing_begins() -> None:
    """Other runs have them."""
    assert Begun(restored=False).works(0.0, slots=0) == []


def test_after_a_restart_version_zero_waits_until_all_have_spoken() -> None:
    """Work for nothing, if one of them has a version; and it might win."""
    begun = Begun()
    assert begun.works(0.0) == []
    begun.all_have_spoken()
    assert [type(work) for work in begun.works(0.1)] == [InitWork]
    silent = Begun()
    assert silent.works(0.0) == []
    assert [type(work) for work in silent.works(SAY_WAIT + 0.1)] == [InitWork]


def test_what_another_holds_is_copied_instead() -> None:
    """True of a version that somebody trained: a copy costs less than anything else."""
    begun = Begun()
    begun.run.state.versions.observe(who(2), heartbeat(ONE))
    out: list[Action] = []
    assert not begun.beginning.reconcile(0.0, ALL, FreeSlots(1), out)
    assert out == []


def test_the_best_checkpoint_of_all_is_loaded_by_who_has_it() -> None:
    """The others copy it from there."""
    begun = Begun(saved=[ZERO, TWO])
    begun.all_have_spoken(ONE)
    assert begun.works(0.0) == [LoadWork(RUN, TWO)]


def test_a_better_checkpoint_elsewhere_is_waited_for_but_not_for_ever() -> None:
    """Its node may have died while it loaded."""
    begun = Begun(saved=[ONE])
    begun.all_have_spoken(TWO)
    assert begun.works(0.0) == []
    assert begun.works(LOAD_WAIT + 0.1) == [LoadWork(RUN, ONE)]


def test_a_checkpoint_whose_bytes_are_not_the_versions_is_refused_and_freed() -> None:
    """A disk that gives wrong bytes must not train on."""
    begun = Begun(saved=[ONE])
    begun.all_have_spoken()
    begun.works(0.0)
    run, out = begun.run, list[Action]()
    for _, ref in TWO.state:
        run.state.holdings.keep(ref, is_state=True)
    made = Made("checkpoint", TWO.state)
    begun.beginning.loaded(1.0, ALL, ONE, Done((made,)), out)
    assert run.state.versions.own is None
    assert begun.checkpoints.best is None
    assert [action for action in out if isinstance(action, Drop)] == [
        Drop(RUN, tuple(sorted(ref.id for _, ref in TWO.state)))
    ]
    assert "checkpoint.refused" in [action.name for action in out if isinstance(action, Report)]


def test_where_every_checkpoint_is_lost_the_run_fails_and_says_how_to_go_on() -> None:
    """Training again from version 0 is the owner's to say: it costs what the run has cost."""
    begun = Begun(unread=["step 7: torn"])
    begun.all_have_spoken()
    assert begun.works(0.0) == []
    assert begun.run.state.status.state == runs.FAILED
    error = runs.outcome(begun.run.state.status)["error"]
    assert "step 7: torn" in error
    assert "--from-start" in error


def test_a_load_that_breaks_is_tried_a_few_times_then_counts_as_a_failure() -> None:
    """An engine that dies says nothing of the checkpoint; one that always dies must not try for ever."""
    begun = Begun(saved=[ONE])
    told = [begun.beginning.load_failed(1.0, mesh(1), ONE, Failed("engine", "killed"), []) for _ in range(3)]
    assert [failure is None for failure in told] == [True, True, False]
    assert begun.run.state.retry_at[load_unit(ONE)] > 1.0
