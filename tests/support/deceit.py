"""A true run with a liar among its members: a world in which one of them says what it likes beside what is true."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from dflow_protocols.events import Action, Event, Received, Send
from dflow_protocols.simulator.invariants import Violation
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.fields import WireError
from dflow_protocols.wire.frame import Frame, decode_frame, encode_frame
from dflow_protocols.wire.steps import FailurePut, RunPut
from tests.support.invention import Inventor

PAUSE_S = 0.004  # between two lies, on average: nodes say some hundred frames a second
FORMED_S = 4.0
SOURCES = (2, 2, 2, 3)  # a member, and one with a key who has never joined


class Deceived(World):
    """What nodes do is checked as ever; that what they pass on is true is not, as they were told lies."""

    def _check(self, checker: Callable[[], Any], invariant: str) -> None:
        pass


class _Ears:
    """What one node says to another can travel, and is what lies are made of."""

    def __init__(self, inventor: Inventor) -> None:
        self._inventor = inventor

    def heard(self, host: Host, event: Event) -> None:
        pass

    def saw(self, host: Host, action: Action) -> None:
        match action:
            case Send(_, Frame(delta, messages) as frame):
                encode_frame(delta, messages)
                for said in (*frame.heartbeats, *messages):
                    self._inventor.hear(said)

    def dies(self, host: Host) -> None:
        pass


class Deceit:
    """Three nodes, a run, and lies under the last one's key, or a stranger's, to the others. `ends`: also such as end
    runs, which a member may."""

    def __init__(self, seed: int, ends: bool) -> None:
        self.world = Deceived(spawn, nodes=3, seed=seed, seeds=(0,))
        self._rng, self._ends = Random(f"deceit/{seed}"), ends
        self._inventor = Inventor(self._rng)
        self.lies = 0
        self.world.watch(_Ears(self._inventor))
        self.world.run(FORMED_S)
        self.world.submit(0, two_steps())

    def go_on(self, lies: int) -> None:
        """Until so many more were told. Raises Violation."""
        wanted = self.lies + lies
        while self.lies < wanted:
            self._live(self._rng.expovariate(1 / PAUSE_S))
            self._lie()

    def _live(self, seconds: float) -> None:
        try:
            self.world.run(seconds)
        except Violation:
            raise
        except (AssertionError, KeyError):
            pass  # a pretended engine that was given nonsense: its call goes on for ever

    def _lie(self) -> None:
        frame = self._inventor.frame()
        said = tuple(each for each in frame.messages if self._ends or not isinstance(each, RunPut | FailurePut))
        try:
            there = decode_frame(encode_frame(frame.delta, said))
        except (WireError, OverflowError):
            return
        self.lies += len(said) + len(frame.heartbeats)
        source = self.world.id_of(self._rng.choice(SOURCES))
        self.world.deliver(self._rng.choice(self.world.hosts[:2]), Received(source, there))
