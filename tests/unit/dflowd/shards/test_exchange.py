"""Fetching over real sockets: what arrives is what was named, from whoever has it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

import pytest
import zmq

from dflow_protocols.events import Fetch, FetchAdvanced, Fetched, FetchFailed
from dflow_protocols.names import CHUNK_BYTES, NodeId, ShardRef, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.wire.bulk import SessionOffer
from tests.unit.dflowd.shards.peers import OTHER, RUN, Neighbours, Peer
from tests.unit.dflowd.transport.lanes import knock, until

LARGE = 7 * CHUNK_BYTES + 1234


def bytes_received(peer: Peer) -> int:
    return sum(traffic.received for traffic in peer.exchange.traffic().values())


@pytest.mark.parametrize("fabric", ["encrypted", "trusted"])
async def test_a_shard_of_any_length_arrives_as_it_was_made(neighbours: Neighbours, fabric: str) -> None:
    """Empty, inline, exactly one chunk, and many; on both kinds of fabric."""
    a, b = neighbours.open(fabric), neighbours.open(fabric)
    for nbytes in (0, 1, 10_000, 70_000, CHUNK_BYTES, CHUNK_BYTES + 1, LARGE, 40 * CHUNK_BYTES):
        data = os.urandom(nbytes)
        ref = b.put(data)
        assert isinstance(await a.fetched(ref, b), Fetched), nbytes
        assert a.data(ref) == data
        assert a.store.has(ref.id)
    assert any(isinstance(event, FetchAdvanced) for event in a.events)


@pytest.mark.parametrize("falsify", [bytes, lambda data: data[:-1] + b"?", lambda data: data + b"?"])
async def test_what_came_along_is_kept_if_it_is_what_was_named_and_else_asked_for(
    neighbours: Neighbours, falsify: Callable[[bytes], bytes]
) -> None:
    """Who sent it may have erred or lied; who trusts its name need not care."""
    a, b = neighbours.several(2)
    data = b"outputs of a partition"
    ref = b.put(data)
    a.exchange.fetch(Fetch(RUN, ref, 0, 1, (b.id,), came=falsify(data)))
    await until(lambda: a.ends(ref.id))
    assert a.ends(ref.id) == [Fetched(RUN, ref.id, 0, 1)]
    assert a.data(ref) == data
    assert (bytes_received(a) == 0) == (falsify(data) == data)
    assert isinstance(await neighbours.open().fetched(ref, a), Fetched), "it is served like any other"


async def test_what_came_along_is_not_put_where_the_lane_writes(neighbours: Neighbours) -> None:
    """Another run fetches the same: what a holder sent for it, true or not, must not come to lie over what is kept."""
    a, b = neighbours.several(2)
    data = b"outputs of a partition"
    ref = b.put(data)
    a.store.partial(Priority(OTHER, 0), ref, 0, 1)
    place = a.store.landing(ref.id, 0)
    assert place is not None
    a.exchange.fetch(Fetch(RUN, ref, 0, 1, (b.id,), came=data))
    place[:] = bytes(len(data))
    place.release()
    a.store.landed(ref.id, 0, is_good=False)
    await until(lambda: a.ends(ref.id))
    assert a.ends(ref.id) == [Fetched(RUN, ref.id, 0, 1)]
    assert a.data(ref) == data


async def test_what_was_fetched_is_served_on(neighbours: Neighbours) -> None:
    """Every node that has a shard is a holder; one that made it may be dead by then."""
    a, b, c = neighbours.several(3)
    for nbytes in (10_000, LARGE):
        ref = b.put(os.urandom(nbytes))
        await a.fetched(ref, b)
        assert isinstance(await c.fetched(ref, a), Fetched)
        assert c.data(ref) == b.data(ref)


async def test_a_peer_that_is_removed_is_served_nothing_more(neighbours: Neighbours) -> None:
    """Its session is open and its link stands; only what is asked from now on goes unanswered."""
    a, b = neighbours.several(2)
    first, second = b.put(os.urandom(10_000)), b.put(os.urandom(20_000))
    await a.fetched(first, b)
    b.exchange.remove_peer(a.id)
    neighbours.loses = lambda source, target, message: True  # as the control lane does now
    served = b.exchange.traffic()[a.id].sent
    a.fetch(second, b)
    await until(lambda: a.ends(second.id))
    assert isinstance(a.ends(second.id)[0], FetchFailed)
    assert b.exchange.traffic()[a.id].sent == served


async def test_a_thousand_small_fetches_all_arrive(neighbours: Neighbours) -> None:
    """A step brings many small shards at once; none may be lost to a full queue."""
    a, b, c = neighbours.several(3)
    datas = [os.urandom(1_000 + number) for number in range(1_000)]
    refs = [b.put(data) for data in datas]
    for data in datas[::2]:
        c.put(data)
    for ref in refs:
        a.fetch(ref, b, c)
    await until(lambda: all(a.ends(ref.id) for ref in refs), "a thousand fetches")
    assert {event.shard for event in a.events if isinstance(event, Fetched)} == {ref.id for ref in refs}
    assert all(a.data(ref) == data for ref, data in zip(refs, datas, strict=True))


async def test_two_nodes_fetch_from_each_other_at_once(neighbours: Neighbours) -> None:
    """Each pair has a session a direction, and they do not get into each other's way."""
    a, b = neighbours.several(2)
    mine, yours = a.put(os.urandom(LARGE)), b.put(os.urandom(LARGE))
    ends = await asyncio.gather(a.fetched(yours, b), b.fetched(mine, a))
    assert all(isinstance(end, Fetched) for end in ends)
    assert a.data(yours) == b.data(yours)


