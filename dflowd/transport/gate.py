"""The gate: how many links may stand open that have not shown a listed key, how many one key may have, and how much
may come by a link without becoming a message.

libzmq accepts whoever connects and gives a handshake its time, so a flood of connections would take memory and every
file descriptor, and members could connect no more. It also gathers a message's parts without bound before it hands
over the first. So the gate hears of accepted links from the socket's monitor and cuts the oldest unproved one where
there are too many: an honest handshake takes milliseconds, so a member comes through as long as strangers at its
address do not open more than the allowance in that time. And it compares what the kernel has received on a link with
what became messages.

It also sees to it that links go on where the path loses long packets and the word that says so (RFC 2923, 2.1): by
such a link nothing arrives any more once something long was sent, so accepted ones can be kept to short segments.

Each link, also one that is dialled, is told to repeat soon what is lost: frames are few and wanted at once.

Nothing is done to a descriptor that leads elsewhere by now: to an engine, to a neighbour, or to a file.

Owns counts and descriptors of accepted links; knows nothing of messages. For one thread.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections import OrderedDict
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import recv_monitor_message

from dflow_protocols.names import NodeId

from .links import Ends, bytes_received, ends_of, hasten, held, is_short, progress_of, shorten_accepted

UNPROVED_AN_ADDRESS = 64  # links from one address (of IPv6: a /64) that brought no message under a listed key
UNPROVED = 256  # from all addresses together; each may cost a message's length while its handshake lasts
EVENTS_A_TURN = 256
EVENTS = zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED
CHECK_S = 0.5  # between two looks at what came by links without becoming messages
STALL_S = 0.25  # between two looks at what was sent and does not arrive
SLACK_BYTES = 2 << 20  # heartbeats and what encryption adds, beyond the longest message


@dataclass(frozen=True, slots=True)
class Cut:
    """A link was shut. `peer`: its address, or the key's id where it had shown one."""

    peer: str
    why: str


@dataclass(slots=True)
class _Unproved:
    ends: Ends
    source: str  # what its address is counted as


@dataclass(slots=True)
class _Proved:
    ends: Ends
    peer: NodeId
    messages: int = 0  # since the last look
    received: int = 0  # by the kernel, when a message was last seen to have come
    stalled_since: float | None = None  # when it was first seen that nothing of what is under way arrives


