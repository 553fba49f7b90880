"""The control lane: small frames between nodes, and between clients and their daemon, over one CURVE ROUTER.

Owns links: who is at the other end, which one a frame takes, what is dialled. Knows nothing of what frames say, and
decides nothing about membership.

ZeroMQ facts that this file rests on (libzmq 4.3.5):
- Server options are read at bind, client options at each connect, so one ROUTER does both.
- A dialled link is addressed by the alias set before its connect. The alias is fresh random bytes: one that is taken
  aborts the process, so neither a name of ours nor one a peer could know may ever be used.
- Who speaks on an accepted link is the User-Id that the ZAP handler gave it, read from each frame; routing ids of
  accepted links may be chosen, and chosen again, by peers.
- A ROUTER cannot close an accepted link. A frame tells the descriptor that it was read from (ZMQ_SRCFD), so who speaks
  without leave is cut by shutting that down.
- What `disconnect` leaves of a link lives on for the linger of that moment, by default until all was sent, and the
  context's end waits for it.
- The socket's FD signals changes, not levels, and sending may swallow a signal: after a send, look again.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import zmq

from dflow_protocols.events import Report
from dflow_protocols.names import NodeId, node_id
from dflow_protocols.wire.keys import Allowed, key_text

from ..process.host import Host
from ..process.tally import Tally
from .gate import CHECK_S, Cut, Gate
from .keys import AllowList, KeyPair
from .limits import CLIENT_RATE, NODE_RATE, Buckets
from .router import LinkTiming, allow_ipv6, listen, open_router
from .traffic import TrafficTable
from .zap import Handshake, ZapHandler

MAX_FRAME_BYTES = 4 << 20  # what libzmq takes off the wire at all
QUEUE_FRAMES = 256  # per link and direction; a full one refuses, and every message may be lost
FRAMES_A_TURN = 128  # then the loop gets its turn
LINKS_A_PEER = 4  # accepted ones that are remembered to answer over
LINKS_A_KEY = 64  # accepted ones at once: a script may run that many commands; members have two
LONG_BYTES = 64 << 10  # a frame from here on is counted until it has left
UNREAD_BYTES = 16 << 20  # of long frames that a peer has not read; it gets no further one until it does
WATCH_S = 1.0  # how soon a change of the allow-list counts for links that are open
KNOCK_S = 1.0  # before a peer that refused this node is dialled again: it may not have the newest allow-list
TIMING = LinkTiming(heartbeat_ms=0, keepalive_s=300)  # two links to every member, whose process is probed anyway
LINGER_MS = 300  # for the last words of a node that leaves


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """A way back to who sent a frame: hand it to `reply`. Worthless once that peer has gone."""

    peer: NodeId
    routing_id: bytes


class Guest(Protocol):
    """Who uses the lane. All of this is called on the loop."""

    def on_frame(self, source: NodeId, role: str, data: bytes, link: ReplyTo) -> None:
        """A frame of a listed key. `role`: `node` or `client`."""

    def on_revoked(self, peer: NodeId) -> None:
        """A key is no longer listed as what it was."""


@dataclass(slots=True)
class _Dialled:
    peer: NodeId
    public_key: bytes
    address: str
    alias: bytes
    is_over: bool = False  # libzmq gave it up


@dataclass(slots=True)
class _Peer:
    """What is known of the ways to one node: newest sign of life first."""

    dialled: _Dialled | None = None
    recent: deque[bytes] = field(default_factory=lambda: deque(maxlen=LINKS_A_PEER))


class ControlLane:
    """One ROUTER that binds and connects, driven by the running loop. All methods are for the loop's thread."""

    def __init__(
        self,
        host: Host,
        keys: KeyPair,
        allow_list: AllowList,
        timing: LinkTiming = TIMING,
    ) -> None:
        self._loop, self._report = host.loop, host.report
        self._keys, self._allow_list = keys, allow_list
        self._guest: Guest | None = None
        self._peers: dict[NodeId, _Peer] = {}
        self._aliases: dict[bytes, _Dialled] = {}
        self._lines: Mapping[bytes, Allowed] = {}  # the list that roles and links were last made to fit
        self._roles: dict[NodeId, str] = {}
        self._buckets, self._tally = Buckets(), Tally()
        self.traffic = TrafficTable()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._zap = ZapHandler(self._context, self._admit)
        self._socket = open_router(
            self._context,
            b"control",
            timing,
            longest_bytes=MAX_FRAME_BYTES,
            queue_length=QUEUE_FRAMES,
            linger_ms=LINGER_MS,
        )
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, key_text(keys.public).encode())
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, key_text(keys.secret).encode())
        self._gate = Gate(self._socket, LINKS_A_KEY, MAX_FRAME_BYTES)
        self._gate.shorten()  # a frame that no path carries would end all contact, and most frames are short
        self._unread: dict[NodeId, list[tuple[zmq.MessageTracker, int]]] = {}
        self._drain_due = False
        self._look_at_list()
        self._loop.add_reader(self._zap.socket.fileno(), self._zap.drain)
        self._loop.add_reader(self._socket.fileno(), self._drain)
        self._loop.add_reader(self._gate.monitor.fileno(), self._watch_gate)
        self._watch_gate()  # a socket that was never read signals nothing
        self._check = self._loop.call_later(CHECK_S, self._check_gate)
        self._watch = self._loop.call_later(WATCH_S, self._watch_list)

    def bind(self, address: str) -> str:
        """Listen on `tcp://HOST:PORT` (port 0 or *: a free one). Returns the actual address; raises BindError."""
        try:
            return listen(self._socket, address, zmq.CURVE_SERVER)
        finally:
            self._socket.setsockopt(zmq.CURVE_SERVER, 0)  # an option of the next bind, not of what is dialled
            self._watch_gate()  # before a peer connects
            self._look_again()

    def start(self, guest: Guest) -> None:
        """From now on frames are taken; those that came before are not lost."""
        self._guest = guest
        self._look_again()

    def dial(self, peer: NodeId, public_key: bytes, address: str) -> bool:
        """Keep a link to `peer` at `tcp://HOST:PORT`, from now on and over losses; a new address replaces the old.

        Returns False, with a report, for a key that the allow-list does not have or that is not the peer's, and for
        an address that is none. The own key may be dialled, too: only another process that has it answers there.
        """
        if self._roles.get(peer) != "node":
            self._look_at_list()
        if node_id(public_key) != peer or self._roles.get(peer) != "node":
            why = f"dialling {address}: its key is not on the allow-list as a node's"
            return self._refuse("transport.refused", peer, why)
        known = self._peers.setdefault(peer, _Peer())
        if known.dialled is not None:
            if known.dialled.address == address:
                return True
            self._hang_up(known.dialled)
        dialled = _Dialled(peer, public_key, address, b"d" + secrets.token_bytes(15))
        if not self._connect(dialled):
            return self._refuse("transport.refused", peer, f"dialling {address!r}: not an address")
        known.dialled = dialled
        return True

    def send(self, peer: NodeId, frame: bytes) -> bool:
        """Hand a frame to the link of `peer` that last showed life. False: there is none, its queue is full, or it is
        no node of the allow-list any more."""
        known = self._peers.get(peer)
        if known is None or self._roles.get(peer) != "node":
            return False
        for routing_id in tuple(known.recent):
            if self._put(peer, routing_id, frame):
                return True
        return known.dialled is not None and self._put(peer, known.dialled.alias, frame)

    def knock(self, peer: NodeId, frame: bytes) -> bool:
        """Hand a frame to the link that was dialled to `peer`, or to none: it arrives only if that link leads there."""
        known = self._peers.get(peer)
        return known is not None and known.dialled is not None and self._put(peer, known.dialled.alias, frame)

    def reply(self, link: ReplyTo, frame: bytes) -> bool:
        """Answer over the link that a frame came by. False: that peer has gone, does not read, or lost its leave."""
        return link.peer in self._roles and self._put(link.peer, link.routing_id, frame)

    def is_node(self, peer: NodeId) -> bool:
        """Whether a key is on the allow-list as a node's."""
        return self._roles.get(peer) == "node"

    def allowed(self) -> dict[str, Any]:
        """The allow-list in force: how many `keys` it has, and its `digest`."""
        return {"keys": len(self._lines), "digest": self._allow_list.digest}

    def name_of(self, key: NodeId) -> str:
        """A key's name on the allow-list; empty if it is not there."""
        return next((line.name for line in self._lines.values() if line.id == key), "")

    def close(self) -> None:
        """Send what is queued, for at most LINGER_MS, then let go of socket and thread."""
        self._watch.cancel()
        self._check.cancel()
        self._loop.remove_reader(self._gate.monitor.fileno())
        self._gate.close()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_reader(self._zap.socket.fileno())
        self._zap.close()
        self._socket.close()
        self._context.term()

    # Links --------------------------------------------------------------------------------------------------------

    def _connect(self, dialled: _Dialled) -> bool:
        self._socket.setsockopt(zmq.CURVE_SERVERKEY, key_text(dialled.public_key).encode())
        self._socket.setsockopt(zmq.CONNECT_ROUTING_ID, dialled.alias)
        allow_ipv6(self._socket, dialled.address)
        try:
            self._socket.connect(dialled.address)
        except zmq.ZMQError:
            return False
        self._aliases[dialled.alias] = dialled
        self._look_again()
        return True

    def _hang_up(self, dialled: _Dialled) -> None:
        with contextlib.suppress(zmq.ZMQError):  # a link that was refused is gone already
            self._socket.disconnect(dialled.address)
        sharing = [other for other in self._aliases.values() if other.address == dialled.address]
        for other in sharing:  # libzmq knows links by address alone and has cut all of these
            del self._aliases[other.alias]
            known = self._peers[other.peer]
            known.dialled = None
            if other.alias in known.recent:
                known.recent.remove(other.alias)
            if other is not dialled:
                fresh = _Dialled(other.peer, other.public_key, other.address, b"d" + secrets.token_bytes(15))
                known.dialled = fresh if self._connect(fresh) else None
        self._look_again()

    def _put(self, peer: NodeId, routing_id: bytes, frame: bytes) -> bool:
        try:
            if len(frame) < LONG_BYTES:
                self._socket.send_multipart((routing_id, frame), zmq.DONTWAIT)
            elif not self._put_long(peer, routing_id, frame):
                return False
        except zmq.ZMQError as error:  # the link is gone or its queue is full: every message may be lost
            if error.errno == zmq.EHOSTUNREACH:
                self._strike_off(peer, routing_id)
            return False
        finally:
            self._look_again()
        self.traffic.sent(peer, len(frame))
        return True

    def _put_long(self, peer: NodeId, routing_id: bytes, frame: bytes) -> bool:
        """A queue holds QUEUE_FRAMES, which for long ones is more than a peer that does not read may cost."""
        unread = [item for item in self._unread.pop(peer, ()) if not item[0].done]
        if unread:
            self._unread[peer] = unread
        if sum(nbytes for _, nbytes in unread) + len(frame) > UNREAD_BYTES:
            return self._refuse("transport.deaf", peer, f"{UNREAD_BYTES} bytes that it has not read")
        tracker = self._socket.send_multipart((routing_id, frame), zmq.DONTWAIT, copy=False, track=True)
        assert tracker is not None
        self._unread.setdefault(peer, []).append((tracker, len(frame)))
        return True

    def _strike_off(self, peer: NodeId, routing_id: bytes) -> None:
        """A link has ended. libzmq redials lost ones, but not those that were refused: these are dialled anew."""
        known = self._peers.get(peer)
        if known is not None and routing_id in known.recent:
            known.recent.remove(routing_id)
        dialled = self._aliases.get(routing_id)
        if dialled is not None and not dialled.is_over:
            dialled.is_over = True
            self._loop.call_later(KNOCK_S, self._knock, dialled)

    def _knock(self, dialled: _Dialled) -> None:
        known = self._peers[dialled.peer]
        if known.dialled is dialled and not self._socket.closed:
            self._hang_up(dialled)
            self.dial(dialled.peer, dialled.public_key, dialled.address)

    # Frames -------------------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        if not self._drain_due and not self._socket.closed:
            self._drain_due = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._drain_due = False
        if self._socket.closed or self._guest is None:
            return
        for _ in range(FRAMES_A_TURN):
            try:
                routing_id = self._socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                self._take(routing_id, self._guest)
            except BaseException:
                self._look_again()  # the rest must not wait for a signal that has come already
                raise
        self._look_again()

    def _take(self, routing_id: bytes, guest: Guest) -> None:
        if not self._socket.rcvmore:
            return
        frame = self._socket.recv(zmq.DONTWAIT, copy=False)
        has_more = more = frame.more
        while more:
            more = self._socket.recv(zmq.DONTWAIT, copy=False).more
        dialled = self._aliases.get(routing_id)
        source = dialled.peer if dialled else NodeId(str(frame.get("User-Id")))
        role = self._roles.get(source)
        if role is None:  # taken off the list while its link was open
            self._expel(frame)
            self._refuse("transport.refused", source, "its key is not on the allow-list")
            return
        if dialled is None:
            self._tell_cuts(self._gate.prove(int(frame.get(zmq.SRCFD)), source))
        if has_more:  # no frame has parts
            self._expel(frame)
            self._refuse("transport.refused", source, "a message of several parts")
            return
        self.traffic.received(source, len(frame))
        rate = NODE_RATE if role == "node" else CLIENT_RATE
        if not self._buckets.take(self._loop.time(), source, len(frame), rate):
            self._refuse("transport.flooded", source, "more frames than its rate allows")
            return
        if role == "node":
            self._note_life(source, routing_id)
        guest.on_frame(source, role, frame.bytes, ReplyTo(source, routing_id))

    def _expel(self, frame: zmq.Frame) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._gate.expel(int(frame.get(zmq.SRCFD)), str(frame.get("Peer-Address")))

    def _note_life(self, source: NodeId, routing_id: bytes) -> None:
        recent = self._peers.setdefault(source, _Peer()).recent
        if recent and recent[0] == routing_id:
            return
        if routing_id in recent:
            recent.remove(routing_id)
        recent.appendleft(routing_id)

    # Trust --------------------------------------------------------------------------------------------------------

    def _admit(self, shake: Handshake) -> NodeId | None:
        if shake.mechanism == b"CURVE" and len(shake.credentials) == 1:
            if shake.credentials[0] == self._keys.public:  # it has proved to have our secret
                return self._keys.id
            self._look_at_list()
            allowed = self._allow_list.lines.get(shake.credentials[0])
            if allowed is not None:
                return allowed.id
        self._refuse("transport.stranger", shake.address, "its key is not on the allow-list")
        return None

    def _watch_gate(self) -> None:
        if self._socket.closed:
            return
        self._tell_cuts(self._gate.watch())
        self._gate.take_lost()  # libzmq redials by itself
        if int(self._gate.monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._loop.call_soon(self._watch_gate)

    def _check_gate(self) -> None:
        self._check = self._loop.call_later(CHECK_S, self._check_gate)
        self._tell_cuts(self._gate.check())
        self._gate.take_lost()

    def _tell_cuts(self, cuts: list[Cut]) -> None:
        for each in cuts:
            self._refuse("transport.cut", each.peer, each.why)

    def _watch_list(self) -> None:
        self._watch = self._loop.call_later(WATCH_S, self._watch_list)
        self._look_at_list()
        trouble = self._allow_list.trouble
        if trouble is not None:
            self._refuse("transport.allow_list", trouble.where, trouble.what)

    def _look_at_list(self) -> None:
        self._allow_list.refresh()
        if self._allow_list.lines is self._lines:
            return
        before, self._lines = self._lines, self._allow_list.lines
        self._roles = {line.id: line.role for line in self._lines.values()} | {self._keys.id: "node"}
        for dialled in [link for link in self._aliases.values() if self._roles.get(link.peer) != "node"]:
            self._hang_up(dialled)
        for line in before.values():
            if self._roles.get(line.id) != line.role:
                self._report(Report("transport.revoked", {"peer": line.id, "name": line.name, "role": line.role}))
                if self._guest is not None:
                    self._guest.on_revoked(line.id)

    def _refuse(self, name: str, peer: str, why: str) -> bool:
        count = self._tally.add(self._loop.time(), (name, peer))
        if count:
            self._report(Report(name, {"peer": peer, "why": why, "count": count}, "warning"))
        return False
