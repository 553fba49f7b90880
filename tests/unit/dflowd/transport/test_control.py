"""The control lane over real sockets on loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest
import zmq

from dflow_protocols.wire.keys import key_text
from dflowd.transport.keys import new_key_pair
from dflowd.transport.router import BindError
from tests.unit.dflowd.transport.lanes import Party, Site, knock, until


def dial(a: Party, b: Party) -> bool:
    return a.lane.dial(b.keys.id, b.keys.public, b.address)


def client_socket(server: Party, public: bytes, secret: bytes) -> zmq.Socket[bytes]:
    """A DEALER as a client has it, outside of the lane's own code."""
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.curve_serverkey = key_text(server.keys.public).encode()
    dealer.curve_publickey, dealer.curve_secretkey = key_text(public).encode(), key_text(secret).encode()
    dealer.linger = 0
    dealer.connect(server.address)
    return dealer


async def test_a_frame_says_who_sent_it_by_key(site: Site) -> None:
    """What a message claims is nothing; the key is all, on dialled and on accepted links."""
    a, b = site.open(), site.open()
    assert dial(a, b)
    assert a.lane.send(b.keys.id, b"there")
    await until(lambda: b.frames)
    assert b.frames == [(a.keys.id, "node", b"there")]
    assert b.lane.send(a.keys.id, b"back")  # over the link that it came by: b never dialled
    await until(lambda: a.frames)
    assert a.frames == [(b.keys.id, "node", b"back")]
    counts = a.lane.traffic.snapshot()[b.keys.id]
    assert (counts.sent, counts.received) == (5, 4)


async def test_two_that_dial_each_other_at_once_both_hear_everything(site: Site) -> None:
    """Two links to one peer are normal; neither may be lost nor abort the process."""
    a, b = site.open(), site.open()
    assert dial(a, b)
    assert dial(b, a)
    for number in range(50):
        assert a.lane.send(b.keys.id, b"a%d" % number)
        assert b.lane.send(a.keys.id, b"b%d" % number)
        await asyncio.sleep(0)
    await until(lambda: len(a.frames) == len(b.frames) == 50)
    assert sorted(b.bodies) == sorted(b"a%d" % number for number in range(50))
    assert sorted(a.bodies) == sorted(b"b%d" % number for number in range(50))


async def test_frames_to_nobody_are_refused_not_kept(site: Site) -> None:
    """A queue without a reader would grow for ever."""
    a = site.open()
    assert not a.lane.send(new_key_pair().id, b"x")


async def test_a_peer_that_is_down_costs_a_bounded_queue(site: Site) -> None:
    """A dead member is dialled for ever; what is sent to it must not pile up."""
    a, b = site.open(), site.open()
    site.close(b)
    assert dial(a, b)
    taken = sum(a.lane.send(b.keys.id, b"x") for _ in range(5_000))
    assert taken < 1_000


async def test_a_restarted_peer_is_reached_again_without_a_new_dial(site: Site) -> None:
    """A daemon that comes back on its old address need not be learnt anew."""
    a, b = site.open(), site.open()
    dial(a, b)
    a.lane.send(b.keys.id, b"one")
    await until(lambda: b.frames)
    site.close(b)
    again = site.open(b.keys, address=b.address)

    def sends() -> bool:
        a.lane.send(b.keys.id, b"two")
        return b"two" in again.bodies

    await until(sends)


async def test_a_new_address_replaces_the_old_one(site: Site) -> None:
    """A member may come back elsewhere; another that shares the old address keeps its link."""
    a, b = site.open(), site.open()
    dial(a, b)
    site.close(b)
    moved = site.open(b.keys)
    assert a.lane.dial(b.keys.id, b.keys.public, moved.address)
    a.lane.send(b.keys.id, b"moved")
    await until(lambda: b"moved" in moved.bodies)


async def test_a_stranger_gets_no_byte(site: Site) -> None:
    """Only listed keys may speak, and only they are spoken to; the refusal is reported."""
    a = site.open()
    stranger = new_key_pair()
    with client_socket(a, stranger.public, stranger.secret) as dealer:
        knock(dealer, b"let me in")
        await until(lambda: a.heard("transport.stranger"))
        assert not a.frames
        assert not dealer.poll(100)
    assert not a.lane.dial(stranger.id, stranger.public, "tcp://127.0.0.1:9")
    assert a.heard("transport.refused")


async def test_a_key_taken_off_the_list_is_cut_off_at_once(site: Site) -> None:
    """Revoking must not wait for the link to break."""
    a, b = site.open(), site.open()
    dial(b, a)
    b.lane.send(a.keys.id, b"one")
    await until(lambda: a.frames)
    site.forbid(b.keys)

    def refused() -> bool:
        b.lane.send(a.keys.id, b"two")
        return a.heard("transport.refused")

    await until(refused)
    heard = len(a.frames)
    b.lane.send(a.keys.id, b"three")
    await asyncio.sleep(0.05)
    assert len(a.frames) == heard


async def test_a_key_that_was_revoked_gets_no_byte_any_more(site: Site) -> None:
    """Neither what is sent to it nor the answer that it still waits for, over links of either side's making."""
    a, b, c = site.open(), site.open(), site.open()
    keys = new_key_pair()
    site.allow(keys, "client")
    dial(a, b)
    dial(c, a)
    with client_socket(a, keys.public, keys.secret) as dealer:
        dealer.send(b"question")
        c.lane.send(a.keys.id, b"one")
        await until(lambda: len(a.frames) == 2)
        for revoked in (b.keys, c.keys, keys):
            site.forbid(revoked)
        await until(lambda: set(a.revoked) == {b.keys.id, c.keys.id, keys.id})
        assert not a.lane.send(b.keys.id, b"x")
        assert not a.lane.send(c.keys.id, b"x")
        assert not any(a.lane.reply(link, b"x") for link in a.links)
        assert not a.lane.dial(b.keys.id, b.keys.public, b.address)
        with dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            knock(dealer, b"again")
            await until(lambda: monitor.poll(0))  # the link itself is cut, and the next handshake refused
            assert not dealer.poll(0)
        assert not b.frames


