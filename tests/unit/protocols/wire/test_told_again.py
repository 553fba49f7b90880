"""Records that are told again and again are made once, and never mistaken for others."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from dflow_protocols.names import RunId
from dflow_protocols.wire.codec import decode, encode
from dflow_protocols.wire.fields import SHORT_FORM, WireError
from dflow_protocols.wire.steps import Record, RecordPut
from tests.unit.protocols.books import record, shard

RUN = RunId("ab" * 16)
ONE = record("roll", "p1", (shard("read").id,), shard("made"))


def told(*records: Record) -> tuple[Record, ...]:
    return decode(encode(RecordPut(RUN, records))).records  # type: ignore[no-any-return]


def test_a_record_that_is_told_again_is_the_one_that_was_made_before() -> None:
    """Each is told by who made it and who copied it, by replicas that are asked, and in a seal beside a thousand."""
    assert told(ONE)[0] is told(ONE, ONE)[1]
    assert told(ONE) == (ONE,)


def test_what_is_equal_and_written_otherwise_is_another_record() -> None:
    """2 and 2.0 are equal, and records of them have two names: who was given the one for the other would ask for it for
    ever."""
    whole, broken = (replace(ONE, metrics=(("tokens", value),)) for value in (2, 2.0))
    assert whole == broken
    assert [each.id for each in told(whole, broken)] == [whole.id, broken.id]
    with pytest.raises(WireError):
        told(replace(ONE, groups=((True, 1),)))
    assert told(replace(ONE, groups=((1, 1),)))
    with pytest.raises(WireError):
        told(replace(ONE, groups=((True, 1),)))


def test_long_records_are_not_kept() -> None:
    """A member could have this node keep gigabytes."""
    long = replace(ONE, metrics=tuple((f"metric{number}", 1.0) for number in range(SHORT_FORM // 8)))
    assert told(long)[0] is not told(long)[0]
    assert told(long) == (long,)


def test_what_is_too_deep_to_be_written_again_is_refused_like_any_other_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """msgpack before 1.2 reads twice as deep as it writes: a member could have made each of its frames an exception
    that nobody expects."""
    deep: tuple[object, ...] = ()
    for _ in range(600):
        deep = (deep,)
    frame = msgpack.packb(("record_put", RUN, (deep,)))

    def packb(value: object, **options: bool) -> bytes:
        raise ValueError("recursion limit exceeded.")

    monkeypatch.setattr(msgpack, "packb", packb)
    with pytest.raises(WireError):
        decode(frame)
