from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow_protocols.names import EMPTY_SHARD, NodeId, Once, RunId, ShardRef, TaskKey
from dflow_protocols.wire.codec import MESSAGES, decode, encode
from dflow_protocols.wire.fields import MAX_FRAME_BYTES, MAX_INT, MAX_ITEMS, MAX_TEXT, WireError, decoder
from dflow_protocols.wire.frame import MARK, WIRE_VERSION, decode_frame, encode_frame
from dflow_protocols.wire.gossip import MetaId, Ping, Update
from dflow_protocols.wire.heartbeat import Delta, Heartbeat, Mark
from dflow_protocols.wire.steps import ClaimPut, Head, RunPut
from tests.support.draws import draws
from tests.unit.protocols.wire.values import values_of
from tests.unit.protocols.wire.vectors import example

NODE = NodeId("0a" * 16)
RUN = RunId("0b" * 16)
UPDATE = Update(NODE, 3, 0, "alive", MetaId("0c" * 32), None)
DELTA = Delta(Mark(1, 7), 5, Mark(2, 3), (Heartbeat(RUN, example(Head), None, None),))
GOOD = encode_frame(DELTA, [Ping(7, (UPDATE,)), *(example(cls) for cls in MESSAGES.values())])

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def refused(data: bytes) -> WireError | None:
    try:
        decode_frame(data)
    except WireError as error:
        return error
    return None


def framed(*messages: Any) -> bytes:
    packed: bytes = msgpack.packb([None, list(messages)], use_bin_type=True)
    return bytes((MARK, WIRE_VERSION)) + packed


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_message_survives_the_wire(name: str) -> None:
    """What a node meant is what its peer reads, and in one way only: the same message has the same bytes."""

    @settings(max_examples=15, deadline=None)
    @given(values_of(MESSAGES[name]))
    def holds(message: Any) -> None:
        assert decode(encode(message)) == message
        assert encode(decode(encode(message))) == encode(message)

    holds()