async def test_a_node_that_becomes_a_client_is_sent_nothing_of_the_mesh(site: Site) -> None:
    """Roles change too; a client gets answers, and is never dialled."""
    a, b = site.open(), site.open()
    dial(a, b)
    site.forbid(b.keys)
    site.allow(b.keys, "client")
    await until(lambda: a.revoked)
    assert not a.lane.send(b.keys.id, b"x")
    assert not a.lane.dial(b.keys.id, b.keys.public, b.address)


async def test_clients_of_one_key_each_get_their_own_answer(site: Site) -> None:
    """Several commands run at once under one client key; an answer takes the link of its request."""
    a = site.open()
    keys = new_key_pair()
    site.allow(keys, "client")
    with client_socket(a, keys.public, keys.secret) as one, client_socket(a, keys.public, keys.secret) as two:
        one.send(b"1")
        two.send(b"2")
        await until(lambda: len(a.frames) == 2)
        assert {role for _, role, _ in a.frames} == {"client"}
        for (_, _, frame), link in zip(a.frames, a.links, strict=True):
            assert a.lane.reply(link, frame + frame)
        await until(lambda: one.poll(0) and two.poll(0))
        assert (one.recv(), two.recv()) == (b"11", b"22")


async def test_garbage_on_the_port_changes_nothing(site: Site) -> None:
    """Port scanners, HTTP clients and broken peers come by; the lane serves on."""
    a, b = site.open(), site.open()
    host, port = a.address.removeprefix("tcp://").split(":")
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, os.urandom(4096), b""):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(junk)
    dial(b, a)
    b.lane.send(a.keys.id, b"")
    with client_socket(a, b.keys.public, b.keys.secret) as dealer:
        dealer.send_multipart([b"no", b"frame", b"has", b"parts"])
        await until(lambda: b"" in a.bodies and a.heard("transport.refused"))
    b.lane.send(a.keys.id, b"still there")
    await until(lambda: b"still there" in a.bodies)


async def test_a_frame_too_large_to_take_costs_its_link_not_the_lane(site: Site) -> None:
    """libzmq drops the link of who sends more than the limit; the peer redials and is heard."""
    a, b = site.open(), site.open()
    dial(b, a)
    b.lane.send(a.keys.id, bytes(5 << 20))

    def heard() -> bool:
        b.lane.send(a.keys.id, b"small")
        return b"small" in a.bodies

    await until(heard)
    assert all(len(body) < 10 for body in a.bodies)


async def test_a_flooding_client_is_limited_and_others_are_heard(site: Site) -> None:
    """Rates are per key, and what was dropped is reported with a count, not a line each."""
    a, b = site.open(), site.open()
    keys = new_key_pair()
    site.allow(keys, "client")
    dial(b, a)
    with client_socket(a, keys.public, keys.secret) as dealer:
        for _ in range(3_000):
            await until(lambda: dealer.poll(0, zmq.POLLOUT))
            dealer.send(b"x")
        b.lane.send(a.keys.id, b"heard")
        await until(lambda: a.heard("transport.flooded") and b"heard" in a.bodies)
    assert sum(role == "client" for _, role, _ in a.frames) < 3_000
    assert sum(report.name == "transport.flooded" for report in a.reports) <= 2


async def test_a_port_in_use_is_named(site: Site) -> None:
    """The daemon turns this into its error line."""
    a = site.open()
    with pytest.raises(BindError, match="in use") as caught:
        site.open(address=a.address)
    assert caught.value.address == a.address


async def test_who_is_put_on_the_list_later_gets_through_without_a_new_dial(site: Site) -> None:
    """An operator adds a node while it is knocking; nobody should have to restart anything."""
    a = site.open()
    keys = new_key_pair()
    b = site.open(keys)
    assert b.lane.dial(a.keys.id, a.keys.public, a.address)
    b.lane.send(a.keys.id, b"early")
    await until(lambda: a.heard("transport.stranger"))
    site.allow(keys)

    def heard() -> bool:
        b.lane.send(a.keys.id, b"late")
        return b"late" in a.bodies

    await until(heard)


async def test_a_lane_closes_though_words_for_a_peer_that_was_hung_up_still_wait(site: Site) -> None:
    """A peer that stopped reading, and was then taken off the list, must not keep the daemon from ending."""
    a, gone = site.open(), new_key_pair()
    site.allow(gone)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        assert a.lane.dial(gone.id, gone.public, f"tcp://127.0.0.1:{deaf.getsockname()[1]}")
        assert a.lane.send(gone.id, b"never read")
        site.forbid(gone)
        await until(lambda: a.heard("transport.revoked"))
        site.parties.remove(a)
        await asyncio.wait_for(asyncio.to_thread(a.lane.close), 30)


@pytest.mark.parametrize(
    ("number", "may_pass"), [(errno.EADDRINUSE, True), (errno.ENODEV, True), (errno.EACCES, False)]
)
def test_an_address_that_another_start_may_have_is_told_from_one_that_none_will(number: int, may_pass: bool) -> None:
    """A service manager would try a port that only root may have for ever."""
    assert BindError("tcp://10.0.0.7:80", zmq.ZMQError(number)).may_pass == may_pass
