"""Dialling members back: what is told of addresses that answer, that do not, and that answer to short frames alone."""

from __future__ import annotations

import asyncio

import pytest

from dflow_protocols.events import Event, LaneFailed, LaneOpened, Report
from dflow_protocols.names import NodeId
from dflow_protocols.wire.gossip import Knock
from dflowd.process.host import Host
from dflowd.transport import reach
from dflowd.transport.reach import LONG_BYTES, DialBack

ME, PEER = NodeId("aa" * 16), NodeId("bb" * 16)
CONTROL = "tcp://127.0.0.1:1"


class Rig:
    """A node whose knocks of up to `passes` bytes come back."""

    def __init__(self, passes: int, loses: int = 0) -> None:
        """`loses`: so many long ones are lost before."""
        self._loses = loses
        self.told: list[Event] = []
        self.reports: list[Report] = []
        self.passes = passes
        self._news = asyncio.Event()
        host = Host(asyncio.get_running_loop(), self._post, self.reports.append)
        self.dial_back = DialBack(host, ME, self._knock)

    def _knock(self, node: NodeId, knock: Knock) -> None:
        if len(knock.token) == LONG_BYTES and self._loses:
            self._loses -= 1
        elif len(knock.token) <= self.passes:
            asyncio.get_running_loop().call_soon(self.dial_back.knocked, node, knock.token[: reach.TOKEN_BYTES])

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
        rig = Rig(passes=LONG_BYTES)
        rig.dial_back.watch(PEER, CONTROL, "")
        await rig.until_told(1)
        return rig

    rig = asyncio.run(live())
    assert rig.told == [LaneOpened(PEER, "control")]
    assert rig.reports == []


def test_a_path_that_loses_long_frames_alone_is_named() -> None:
    """Pings and handshakes pass, and nothing that is worth sending does: nobody would look for that."""

    async def live() -> Rig:
        rig = Rig(passes=1_000)
        rig.dial_back.watch(PEER, CONTROL, "")
        await rig.until_told(2)
        rig.dial_back.close()
        return rig

    rig = asyncio.run(live())
    assert rig.told == [LaneFailed(PEER, "control", CONTROL)] * 2
    fields = {"peer": PEER, "address": CONTROL, "nbytes": LONG_BYTES}
    assert set(map(str, rig.reports)) == {str(Report("transport.short_only", fields, "warning"))}


def test_a_long_frame_that_is_lost_once_names_no_path() -> None:
    """Links are dialled anew while a mesh forms, and what is on its way is lost then."""

    async def live() -> Rig:
        rig = Rig(passes=LONG_BYTES, loses=1)
        rig.dial_back.watch(PEER, CONTROL, "")
        async with asyncio.timeout(20.0):
            while LaneOpened(PEER, "control") not in rig.told:
                await rig.until_told(len(rig.told) + 1)
        return rig

    assert asyncio.run(live()).reports == []


def test_a_member_that_is_doubted_is_tried_again_and_its_first_failure_told() -> None:
    """Its port was open when it came; a firewall's new rule is found by the first fetch that nobody answers."""

    async def live() -> Rig:
        rig = Rig(passes=LONG_BYTES)
        rig.dial_back.watch(PEER, CONTROL, "")
        await rig.until_told(1)
        rig.passes = 0
        await asyncio.sleep(0)  # the try that told it ends
        rig.dial_back.doubt(PEER)
        await rig.until_told(2)
        rig.dial_back.close()
        return rig

    assert asyncio.run(live()).told == [LaneOpened(PEER, "control"), LaneFailed(PEER, "control", CONTROL)]
