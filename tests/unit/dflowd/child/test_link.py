"""What an engine's daemon sees of it while a library works and says nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dflow_protocols.events import Broke, Finished
from dflow_protocols.work import ChainWork, Done
from dflowd.child.link import Link
from dflowd.jobs.baton import Baton
from dflowd.jobs.failures import GivenUp
from dflowd.slots.calls import Beat, Call, GiveUp, Grant, Granted, GrantedSegment, Sealed, Trim, decode, encode
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


class Ends:
    """Both ends of a line on which calls are open, and the baton among those."""

    def __init__(self, folder: Path, calls: int) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.bind(f"ipc://{folder}/s")
        self.baton, self.delivered = Baton(), list[object]()
        self.link = Link(f"ipc://{folder}/s", self.delivered.append, baton=self.baton)
        self.peer, _ = self.router.recv_multipart()
        for number in range(1, calls + 1):
            self.say(Call(number, b"", "", "", "", ChainWork(0, ("roll",), number, ()), ()))
        until(lambda: len(self.delivered) == calls, DEADLINE_S)

    def say(self, message: Call | GiveUp | Granted | Trim) -> None:
        self.router.send_multipart([self.peer, encode(message)])

    def hear(self) -> object:
        return decode(self.router.recv_multipart()[-1])

    def progress(self) -> dict[int, int]:
        """Of each call, as two rounds of beats from now on tell it last."""
        while self.router.poll(0):
            self.router.recv_multipart()
        beats = [each for _ in range(4) if isinstance(each := self.hear(), Beat)]
        return {beat.call: beat.progress for beat in beats}

    def close(self) -> None:
        self.link.close()
        self.context.destroy(linger=0)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(tmp_path, 2)
    yield ends
    ends.close()


def test_a_call_that_is_given_up_ends_and_the_other_goes_on(two: Ends) -> None:
    """Each has its own word for it, whoever has the baton when that comes."""
    assert two.link.begin(1)
    assert two.link.begin(2)
    with two.baton.held(2):
        two.say(GiveUp(1))
        until(lambda: two.link._open[1].is_given_up, DEADLINE_S)
        two.link.progress()
    with two.baton.held(1), pytest.raises(GivenUp):
        two.link.progress()


def test_a_call_that_is_given_up_before_it_begins_is_answered_at_once_and_never_begun(two: Ends) -> None:
    """The one that the engine is at may take an hour, and so long would what the other reads lie in the store."""
    assert two.link.begin(1)
    with two.baton.held(1):
        two.say(GiveUp(2))
        told: list[Broke] = []
        until(lambda: told.append(each) if isinstance(each := two.hear(), Broke) else bool(told), DEADLINE_S)
        assert [(broke.call, broke.failed.kind) for broke in told] == [(2, "stopped")]
        two.link.progress()
    assert not two.link.begin(2)


def test_each_call_gets_the_room_that_it_asked_for(two: Ends) -> None:
    """While one waits for room the other goes on, and may ask, too; answers come in any order."""
    got: dict[int, tuple[GrantedSegment, ...]] = {}

    def ask(call: int) -> None:
        with two.baton.held(call):
            got[call] = two.link.grant((call,))

    threads = [threading.Thread(target=ask, args=(call,), daemon=True) for call in (1, 2)]
    for thread in threads:
        thread.start()
    asked: list[Grant] = []
    until(lambda: asked.append(each) if isinstance(each := two.hear(), Grant) else len(asked) == 2, DEADLINE_S)
    for grant in reversed(asked):
        two.say(Granted(grant.call, (GrantedSegment(grant.call, grant.sizes[0], ""),)))
    for thread in threads:
        thread.join(DEADLINE_S)
    assert {call: (segment.id, segment.nbytes) for call, (segment,) in got.items()} == {1: (1, 1), 2: (2, 2)}


def test_a_call_that_waits_for_the_baton_is_as_far_as_the_one_that_has_it(two: Ends) -> None:
    """It is not hung while that one moves, however long it waits; and hangs with it, so that the hang is found."""
    with two.baton.held(1):
        first = two.progress()
        assert two.progress() == first
        two.link.progress()
        moved = two.progress()
        assert {call for call in (1, 2) if moved[call] > first[call]} == {1, 2}
        assert two.progress() == moved


def test_the_ends_of_short_calls_are_told_together(two: Ends) -> None:
    """A daemon looks at all that came with one frame once; at a thousand partitions a second that is most of its
    work."""
    for number in (1, 2):
        two.link.send(Sealed(number, ()))
        two.link.answer(Finished(number, Done(())))
    _, *frames = two.router.recv_multipart()
    told = [decode(frame) for frame in frames]
    assert [type(message) for message in told] == [Sealed, Finished, Sealed, Finished]


def test_the_end_of_a_call_does_not_wait_for_the_end_of_a_long_one(two: Ends) -> None:
    """The other one may take minutes."""
    two.link.answer(Finished(1, Done(())))
    assert two.hear() == Finished(1, Done(()))
