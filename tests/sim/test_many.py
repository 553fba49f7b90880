"""Where members are many: word of seals and versions goes by way of others, and steps end as they do among few.

What "many" is, is set lower here, so that small worlds show it.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from dflow_protocols.events import Action, Event, Send
from dflow_protocols.names import MANIFEST, Block, NodeId, RecordId, RunId, Slice
from dflow_protocols.run_state import long_seals, outbox
from dflow_protocols.simulator.faults import Crash, sends
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.model.work import PURE, SECONDS, WILD, Engines
from dflow_protocols.simulator.toy import warm_then_two
from dflow_protocols.wire.steps import BucketPut, ClaimPut, RecordPut, SealPut
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

SLICES = 3  # of the toy's gradient
SPREADS_S = 0.2  # of five seals, each over four links at most; to be asked for one takes more


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FEW", 2)


@pytest.mark.parametrize("noise", [PURE, WILD], ids=["pure", "wild"])
def test_many_nodes_end_as_one_does(noise: frozenset[type]) -> None:
    """Also where no two make the same version: who hears late follows."""
    world, run = mesh(9, noise=noise)
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights()


class Held:
    """How many versions nodes hold when the manifest of a later step is proposed."""

    def __init__(self, run: RunId, hosts: list[Host]) -> None:
        self.counts: list[int] = []
        self._run, self._hosts = run, hosts

    def saw(self, host: Host, action: Action) -> None:
        puts = action.message.messages if isinstance(action, Send) else ()
        if any(isinstance(put, SealPut) and put.seal.kind == MANIFEST and put.seal.step > 0 for put in puts):
            self.counts += [len(node(each).runs[self._run].state.versions.held) for each in self._hosts]

    def heard(self, host: Host, event: Event) -> None:
        pass

    def dies(self, host: Host) -> None:
        pass


def test_many_nodes_hold_no_more_than_few_do() -> None:
    """A replica of the step says that all hold its version, so nobody keeps the one before it for who is late."""
    world, run = mesh(9, pipeline=warm_then_two(), steals=False)
    held = Held(run, world.hosts)
    world.watch(held)
    finish(world, run, ENDS_S)
    assert held.counts
    assert max(held.counts) == 1


def test_a_seal_comes_to_everybody_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who settled it told two, and they the others: no step waits until somebody asks."""
    seconds = []
    for few in (2, 16):
        monkeypatch.setattr(outbox, "FEW", few)
        monkeypatch.setattr(Engines, "seconds", lambda engines, work: SECONDS[type(work)])  # no draw decides
        world, run = mesh(9, steals=False)
        began = world.now
        finish(world, run, ENDS_S)
        seconds.append(world.now - began)
    assert seconds[0] <= seconds[1] + SPREADS_S


@pytest.mark.parametrize("nth", range(3))
def test_who_was_to_hear_of_a_seal_from_one_that_died_asks_for_it(nth: int) -> None:
    """Nothing rests on one message, nor on who passes it on."""
    world, run = mesh(9)
    world.when(sends(SealPut, nth, where=lambda put: bool(put.onward)), Crash())
    world.run(ENDS_S, ended(world, run))
    assert len(world.live()) == 8
    assert finish(world, run, ENDS_S) == undisturbed_weights()


class Told:
    """Who is told of each block."""

    def __init__(self) -> None:
        self.of: dict[RecordId, set[NodeId]] = defaultdict(set)

    def saw(self, host: Host, action: Action) -> None:
        for put in action.message.messages if isinstance(action, Send) else ():
            for record in put.records if isinstance(put, RecordPut) else ():
                if isinstance(record.task.part, Block) and isinstance(action, Send):
                    self.of[record.id].add(action.to)

    def heard(self, host: Host, event: Event) -> None:
        pass

    def dies(self, host: Host) -> None:
        pass


def test_a_block_is_told_to_who_sums_it_and_to_the_replicas() -> None:
    """Where each of a thousand tells all others of its block they are told a million times in a step."""
    world, run = mesh(9, steals=False)
    told = Told()
    world.watch(told)
    finish(world, run, ENDS_S)
    assert told.of
    assert all(2 <= len(nodes) <= 3 + SLICES for nodes in told.of.values())


def test_whose_slices_come_to_others_by_a_death_has_them_learn_of_the_blocks() -> None:
    """Nobody told those others: as they wait they ask a replica."""
    world, run = mesh(9)
    slice_claimed = sends(ClaimPut, 0, where=lambda put: any(isinstance(unit.part, Slice) for unit in put.units))
    world.when(slice_claimed, Crash())
    world.run(ENDS_S, ended(world, run))
    assert len(world.live()) == 8
    assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("lost", [None, 0, 1, 4])
def test_a_seal_too_long_for_a_message_settles_as_any_other(lost: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records travel apart from their names; where some are lost it is asked for again."""
    monkeypatch.setattr(long_seals, "SEAL_A_MESSAGE", 4)
    monkeypatch.setattr(long_seals, "RECORDS_A_MESSAGE", 4)
    world, run = mesh(5)
    if lost is not None:
        put = sends(BucketPut, lost, where=lambda put: not put.claims)
        world.when(put, Crash(restart_after_s=1.0))
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()
