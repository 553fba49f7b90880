"""The list of a run's files on the wire, and at submit."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Reply, Submitted
from dflow_protocols.names import MAX_SHARD_BYTES, NodeId, RunId, ShardId, ShardRef
from dflow_protocols.runs.registry import Registry
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.wire.codec import decode, encode
from dflow_protocols.wire.fields import MAX_BYTES, MAX_ITEMS, WireError
from dflow_protocols.wire.frame import decode_frame, encode_frame
from dflow_protocols.wire.listing import MAX_CHARACTERS, MAX_FILES, MAX_KEY, MAX_NAME, FileRef, listing_fault
from dflow_protocols.wire.steps import Roster, RunPut
from tests.unit.protocols.controllers.a_run import ALL

WHO = "0a" * 16
REF = ShardRef(ShardId("0b" * 32), 7)
WIDEST = "\U0001f600"  # four bytes
EACH = MAX_CHARACTERS // MAX_FILES


def status(files: tuple[FileRef, ...], spec: bytes = b"", outcome: bytes = b"", members: int = 1) -> RunPut:
    nodes = (NodeId(WHO),) * members
    roster = Roster(0, 0, nodes, nodes, (1_024,) * members)
    return RunPut(RunId(WHO), "active", 0, spec, "/", files, NodeId(WHO), "n", roster, outcome, True)


FAULTS = [
    ((FileRef("data.sums.jsonl", "", REF),), "a name of 0 characters"),
    ((FileRef("data.sums.jsonl", "x" * (MAX_NAME + 1), REF),), "a name of 1025 characters"),
    ((FileRef("data.sums.jsonl", "sums\0.jsonl", REF),), "no NUL"),
    ((FileRef("k" * (MAX_KEY + 1), "sums.jsonl", REF),), "a key of 257 characters"),
    ((FileRef("data.sums.jsonl", "sums.jsonl", ShardRef(REF.id, MAX_SHARD_BYTES + 1)),), "bytes, more than"),
    ((FileRef("models.policy.path", "m", REF),) * (MAX_FILES + 1), "1025 files, more than 1024"),
    ((FileRef("", "x" * MAX_NAME, REF),) * (MAX_CHARACTERS // MAX_NAME + 1), "characters together"),
]


@pytest.mark.parametrize(("files", "words"), FAULTS)
def test_a_list_beyond_its_bounds_is_refused_by_the_wire_and_before_it(files: tuple[FileRef, ...], words: str) -> None:
    """A run that a daemon took and could tell nobody of would wait for ever."""
    assert words in listing_fault(files)
    with pytest.raises(WireError, match=r"run_put\.files"):
        decode(encode(status(files)))
    registry = Registry(NodeId(WHO), (), (), (), 0.0, None)
    (reply,) = registry.submit(0.0, ALL, Submitted(1, two_steps().canonical(), "/", NodeId(WHO), "n", files))
    assert isinstance(reply, Reply)
    assert not reply.ok
    assert words in reply.value["what"]
    assert registry.runs == {}


def test_the_longest_status_of_all_fits_into_a_frame() -> None:
    """Spec, outcome, roster and list each at their bounds, in the widest characters."""
    files = (FileRef(WIDEST * (EACH // 2), WIDEST * (EACH // 2), ShardRef(REF.id, MAX_SHARD_BYTES)),) * MAX_FILES
    assert listing_fault(files) == ""
    longest = status(files, b"s" * MAX_BYTES, b"o" * MAX_BYTES, MAX_ITEMS)
    assert decode_frame(encode_frame(None, (longest,))).messages == (longest,)
