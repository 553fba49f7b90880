"""The gate: links without a key are few, and nobody makes the daemon keep what never becomes a message."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
import zmq

from dflow_protocols.names import NodeId
from dflowd.transport.gate import UNPROVED_AN_ADDRESS, Cut, Gate, counted_as
from dflowd.transport.links import SHORT_BYTES, TCP_RTO_MIN_US, held
from tests.support.until import until

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x06\x05READY"
LONGEST = 1 << 20
PEER = NodeId("0a" * 16)


class Listener:
    """A ROUTER without security, and its gate."""

    def __init__(self, links_a_key: int = 2) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.gate = Gate(self.socket, links_a_key, LONGEST)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.cuts: list[Cut] = []

    def watch(self) -> None:
        self.cuts += self.gate.watch()

    def take(self) -> int:
        """One message, and the link that it came by is the peer's. Its descriptor."""
        assert self.socket.poll(10_000)
        self.socket.recv()
        frame = self.socket.recv(copy=False)
        descriptor = int(frame.get(zmq.SRCFD))
        self.cuts += self.gate.prove(descriptor, PEER)
        return descriptor

    def connect(self) -> socket.socket:
        link = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        link.sendall(GREETING)
        got = b""
        while len(got) < 64:
            got += link.recv(64 - len(got))
        link.sendall(READY)
        while b"READY" not in got:
            got += link.recv(4096)
        return link


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.gate.close()
    made.context.destroy(linger=0)


def is_shut(link: socket.socket) -> bool:
    """Whether the other end has closed it; takes in what came before that."""
    link.settimeout(0.05)
    try:
        while link.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_of_too_many_links_without_a_key_the_oldest_goes(listener: Listener) -> None:
    """A flood must not keep the next member out, nor take all descriptors."""
    proved = listener.connect()
    proved.sendall(b"\x00\x05hello")
    listener.take()
    links = [listener.connect() for _ in range(UNPROVED_AN_ADDRESS + 5)]

    def cut_some() -> bool:
        listener.watch()
        return len(listener.cuts) >= 5

    until(cut_some, 30)
    until(lambda: all(is_shut(link) for link in links[:5]), 30)
    assert not is_shut(links[-1])
    assert not is_shut(proved)
    for link in (*links, proved):
        link.close()


def test_a_key_has_so_many_links_and_no_more(listener: Listener) -> None:
    """Whoever has a key may be broken, too."""
    links = []
    for _ in range(3):
        links.append(listener.connect())
        links[-1].sendall(b"\x00\x05hello")
        listener.take()
    assert [each.peer for each in listener.cuts] == [PEER]
    until(lambda: is_shut(links[0]), 30)
    assert not is_shut(links[1])
    assert not is_shut(links[2])
    for link in links:
        link.close()


def test_a_message_without_end_costs_its_link(listener: Listener) -> None:
    """libzmq gathers a message's parts before it hands over the first: a gigabyte of them would be kept, unseen."""
    link = listener.connect()
    link.sendall(b"\x00\x05hello")
    listener.take()
    listener.cuts += listener.gate.check()
    assert listener.cuts == []
    part = b"\x03" + (1 << 16).to_bytes(8, "big") + bytes(1 << 16)

    def is_cut() -> bool:
        with contextlib.suppress(OSError):
            link.sendall(part * 16)
        listener.cuts += listener.gate.check()
        return bool(listener.cuts)

    until(is_cut, 30)
    assert "no message" in listener.cuts[0].why
    until(lambda: is_shut(link), 30)
    link.close()


def test_many_messages_cost_no_link(listener: Listener) -> None:
    """Bytes that became messages are none that wait."""
    link = listener.connect()
    for _ in range(8):
        link.sendall(b"\x02" + (LONGEST - 1).to_bytes(8, "big") + bytes(LONGEST - 1))
        listener.take()
        listener.cuts += listener.gate.check()
    assert listener.cuts == []
    link.close()


