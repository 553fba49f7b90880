"""The network of a world: drawn delays, loss, one-way cuts, links that hold frames up, double or drop them. Frames may
overtake each other. And a node's lanes on it: whom it could dial, and what it is told of members that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from ...events import Dial, Lane, LaneFailed, LaneOpened
from ...names import NodeId
from .schedule import Life

MIN_DELAY_S = 0.0005
MAX_DELAY_S = 0.004
LATE_SHARE = 0.01  # of frames that are held up by MAX_DELAY_S * LATE_FACTOR: a full queue, a lost segment
LATE_FACTOR = 20.0
QUEUE_S = 0.2  # what the queue of a narrow link holds, in seconds of its rate; what is beyond waits at its sender
BYTES_PER_S = 1e9  # of a link for one fetch, where nothing makes it narrow
AGAIN_S = 1.0  # within so long a frame that is repeated comes again
FIRST_S = 0.5  # until a lane is dialled again; the pauses double
MOST_S = 60.0
PATIENCE_S = 4.0  # before it is told that a lane cannot be dialled

Way: TypeAlias = tuple[NodeId, NodeId]
"""From the first to the second."""


@dataclass
class Network:
    """Decides each frame's fate. `lose` counts the world's frames from 0; those in it never arrive."""

    rng: Random
    loss: float = 0.0
    lose: frozenset[int] = frozenset()
    repeated: float = 0.0  # share of frames that arrive twice
    cuts: set[Way] = field(default_factory=set)  # nothing passes
    severed: set[Way] = field(default_factory=set)  # cuts that do not heal
    full: set[Way] = field(default_factory=set)  # frames are dropped, chunks pass
    held_until: dict[Way, float] = field(default_factory=dict)  # frames wait for that time
    closed: set[tuple[NodeId, Lane]] = field(default_factory=set)  # nobody can open a connection there
    bytes_per_s: float | None = None  # of a link, for all that passes that way; None: each fetch has BYTES_PER_S
    takes_bytes_per_s: dict[NodeId, float] = field(default_factory=dict)  # of places with a narrow way in, each fetch
    frames: int = 0
    _busy_until: dict[Way, float] = field(default_factory=dict)
    _frames_until: dict[Way, float] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with it."""
        is_open = not (self.cuts or self.severed or self.full or self.held_until or self.closed)
        return is_open and not (self.loss or self.repeated or self.takes_bytes_per_s) and self.bytes_per_s is None

    def fates(self, now: float, source: NodeId, to: NodeId, size: Callable[[], int]) -> tuple[float, ...]:
        """Seconds until a frame sent now arrives, or none if it never does; two where it is repeated. `size` gives its
        bytes, and is asked where that matters."""
        index, self.frames = self.frames, self.frames + 1
        delay, lost = self.delay(), self.rng.random() < self.loss
        if lost or index in self.lose or self.is_cut(source, to) or (source, to) in self.full:
            return ()
        if self.bytes_per_s is not None:
            delay += self._pass_frame(now, source, to, size(), self.bytes_per_s)
        delay += max(0.0, self.held_until.get((source, to), now) - now)
        if self.repeated and self.rng.random() < self.repeated:
            return delay, delay + self.rng.uniform(0.0, AGAIN_S)
        return (delay,)

    def delay(self) -> float:
        """One way, drawn. Always draws the same number of times, so that a cut shifts no later draw."""
        draw = self.rng.random
        delay = MIN_DELAY_S + (MAX_DELAY_S - MIN_DELAY_S) * draw()
        return delay * LATE_FACTOR if draw() < LATE_SHARE else delay

    def transmit(self, now: float, source: NodeId, to: NodeId, nbytes: float) -> float:
        """Seconds until so many bytes of a chunk have left; on a narrow link they wait for all that was sent before."""
        if self.bytes_per_s is None:
            return nbytes / self.takes_bytes_per_s.get(to, BYTES_PER_S)
        done = max(now, self._busy_until.get((source, to), now)) + nbytes / self.bytes_per_s
        self._busy_until[source, to] = done
        return done - now

    def _pass_frame(self, now: float, source: NodeId, to: NodeId, nbytes: float, bytes_per_s: float) -> float:
        """The same of a frame. It has a connection of its own, so of chunks it waits for what the link's queue holds:
        most of a chunk waits at its sender."""
        way, takes_s = (source, to), nbytes / bytes_per_s
        busy_until = max(now, self._busy_until.get(way, now))
        done = max(min(busy_until, now + QUEUE_S), self._frames_until.get(way, now)) + takes_s
        self._busy_until[way], self._frames_until[way] = busy_until + takes_s, done
        return done - now

    def is_cut(self, source: NodeId, to: NodeId) -> bool:
        return (source, to) in self.cuts or (source, to) in self.severed

    def linked(self, one: NodeId, other: NodeId) -> bool:
        """Whether a request and its answer can pass between the two."""
        return not self.is_cut(one, other) and not self.is_cut(other, one)

    def opens(self, source: NodeId, to: NodeId, lane: Lane) -> bool:
        """Whether one can open a connection to a lane of the other."""
        return (to, lane) not in self.closed and self.linked(source, to)

    # What faults do --------------------------------------------------------------------------------------------------

    def cut(self, ways: Collection[Way]) -> None:
        """Nothing passes there, until it is joined again or all heals."""
        self.cuts.update(ways)

    def join(self, ways: Collection[Way]) -> None:
        self.cuts.difference_update(ways)

    def sever(self, one: NodeId, other: NodeId) -> None:
        """The two never hear each other again."""
        self.severed |= {(one, other), (other, one)}

    def hold(self, way: Way, until: float) -> None:
        """What is sent there before that time arrives after it."""
        self.held_until[way] = until

    def release(self, way: Way) -> None:
        self.held_until.pop(way, None)

    def fill(self, way: Way) -> None:
        """No more frames fit into the queue there."""
        self.full.add(way)

    def empty(self, way: Way) -> None:
        self.full.discard(way)

    def close(self, node: NodeId, lane: Lane) -> None:
        """A firewall: who has a connection keeps it, and nobody gets another one."""
        self.closed.add((node, lane))

    def open(self, node: NodeId, lane: Lane) -> None:
        self.closed.discard((node, lane))

    def lose_share(self, loss: float) -> None:
        """So many of the frames never arrive, whoever sends them."""
        self.loss = loss

    def repeat_share(self, share: float) -> None:
        """So many of the frames arrive twice, whoever sends them."""
        self.repeated = share

    def narrow(self, bytes_per_s: float) -> None:
        """Every link, for all that passes it one way."""
        self.bytes_per_s = bytes_per_s

    def narrow_to(self, place: NodeId, bytes_per_s: float) -> None:
        """Of what that place fetches, each by itself; it does not heal."""
        self.takes_bytes_per_s[place] = bytes_per_s

    def heal(self) -> None:
        for each in (self.cuts, self.full, self.held_until, self.closed, self._busy_until, self._frames_until):
            each.clear()
        self.loss = self.repeated = 0.0
        self.lose = frozenset()
        self.bytes_per_s = None


