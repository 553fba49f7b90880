"""Dialling members back: what is told of addresses that answer, and of those that do not."""

from __future__ import annotations

import asyncio

import pytest

from dflow_protocols.events import Event, LaneFailed, LaneOpened, Report
from dflow_protocols.names import NodeId
from dflow_protocols.wire.gossip import Knock
from dflowd.process.host import Host
from dflowd.transport import reach
from dflowd.transport.reach import DialBack

ME, PEER = NodeId("aa" * 16), NodeId("bb" * 16)
CONTROL = "tcp://127.0.0.1:1"


class Rig:
    """A node whose knocks come back as long as its peer `is_open`."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.reports: list[Report] = []
        self.is_open = True
        self._news = asyncio.Event()
        host = Host(asyncio.get_running_loop(), self._post, self.reports.append)
        self.dial_back = DialBack(host, ME, self._knock)

    def _knock(self, node: NodeId, knock: Knock) -> None:
        if self.is_open:
            asyncio.get_running_loop().call_soon(self.dial_back.knocked, node, knock.token)

    def _post(self, event: Event) -> None:
        self.told.append(event)
        self._news.set()

    async def until_told(self, count: int) -> None:
        async with asyncio.timeout(20.0):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FIRST_S", 0.05), ("PATIENCE_S", 0.1), ("CONNECT_S", 0.1)):
        monkeypatch.setattr(reach, name, seconds)


def test_a_member_whose_tokens_return_is_reached() -> None:
    async def live() -> Rig:
        rig = Rig()
        rig.dial_back.watch(PEER, CONTROL, "")
        await rig.until_told(1)
        return rig

    rig = asyncio.run(live())
    assert rig.told == [LaneOpened(PEER, "control")]
    assert rig.reports == []


def test_a_member_that_is_doubted_is_tried_again_and_its_first_failure_told() -> None:
    """Its port was open when it came; a firewall's new rule is found by the first fetch that nobody answers."""

    async def live() -> Rig:
        rig = Rig()
        rig.dial_back.watch(PEER, CONTROL, "")
        await rig.until_told(1)
        rig.is_open = False
        await asyncio.sleep(0)  # the try that told it ends
        rig.dial_back.doubt(PEER)
        await rig.until_told(2)
        rig.dial_back.close()
        return rig

    assert asyncio.run(live()).told == [LaneOpened(PEER, "control"), LaneFailed(PEER, "control", CONTROL)]