@contextlib.contextmanager
def somebody_elses(descriptor: int, family: socket.AddressFamily) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection, the first one under this number, which libzmq has closed."""
    until(lambda: not os.path.exists(f"/proc/self/fd/{descriptor}"), 30)
    if family == socket.AF_UNIX:
        near, far = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            far = socket.create_connection(server.getsockname())
            near, _ = server.accept()
    if far.fileno() == descriptor:
        near, far = far, near
    elif near.fileno() != descriptor:
        os.dup2(near.fileno(), descriptor)
        near.close()
        near = socket.socket(fileno=descriptor)
    with near, far:
        yield near, far


def still_speak(ends: tuple[socket.socket, socket.socket]) -> bool:
    ends[0].sendall(b"x")
    ends[1].settimeout(10)
    return ends[1].recv(1) == b"x"


families = pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])


@families
def test_a_number_that_leads_elsewhere_by_now_is_never_cut(listener: Listener, family: socket.AddressFamily) -> None:
    """The kernel gives a closed link's descriptor to the next who asks: an engine's socket, or a neighbour's."""
    link = listener.connect()
    link.sendall(b"\x00\x05hello")
    descriptor = listener.take()
    link.close()
    with somebody_elses(descriptor, family) as ends:
        for _ in range(3):  # one more than a key may have, and the oldest of them is the number
            other = listener.connect()
            other.sendall(b"\x00\x05hello")
            listener.take()
            listener.gate.check()
        listener.gate.expel(descriptor, "127.0.0.1")
        assert still_speak(ends)


@families
def test_a_link_that_went_before_it_was_looked_at_is_nobodys(listener: Listener, family: socket.AddressFamily) -> None:
    """The event of an accepted link waits while its number goes round; a socket without an address has no host."""
    link = listener.connect()
    link.sendall(b"\x00\x05hello")
    assert listener.socket.poll(10_000)
    listener.socket.recv()
    descriptor = int(listener.socket.recv(copy=False).get(zmq.SRCFD))
    link.close()
    with somebody_elses(descriptor, family) as ends:
        listener.watch()
        assert not listener.gate.has_links
        assert listener.gate.prove(descriptor, PEER) == []
        assert not listener.gate.has_links
        assert still_speak(ends)


def test_addresses_of_one_ipv6_host_are_one_place() -> None:
    """It has 2^64 of them, so a flood could come from a fresh one each time."""
    assert counted_as("2001:db8:0:1::5") == counted_as("2001:db8:0:1:ffff::") == "2001:db8:0:1::/64"
    assert counted_as("2001:db8:0:2::5") != counted_as("2001:db8:0:1::5")
    assert counted_as("fe80::1%eth0") == "fe80::/64"
    assert counted_as("::ffff:10.0.0.7") == counted_as("10.0.0.7") == "10.0.0.7"


def test_what_came_over_a_dialled_link_is_counted_before_it_is_a_message(listener: Listener) -> None:
    """Of a chunk that takes seconds some has come: its holder is not silent."""
    dialler = listener.context.socket(zmq.DEALER)
    gate, endpoint = Gate(dialler, 2, LONGEST), f"tcp://127.0.0.1:{listener.port}"
    assert gate.received_from(endpoint) == 0
    dialler.connect(endpoint)

    def has_greeted() -> bool:
        gate.watch()
        return gate.received_from(endpoint) >= 64  # a greeting, which is no message

    until(has_greeted, 30)
    gate.close()


def test_links_that_are_accepted_after_it_was_asked_for_keep_to_short_segments(listener: Listener) -> None:
    """Both ways, as the listener tells it to who connects: so one end heals a path."""
    long, short = listener.connect(), None
    listener.watch()
    listener.gate.shorten()
    short = listener.connect()
    segment_bytes = [link.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) for link in (long, short)]
    assert segment_bytes[1] <= SHORT_BYTES < segment_bytes[0]
    for link in (long, short):
        link.close()


def test_a_listener_that_comes_later_keeps_to_short_segments_too() -> None:
    """The control lane asks for it before it binds."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    gate = Gate(router, 2, LONGEST)
    gate.shorten()
    port = router.bind_to_random_port("tcp://127.0.0.1")
    gate.watch()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= SHORT_BYTES
    gate.close()
    context.destroy(linger=0)


def test_who_dials_one_that_keeps_to_short_segments_notices(listener: Listener) -> None:
    """The path that made it do so is the own one, too, and need not be found a second time."""
    listener.gate.shorten()
    listener.watch()
    dialler = listener.context.socket(zmq.DEALER)
    gate = Gate(dialler, 2, LONGEST)
    assert not gate.met_short
    dialler.connect(f"tcp://127.0.0.1:{listener.port}")

    def met() -> bool:
        gate.watch()
        return bool(gate.met_short)

    until(met, 30)
    gate.close()


def test_links_are_told_to_repeat_soon_what_is_lost(listener: Listener) -> None:
    """By itself TCP waits 200 ms and then twice as long with each loss in a row: where a fifth of the packets is lost
    a ping's answer comes after a second and more."""
    member = listener.connect()
    member.sendall(b"\x00\x05hello")
    with held(listener.take()) as (link, _):
        assert link is not None
        try:
            repeat_us = link.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MIN_US)
        except OSError:
            pytest.skip("this kernel lets no program say so")
        assert repeat_us <= 60_000
