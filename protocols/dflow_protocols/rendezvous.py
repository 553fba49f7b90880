"""Rendezvous (highest random weight) hashing: everyone ranks the members of a set for a key alike, without talking.

Thaler and Ravishankar, 1998. When a member goes, only what it had moves.
"""

from __future__ import annotations

from functools import lru_cache

from blake3 import blake3

from .names import NodeId


def _score(key: str, member: NodeId) -> bytes:
    return blake3(f"{key}\0{member}".encode()).digest()


@lru_cache(maxsize=4096)
def ranked(key: str, members: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    """`members` by falling weight for `key`; the order of the argument does not matter."""
    return tuple(sorted(members, key=lambda member: _score(key, member), reverse=True))
