"""How a mesh is found again: what is kept of peers, and how often who is asked."""

from __future__ import annotations

from random import Random

import pytest

from dflow_protocols.membership.bootstrap import (
    MAX_CACHED,
    MAX_PAUSES,
    Bootstrap,
    Pauses,
    PeerCache,
    Seed,
    decode_peers,
)
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId
from tests.unit.protocols.membership.mesh import Mesh, meta_of

TIMING = Timing.lan()


def seed_of(index: int) -> Seed:
    meta = meta_of(index)
    return Seed(meta.public_key, meta.control, meta.bulk)


def test_a_seed_that_is_silent_is_asked_for_ever_in_pauses_that_double_up_to_a_bound() -> None:
    """No failure is fatal: it may be there tomorrow."""
    bootstrap = Bootstrap(meta_of(0).node, [seed_of(1)], [], TIMING, Random(1), 0.0)
    pauses, now = [], 0.0
    for _ in range(12):
        assert bootstrap.take_due(now, ()) == [seed_of(1)]
        pauses.append(bootstrap.deadline - now)
        now = bootstrap.deadline
    assert pauses[0] <= 2 * TIMING.retry_min_s
    assert max(pauses) <= TIMING.retry_max_s
    assert min(pauses[-3:]) >= TIMING.retry_max_s / 2


def test_a_seed_that_lives_is_left_alone_and_asked_quickly_once_it_is_gone() -> None:
    """Meshes that formed apart merge over it; a living one needs no asking."""
    bootstrap = Bootstrap(meta_of(0).node, [seed_of(1)], [], TIMING, Random(1), 0.0)
    for _ in range(8):
        bootstrap.take_due(bootstrap.deadline, ())
    assert bootstrap.take_due(bootstrap.deadline, (meta_of(1).node,)) == []
    gone_at = bootstrap.deadline
    assert bootstrap.take_due(gone_at, ()) == [seed_of(1)]
    assert bootstrap.deadline - gone_at <= 2 * TIMING.retry_min_s


@pytest.mark.parametrize(("others", "told"), [((), 1), ((2,), 0)])
def test_who_finds_nobody_says_so_once(others: tuple[int, ...], told: int) -> None:
    """A new host whose line is missing on the others' allow-lists is a mesh of one, in which all is well: it took runs,
    and neither its log nor `dflow doctor` said a word. Who was found by somebody that is no seed is not alone."""
    mesh = Mesh(3, seed=5)
    for host in mesh.hosts[:1] + mesh.hosts[2:]:
        host.seeds = (seed_of(1), seed_of(0))
    mesh.start(0, *others)
    mesh.run(20 * mesh.timing.retry_max_s)
    alone = [report for _, node, report in mesh.reports if report.name == "membership.alone"]
    assert [report.fields["seeds"] for report in alone] == ["127.0.0.1:7001"] * told


def test_peers_are_written_once_a_change_and_a_lonely_node_keeps_those_of_better_days() -> None:
    """A write costs an fsync; an empty cache would cost the way back."""
    cache = PeerCache()
    cache.write_by(2.0)
    cache.write_by(3.0)
    assert cache.due == 2.0
    peers = [seed_of(index) for index in range(MAX_CACHED + 5)]
    written = cache.take(peers)
    assert written is not None
    assert decode_peers(written) == tuple(peers[:MAX_CACHED])
    assert cache.due == float("inf")
    assert cache.take(peers) is None
    assert cache.take([]) is None
    assert cache.take(peers[1:]) is not None


def test_a_stranger_is_asked_at_most_once_in_a_while_and_few_are_remembered() -> None:
    """Whoever sends much must not make this node send much."""
    strangers = Pauses()
    one = NodeId("0a" * 16)
    assert strangers.end(0.0, one, 1.0)
    assert not strangers.end(0.9, one, 1.0)
    assert strangers.end(1.0, one, 1.0)
    for index in range(2 * MAX_PAUSES):
        strangers.end(1.0, NodeId(f"{index:032x}"), 1.0)
    assert len(strangers) == MAX_PAUSES