async def test_a_range_brings_its_chunks_and_no_others(neighbours: Neighbours) -> None:
    """A slice's owner wants its part of each gradient, and pays for no more."""
    a, b = neighbours.several(2)
    data = os.urandom(LARGE)
    ref = b.put(data)
    assert await a.fetched(ref, b, first=2, end=4) == Fetched(RUN, ref.id, 2, 4)
    assert bytes(a.store.view(ref.id, 2, 4)) == data[2 * CHUNK_BYTES : 4 * CHUNK_BYTES]
    assert not a.store.has(ref.id)
    assert bytes_received(a) < 2 * CHUNK_BYTES + 10_000


async def test_a_fetch_goes_on_from_what_is_there(neighbours: Neighbours) -> None:
    """A range that came before, or a fetch cut off in the middle, is not paid for twice."""
    a, b, c = neighbours.several(3)
    ref = b.put(os.urandom(LARGE))
    await a.fetched(ref, b, first=0, end=5)
    c.fetch(ref, a)  # a has only a part: it serves that, and says what it lacks
    await until(lambda: c.ends(ref.id))
    assert c.ends(ref.id) == [FetchFailed(RUN, ref.id, 0, 8, (a.id,), ())]
    before = bytes_received(c)
    assert isinstance(await c.fetched(ref, b), Fetched)
    assert bytes_received(c) - before < 3 * CHUNK_BYTES + 10_000
    assert c.data(ref) == b.data(ref)


async def test_two_holders_of_different_parts_make_a_whole(neighbours: Neighbours) -> None:
    """After a death the only whole copy may be in pieces."""
    a, b, c, d = neighbours.several(4)
    ref = d.put(os.urandom(LARGE))
    await b.fetched(ref, d, first=0, end=4)
    await c.fetched(ref, d, first=3, end=8)
    assert isinstance(await a.fetched(ref, b, c), Fetched)
    assert a.data(ref) == d.data(ref)


