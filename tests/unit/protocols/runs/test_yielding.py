"""Which run gives way where there is no room for all, and when it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from dflow_protocols.events import CancelRequested, Report, Restored, StopRequested
from dflow_protocols.names import NodeId, RunId, run_id
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.run_state import MeshView
from dflow_protocols.runs.registry import MAX_ACTIVE, Registry
from dflow_protocols.runs.tombstones import TOMBSTONE_S
from dflow_protocols.runs.yielding import YIELD_AFTER
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.wire.steps import RunPut
from tests.unit.protocols.books import MIB, shard, version

ME = NodeId("aa" * 16)
PIPELINE = Pipeline.from_dict(two_steps().to_dict())
ALONE = frozenset((ME,))
MESH = MeshView(living=ALONE, stable=ALONE, suspicion_s=1.0, incarnation=1, is_gathered=True)
STUCK_S = YIELD_AFTER + 2.0


def _status(nonce: str) -> RunPut:
    name = run_id(PIPELINE.text_id, ME, nonce)
    roster = make_roster(0, 0, (ME,), (ME,))
    return RunPut(name, runs.ACTIVE, 0, PIPELINE.canonical(), "/spec", (), ME, nonce, roster, b"", False)


FIRST, SECOND, THIRD = sorted((_status(nonce) for nonce in "abc"), key=lambda status: status.run)


def _known(*statuses: RunPut) -> Registry:
    """Runs that all hold a version."""
    known = Registry(ME, [Restored(runs.dump(status)) for status in statuses], (), (), 0.0, None)
    for run in known.runs.values():
        header = version(f"of {run.id}")
        run.state.versions.hold(header)
        for _, ref in header.state:
            run.state.holdings.keep(ref)
    return known


def _starve(known: Registry, run: RunId, until: float, start: float = 0.0) -> list[Report]:
    """It asks for room in vain, all the while; what is reported meanwhile."""
    told, now = list[Report](), start
    while now < until:
        known.runs[run].state.found_no_room(now)
        told += [action for action in known.share_room(now, MESH) if isinstance(action, Report)]
        now += 1.0
    return told


def _waits_for(known: Registry) -> Mapping[RunId, RunId]:
    return {name: other for name, run in known.runs.items() if (other := runs.yields_to(run.status)) is not None}


def test_of_all_later_runs_the_last_gives_way_to_one_that_finds_no_room() -> None:
    """One at a time: perhaps that is enough."""
    known = _known(FIRST, SECOND, THIRD)
    (told,) = _starve(known, FIRST.run, STUCK_S)
    assert (told.name, told.fields) == ("run.gave_way", {"run": THIRD.run, "to": FIRST.run})
    assert _waits_for(known) == {THIRD.run: FIRST.run}
    _starve(known, FIRST.run, 3 * STUCK_S, STUCK_S)
    assert _waits_for(known) == {THIRD.run: FIRST.run}, "what it holds is not freed yet"


def test_before_another_run_gives_way_parts_of_shards_do() -> None:
    """Those of blocks that another one took the place of fill a store, and can be fetched again."""
    known = _known(FIRST, SECOND)
    holdings, part = known.runs[FIRST.run].state.holdings, shard("part", 2 * MIB)
    holdings.credit(NodeId("bb" * 16), [part.id])
    holdings.want(0.0, part, {NodeId("bb" * 16)}, [], (0, 1))
    holdings.fetched(0.0, part.id, (0, 1))
    _starve(known, FIRST.run, STUCK_S)
    assert (_waits_for(known), part.id in holdings.all_here()) == ({}, False)
    _starve(known, FIRST.run, 2 * STUCK_S, STUCK_S)
    assert _waits_for(known) == {SECOND.run: FIRST.run}


def test_a_run_that_gets_somewhere_needs_nobody_to_give_way() -> None:
    """Refusals are everyday life where later runs fill a store."""
    known = _known(FIRST, SECOND)
    for step in range(4):
        _starve(known, FIRST.run, (step + 0.9) * YIELD_AFTER, step * YIELD_AFTER)
        known.runs[FIRST.run].state.commit(step + 1)
    assert _waits_for(known) == {}


def test_no_run_gives_way_to_a_later_one() -> None:
    """Else two would pass the room to and fro."""
    known = _known(FIRST, SECOND)
    _starve(known, SECOND.run, 4 * STUCK_S)
    assert _waits_for(known) == {}


def test_a_run_that_no_host_can_go_on_with_gives_way_though_it_comes_first() -> None:
    """It may wait for weeks for a member that has what it requires."""
    known = _known(FIRST, SECOND)
    known.runs[FIRST.run].alarm.stand_by(replace(MESH, drained=ALONE), [])  # blocked, as far as that tells
    _starve(known, SECOND.run, STUCK_S)
    assert _waits_for(known) == {FIRST.run: SECOND.run}


@pytest.mark.parametrize("state", [runs.FINISHED, runs.FAILED, runs.CANCELLED])
def test_what_gave_way_goes_on_when_the_other_run_has_ended(state: runs.Lifecycle) -> None:
    """However that ended; nobody has to ask for it."""
    known = _known(FIRST, SECOND)
    _starve(known, FIRST.run, STUCK_S)
    known.share_room(STUCK_S, MESH)
    assert not known.runs[SECOND.run].is_active
    known.runs[FIRST.run].outbox.end(state, {}, MESH, [])
    told = [action for action in known.share_room(STUCK_S, MESH) if isinstance(action, Report)]
    assert [report.name for report in told] == ["run.resumed"]
    assert (known.runs[SECOND.run].status.state, known.runs[SECOND.run].status.attempt) == (runs.ACTIVE, 1)


def test_two_runs_that_gave_way_to_each_other_both_go_on() -> None:
    """Members may differ on which run comes first while one of them is blocked."""
    ways = [(FIRST, SECOND), (SECOND, FIRST)]
    known = _known(*(runs.ended(one, runs.FAILED, {runs.YIELDS: other.run}) for one, other in ways))
    known.share_room(0.0, MESH)
    assert any(run.is_active for run in known.runs.values())


def test_what_gave_way_is_not_forgotten_however_long_it_waits() -> None:
    """It has not ended, so it leaves no tombstone."""
    known = _known(FIRST, runs.ended(SECOND, runs.FAILED, {runs.YIELDS: FIRST.run}))
    known.sweep(0.0)
    known.sweep(2 * TOMBSTONE_S)
    assert SECOND.run in known.runs


def test_a_member_cannot_fill_this_node_with_runs_that_wait() -> None:
    """None of them is forgotten to make room, so they count as active ones do."""
    known = Registry(ME, (), (), (), 0.0, None)
    for number in range(MAX_ACTIVE + 2):
        waits = runs.ended(_status(str(number)), runs.FAILED, {runs.YIELDS: FIRST.run})
        known.take(0.0, MESH, NodeId("bb" * 16), waits)
    assert len(known.runs) == MAX_ACTIVE


@pytest.mark.parametrize(
    ("request_", "told"),
    [(CancelRequested(1, SECOND.run), "cancelled"), (StopRequested(1, SECOND.run), "stopped")],
)
def test_a_person_may_end_what_gave_way(request_: Any, told: str) -> None:
    """It stays ended when the other run is done, whoever was told of what first."""
    waits = runs.ended(SECOND, runs.FAILED, {runs.YIELDS: FIRST.run})
    known = _known(FIRST, waits)
    assert known.runs[SECOND.run].summary()["state"] == "active"
    (known.cancel if isinstance(request_, CancelRequested) else known.stop)(MESH, request_)
    known.runs[FIRST.run].outbox.end(runs.FINISHED, {}, MESH, [])
    known.share_room(0.0, MESH)
    status = known.runs[SECOND.run].status
    assert known.runs[SECOND.run].summary()["state"] == told
    assert runs.merge(status, waits) == runs.merge(waits, status) == status
