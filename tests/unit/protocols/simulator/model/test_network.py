"""The network of a world: what passes, what does not, and that a cut shifts no later draw."""

from __future__ import annotations

from random import Random

from dflow_protocols.names import NodeId
from dflow_protocols.simulator.model.network import QUEUE_S, Network

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def fates(network: Network, count: int = 200, now: float = 0.0) -> list[tuple[float, ...]]:
    """Of frames of a thousand bytes."""
    return [network.fates(now, A, B, lambda: 1000) for _ in range(count)]


def test_a_cut_of_one_link_leaves_every_other_frame_its_fate() -> None:
    """A world with a fault is compared with the one without it."""
    plain, cut = Network(Random(1)), Network(Random(1))
    cut.cut({(A, B)})
    assert fates(cut, 20) == [()] * 20
    fates(plain, 20)
    cut.join({(A, B)})
    assert fates(cut) == fates(plain)


def test_what_heals_is_joined_again_and_what_is_severed_is_not() -> None:
    """Calm heals faults; a firewall between two machines stays."""
    network = Network(Random(1))
    network.cut({(A, B)})
    network.sever(A, C)
    network.lose_share(1.0)
    network.heal()
    assert network.linked(A, B)
    assert not network.linked(C, A)
    assert () not in fates(network)


def test_a_request_needs_both_ways() -> None:
    """A half-deaf holder gets the ask and cannot answer it."""
    network = Network(Random(1))
    network.cut({(B, A)})
    assert not network.is_cut(A, B)
    assert not network.linked(A, B)


def test_frames_have_delays_of_their_own() -> None:
    """Nothing may rely on frames arriving in order."""
    assert len(set(fates(Network(Random(1))))) == 200


def test_a_frame_that_is_sent_again_arrives_twice() -> None:
    """Nothing may count what it hears."""
    network = Network(Random(1))
    network.repeat_share(0.5)
    assert {len(delays) for delays in fates(network)} == {1, 2}


def test_what_is_held_up_arrives_once_it_is_over_and_in_any_order() -> None:
    """Two connections to one peer take turns, and old news comes after new."""
    network = Network(Random(1))
    network.hold((A, B), 5.0)
    delays = [delay for (delay,) in fates(network, 20, now=2.0)]
    assert min(delays) > 3.0
    assert delays != sorted(delays)
    network.release((A, B))
    assert min(delay for (delay,) in fates(network, 20, now=2.0)) < 1.0


def test_a_full_queue_drops_frames_and_lets_chunks_pass() -> None:
    """The lanes are apart: a member can serve bytes and not be heard."""
    network = Network(Random(1))
    network.fill((A, B))
    assert fates(network, 20) == [()] * 20
    assert network.linked(A, B)
    network.empty((A, B))
    assert () not in fates(network)


def test_on_a_narrow_link_frames_wait_for_what_its_queue_holds_of_a_chunk() -> None:
    """The lanes are two connections: the rest of a chunk waits at its sender, whatever else goes to that peer."""
    network = Network(Random(1))
    network.narrow(1e6)
    assert network.transmit(0.0, A, B, 1e6) == 1.0
    assert network.transmit(0.0, A, B, 1e6) == 2.0
    delays = [delay for (delay,) in fates(network, 10)]
    assert min(delays) > QUEUE_S
    assert max(delays) < 1.0
    assert network.transmit(0.0, A, B, 1e6) > 3.0  # what frames take chunks have not
    assert network.transmit(0.0, B, A, 1e6) == 1.0  # the other way is free
    assert network.transmit(5.0, A, B, 1e6) == 1.0  # it has gone meanwhile


def test_a_closed_lane_stays_open_the_other_way_until_all_heals() -> None:
    """A firewall in front of one machine: it can dial the others."""
    network = Network(Random(1))
    network.close(B, "bulk")
    assert not network.opens(A, B, "bulk")
    assert network.opens(A, B, "control")
    assert network.opens(B, A, "bulk")
    network.heal()
    assert network.opens(A, B, "bulk")
    assert network.is_whole
