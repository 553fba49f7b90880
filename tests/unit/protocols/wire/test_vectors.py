from __future__ import annotations

import json

import pytest

from dflow_protocols.wire.codec import MESSAGES, decode
from dflow_protocols.wire.frame import Frame, decode_frame
from dflow_protocols.wire.gossip import Ping
from dflow_protocols.wire.heartbeat import Delta
from tests.unit.protocols.wire.vectors import FOLDER, example, frame_vector, readable, vector


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_each_message_still_has_the_bytes_of_its_vector(name: str) -> None:
    """Another implementation is written against these files: a change of bytes needs a new wire version."""
    assert (FOLDER / f"{name}.json").read_text() == vector(name)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_vectors_bytes_decode_to_what_its_file_says(name: str) -> None:
    """The readable half of a vector is what the bytes mean."""
    told = json.loads((FOLDER / f"{name}.json").read_text())
    message = decode(bytes.fromhex(told["msgpack"]))
    assert message == example(MESSAGES[name])
    assert json.loads(json.dumps(readable(message))) == told["fields"]


def test_a_frame_still_has_the_bytes_of_its_vector() -> None:
    """What stands around messages is as much of the wire as they are."""
    told = json.loads((FOLDER / "frame.json").read_text())
    assert (FOLDER / "frame.json").read_text() == frame_vector()
    assert decode_frame(bytes.fromhex(told["frame"])) == Frame(example(Delta), (example(Ping),))


def test_no_vector_is_left_of_a_message_that_is_gone() -> None:
    """A file without a message would be taken for a promise."""
    assert {path.stem for path in FOLDER.glob("*.json")} == {*MESSAGES, "frame"}