@draws(300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_one_wire_error(data: bytes) -> None:
    """A peer cannot make anything else happen than a refusal."""
    refused(data)
    refused(bytes((MARK, WIRE_VERSION)) + data)


@draws(300)
@given(st.sampled_from(sorted(MESSAGES)), st.lists(VALUES, max_size=6))
def test_any_fields_are_a_message_or_one_wire_error(name: str, fields: list[Any]) -> None:
    """Well-formed msgpack with the wrong things in it is refused by the field, never by an accident further in."""
    refused(framed([name, *fields]))


@draws(300)
@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_frame_is_a_frame_or_one_wire_error(at: int, instead: bytes, gone: int) -> None:
    """Bits flip, and attackers begin with what is nearly right."""
    refused(GOOD[:at] + instead + GOOD[at + gone :])


def test_an_error_names_the_field_by_its_path() -> None:
    """Who debugs a peer must see which of a hundred fields it was."""
    frame = framed(["claim_put", RUN, 2, [[1, "roll", "p1"], [2, "roll", 3]]])
    assert str(refused(frame)) == "claim_put.units[1].part: 3 instead of str"


def test_an_unknown_wire_version_is_said_to_be_one() -> None:
    """During an upgrade the log must tell two versions from a broken peer."""
    error = refused(bytes((MARK, WIRE_VERSION + 1)) + GOOD[2:])
    assert str(error) == f"wire_version: wire version {WIRE_VERSION + 1}; this node speaks {WIRE_VERSION}"


def test_depth_is_refused_without_recursion() -> None:
    """A thousand nested arrays in a kilobyte must not reach the interpreter's stack."""
    for count in (10, 600, 5_000, 1_000_000):
        assert refused(bytes((MARK, WIRE_VERSION)) + b"\x91" * count) is not None


def test_a_claimed_length_allocates_nothing_before_its_items_came() -> None:
    """Five bytes that claim four thousand million items are refused by the claim."""
    assert refused(bytes((MARK, WIRE_VERSION)) + b"\xdd\xff\xff\xff\xff") is not None
    assert refused(framed(["claim_put", RUN, 1, [[1, "a", "b"]] * (MAX_ITEMS + 1)])) is not None


def test_a_frame_over_the_limit_is_neither_sent_nor_taken() -> None:
    """One peer's frame must not hold up all others for the time of its parsing."""
    assert refused(bytes((MARK, WIRE_VERSION)) + bytes(MAX_FRAME_BYTES)) is not None
    half = dataclasses.replace(example(RunPut), spec=bytes(1 << 20))
    with pytest.raises(ValueError, match="send its messages apart"):
        encode_frame(None, [half] * 4)
    assert decode_frame(encode_frame(None, [half] * 3)).messages[0] == half


def test_no_frame_is_made_with_more_than_a_list_may_have() -> None:
    """Every peer would refuse it, and its maker would never hear of that."""
    pings = [Ping(1, ())] * MAX_ITEMS
    assert len(decode_frame(encode_frame(None, pings)).messages) == MAX_ITEMS
    longest = ClaimPut(RUN, 1, (TaskKey(1, "a", Once("b")),) * MAX_ITEMS)
    assert decode_frame(encode_frame(None, [longest])).messages == (longest,)
    for messages in (pings * 2, [dataclasses.replace(longest, units=longest.units * 2)]):
        with pytest.raises(ValueError, match="no peer would take"):
            encode_frame(None, messages)


BOUNDS = [
    (int, -1),
    (int, MAX_INT + 1),
    (int, True),
    (int, 1.0),
    (float, math.nan),
    (float, math.inf),
    (float, "1"),
    (float, 1 << 64),
    (bool, 1),
    (str, b"bytes"),
    (str, "x" * (MAX_TEXT + 1)),
    (bytes, "text"),
    (bytes, bytes((1 << 20) + 1)),
    (NodeId, "0A" * 16),
    (NodeId, "0a" * 32),
    (MetaId, "0a" * 16),
    (NodeId | None, ""),
    (tuple[int, ...], [1]),
    (tuple[int, str], (1,)),
    (tuple[int, str], (1, "a", 2)),
    (TaskKey, (1, "stage")),
    (ShardRef, ("0a" * 32, 0)),
]


@pytest.mark.parametrize(("hint", "value"), BOUNDS)
def test_each_type_refuses_what_lies_outside_its_bounds(hint: Any, value: Any) -> None:
    """A machine never has to ask whether a field is what its annotation says."""
    with pytest.raises(WireError):
        decoder(hint)(value)


def test_an_empty_shard_has_the_one_name_of_no_bytes() -> None:
    """Nothing arrives by which another name could be checked: whoever was told so would believe to hold that shard."""
    assert decoder(ShardRef)((EMPTY_SHARD, 0)) == ShardRef(EMPTY_SHARD, 0)


def test_a_whole_number_in_a_float_field_keeps_its_bytes() -> None:
    """Records are named by the hash of their metrics: 2 read as 2.0 would be another record."""
    assert type(decoder(float)(2)) is int


def test_a_field_without_a_wire_form_is_refused_when_the_codec_is_built() -> None:
    """A message that cannot travel is found at import, not in a mesh."""
    for hint in (dict[str, int], list[int], Any, int | str):
        with pytest.raises(TypeError):
            decoder(hint)


def test_what_is_no_message_is_not_sent() -> None:
    """A part of a message on its own would be refused by every peer."""
    with pytest.raises(TypeError):
        encode_frame(None, [TaskKey(1, "a", Once("b"))])


def test_messages_of_a_frame_keep_their_order() -> None:
    """A seal's news must not overtake the records that it names."""
    messages = (Ping(1, ()), ClaimPut(RUN, 1, ()), Ping(2, ()))
    frame = decode_frame(encode_frame(DELTA, messages))
    assert (frame.delta, frame.messages) == (DELTA, messages)
