"""What a node's one thread costs in a world, counted and charged to its virtual time.

Measured is the CPU time of a node's turn (`take`, `act`), and of its frames: encoding by who sends, decoding by who
receives. A message that goes to many is encoded and decoded once here and charged for each, as daemons do it each time.
Sockets, engines' answers and the store are not in it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from dflow_protocols.events import Action, Event, Received, Send
from dflow_protocols.membership.timing import Timing
from dflow_protocols.node import Node
from dflow_protocols.simulator.model.host import BootContext
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.wire.codec import from_wire, to_wire, type_name
from dflow_protocols.wire.fields import unpack
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.packing import pack
from dflow_protocols.wire.steps import BucketPut, RecordPut, SealPut

T = TypeVar("T")

STANDINGS = "standings"  # the part of a frame that says where its sender is in its runs
ENVELOPE_BYTES = 5  # of a frame: mark, wire version, msgpack's of three arrays


class Costs:
    """Of all nodes of a world since they were last begun."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._turns: dict[int, float] = defaultdict(float)  # seconds of the turn that a node is in
        self._debts: dict[str, float] = defaultdict(float)  # seconds of decoding what is on its way, by the receiver
        self.begin()

    def begin(self) -> None:
        self.seconds: dict[int, float] = defaultdict(float)  # by node
        self.sent: dict[int, int] = defaultdict(int)  # bytes, by node
        self.bytes: Counter[str] = Counter()  # by kind of message
        self.frames = 0

    def turn_s(self, index: int) -> float:
        """How long the turn that this node is in took so far."""
        return self._turns[index]

    def end_turn(self, index: int) -> float:
        """How long the turn of this node took."""
        seconds = self._turns.pop(index, 0.0)
        self.seconds[index] += seconds
        return seconds

    def spawn(self, boot: BootContext) -> Node:
        """A node that is charged."""
        node = spawn(boot, timing=self._timing)
        take, act, index = node.take, node.act, boot.index

        def charged_take(now: float, event: Event) -> None:
            if isinstance(event, Received) and event.source != node.me:
                self._turns[index] += self._debts.pop(node.me, 0.0)
            self._turns[index] += timed(take, now, event)[0]

        def charged_act(now: float) -> list[Action]:
            seconds, actions = timed(act, now)
            self._turns[index] += seconds + self._frames(index, actions)
            return actions

        for name, does in (("take", charged_take), ("act", charged_act)):
            setattr(node, name, does)
        return node

    def _frames(self, index: int, actions: list[Action]) -> float:
        """Count the frames of a turn. Seconds that encoding them takes; decoding is noted for the receivers."""
        known: dict[int, tuple[int, float, float]] = {}  # bytes, encoding, decoding
        seconds = 0.0
        for action in actions:
            if not isinstance(action, Send) or not isinstance(action.message, Frame):
                continue
            self.frames += 1
            frame, nbytes, decoding = action.message, ENVELOPE_BYTES, 0.0
            for kind, thing, reads in (
                (STANDINGS, frame.delta, unpack),
                *((type_name(type(each)), each, decode) for each in frame.messages),
            ):
                if id(thing) not in known:
                    known[id(thing)] = passed(thing, reads)
                size, encodes, decodes = known[id(thing)]
                self.bytes[kind] += size
                nbytes, seconds, decoding = nbytes + size, seconds + encodes, decoding + decodes
            self.sent[index] += nbytes
            self._debts[action.to] += decoding
        return seconds


def passed(thing: Any, reads: Callable[[bytes], Any]) -> tuple[int, float, float]:
    """Bytes of a message, and the seconds that making and reading them takes."""
    encodes, data = timed(lambda: pack(thing if reads is unpack else to_wire(thing)))
    return len(data), encodes, timed(reads, data)[0]


def decode(data: bytes) -> None:
    """With the names that a receiver derives of it: here all nodes share one object, which has them once."""
    message = from_wire(unpack(data))
    match message:
        case SealPut(seal=seal):
            assert seal.id
        case RecordPut(records=records):
            assert all(record.id for record in records)
        case BucketPut(records=held):
            assert all(each.record.id for each in held)


def timed(does: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """CPU seconds of this thread, and what came of it."""
    began = time.thread_time()
    given = does(*arguments)
    return time.thread_time() - began, given
