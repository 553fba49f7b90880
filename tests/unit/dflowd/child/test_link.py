"""What an engine's daemon sees of it while a library works and says nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dflowd.child.link import Link
from dflowd.slots.calls import Beat, decode
from tests.support.until import until

DEADLINE_S = 60.0


@pytest.fixture
def line(tmp_path: Path) -> Iterator[tuple[Link, zmq.Socket[bytes]]]:
    """A child's link, and the daemon's end of it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    address = f"ipc://{tmp_path}/s"
    router.bind(address)
    link = Link(address)
    yield link, router
    link.close()
    context.destroy(linger=0)


def beats(router: zmq.Socket[bytes]) -> Iterator[int]:
    """The progress that each beat tells which is here already."""
    while router.poll(0):
        message = decode(router.recv_multipart()[-1])
        if isinstance(message, Beat):
            yield message.progress


def test_a_library_that_computes_is_no_hung_call(line: tuple[Link, zmq.Socket[bytes]]) -> None:
    """A model of many gigabytes is opened in one call that tells nothing."""
    link, router = line
    seen: set[int] = set()

    def compute() -> bool:
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass
        seen.update(beats(router))
        return len(seen) >= 3

    with link.opaque():
        until(compute, DEADLINE_S)


def test_a_library_that_hangs_is_a_hung_call(line: tuple[Link, zmq.Socket[bytes]]) -> None:
    """Beats go on, since the process lives; progress does not."""
    link, router = line
    seen: list[int] = []

    def wait() -> bool:
        time.sleep(0.05)
        seen.extend(beats(router))
        return len(seen) >= 5

    with link.opaque():
        until(wait, DEADLINE_S)
    assert len(set(seen[1:])) == 1


def test_what_was_computed_outside_of_a_library_is_no_progress(line: tuple[Link, zmq.Socket[bytes]]) -> None:
    """An endless loop of a user's function uses the processor, too, and has to be found."""
    _, router = line
    seen: list[int] = []

    def compute() -> bool:
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass
        seen.extend(beats(router))
        return len(seen) >= 3

    until(compute, DEADLINE_S)
    assert set(seen) == {0}
