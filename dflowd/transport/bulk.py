"""The bulk lane: chunks between nodes, over a second ROUTER in a thread of its own.

Owns the socket, the thread, and the sealing of what goes over a link. What is asked and answered is its guest's
(shards/exchange.py). A peer opens a link with the token of a session that was agreed on over the control lane, so a
stranger gets no byte; a session belongs to one fetcher and one holder, and the fetcher dials.

The facts about ZeroMQ at the head of control.py hold here too, with PLAIN in place of CURVE. And one more: a poll takes
the first part of a message off its link, and libzmq ends the process (`!_more`, fq.cpp) where that link is disconnected
before the rest is read. So what has come is read after each poll before a call may hang up, and taken after the calls.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

import zmq

from dflow_protocols.names import CHUNK_BYTES, NodeId, is_who
from dflow_protocols.wire.bulk import MAX_HEAD_BYTES, MAX_ITEMS, TOKEN_BYTES
from dflowd.process.heap import keep_what_is_freed

from .aead import TAG_BYTES, AeadSession, Outbound, Payload
from .gate import CHECK_S, STALL_S, Cut, Gate
from .router import LinkTiming, allow_ipv6, listen, open_router
from .traffic import TrafficTable
from .zap import Handshake, ZapHandler

MAX_MESSAGE_BYTES = max(CHUNK_BYTES, MAX_HEAD_BYTES) + 4096
QUEUE_MESSAGES = 64  # per link and direction; four times the credit, and a bound on what a peer that stops costs
COPIED_BYTES = 256 << 10  # a payload up to here libzmq copies: that costs less than to be told that it was sent
MESSAGES_A_TURN = 16  # read at once, each as long as a chunk
MORE = int(zmq.SNDMORE | zmq.DONTWAIT)  # of a part that others follow; zmq's own flags are slow to join
ANSWERED_S = 5.0  # since an answer, after which its link is gone if it did not arrive
LINKS_A_KEY = 3  # accepted ones at once: the one in use, and others that are about to end


class Guest(Protocol):
    """Who uses the lane. All of this is called in the lane's thread."""

    def on_request(self, peer: NodeId, link: bytes, head: bytes) -> None:
        """A fetcher asks, and is to be answered over `link`."""

    def on_answer(self, peer: NodeId, head: bytes, payload: Payload) -> None:
        """A holder answers. The payload is there until this returns; perhaps it is empty."""

    def on_refused(self, peer: NodeId, token: bytes, address: str) -> None:
        """Someone at `address` came as `peer` with a token that is not, or no longer, known."""

    def on_stranger(self, peer: str, name: str, why: str) -> None:
        """Someone was turned away or cut off: `name` of the report, and why. `peer`: an address, or a node's id."""

    def on_short_path(self, peer: NodeId) -> None:
        """The path to `peer` loses long packets; links that are opened from now on keep to short ones."""

    def on_short_peer(self, peer: NodeId) -> None:
        """`peer` keeps to short packets, so links that are opened from now on do, too."""

    def on_outdated(self, peer: NodeId, token: bytes) -> None:
        """What `peer` is still owed under this session will not arrive; under another one it would."""

    def on_lost_link(self, peer: NodeId) -> None:
        """The link that was dialled to `peer` broke, as it does at once when a process is killed."""

    def on_fault(self, error: Exception) -> None:
        """A call into the guest, or the lane itself, raised; the lane goes on."""

    def on_turn(self) -> float:
        """All that waited was handed over. Returns when to be called again at the latest (time.monotonic)."""


@dataclass(slots=True)
class _Session:
    token: bytes
    aead: AeadSession
    alias: bytes = b""  # of the link that was dialled for it; empty on the holder's side
    address: str = ""

    def renew_alias(self) -> bytes:
        """Fresh random bytes for the link that is about to be dialled."""
        self.alias = b"b" + secrets.token_bytes(15)
        return self.alias


