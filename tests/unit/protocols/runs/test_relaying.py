"""Shards that are brought near: one that cannot reach any holder has a member that can fetch them first."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.events import Action, Fetch, Send
from dflow_protocols.run_state.references import keep_only
from dflow_protocols.runs.relaying import BRING_FOR, Relaying
from dflow_protocols.wire.steps import Bring, Brought
from tests.unit.protocols.books import MIB, RUN, shard, who
from tests.unit.protocols.controllers.a_run import ALL, ARun

REF = shard("gradient", 3 * MIB)
ASK = Bring(RUN, REF, 1, 3, who(3))


def bringing(run: ARun, relaying: Relaying, now: float = 0.0) -> list[Action]:
    out: list[Action] = []
    relaying.reconcile(now, ALL, out)
    return out


def test_a_relay_fetches_what_it_is_asked_for_and_says_so_once() -> None:
    """Just the chunks that are wanted: a slice's owner reads a part of each block."""
    run = ARun()
    relaying = Relaying(run.state)
    relaying.take(0.0, ALL, who(2), ASK)
    assert bringing(run, relaying) == [Fetch(RUN, REF, 1, 3, (who(3),))]
    run.state.holdings.fetched(0.0, REF.id, (1, 3))
    assert bringing(run, relaying) == [Send(who(2), Brought(RUN, REF.id, 1, 3))]
    assert bringing(run, relaying) == []


def test_what_is_being_brought_is_not_freed_under_way() -> None:
    """The relay itself may be done with the step that the shard is of."""
    run = ARun()
    relaying = Relaying(run.state)
    relaying.take(0.0, ALL, who(2), ASK)
    bringing(run, relaying)
    out: list[Action] = []
    keep_only(run.state, (), out)
    assert out == []


def test_a_promise_that_nobody_asks_for_again_is_forgotten() -> None:
    """The asker may have had it from elsewhere, or be gone."""
    run = ARun()
    relaying = Relaying(run.state)
    relaying.take(0.0, ALL, who(2), ASK)
    bringing(run, relaying, now=(BRING_FOR + 1) * ALL.suspicion_s)
    assert run.state.bringing == {}


def test_chunks_that_no_shard_has_are_not_promised() -> None:
    """A member that is broken, or worse, may ask for anything."""
    run = ARun()
    relaying = Relaying(run.state)
    for first, end in ((0, 4), (2, 2), (-1, 1)):
        relaying.take(0.0, ALL, who(2), Bring(RUN, REF, first, end, who(3)))
    relaying.take(0.0, ALL, who(2), Bring(RUN, REF, 0, 3, who(77)))
    assert run.state.bringing == {}


def test_who_asks_is_not_asked_for_the_same_in_turn() -> None:
    """Two that each take the other for nearer would ask each other without end, also for what nobody wants any more."""
    run = ARun()
    relaying = Relaying(run.state)
    relaying.take(0.0, replace(ALL, routes={who(3): who(2)}), who(2), ASK)
    assert run.state.bringing == {}