class Gate:
    """Watches one listening socket. Make it before the socket binds; close it before the socket."""

    def __init__(self, listener: zmq.Socket[bytes], links_a_key: int, longest_bytes: int) -> None:
        """`links_a_key`: accepted ones at once. `longest_bytes`: of a message."""
        self._listener, self._links_a_key, self._longest = listener, links_a_key, longest_bytes
        self.monitor = listener.get_monitor_socket(EVENTS)
        self._unproved: OrderedDict[int, _Unproved] = OrderedDict()  # by descriptor, oldest first
        self._by_source: dict[str, int] = {}
        self._proved: dict[int, _Proved] = {}
        self._by_key: dict[NodeId, OrderedDict[int, None]] = {}
        self._lost: list[str] = []  # endpoints of links that ended
        self._dialled: dict[str, tuple[int, Ends]] = {}  # links that this side opened, by endpoint
        self._listening: list[int] = []  # descriptors that links are accepted by
        self.is_short = False  # links that are accepted keep to short segments
        self.met_short = ""  # endpoint of the first dialled link that does, since its other end asked for it

    @property
    def has_links(self) -> bool:
        return bool(self._proved or self._unproved)

    def watch(self) -> list[Cut]:
        """Take what the monitor says. Whoever calls looks again as long as `monitor` has more."""
        cuts: list[Cut] = []
        for _ in range(EVENTS_A_TURN):
            try:
                event = recv_monitor_message(self.monitor, zmq.DONTWAIT)
            except zmq.Again:
                break
            endpoint = event["endpoint"].decode()
            if event["event"] == zmq.EVENT_LISTENING:
                self._listens(int(event["value"]))
            elif event["event"] == zmq.EVENT_ACCEPTED:
                cuts += self._accepted(int(event["value"]), endpoint)
            elif event["event"] == zmq.EVENT_CONNECTED:
                self._connected(int(event["value"]), endpoint)
            else:
                self._ended(int(event["value"]))
                self._dialled.pop(endpoint, None)
                self._lost.append(endpoint)
        return cuts

    def received_from(self, endpoint: str) -> int:
        """Bytes that the kernel has received on the link that was dialled to this endpoint; 0 if there is none."""
        known = self._dialled.get(endpoint)
        return (bytes_received(*known) or 0) if known is not None else 0

    def take_lost(self) -> list[str]:
        """Endpoints of links that ended since the last time, for who dialled them."""
        lost, self._lost = self._lost, []
        return lost

    def prove(self, descriptor: int, peer: NodeId) -> list[Cut]:
        """A message under a listed key came by this descriptor, which was then an accepted link's. Where it is another
        link's by now, the last word says whose."""
        known = self._proved.get(descriptor)
        if known is not None and known.peer == peer:
            known.messages += 1
            return []
        cuts = self.watch()  # a message may be taken before the event of its link
        ends = self._noted(descriptor)
        if ends is None or ends != ends_of(descriptor):  # the link has gone
            self._ended(descriptor)
            return cuts
        self._ended(descriptor)
        self._proved[descriptor] = _Proved(ends, peer, 1)
        links = self._by_key.setdefault(peer, OrderedDict())
        links[descriptor] = None
        if len(links) > self._links_a_key:
            self._cut(next(iter(links)))
            cuts.append(Cut(peer, f"more than {self._links_a_key} links"))
        return cuts

    def check(self) -> list[Cut]:
        """Cut links by which much came and no message. To be called every CHECK_S."""
        cuts = []
        for descriptor, link in list(self._proved.items()):
            received = bytes_received(descriptor, link.ends)
            if received is None:
                self._ended(descriptor)
            elif link.messages:
                link.messages, link.received = 0, received
            elif received - link.received > self._longest + SLACK_BYTES:
                cuts.append(Cut(link.peer, f"{received - link.received} bytes that are no message"))
        for descriptor, unproved in list(self._unproved.items()):
            received = bytes_received(descriptor, unproved.ends)
            if received is None:
                self._ended(descriptor)
            elif received > self._longest + SLACK_BYTES:
                cuts.append(Cut(unproved.source, "more bytes than a handshake has"))
                self._cut(descriptor)
        for descriptor in [d for d, link in self._proved.items() if any(each.peer == link.peer for each in cuts)]:
            self._cut(descriptor)
        return cuts

    def shorten(self) -> None:
        """Links that are accepted from now on keep to short segments, both ways."""
        self.is_short = True
        for descriptor in self._listening:
            shorten_accepted(descriptor)

    def deaf(self, now: float) -> dict[NodeId, bool]:
        """Peers that are heard and get nothing of what is on its way to them: whether the path loses what is long. To
        be called every STALL_S while something is."""
        found = {}
        for descriptor, link in self._proved.items():
            progress = progress_of(descriptor, link.ends)
            if progress is None or not progress.is_stalled:
                link.stalled_since = None
            elif link.stalled_since is None:
                link.stalled_since = now
            elif progress.is_deaf(now - link.stalled_since):
                found[link.peer] = progress.loses_what_is_long
        return found

    def expel(self, descriptor: int, address: str) -> None:
        """Cut the accepted link by which a message of who may not speak came from `address`, if it is still there."""
        self.watch()
        ends = self._noted(descriptor)
        if ends is not None and ends.host == address:
            self._cut(descriptor)

    def close(self) -> None:
        self._listener.disable_monitor()
        self.monitor.close(linger=0)

    def _noted(self, descriptor: int) -> Ends | None:
        link = self._proved.get(descriptor) or self._unproved.get(descriptor)
        return link.ends if link is not None else None

    def _listens(self, descriptor: int) -> None:
        self._listening.append(descriptor)
        if self.is_short:
            shorten_accepted(descriptor)

    def _accepted(self, descriptor: int, endpoint: str) -> list[Cut]:
        self._ended(descriptor)
        ends = ends_of(descriptor)
        if ends is None or not endpoint.endswith(f":{ends.own_port}"):  # gone already, and its number is another's
            return []
        hasten(descriptor, ends)
        source = counted_as(ends.host)
        self._unproved[descriptor] = _Unproved(ends, source)
        self._by_source[source] = self._by_source.get(source, 0) + 1
        if self._by_source[source] > UNPROVED_AN_ADDRESS:
            return [self._cut_oldest(source, UNPROVED_AN_ADDRESS)]
        if len(self._unproved) > UNPROVED:
            return [self._cut_oldest(max(self._by_source, key=lambda each: self._by_source[each]), UNPROVED)]
        return []

    def _connected(self, descriptor: int, endpoint: str) -> None:
        self._dialled.pop(endpoint, None)
        ends = ends_of(descriptor)
        if ends is not None and endpoint.endswith(f":{ends.port}"):
            self._dialled[endpoint] = (descriptor, ends)
            hasten(descriptor, ends)
            if not self.met_short and is_short(descriptor):
                self.met_short = endpoint

    def _cut_oldest(self, source: str, limit: int) -> Cut:
        self._cut(next(descriptor for descriptor, known in self._unproved.items() if known.source == source))
        return Cut(source, f"more than {limit} links without a listed key")

    def _cut(self, descriptor: int) -> None:
        """Shut a link; libzmq closes the descriptor itself. One that has gone already: nothing happens."""
        noted = self._noted(descriptor)
        self._ended(descriptor)
        with held(descriptor) as (link, ends):
            if link is not None and ends == noted:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def _ended(self, descriptor: int) -> None:
        unproved = self._unproved.pop(descriptor, None)
        if unproved is not None:
            self._by_source[unproved.source] -= 1
            if not self._by_source[unproved.source]:
                del self._by_source[unproved.source]
        link = self._proved.pop(descriptor, None)
        if link is not None:
            del self._by_key[link.peer][descriptor]
            if not self._by_key[link.peer]:
                del self._by_key[link.peer]


def counted_as(host: str) -> str:
    """What addresses of one host have in common: of IPv6 a host has a whole /64."""
    number = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(number, ipaddress.IPv4Address):
        return host
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return str(ipaddress.ip_network((number, 64), strict=False))