class Lanes:
    """One life's. Members are dialled back as `dflowd/transport/reach.py` does it; that a lane is open is told only
    where it was closed, as nothing follows from it elsewhere."""

    def __init__(
        self,
        place: NodeId,
        life: Life,
        network: Network,
        place_of: Callable[[NodeId, str], NodeId] = lambda node, address: node,
    ) -> None:
        """`place`: the machine's; `place_of(member, address)`: that of who listens there."""
        self.dials: dict[NodeId, Dial] = {}  # the addresses that it was told last
        self.linked: set[NodeId] = set()  # whose control lane it has a connection to
        self.spoke: dict[NodeId, NodeId] = {}  # from which place a member spoke last
        self._tried: set[tuple[NodeId, Lane, str]] = set()  # lanes that did not open so far, at these addresses
        self._place, self._life, self._network = place, life, network
        self._place_of = place_of

    def watch(self, dial: Dial) -> None:
        """Try both addresses until they have answered, in place of others."""
        self.dials[dial.node] = dial
        if not self._network.closed and not self._tried:
            self.linked.add(dial.node)
            return
        lanes: tuple[tuple[Lane, str], ...] = (("control", dial.control), ("bulk", dial.bulk))
        for lane, address in lanes:
            is_closed = (self._place_of(dial.node, address), lane) in self._network.closed
            if is_closed or (dial.node, lane, address) in self._tried:
                self._try(dial, lane, address, FIRST_S, self._life.now + PATIENCE_S)
            elif lane == "control":
                self.linked.add(dial.node)

    def note_frame(self, node: NodeId, place: NodeId) -> None:
        """A frame of that member came from there."""
        self.spoke[node] = place

    def fetch_seconds(self, holder: NodeId, nbytes: float) -> float:
        """How long it takes to ask a holder and get so many bytes."""
        dial = self.dials.get(holder)
        place = holder if dial is None else self._place_of(holder, dial.bulk)
        return 2 * self._network.delay() + self._network.transmit(self._life.now, place, self._place, nbytes)

    def _try(self, dial: Dial, lane: Lane, address: str, pause_s: float, tell_at: float) -> None:
        if self.dials[dial.node] is not dial:
            return
        if self._network.opens(self._place, self._place_of(dial.node, address), lane):
            if lane == "control":
                self.linked.add(dial.node)
            self._tried.discard((dial.node, lane, address))
            self._life.tell(LaneOpened(dial.node, lane))
            return
        self._tried.add((dial.node, lane, address))
        if self._life.now >= tell_at:
            self._life.tell(LaneFailed(dial.node, lane, address))
        again_s = min(2 * pause_s, MOST_S)
        self._life.after(pause_s, lambda: self._try(dial, lane, address, again_s, tell_at))
