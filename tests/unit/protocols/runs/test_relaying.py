"""Shards that are brought near: one that cannot reach any holder has a member that can fetch them first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.events import Action, Fetch, Send
from dflow_protocols.names import ShardId, chunk_count
from dflow_protocols.run_state.references import keep_only
from dflow_protocols.runs.relaying import ALL_SHARES, ASKER_SHARE, BRING_FOR, MAX_BRINGING, SMALL_BYTES, Relaying
from dflow_protocols.wire.steps import Bring, Brought
from tests.unit.protocols.books import MIB, RUN, ZERO, shard, who
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


def gradient(number: int) -> Bring:
    """As long as an asker's share."""
    ref = shard(f"gradient {number}", SMALL_BYTES)
    return Bring(RUN, ref, 0, chunk_count(ref.nbytes), who(3))


def test_one_asker_gets_no_more_than_its_share_of_a_relays_store() -> None:
    """A member that is broken, or worse, would fill it with whatever another one holds. It asks again for the rest; the
    others are served meanwhile."""
    run = ARun()
    relaying = Relaying(run.state)
    for number in range(3):
        relaying.take(0.0, ALL, who(2), gradient(number))
    assert [each.shard for each in run.state.bringing] == [gradient(0).shard]
    relaying.take(0.0, ALL, who(3), replace(gradient(1), holder=who(2)))
    assert len(run.state.bringing) == 2
    bringing(run, relaying)
    run.state.holdings.fetched(0.0, gradient(0).shard.id, (0, gradient(0).end))
    bringing(run, relaying)
    relaying.take(1.0, ALL, who(2), gradient(2))
    assert len(run.state.bringing) == 1, "what was brought still lies there"
    keep_only(run.state, (), [])
    bringing(run, relaying)
    relaying.take(1.0, ALL, who(2), gradient(2))
    assert len(run.state.bringing) == 2


def test_all_askers_together_get_no_more_than_is_bounded() -> None:
    """Else a mesh in which most cannot talk to each other would fill the one that reaches all."""
    run = ARun()
    relaying = Relaying(run.state)
    for number in range(2, 12):
        relaying.take(0.0, ALL, who(number), gradient(number))
    assert sum(each.shard.nbytes for each in run.state.bringing) == ALL_SHARES * SMALL_BYTES


def test_a_copy_of_the_version_fits_into_a_share() -> None:
    """Who is late and cannot reach any holder needs all of it at once."""
    params, moments = shard("params", 2 * SMALL_BYTES), shard("moments", 4 * SMALL_BYTES)
    state = (("optimizer:learn", moments), ("params:policy", params))
    run = ARun(own=replace(ZERO, state=state))
    relaying = Relaying(run.state)
    run.state.holdings.drop([params.id, moments.id], [])
    for _, ref in state:
        relaying.take(0.0, ALL, who(2), Bring(RUN, ref, 0, chunk_count(ref.nbytes), who(3)))
    assert len(run.state.bringing) == 2


def test_small_asks_of_one_member_leave_room_for_those_of_others() -> None:
    """Each costs a fetch and a place in the table."""
    run = ARun()
    relaying = Relaying(run.state)
    for number in range(MAX_BRINGING):
        relaying.take(0.0, ALL, who(2), Bring(RUN, shard(f"slice {number}", 64), 0, 1, who(3)))
    relaying.take(0.0, ALL, who(3), Bring(RUN, REF, 1, 3, who(2)))
    assert any(each.asker == who(3) for each in run.state.bringing)


def test_what_was_brought_stays_counted_though_it_is_asked_for_once_too_often() -> None:
    """Else a member that has as many promises as it may would be rid of what lies here for it, by asking again."""
    run = ARun()
    relaying = Relaying(run.state)
    brought, other = (shard(name, SMALL_BYTES - 2 * ASKER_SHARE) for name in ("brought", "other"))
    whole = chunk_count(brought.nbytes)
    relaying.take(0.0, ALL, who(2), Bring(RUN, brought, 0, whole, who(3)))
    bringing(run, relaying)
    run.state.holdings.fetched(0.0, brought.id, (0, whole))
    bringing(run, relaying)
    for number in range(ASKER_SHARE):
        relaying.take(0.0, ALL, who(2), Bring(RUN, shard(f"slice {number}", 1), 0, 1, who(3)))
    relaying.take(0.0, ALL, who(2), Bring(RUN, brought, 0, whole, who(3)))
    bringing(run, relaying, now=(BRING_FOR + 1) * ALL.suspicion_s)
    relaying.take(9.0, ALL, who(2), Bring(RUN, other, 0, whole, who(3)))
    assert run.state.bringing == {}


def test_asks_of_one_turn_are_held_against_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame holds thousands of them: counted at each, one frame kept a daemon busy until it was dead to others."""
    run, counts = ARun(), list[int]()
    all_here = run.state.holdings.all_here

    def counted() -> set[ShardId]:
        counts.append(1)
        return all_here()

    monkeypatch.setattr(run.state.holdings, "all_here", counted)
    relaying = Relaying(run.state)
    for turn in range(1, 3):
        for number in range(9):
            relaying.take(0.0, ALL, who(2), gradient(number))
        bringing(run, relaying)
        assert len(counts) == turn


def test_what_a_relay_has_anyhow_is_no_part_of_a_share() -> None:
    """It takes no room; and who asks for it may not have heard that it is here."""
    run = ARun()
    relaying = Relaying(run.state)
    run.state.holdings.keep(gradient(0).shard)
    for number in range(2):
        relaying.take(0.0, ALL, who(2), gradient(number))
    assert len(run.state.bringing) == 2


def test_who_asks_is_not_asked_for_the_same_in_turn() -> None:
    """Two that each take the other for nearer would ask each other without end, also for what nobody wants any more."""
    run = ARun()
    relaying = Relaying(run.state)
    relaying.take(0.0, replace(ALL, routes={who(3): who(2)}), who(2), ASK)
    assert run.state.bringing == {}
