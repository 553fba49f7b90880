"""The gate: how many links may stand open that have not shown a listed key, how many one key may have, and how much
may come by a link without becoming a message.

libzmq accepts whoever connects and gives a handshake its time, so a flood of connections would take memory and every
file descriptor, and members could connect no more. It also gathers a message's parts without bound before it hands
over the first. So the gate hears of accepted links from the socket's monitor and cuts the oldest unproved one where
there are too many: an honest handshake takes milliseconds, so a member comes through as long as strangers at its
address do not open more than the allowance in that time. And it compares what the kernel has received on a link with
what became messages.

Owns counts and descriptors of accepted links; knows nothing of messages. For one thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import OrderedDict
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import recv_monitor_message

from dflow_protocols.names import NodeId

UNPROVED_AN_ADDRESS = 64  # links from one address that have not brought a message under a listed key
UNPROVED = 256  # from all addresses together; each may cost a message's length while its handshake lasts
EVENTS_A_TURN = 256
CHECK_S = 0.5  # between two looks at what came by links without becoming messages
SLACK_BYTES = 2 << 20  # heartbeats and what encryption adds, beyond the longest message
_BYTES_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received of struct tcp_info (linux/tcp.h)


@dataclass(frozen=True, slots=True)
class Cut:
    """A link was shut. `peer`: its address, or the key's id where it had shown one."""

    peer: str
    why: str


@dataclass(slots=True)
class _Proved:
    peer: NodeId
    messages: int = 0  # since the last look
    received: int = 0  # by the kernel, when a message was last seen to have come


class Gate:
    """Watches one listening socket. Make it before the socket binds; close it before the socket."""

    def __init__(self, listener: zmq.Socket[bytes], links_a_key: int, longest_bytes: int) -> None:
        """`links_a_key`: accepted ones at once. `longest_bytes`: of a message."""
        self._listener, self._links_a_key, self._longest = listener, links_a_key, longest_bytes
        self.monitor = listener.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._unproved: OrderedDict[int, str] = OrderedDict()  # descriptor -> address, oldest first
        self._by_address: dict[str, int] = {}
        self._proved: dict[int, _Proved] = {}
        self._by_key: dict[NodeId, OrderedDict[int, None]] = {}
        self.lost: list[str] = []  # endpoints of links that ended, for who dialled them; taken by the lane

    @property
    def has_links(self) -> bool:
        return bool(self._proved)

    def watch(self) -> list[Cut]:
        """Take what the monitor says. Whoever calls looks again as long as `monitor` has more."""
        cuts: list[Cut] = []
        for _ in range(EVENTS_A_TURN):
            try:
                event = recv_monitor_message(self.monitor, zmq.DONTWAIT)
            except zmq.Again:
                break
            if event["event"] == zmq.EVENT_ACCEPTED:
                cuts += self._accepted(int(event["value"]))
            else:
                self._ended(int(event["value"]))
                self.lost.append(event["endpoint"].decode())
        return cuts

    def prove(self, descriptor: int, peer: NodeId) -> list[Cut]:
        """A message under a listed key came by this accepted link."""
        known = self._proved.get(descriptor)
        if known is not None and known.peer == peer:
            known.messages += 1
            return []
        self._ended(descriptor)
        self._proved[descriptor] = _Proved(peer, 1)
        links = self._by_key.setdefault(peer, OrderedDict())
        links[descriptor] = None
        if len(links) <= self._links_a_key:
            return []
        oldest = next(iter(links))
        self._ended(oldest)
        cut(oldest)
        return [Cut(peer, f"more than {self._links_a_key} links")]

    def check(self) -> list[Cut]:
        """Cut links by which much came and no message. To be called every CHECK_S."""
        cuts = []
        for descriptor, link in list(self._proved.items()):
            received = bytes_received(descriptor)
            if link.messages:
                link.messages, link.received = 0, received
            elif received - link.received > self._longest + SLACK_BYTES:
                cuts.append(Cut(link.peer, f"{received - link.received} bytes that are no message"))
        for descriptor, address in list(self._unproved.items()):
            if bytes_received(descriptor) > self._longest + SLACK_BYTES:
                cuts.append(Cut(address, "more bytes than a handshake has"))
                self._ended(descriptor)
                cut(descriptor)
        for descriptor in [d for d, link in self._proved.items() if any(each.peer == link.peer for each in cuts)]:
            self._ended(descriptor)
            cut(descriptor)
        return cuts

    def close(self) -> None:
        self._listener.disable_monitor()
        self.monitor.close(linger=0)

    def _accepted(self, descriptor: int) -> list[Cut]:
        self._ended(descriptor)
        address = address_of(descriptor)
        if not address:  # gone already
            return []
        self._unproved[descriptor] = address
        self._by_address[address] = self._by_address.get(address, 0) + 1
        if self._by_address[address] > UNPROVED_AN_ADDRESS:
            return [self._cut_oldest(address, UNPROVED_AN_ADDRESS)]
        if len(self._unproved) > UNPROVED:
            return [self._cut_oldest(max(self._by_address, key=lambda each: self._by_address[each]), UNPROVED)]
        return []

    def _cut_oldest(self, address: str, limit: int) -> Cut:
        oldest = next(descriptor for descriptor, known in self._unproved.items() if known == address)
        self._ended(oldest)
        cut(oldest)
        return Cut(address, f"more than {limit} links without a listed key")

    def _ended(self, descriptor: int) -> None:
        address = self._unproved.pop(descriptor, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        link = self._proved.pop(descriptor, None)
        if link is not None:
            del self._by_key[link.peer][descriptor]
            if not self._by_key[link.peer]:
                del self._by_key[link.peer]


def address_of(descriptor: int) -> str:
    """The peer's host of a connected socket; empty if it is none any more."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as link:
        return str(link.getpeername()[0])
    return ""


def bytes_received(descriptor: int) -> int:
    """Bytes that the kernel has received on a TCP socket; 0 if it is none any more."""
    with contextlib.suppress(OSError, struct.error), socket.socket(fileno=os.dup(descriptor)) as link:
        info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
        return int(_BYTES_RECEIVED.unpack(info)[0])
    return 0


def cut(descriptor: int) -> None:
    """Shut a link that libzmq accepted; it closes the descriptor itself. One that has gone already: nothing happens."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as link:
        link.shutdown(socket.SHUT_RDWR)
