"""Peers that are known by a host's name: looked up off the loop and outside of libzmq, and again now and then.

libzmq looks a name up in the one thread that moves all of a lane's bytes, at every try to connect. A name server that
does not answer then silences the node for ten seconds at a time. So a lane is given numeric addresses only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

from dflow_protocols.machine import Dial, Report

LOOK_UP_S = 30.0  # then a name is looked up again: a host may come back at another address
RETRY_S = 2.0  # after a name that is not known yet, or while no name server answers


def is_numeric(address: str) -> bool:
    """Whether `tcp://HOST:PORT` names its host by number."""
    host = address.removeprefix("tcp://").rpartition(":")[0]
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class NamedPeers:
    """Looks up the names of peers that are to be dialled, for as long as it is not closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dial: Callable[[Dial, str], None],
        report: Callable[[Report], None],
    ) -> None:
        """`dial(action, address)` is called with each new `tcp://NUMBER:PORT` of the action's `control`."""
        self._loop, self._dial, self._report = loop, dial, report
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
        host, _, port = action.control.removeprefix("tcp://").rpartition(":")
        known, is_told = "", False
        while True:
            try:
                found = await self._loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except (OSError, ValueError, UnicodeError) as error:
                if not is_told:
                    why = f"looking up {host!r}: {getattr(error, 'strerror', None) or error}"
                    self._report(Report("transport.refused", {"peer": action.node, "why": why}, "warning"))
                is_told = True
                await asyncio.sleep(RETRY_S)
                continue
            is_told = False
            number = str(found[0][4][0])
            address = f"tcp://[{number}]:{port}" if ":" in number else f"tcp://{number}:{port}"
            if address != known:
                known = address
                self._dial(action, address)
            await asyncio.sleep(LOOK_UP_S)
