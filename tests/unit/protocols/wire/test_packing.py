"""Packed values: what many are told of is packed once, and whatever a peer packs is a value or one error."""

from __future__ import annotations

import zlib
from dataclasses import replace

import msgpack
import pytest

from dflow_protocols.names import MANIFEST, Partition, TaskKey
from dflow_protocols.wire.codec import decode, encode
from dflow_protocols.wire.fields import MAX_INFLATED, WireError
from dflow_protocols.wire.packing import DEFLATED, FOLD, PLAIN, inflated, pack, values_of
from dflow_protocols.wire.steps import Seal, SealPut, Skip
from tests.unit.protocols.books import RUN, SPEC, ZERO, finished_partition, who

ENTRIES = tuple(record for partition in range(40) for record in finished_partition(partition))
SEAL = Seal(SPEC, 0, ZERO.id, ZERO.id, MANIFEST, 0, 0, ENTRIES)
PUT = SealPut(RUN, SEAL, True, (), None)


def test_a_long_seal_travels_as_a_fraction_of_what_it_says() -> None:
    """All hear of it, so with many members it is most of what a node hears."""
    came = decode(encode(PUT))
    assert came == PUT
    assert came.seal.id == SEAL.id
    assert len(encode(PUT)) < len(pack(values_of(SEAL))) / 2


def test_who_passes_a_seal_on_sends_the_bytes_that_came() -> None:
    """A host tells sixteen others, and packs nothing."""
    plain = pack(values_of(SEAL))
    others = DEFLATED + zlib.compress(plain, 9)  # another library's are other bytes, of the same seal
    assert others != SEAL.packed
    name, run, _, *rest = msgpack.unpackb(encode(PUT))
    came = decode(msgpack.packb([name, run, others, *rest], use_bin_type=True))
    assert came == PUT
    assert came.seal.packed == others
    assert encode(came) == encode(decode(encode(came)))
    assert replace(came.seal, generation=1).packed != others


BAD = {
    "nothing": b"",
    "an unknown way": b"\2" + pack(values_of(SEAL)),
    "no deflate": DEFLATED + b"abc",
    "a cut one": SEAL.packed[:-5],
    "something behind it": SEAL.packed + b"x",
    "a bomb": DEFLATED + zlib.compress(bytes(MAX_INFLATED + 1)),
    "many lists in few bytes": DEFLATED + zlib.compress(b"\xdc\x3f\xff" + b"\x91\xc0" * 16_383),
    "no msgpack": PLAIN + b"\xc1",
    "no seal": PLAIN + pack((1, 2)),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_not_packed_right_is_refused_by_its_field(data: bytes) -> None:
    """And what would inflate to more than a step has is not inflated."""
    name, run, _, *rest = msgpack.unpackb(encode(PUT))
    with pytest.raises(WireError, match=r"^seal_put\.seal"):
        decode(msgpack.packb([name, run, data, *rest], use_bin_type=True))


def test_no_more_is_inflated_than_is_asked_for() -> None:
    with pytest.raises(ValueError, match="more than 10 bytes"):
        inflated(DEFLATED + zlib.compress(bytes(11)), 10)
    assert inflated(DEFLATED + zlib.compress(bytes(10)), 10) == bytes(10)
    assert inflated(PLAIN + b"as it is", 8) == b"as it is"


def test_what_says_one_thing_many_times_travels_plain() -> None:
    """Nobody takes what inflates that much, or a few bytes would cost a daemon seconds and much memory."""
    skip = Skip(TaskKey(0, "roll", Partition(0)), "error", "0" * 64, "no such file " * 300, (who(1),))
    seal = replace(SEAL, entries=(), skipped=(skip,) * 100)
    assert len(zlib.compress(pack(values_of(seal)), 1)) * FOLD < len(pack(values_of(seal)))
    assert decode(encode(replace(PUT, seal=seal))).seal == seal
