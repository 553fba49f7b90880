"""Parts of tasks: values inside, texts on the wire, in ids and in reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.names import Block, Once, Part, Partition, RunId, Slice, TaskKey, part_of
from dflow_protocols.wire.codec import decode, encode
from dflow_protocols.wire.steps import ClaimPut

PARTS: dict[str, Part] = {
    "p0": Partition(0),
    "p17": Partition(17),
    "b2-4": Block(2, 4),
    "s0-3": Slice(0, 3),
    "apply": Once("apply"),
}


@pytest.mark.parametrize("text", PARTS)
def test_a_part_and_its_text_are_one(text: str) -> None:
    """Peers, logs and ids see the text; code asks the value what it is."""
    assert part_of(text) == PARTS[text]
    assert str(PARTS[text]) == text


@given(st.one_of(st.text(max_size=8), st.from_regex(r"[pbs]\d{0,12}(-\d{0,12})?", fullmatch=True)))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    """A record is named by the hash of what it says, so a text that a newer peer uses must not change on its way."""
    assert str(part_of(text)) == text


@pytest.mark.parametrize("text", ["", "p", "p01", "p1234567890", "b1", "b4-2", "b2-2", "s1-", "q7", "p1\n", "b1-2-3"])
def test_what_names_no_share_is_a_word(text: str) -> None:
    """So no rule takes it for a partition, a block or a slice."""
    assert part_of(text) == Once(text)


def test_a_block_is_no_slice_of_the_same_numbers() -> None:
    """Books are kept by task: leaves 0 to 3 and chunks 0 to 3 are different work."""
    assert TaskKey(1, "learn", Block(0, 3)) != TaskKey(1, "learn", Slice(0, 3))


def test_tasks_sort_as_their_texts() -> None:
    """Seals list what they skip in this order, and every node must make the same list."""
    keys = [TaskKey(step, "roll", part) for step in (1, 2) for part in [*PARTS.values(), Partition(2), Partition(10)]]
    assert sorted(keys) == sorted(keys, key=lambda key: (key.step, key.stage, str(key.part)))


@pytest.mark.parametrize("text", [*PARTS, "q7", ""])
def test_a_part_travels_as_its_text(text: str) -> None:
    """The wire is as it was when a part was a text: any peer of this wire version reads it."""
    message = ClaimPut(RunId("a" * 32), 3, (TaskKey(3, "roll", part_of(text)),))
    assert text.encode() in encode(message)
    assert decode(encode(message)) == message
