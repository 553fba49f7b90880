"""Peers that are known by a host's name: looked up off the loop and outside of libzmq, and again now and then.

libzmq looks a name up in the one thread that moves all of a lane's bytes, at every try to connect. A name server that
does not answer then silences the node for ten seconds at a time. So a lane is given numeric addresses only.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from dflow_protocols.events import Dial, Report
from dflow_protocols.wire.endpoint import Endpoint, parse_endpoint

from ..process.host import Host
from .reach import CONNECT_S, opens

LOOK_UP_S = 30.0  # then a name is looked up again: a host may come back at another address
RETRY_S = 2.0  # after a name that is not known yet, or while no name server answers


def is_numeric(address: str) -> bool:
    """Whether `tcp://HOST:PORT` names its host by number."""
    try:
        return parse_endpoint(address).is_numeric
    except ValueError:
        return False


class Resolver:
    """Looks up the names of peers that are to be dialled, for as long as it is not closed."""

    def __init__(self, host: Host, dial: Callable[[Dial, str], None]) -> None:
        """`dial(action, address)` is called with each new `tcp://NUMBER:PORT` of the action's `control`."""
        self._loop, self._report, self._dial = host.loop, host.report, dial
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, action: Dial) -> None:
        """Look up this peer's name from now on; a later action for the same peer takes its place."""
        self._cancel(action.node)
        self._tasks[action.node] = self._loop.create_task(self._keep(action))

    def close(self) -> None:
        for node in list(self._tasks):
            self._cancel(node)

    def _cancel(self, node: str) -> None:
        task = self._tasks.pop(node, None)
        if task is not None:
            task.cancel()

    async def _keep(self, action: Dial) -> None:
        known, is_open, is_told = "", False, False
        while True:
            try:
                place = parse_endpoint(action.control)
                rows = await self._loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
            except (OSError, ValueError) as error:
                if not is_told:
                    why = f"looking up {action.control!r}: {getattr(error, 'strerror', None) or error}"
                    self._report(Report("transport.refused", {"peer": action.node, "why": why}, "warning"))
                is_told = True
                await asyncio.sleep(RETRY_S)
                continue
            is_told = False
            found = list(dict.fromkeys(Endpoint(str(row[4][0]), place.port).url for row in rows))
            if known not in found or not is_open:
                address, is_open = await _first_open(found)
                if address != known:
                    known = address
                    self._dial(action, address)
            await asyncio.sleep(LOOK_UP_S if is_open else RETRY_S)


async def _first_open(addresses: list[str]) -> tuple[str, bool]:
    """Of several that a name stands for, as of IPv4 and IPv6, the first that takes a connection, and whether one did;
    the peer may listen on one only."""
    if len(addresses) == 1:
        return addresses[0], True
    for address in addresses:
        if await opens(address, CONNECT_S):
            return address, True
    return addresses[0], False
