"""Whole nodes, started as a daemon starts them."""

from __future__ import annotations

from ..events import Restored
from ..membership.bootstrap import Seed, decode_peers
from ..membership.table import DRAINED
from ..membership.timing import Timing
from ..node import Identity, Node
from ..wire.gossip import Meta
from .machines import key_of
from .model.host import BootContext, bulk_of, control_of

LOCAL = Timing.local()


def spawn(boot: BootContext, steals: bool = True, timing: Timing = LOCAL) -> Node:
    """A node as a daemon makes it from its configuration and its state directory."""
    meta = Meta(
        boot.key,
        control_of(boot.index),
        bulk_of(boot.index),
        f"n{boot.index}",
        "cpu",
        boot.slots,
        ("trainer", *boot.roles),
        born_ms=boot.born_ms,
    )
    seeds = [Seed(key_of(index), control_of(index)) for index in boot.seeds]
    return Node(
        Identity(meta.node, boot.incarnation, meta),
        timing,
        boot.rng,
        [seed for seed in seeds if seed.public_key != boot.key],
        decode_peers(boot.disk.get("peers", b"")),
        [Restored(value) for key, value in sorted(boot.disk.items()) if key.startswith("runs/")],
        boot.now,
        steals,
        boot.saved,
        host_slots=boot.host_slots,
        drained=DRAINED in boot.disk,
    )