class BulkLane:
    """`bind`, then `start`; after that everything but `call` and `close` belongs to the lane's own thread."""

    def __init__(self, me: NodeId, fabric: str, timing: LinkTiming | None = None) -> None:
        """`fabric`: `encrypted`, or `trusted` where only who speaks and what a chunk is are proved."""
        self.me, self._is_trusted = me, fabric == "trusted"
        self._serving: dict[NodeId, _Session] = {}
        self._fetching: dict[NodeId, _Session] = {}
        self._aliases: dict[bytes, NodeId] = {}
        self.traffic = TrafficTable()
        self._calls: deque[Callable[[], None]] = deque()
        self._came: deque[tuple[bytes, NodeId | None, list[zmq.Frame]]] = deque()  # read, and not taken yet
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_woken = False  # calls that wait will be made; set last by who calls, cleared first by who makes them
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._zap = ZapHandler(self._context, self._admit)
        self._socket = open_router(
            self._context,
            b"bulk",
            timing or LinkTiming(),
            longest_bytes=MAX_MESSAGE_BYTES,
            queue_length=QUEUE_MESSAGES,
            linger_ms=0,
        )
        self._gate = Gate(self._socket, LINKS_A_KEY, MAX_MESSAGE_BYTES)
        self._copied = bytearray(COPIED_BYTES + MAX_ITEMS * TAG_BYTES)
        self._outbound = Outbound(CHUNK_BYTES + TAG_BYTES)
        self._check_at = inf
        self._answered_at = self._mend_at = inf  # when somebody was last answered, and links are to be looked at
        self._outdated: dict[NodeId, bytes] = {}  # sessions whose peers were asked to open another one
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def bind(self, address: str) -> str:
        """Listen on `tcp://HOST:PORT` (port 0 or *: a free one). Returns the actual address; raises BindError."""
        return listen(self._socket, address, zmq.PLAIN_SERVER)

    def start(self, guest: Guest) -> None:
        self._guest = guest
        keep_what_is_freed()
        self._thread = threading.Thread(target=self._run, name="dflowd-bulk", daemon=True)
        self._thread.start()

    def call(self, what: Callable[[], None]) -> None:
        """Have `what` called in the lane's thread, soon and in order. For any thread."""
        self._calls.append(what)
        if not self._is_woken:
            self._is_woken = True
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End the thread and let go of the socket; what was queued is lost. For the thread that started it."""
        if self._thread is not None:
            self.call(self._stop)
            self._thread.join()
        self._zap.close()
        self._gate.close()
        self._socket.close()
        self._context.term()
        os.close(self._wake)

    # Sessions -----------------------------------------------------------------------------------------------------

    def admit(self, peer: NodeId, token: bytes, key: bytes) -> None:
        """Let `peer` fetch under this session. The same token again changes nothing, so that no nonce comes twice."""
        known = self._serving.get(peer)
        if known is None or known.token != token:
            self._serving[peer] = _Session(token, AeadSession(key, is_fetcher=False, is_trusted=self._is_trusted))

    def expel(self, peer: NodeId) -> None:
        """Serve `peer` no more until it is admitted again, and fetch nothing from it."""
        self._serving.pop(peer, None)
        self.hang_up(peer)

    def dial(self, peer: NodeId, address: str, token: bytes, key: bytes) -> bool:
        """Open a link to fetch from `peer`, which has admitted this session. False: not an address."""
        self.hang_up(peer)
        session = _Session(token, AeadSession(key, is_fetcher=True, is_trusted=self._is_trusted), address=address)
        if not self._connect(session):
            return False
        self._fetching[peer] = session
        self._aliases[session.alias] = peer
        return True

    def received_from(self, peer: NodeId) -> int:
        """Bytes that have come over the present link to `peer`, also of a chunk that is not whole yet."""
        session = self._fetching.get(peer)
        return self._gate.received_from(session.address) if session is not None else 0

    def hang_up(self, peer: NodeId) -> None:
        """Close the link that fetches from `peer`, if there is one."""
        session = self._fetching.pop(peer, None)
        if session is None:
            return
        del self._aliases[session.alias]
        with contextlib.suppress(zmq.ZMQError):  # a link that was refused is gone already
            self._socket.disconnect(session.address)
        for other, sharing in self._fetching.items():  # libzmq knows links by address alone and has cut these too
            if sharing.address == session.address:
                del self._aliases[sharing.alias]
                self._connect(sharing)
                self._aliases[sharing.alias] = other

    def _connect(self, session: _Session) -> bool:
        self._socket.setsockopt(zmq.PLAIN_USERNAME, self.me.encode())
        self._socket.setsockopt(zmq.PLAIN_PASSWORD, session.token.hex().encode())
        self._socket.setsockopt(zmq.CONNECT_ROUTING_ID, session.renew_alias())
        allow_ipv6(self._socket, session.address)
        try:
            self._socket.connect(session.address)
        except zmq.ZMQError:
            return False
        return True

    def _admit(self, shake: Handshake) -> NodeId | None:
        claim = _claim_of(shake)
        known = self._serving.get(claim[0]) if claim is not None else None
        if claim is not None and known is not None and hmac.compare_digest(known.token, claim[1]):
            return claim[0]
        self._guest.on_stranger(shake.address, "transport.stranger", "it has no session")
        if claim is not None:
            self._guest.on_refused(*claim, shake.address)
        return None

    # Messages -----------------------------------------------------------------------------------------------------

    def request(self, peer: NodeId, head: bytes) -> bool:
        """Send asks over the link that was dialled to `peer`. False: there is none, or its queue is full."""
        session = self._fetching.get(peer)
        if session is None:
            return False
        return self._send(peer, session.alias, [session.aead.seal_head(head)])

    def answer(
        self, peer: NodeId, link: bytes, head: bytes, chunks: Sequence[memoryview] = ()
    ) -> zmq.MessageTracker | None:
        """Answer over the link that an ask came by; every answer may be lost. `chunks`: the payload; several are
        COPIED_BYTES at most.

        Returns a tracker where libzmq sends the chunk from where it lies, which must then stay until `tracker.done`.
        """
        session = self._serving.get(peer)
        if session is None:
            return None
        self._answered_at = time.monotonic()
        self._mend_at = min(self._mend_at, self._answered_at + STALL_S)
        sealed = session.aead.seal_head(head)
        if sum(map(len, chunks)) <= COPIED_BYTES:
            payload = [session.aead.seal_chunks(chunks, self._copied)] if chunks else []
            self._send(peer, link, [sealed, *payload])
            return None
        (chunk,) = chunks
        if session.aead.sends_chunks_as_they_lie:
            return self._send_tracked(peer, link, [sealed, chunk])
        buffer = self._outbound.take()
        tracker = self._send_tracked(peer, link, [sealed, session.aead.seal_chunks(chunks, buffer)])
        if tracker is not None:
            self._outbound.lend(buffer, tracker)
        return None

    def _send(self, peer: NodeId, link: bytes, parts: list[bytes | memoryview]) -> bool:
        *first, last = parts
        try:
            self._socket.send(link, MORE)
            for part in first:
                self._socket.send(part, MORE)
            self._socket.send(last, zmq.DONTWAIT)
        except zmq.ZMQError:  # unroutable, or the queue is full
            return False
        self.traffic.sent(peer, sum(map(len, parts)))
        return True

    def _send_tracked(self, peer: NodeId, link: bytes, parts: list[bytes | memoryview]) -> zmq.MessageTracker | None:
        try:
            tracker = self._socket.send_multipart([link, *parts], zmq.DONTWAIT, copy=False, track=True)
        except zmq.ZMQError:
            return None
        self.traffic.sent(peer, sum(map(len, parts)))
        return tracker

    # The thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._socket, self._zap.socket, self._gate.monitor, self._wake):
            poller.register(source, zmq.POLLIN)
        due = inf
        while not self._is_stopping:
            wait_s = due - time.monotonic()
            ready = dict(poller.poll(None if wait_s == inf else max(0, int(wait_s * 1000) + 1)))
            try:
                if self._socket in ready:
                    self._came += self._read()
                if self._wake in ready:
                    self._make_calls()
                if self._zap.socket in ready:
                    self._zap.drain()
                while self._came:
                    self._take(*self._came.popleft())
                if self._gate.monitor in ready:
                    self._tell_cuts(self._gate.watch())
                self._take_losses()
                self._check_gate()
                self._mend_links()
                due = min(self._guest.on_turn(), self._check_at, self._mend_at)
            except Exception as error:  # ours, and to be mended; but every fetch of this node hangs on this thread
                self._guest.on_fault(error)
                due = time.monotonic() + 1.0

    def _stop(self) -> None:
        self._is_stopping = True

    def _make_calls(self) -> None:
        os.eventfd_read(self._wake)
        self._is_woken = False
        try:
            for _ in range(len(self._calls)):
                self._calls.popleft()()
        finally:
            if self._calls:  # the rest, after one that raised
                os.eventfd_write(self._wake, 1)

    def _read(self) -> list[tuple[bytes, NodeId | None, list[zmq.Frame]]]:
        """Messages that wait, where there is one: the link of each, whose it is if it was dialled, and the parts."""
        came: list[tuple[bytes, NodeId | None, list[zmq.Frame]]] = []
        while len(came) < MESSAGES_A_TURN and (not came or self._socket.poll(0)):
            part = self._socket.recv(zmq.DONTWAIT, copy=False)
            link, parts = part.bytes, []
            while part.more:
                part = self._socket.recv(zmq.DONTWAIT, copy=False)
                parts.append(part)
            came.append((link, self._aliases.get(link), parts))
        return came

    def _take(self, link: bytes, dialled: NodeId | None, parts: list[zmq.Frame]) -> None:
        if not 1 <= len(parts) <= 2 or self._aliases.get(link) != dialled:  # it was hung up since
            return
        peer = dialled or NodeId(str(parts[0].get("User-Id")))
        session = self._fetching.get(peer) if dialled else self._serving.get(peer)
        if session is None:
            return
        if dialled is None:
            self._tell_cuts(self._gate.prove(int(parts[0].get(zmq.SRCFD)), peer))
        self.traffic.received(peer, sum(map(len, parts)))
        head = session.aead.open_head(parts[0].buffer)
        if head is None:  # of a session before this one, or not the peer's
            return
        if not dialled:
            self._guest.on_request(peer, link, head)
        else:
            self._guest.on_answer(peer, head, session.aead.payload(parts[1].buffer if parts[1:] else memoryview(b"")))

    def _take_losses(self) -> None:
        """After the messages, so that what came before the break still counts."""
        for address in self._gate.take_lost():
            for peer in [peer for peer, session in self._fetching.items() if session.address == address]:
                self._guest.on_lost_link(peer)

    def _check_gate(self) -> None:
        if time.monotonic() >= self._check_at:
            self._tell_cuts(self._gate.check())
            self._check_at = inf
        if self._check_at == inf and self._gate.has_links:
            self._check_at = time.monotonic() + CHECK_S

    def _mend_links(self) -> None:
        """A link on which a peer is heard and does not hear is opened anew. Where the path loses long packets, all are,
        and keep to short ones from now on: others may well come by that path, too."""
        now, gate = time.monotonic(), self._gate
        if now < self._mend_at and (gate.is_short or not gate.met_short):
            return
        deaf = gate.deaf(now) if now >= self._mend_at else {}
        if now >= self._mend_at:
            is_idle = now >= self._answered_at + ANSWERED_S
            self._mend_at = inf if is_idle else now + STALL_S
            if is_idle:
                self._outbound.forget()
        short = [] if gate.is_short else [peer for peer, loses_long in deaf.items() if loses_long]
        for peer in short:
            self._guest.on_short_path(peer)
        renews_all = not gate.is_short and bool(short or gate.met_short)  # whom we fetch from found such a path
        if renews_all:
            for peer in [] if short else [p for p, s in self._fetching.items() if s.address == gate.met_short]:
                self._guest.on_short_peer(peer)
            gate.shorten()
        for peer, session in self._serving.items():
            if (renews_all or peer in deaf) and session.token != self._outdated.get(peer):
                self._outdated[peer] = session.token
                self._guest.on_outdated(peer, session.token)

    def _tell_cuts(self, cuts: list[Cut]) -> None:
        for each in cuts:
            self._guest.on_stranger(each.peer, "transport.cut", each.why)


def _claim_of(shake: Handshake) -> tuple[NodeId, bytes] | None:
    """Who a handshake says it is, and the token of its session; None if it says neither."""
    if shake.mechanism != b"PLAIN" or len(shake.credentials) != 2:
        return None
    try:
        peer = NodeId(shake.credentials[0].decode("ascii"))
        token = bytes.fromhex(shake.credentials[1].decode("ascii"))
    except ValueError:
        return None
    return (peer, token) if is_who(peer) and len(token) == TOKEN_BYTES else None
