"""Peers known by name: found when the name is, and never at the cost of the lane."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from dflow_protocols.events import Dial, Report
from dflow_protocols.names import NodeId
from dflowd.process.host import Host
from dflowd.transport import resolver
from tests.unit.dflowd.transport.lanes import Site, until

PEER = Dial(NodeId("ab" * 16), bytes(32), "tcp://a1.site:7300", "")


@pytest.mark.parametrize(
    ("address", "numeric"),
    [
        ("tcp://10.0.0.7:7300", True),
        ("tcp://[fe80::1]:7300", True),
        ("tcp://a1:7300", False),
        ("tcp://a1.site.org:7300", False),
        ("", False),
    ],
)
def test_a_number_is_told_from_a_name(address: str, numeric: bool) -> None:
    """Only names are looked up."""
    assert resolver.is_numeric(address) is numeric


async def test_a_name_that_comes_to_be_known_or_moves_is_dialled_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site's name server may come up after its daemons, and a host may come back elsewhere."""
    loop = asyncio.get_running_loop()
    found: list[str] = []
    dialled: list[str] = []
    reports: list[Report] = []

    async def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found[-1], port))]

    monkeypatch.setattr(resolver, "LOOK_UP_S", 0.01)
    monkeypatch.setattr(resolver, "RETRY_S", 0.01)
    monkeypatch.setattr(loop, "getaddrinfo", look_up, raising=False)
    peers = resolver.Resolver(Host(loop, print, reports.append), lambda action, address: dialled.append(address))
    peers.add(PEER)
    await until(lambda: reports)
    found.append("10.0.0.7")
    await until(lambda: dialled)
    found.append("10.0.0.9")
    await until(lambda: len(dialled) == 2)
    assert dialled == ["tcp://10.0.0.7:7300", "tcp://10.0.0.9:7300"]
    assert [report.name for report in reports] == ["transport.refused"]
    peers.close()


async def test_of_the_addresses_that_a_name_stands_for_the_open_one_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name has an IPv6 and an IPv4 address, and the daemon listens on one of them."""
    loop = asyncio.get_running_loop()
    dialled: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        async def look_up(host: str, port: int, **more: Any) -> list[Any]:
            hosts = ("127.0.0.2", "127.0.0.1") if host == "a1.site" else (host,)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

        monkeypatch.setattr(loop, "getaddrinfo", look_up, raising=False)
        peers = resolver.Resolver(Host(loop, print, print), lambda action, address: dialled.append(address))
        peers.add(Dial(PEER.node, PEER.public_key, f"tcp://a1.site:{port}", ""))
        await until(lambda: dialled)
        peers.close()
    assert dialled == [f"tcp://127.0.0.1:{port}"]


async def test_lanes_speak_over_ipv6(site: Site) -> None:
    """Addresses in brackets are accepted by the configuration, so they must work; beside IPv4 on one socket."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    a, b = site.open(address="tcp://[::1]:0"), site.open()
    assert b.lane.dial(a.keys.id, a.keys.public, a.address)
    b.lane.send(a.keys.id, b"six")
    await until(lambda: a.frames)
    assert a.lane.dial(b.keys.id, b.keys.public, b.address)
    a.lane.send(b.keys.id, b"four")
    await until(lambda: b.frames)
