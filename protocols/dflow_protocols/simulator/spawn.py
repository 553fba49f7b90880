"""Whole nodes as a world bears them."""

from __future__ import annotations

from ..events import Restored
from ..membership.bootstrap import Seed, decode_peers
from ..membership.timing import Timing
from ..node import Identity, Node
from ..wire.gossip import Meta
from .model.host import Birth
from .world import World


def bear(birth: Birth, steals: bool = True) -> Node:
    """A node as a daemon makes it from its configuration and its state directory."""
    key = World.key_of(birth.index)
    meta = Meta(
        key,
        _control(birth.index),
        f"tcp://n{birth.index}:2",
        f"n{birth.index}",
        "cpu",
        birth.slots,
        ("trainer", *birth.roles),
        born_ms=birth.incarnation,
    )
    return Node(
        Identity(World.id_of(birth.index), birth.incarnation, meta),
        Timing.local(),
        birth.rng,
        [Seed(World.key_of(index), _control(index)) for index in birth.seeds if index != birth.index],
        decode_peers(birth.disk.get("peers", b"")),
        [Restored(value) for key, value in sorted(birth.disk.items()) if key.startswith("runs/")],
        birth.now,
        steals,
        birth.saved,
    )


def _control(index: int) -> str:
    return f"tcp://n{index}:1"
