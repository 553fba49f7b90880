"""Columnar shards: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflowd.shards.layout import (
    Column,
    LayoutError,
    column,
    decode,
    encode,
    ragged,
    read_texts,
    rows,
    texts,
)

TOKENS = {
    "tokens": ragged("i32", [[1, 2, 3], [], [4]]),
    "reward": column("f32", [0.5, -1.0]),
    "prompt": texts(["spell", "", "ö"]),
    "bytes": column("u8", [1, 255]),
    "offset": column("i64", [1 << 40]),
}


def test_columns_come_back_as_they_went_in() -> None:
    """The engine that reads is not the engine that wrote."""
    back = decode(encode(TOKENS))
    assert list(back) == sorted(TOKENS)
    assert [row.tolist() for row in rows(back["tokens"])] == [[1, 2, 3], [], [4]]
    assert memoryview(back["reward"].data).tolist() == [0.5, -1.0]
    assert read_texts(back["prompt"]) == ["spell", "", "ö"]
    assert memoryview(back["offset"].data).tolist() == [1 << 40]


def test_equal_columns_give_equal_bytes_whatever_their_order() -> None:
    """A shard is named by its bytes; an order of insertion must not show in its name."""
    assert encode(TOKENS) == encode(dict(reversed(TOKENS.items())))


def test_lengths_that_do_not_add_up_are_refused() -> None:
    """Rows that ran over their neighbours would mix samples."""
    with pytest.raises(LayoutError, match="add up"):
        encode({"a": Column("i32", array("i", [1, 2]), array("i", [1]))})
    with pytest.raises(LayoutError, match="dtype"):
        encode({"a": Column("f16", b"")})


@given(st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_shard_is_refused_or_has_the_same_shape(at: int, value: int) -> None:
    """A reader may trust what decode returns: it raises LayoutError and nothing else."""
    shard = bytearray(encode(TOKENS))
    shard[at % len(shard)] = value
    try:
        back = decode(bytes(shard))
    except LayoutError:
        return
    for source in back.values():
        if source.lengths is not None:
            assert sum(map(len, rows(source))) == len(memoryview(source.data))


@given(st.binary(max_size=200))
def test_noise_is_no_shard(noise: bytes) -> None:
    """Any bytes may arrive under a name; reading them must not raise what nobody catches."""
    for data in (noise, b"dfs1" + noise, b"dfs1" + len(noise).to_bytes(4, "little") + noise):
        try:
            decode(data)
        except LayoutError:
            continue
