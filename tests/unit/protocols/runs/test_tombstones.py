"""An ended run is remembered for thirty days, by all together and no longer."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.events import Action, Persist, Restored, Send
from dflow_protocols.names import NodeId, run_id
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.calls import FreeSlots
from dflow_protocols.run_state.run_state import MeshView
from dflow_protocols.runs.registry import Registry
from dflow_protocols.runs.tombstones import TOMBSTONE_S
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.wire.steps import RunPut

ME, PEER = NodeId("aa" * 16), NodeId("bb" * 16)
DAY_S = 86_400.0


def cancelled() -> RunPut:
    roster = make_roster(0, 0, (ME, PEER), (ME, PEER))
    name = run_id(two_steps().text_id, PEER, "0")
    active = RunPut(name, runs.ACTIVE, 0, two_steps().canonical(), "/spec", (), PEER, "0", roster, b"", False)
    return runs.ended(active, runs.CANCELLED, {})


def registry(now: float, *restored: Restored) -> Registry:
    return Registry(ME, restored, (), (), now, None)


def around() -> MeshView:
    living = frozenset((ME, PEER))
    return MeshView(living=living, stable=living, suspicion_s=1.0, incarnation=1, is_gathered=True)


def swept(known: Registry, now: float) -> list[Action]:
    """As a node does it: look at every run, then sweep."""
    for run in known.runs.values():
        run.reconcile(now, around(), FreeSlots(0))
    return known.sweep(now)


def test_an_end_is_forgotten_on_disk_after_thirty_days_and_not_before() -> None:
    """A disk that keeps every run for ever is full some day."""
    status = cancelled()
    known = registry(0.0, Restored(runs.dump(status), 20 * DAY_S))
    assert swept(known, 9.9 * DAY_S) == []
    assert Persist(f"runs/{status.run}", b"") in swept(known, 10.1 * DAY_S)
    assert known.runs == {}


def test_the_age_of_an_end_travels_with_it() -> None:
    """Nodes that told each other of an old end as if it were new would keep it for ever."""
    status = cancelled()
    teller = registry(0.0, Restored(runs.dump(status), 29 * DAY_S))
    (told,) = teller.tell(0.5 * DAY_S, PEER, status.run)
    assert isinstance(told, Send)
    learner = registry(0.0)
    (kept, *_) = learner.take(0.0, around(), PEER, told.message)
    assert isinstance(kept, Persist)
    assert kept.age_s == 29.5 * DAY_S
    assert swept(learner, 0.4 * DAY_S) == []
    assert swept(learner, 0.6 * DAY_S) != []


def test_an_end_that_is_too_old_is_not_taken_up_again() -> None:
    """The one whose clock runs slower reminds the others of what they have just forgotten."""
    learner = registry(0.0)
    assert learner.take(0.0, around(), PEER, replace(cancelled(), age_s=TOMBSTONE_S)) == []
    assert learner.runs == {}