async def test_a_lying_holder_is_refused_and_named_and_another_one_used(neighbours: Neighbours) -> None:
    """A bad disk, bad memory or a bad peer: bytes that are not what they are called never count."""
    a, b, c = neighbours.several(3)
    for nbytes in (10_000, LARGE):
        data = os.urandom(nbytes)
        ref = b.put_corrupted(data)
        c.put(data)
        assert await a.fetched(ref, b) == FetchFailed(RUN, ref.id, 0, -(-nbytes // CHUNK_BYTES), (b.id,), ())
        assert not a.store.has(ref.id)
        assert any(it.name == "shards.corrupt" and it.fields["holder"] == b.id for it in a.reports)
        assert isinstance(await a.fetched(ref, b, c), Fetched)
        assert a.data(ref) == data


async def test_who_has_it_not_says_so_at_once(neighbours: Neighbours) -> None:
    """The node then asks the engine instead of waiting; a patience of minutes must not matter."""
    a = neighbours.open(patience_s=600.0)
    b = neighbours.open()
    shard, _ = hash_shard(b"nobody has this")
    assert await a.fetched(ShardRef(shard, 15), b) == FetchFailed(RUN, shard, 0, 1, (b.id,), ())
    assert await a.fetched(ShardRef(shard, 15)) == FetchFailed(RUN, shard, 0, 1, (), ())


async def test_a_silent_holder_is_passed_over_for_the_next(neighbours: Neighbours) -> None:
    """A hung or cut off node costs its patience, not the step."""
    a = neighbours.open(patience_s=0.3)
    b, gone = neighbours.several(2)
    ref = b.put(os.urandom(LARGE))
    neighbours.close(gone)
    assert await a.fetched(ref, gone) == FetchFailed(RUN, ref.id, 0, 8, (), (gone.id,))
    assert isinstance(await a.fetched(ref, gone, b), Fetched)


async def test_a_holder_that_dies_in_the_middle_is_replaced_at_once(neighbours: Neighbours) -> None:
    """A killed process closes its links, so nobody need wait for a patience or for its death to be agreed on."""
    a = neighbours.open(patience_s=600.0)
    b, c = neighbours.several(2)
    data = os.urandom(60 * CHUNK_BYTES)
    ref = b.put(data)
    c.put(data)
    a.fetch(ref, b, c)
    await a.in_the_middle(lambda: neighbours.close(b))
    await until(lambda: a.ends(ref.id))
    assert a.ends(ref.id) == [Fetched(RUN, ref.id, 0, 60)]
    assert a.data(ref) == data


async def test_a_restarted_holder_is_asked_anew(neighbours: Neighbours) -> None:
    """It has forgotten every session; the fetcher learns that from being refused, not from a timeout."""
    a = neighbours.open(patience_s=600.0)
    b = neighbours.open()
    ref = b.put(b"first life")
    await a.fetched(ref, b)
    neighbours.close(b)
    b = neighbours.open(old=b)
    ref = b.put(b"second life")
    while not isinstance(await a.fetched(ref, b), Fetched):
        """It was asked over the old link, in the moment before that was known to have ended."""
    assert a.data(ref) == b"second life"


async def test_a_lost_offer_is_made_again(neighbours: Neighbours) -> None:
    """Any one message of the control lane may be lost."""
    a, b = neighbours.several(2)
    lost: list[object] = []

    def loses(_: NodeId, __: NodeId, message: object) -> bool:
        if isinstance(message, SessionOffer) and not lost:
            lost.append(message)
            return True
        return False

    neighbours.loses = loses
    assert isinstance(await a.fetched(b.put(b"x" * 100), b), Fetched)
    assert lost


async def test_a_full_store_fails_the_fetch_at_once_and_says_why(neighbours: Neighbours) -> None:
    """A transfer begins only with its bytes granted; the node decides what gives way."""
    a = neighbours.open(limit_bytes=4 << 20)
    b = neighbours.open()
    ref = b.put(os.urandom(LARGE))
    assert await a.fetched(ref, b) == FetchFailed(RUN, ref.id, 0, 8, (), ())
    assert any(report.name == "shards.full" for report in a.reports)


async def test_a_cancelled_fetch_ends_and_frees_its_memory(neighbours: Neighbours) -> None:
    """`cancel` of a run drops its shards, those still on their way too; asked again, they come again."""
    a, b = neighbours.several(2)
    ref = b.put(os.urandom(40 * CHUNK_BYTES))
    a.fetch(ref, b)
    await a.in_the_middle(lambda: a.exchange.drop(RUN, [ref.id]))
    await until(lambda: a.store.usage().used_bytes == 0, "the memory is free")
    assert isinstance(await a.fetched(ref, b), Fetched)
    assert a.data(ref) == b.data(ref)


async def test_a_shard_made_here_meanwhile_ends_the_fetch(neighbours: Neighbours) -> None:
    """A late holder and the own engine may both deliver; either is enough."""
    a, b = neighbours.several(2)
    data = os.urandom(40 * CHUNK_BYTES)
    ref = b.put(data)
    a.fetch(ref, b)
    a.put(data)
    await until(lambda: a.ends(ref.id))
    assert a.ends(ref.id) == [Fetched(RUN, ref.id, 0, 40)]
    assert a.data(ref) == data


async def test_what_one_run_drops_in_the_middle_still_comes_for_the_other(neighbours: Neighbours) -> None:
    """Two runs of one spec name the same shards: each has its own answer, and the memory goes with the second drop."""
    a, b = neighbours.several(2)
    ref = b.put(os.urandom(40 * CHUNK_BYTES))
    a.fetch(ref, b)
    a.fetch(ref, b, run=OTHER)
    await a.in_the_middle(lambda: a.exchange.drop(RUN, [ref.id]))
    await until(lambda: a.ends(ref.id))
    assert a.ends(ref.id) == [Fetched(OTHER, ref.id, 0, 40)]
    assert a.data(ref) == b.data(ref)
    a.store.drop(OTHER, [ref.id])
    assert a.store.usage().used_bytes == 0


async def test_a_stranger_gets_no_byte_of_the_bulk_lane(neighbours: Neighbours) -> None:
    """Without a token there is no link, whatever mechanism, name or noise is tried; and the lane serves on."""
    a, b = neighbours.several(2)
    ref = b.put(os.urandom(10_000))
    await a.fetched(ref, b)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    host, port = b.address.removeprefix("tcp://").split(":")
    for junk in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\xff" + bytes(9)):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(junk)
    for name in (b"", a.id.encode(), os.urandom(40)):
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        if name:
            dealer.plain_username, dealer.plain_password = name, b"00" * 32
        dealer.connect(b.address)
        knock(dealer, b"give me all")
        assert not dealer.poll(100)
        dealer.close()
    context.destroy(linger=0)
    again = b.put(os.urandom(LARGE))
    assert isinstance(await a.fetched(again, b), Fetched)


async def test_a_token_without_its_key_gets_nothing(neighbours: Neighbours) -> None:
    """Tokens cross the wire in the clear; who overhears one can open a link, and is not answered on it."""
    a, b = neighbours.several(2)
    token = os.urandom(32)
    ref = b.put(b"secret" * 100)
    b.exchange.on_message(a.id, SessionOffer(token, os.urandom(32)))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.plain_username, dealer.plain_password = a.id.encode(), token.hex().encode()
    dealer.linger = 0
    dealer.connect(b.address)
    for noise in (b"", b"x", os.urandom(24), os.urandom(1000), bytes(8) + ref.id.encode()):
        knock(dealer, noise)
    assert not dealer.poll(200)
    context.destroy(linger=0)
    assert isinstance(await a.fetched(ref, b), Fetched)


async def test_those_who_copy_a_version_at_once_give_it_to_each_other(neighbours: Neighbours) -> None:
    """Each gets it once, and not all of it from its holder, though that is the only one they were told of."""
    holder, *copiers = neighbours.several(5)
    data = os.urandom(48 * CHUNK_BYTES)
    ref = holder.put(data)
    for copier in copiers:
        copier.copy(ref, holder)
    await until(lambda: all(copier.ends(ref.id) for copier in copiers), "all copies")
    assert all(copier.ends(ref.id) == [Fetched(RUN, ref.id, 0, 48)] for copier in copiers)
    assert all(copier.data(ref) == data for copier in copiers)
    assert sum(map(bytes_received, copiers)) < 4.1 * len(data)
    among_themselves = sum(map(bytes_received, copiers)) - sum(it.sent for it in holder.exchange.traffic().values())
    assert among_themselves > CHUNK_BYTES
