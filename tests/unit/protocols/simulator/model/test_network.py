"""The network of a world: what passes, what does not, and that a cut shifts no later draw."""

from __future__ import annotations

from random import Random

from dflow_protocols.names import NodeId
from dflow_protocols.simulator.model.network import Network

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def fates(network: Network, count: int = 200) -> list[float | None]:
    return [network.fate(A, B) for _ in range(count)]


def test_a_cut_of_one_link_leaves_every_other_frame_its_fate() -> None:
    """A world with a fault is compared with the one without it."""
    plain, cut = Network(Random(1)), Network(Random(1))
    cut.cut({(A, B)})
    assert fates(cut, 20) == [None] * 20
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
    assert None not in fates(network)


def test_a_request_needs_both_ways() -> None:
    """A half-deaf holder gets the ask and cannot answer it."""
    network = Network(Random(1))
    network.cut({(B, A)})
    assert not network.is_cut(A, B)
    assert not network.linked(A, B)


def test_frames_have_delays_of_their_own() -> None:
    """Nothing may rely on frames arriving in order."""
    assert len(set(fates(Network(Random(1))))) == 200
