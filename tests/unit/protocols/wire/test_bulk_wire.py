"""Heads of the bulk lane: what was packed is read back, and nothing a peer sends raises what nobody catches."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.names import CHUNK_BYTES, NodeId, ShardId
from dflow_protocols.wire.bulk import (
    MAX_CHUNKS,
    Answer,
    Ask,
    Copiers,
    Has,
    Lacks,
    Piece,
    Told,
    pack_answers,
    pack_asks,
    unpack_answers,
    unpack_asks,
)
from dflow_protocols.wire.fields import WireError

SHARD = ShardId("cd" * 32)
ASKS = [Ask(0, ShardId("ab" * 32), 0, 1, False), Ask(7, SHARD, 3, 9, True), Ask(8, SHARD, 0, 0, False, True)]
ANSWERS: list[Answer] = [
    Told(7, (b"h" * 32, b"i" * 32)),
    Piece(0, 0, 5),
    Lacks(7, 3, 5),
    Copiers(SHARD, (NodeId("a1" * 16), NodeId("b2" * 16))),
    Copiers(SHARD, ()),
    Has(SHARD, 0),
    Has(SHARD, (1 << 40) + 5),
    Has(SHARD, None),
    Piece(7, 5, CHUNK_BYTES),
]

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=64) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


def test_heads_come_back_as_they_were_packed() -> None:
    """Both directions of the lane."""
    assert unpack_asks(pack_asks(ASKS)) == ASKS
    assert unpack_answers(pack_answers(ANSWERS)) == ANSWERS


@given(st.binary(max_size=200) | plain.map(msgpack.packb))
def test_any_head_is_read_or_refused(head: bytes) -> None:
    """A peer's head raises WireError and nothing else."""
    with contextlib.suppress(WireError):
        unpack_asks(head)
    with contextlib.suppress(WireError):
        unpack_answers(head)


def test_numbers_that_would_cost_memory_are_refused() -> None:
    """Chunk numbers become bitmaps; one of 2^60 would be the end of the process."""
    long: list[Answer] = [Lacks(0, 0, MAX_CHUNKS + 1), Piece(0, MAX_CHUNKS, 0), Has(SHARD, 1 << MAX_CHUNKS)]
    for answer in (*long, Piece(0, 1 << 60, 1), Piece(0, 0, CHUNK_BYTES + 1), Piece(0, 0, -1)):
        with pytest.raises(WireError):
            unpack_answers(pack_answers([answer]))
    with pytest.raises(WireError):
        unpack_asks(pack_asks([Ask(0, ShardId("ab" * 32), 0, 1 << 60, False)]))
