"""Whether members answer where they say they do: both lanes of each are dialled back until they have.

Control lane: a token goes out over the dialled link and no other, so its return proves that the link leads to the
member's key. Bulk lane: that a connection can be opened; who answers there is proved with the first session.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from dflow_protocols.events import Lane, LaneFailed, LaneOpened
from dflow_protocols.names import NodeId
from dflow_protocols.wire.endpoint import parse_endpoint
from dflow_protocols.wire.gossip import Knock

from ..process.host import Host

FIRST_S = 0.5  # until a lane is tried again; the pauses double
MOST_S = 120.0  # less than COMPLAINT_S: each failed try is told to the member
PATIENCE_S = 4.0  # before a failure is told: a member that just started may not listen yet, or be busy
DOUBT_S = 1.5  # the same where it answered before
DOUBT_AGAIN_S = 15.0  # what is tried and has no answer is begun anew after so long, if somebody asks
CONNECT_S = 1.5  # TCP asks a second time after one second (RFC 6298, 2.1)
TOKEN_BYTES = 16

Attempt: TypeAlias = Callable[[float], Coroutine[Any, Any, bool]]
"""Given so many seconds: whether a lane answers."""


class DialBack:
    """Tries members' lanes on the running loop; all methods are for its thread."""

    def __init__(self, host: Host, me: NodeId, knock: Callable[[NodeId, Knock], object]) -> None:
        """`knock` sends a message over the link that was dialled to a member."""
        self._loop, self._post = host.loop, host.post
        self._me, self._knock = me, knock
        self._addresses: dict[NodeId, tuple[str, str]] = {}
        self._tasks: dict[tuple[NodeId, str], asyncio.Task[None]] = {}
        self._begun: dict[NodeId, float] = {}
        self._waiting: dict[NodeId, tuple[bytes, asyncio.Event]] = {}

    def watch(self, node: NodeId, control: str, bulk: str) -> None:
        """Try these addresses (`tcp://HOST:PORT`; bulk may be empty) until both have answered, in place of others."""
        if node != self._me:
            self._addresses[node] = (control, bulk)
            self._try_all(node, PATIENCE_S)

    def doubt(self, node: NodeId) -> None:
        """A member that lives did not answer on a lane: try its addresses again, and tell of a failure soon. One that
        is tried and does not answer for long is only tried now and then, until somebody asks for it."""
        if node not in self._addresses:
            return
        are_done = all(task.done() for (of, _), task in self._tasks.items() if of == node)
        if are_done or self._loop.time() >= self._begun[node] + DOUBT_AGAIN_S:
            self._try_all(node, DOUBT_S)

    def _try_all(self, node: NodeId, patience_s: float) -> None:
        self._begun[node] = self._loop.time()
        control, bulk = self._addresses[node]
        self._begin(node, "control", control, partial(self._returns, node), patience_s)
        if bulk:
            self._begin(node, "bulk", bulk, partial(opens, bulk), patience_s)

    async def _returns(self, node: NodeId, pause_s: float) -> bool:
        """Whether a token returns within `pause_s`."""
        token, answered = secrets.token_bytes(TOKEN_BYTES), asyncio.Event()
        self._waiting[node] = (token, answered)
        self._knock(node, Knock(token))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(answered.wait(), pause_s)
        return answered.is_set()

    def knocked(self, source: NodeId, token: bytes) -> None:
        """A member returned a token."""
        known, answered = self._waiting.get(source, (b"", None))
        if answered is not None and hmac.compare_digest(known, token):
            answered.set()

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _begin(self, node: NodeId, lane: Lane, address: str, attempt: Attempt, patience_s: float) -> None:
        before = self._tasks.get((node, lane))
        if before is not None:
            before.cancel()
        self._tasks[node, lane] = self._loop.create_task(self._try(node, lane, address, attempt, patience_s))

    async def _try(self, node: NodeId, lane: Lane, address: str, attempt: Attempt, patience_s: float) -> None:
        pause_s, tell_at = FIRST_S, self._loop.time() + patience_s
        while True:
            due = self._loop.time() + pause_s
            if await attempt(pause_s):
                self._post(LaneOpened(node, lane))
                return
            if self._loop.time() >= tell_at:
                self._post(LaneFailed(node, lane, address))
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            pause_s = min(2 * pause_s, MOST_S)


async def opens(address: str, pause_s: float) -> bool:
    """Whether a connection to `tcp://HOST:PORT` can be opened within `pause_s`, or CONNECT_S if that is less."""
    try:
        place = parse_endpoint(address)
        opening = asyncio.open_connection(place.host, place.port)
        _, writer = await asyncio.wait_for(opening, max(pause_s, CONNECT_S))
    except (OSError, ValueError, TimeoutError):
        return False
    writer.close()
    return True
