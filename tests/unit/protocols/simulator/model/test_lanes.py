"""What a pretended node is told of members that it cannot dial."""

from __future__ import annotations

from random import Random

from dflow_protocols.events import Dial, Event, LaneFailed, LaneOpened
from dflow_protocols.names import NodeId
from dflow_protocols.simulator.model.network import PATIENCE_S, Lanes, Network
from dflow_protocols.simulator.model.schedule import Life, Schedule

ME, PEER = NodeId("me"), NodeId("peer")
DIAL = Dial(PEER, b"key", "tcp://peer:1", "tcp://peer:2")


class Dialler:
    def __init__(self) -> None:
        self.schedule, self.network, self.got = Schedule(), Network(Random(1)), list[Event]()
        self.lanes = Lanes(ME, Life(self.schedule, Random(1), self.got.append), self.network)


def test_a_lane_that_stays_closed_is_told_after_a_while_and_again_at_each_try_until_it_opens() -> None:
    """Who cannot be dialled is given no work; who just started may not listen yet."""
    dialler = Dialler()
    dialler.network.close(PEER, "control")
    dialler.lanes.watch(DIAL)
    dialler.schedule.run(PATIENCE_S - 0.1)
    assert dialler.got == []
    dialler.schedule.run(12.0)
    failed = LaneFailed(PEER, "control", DIAL.control)
    assert dialler.got == [failed, failed]
    assert dialler.lanes.linked == set()
    dialler.network.open(PEER, "control")
    dialler.schedule.run(20.0)
    assert dialler.got == [failed, failed, LaneOpened(PEER, "control")]
    assert dialler.lanes.linked == {PEER}


def test_of_an_address_that_is_not_a_members_any_more_nothing_is_told() -> None:
    """It lives a new life elsewhere, and can be reached there."""
    dialler = Dialler()
    dialler.network.close(PEER, "bulk")
    dialler.lanes.watch(DIAL)
    dialler.network.open(PEER, "bulk")
    dialler.lanes.watch(Dial(PEER, b"key", "tcp://new:1", "tcp://new:2"))
    dialler.schedule.run(60.0)
    assert dialler.got == []
