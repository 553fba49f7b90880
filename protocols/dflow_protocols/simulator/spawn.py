"""Whole nodes, started as a daemon starts them."""

from __future__ import annotations

from ..events import Restored
from ..membership.bootstrap import Seed, decode_peers
from ..membership.table import DRAINED
from ..membership.timing import Timing
from ..node import Identity, Node
from ..wire.gossip import Meta
from .model.host import BootContext
from .world import World


def spawn(boot: BootContext, steals: bool = True) -> Node:
    """A node as a daemon makes it from its configuration and its state directory."""
    key = World.key_of(boot.index)
    meta = Meta(
        key,
        _control(boot.index),
        f"tcp://n{boot.index}:2",
        f"n{boot.index}",
        "cpu",
        boot.slots,
        ("trainer", *boot.roles),
        born_ms=boot.born_ms,
    )
    return Node(
        Identity(World.id_of(boot.index), boot.incarnation, meta),
        Timing.local(),
        boot.rng,
        [Seed(World.key_of(index), _control(index)) for index in boot.seeds if index != boot.index],
        decode_peers(boot.disk.get("peers", b"")),
        [Restored(value) for key, value in sorted(boot.disk.items()) if key.startswith("runs/")],
        boot.now,
        steals,
        boot.saved,
        host_slots=boot.host_slots,
        drained=DRAINED in boot.disk,
    )


def _control(index: int) -> str:
    return f"tcp://n{index}:1"
