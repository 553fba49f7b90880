"""A world in one seed: nodes, virtual time, a network, engines and faults.

Drives whole nodes exactly as a daemon does (one event at a time, actions performed in order) and knows what no node
can: every shard's provenance. Anything that a node must never do ends the world with a `Violation`.
"""

from __future__ import annotations

import heapq
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from ..events import (
    Action,
    Began,
    Broke,
    CancelRequested,
    Dial,
    Discard,
    Drop,
    Event,
    Fetch,
    Finished,
    Persist,
    Reached,
    Received,
    Reply,
    Report,
    ResumeRequested,
    RoomMade,
    Send,
    Shed,
    Start,
    Stop,
    Submitted,
    Tick,
    Trim,
)
from ..names import NodeId, RunId, ShardId, ShardRef, node_id, run_id
from ..pipeline.spec import Pipeline
from ..shards.space import Place
from ..versions.saved import Saved
from ..wire.frame import Frame, decode_frame, encode_frame
from ..wire.steps import HeaderPut, SealPut
from ..work import ApplyWork, BlockWork, ChainWork, Failed, InitWork, LoadWork, SaveWork, State, inputs_of
from .faults import Fault, Moment
from .inject import strike
from .invariants import SealCheck, Violation, check_header, check_work
from .model.bulk import BulkLane
from .model.host import Bear, Birth, Host
from .model.network import Network
from .model.provenance import Ledger
from .model.store import Shelf
from .model.work import PURE, Engines
from .trace import Trace

STUCK_TICKS = 200  # a node whose deadline stays in the past for so many ticks in a row would spin for ever
ENCODE_EVERY = 16  # frames; each of those passes through its bytes on the way
STORY_LINES = 60
INBOX_S = 0.002  # how long an event waits at most until a daemon's loop comes to it
BREAKS_AFTER_S = 0.005  # how fast a broken engine gives a work back
CLIENT = node_id(b"a client's key")


class World:
    """`bear` makes the machine that is driven. `seeds`: indices of the nodes that every node's configuration names.
    `slots`: of one node after the other, again from the first where nodes are more. `alike`: what comes out with equal
    bytes (provenance.py); for pure engines, as the checkers tell executions apart by their bytes."""

    def __init__(
        self,
        bear: Bear,
        *,
        nodes: int,
        seed: int = 0,
        seeds: tuple[int, ...] = (0,),
        slots: Sequence[int] = (1,),
        noise: frozenset[type] = PURE,
        alike: frozenset[str] = frozenset(),
        digest: bool = False,
        replay: str = "",
    ) -> None:
        self.now = 0.0
        self.seed = seed
        self.network = Network(Random(f"{seed}/network"))
        self.ledger = Ledger(alike)
        self.trace = Trace(digest)
        self.events = 0
        self.engines: dict[RunId, Engines] = {}
        self.reports: list[tuple[int, Report]] = []  # node, what it told people
        self.saved: dict[str, State] = {}  # versions of which a checkpoint was begun
        self._bear = bear
        self._noise = noise
        self._replay = replay
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.poison: dict[tuple[str, str], str] = {}  # (chain's first stage, part) -> how a work on it breaks
        self._moments: list[tuple[Moment, Fault, float]] = []
        self._seals = SealCheck()
        self._requests = 0
        self._inbox = Random(f"{seed}/inbox")
        rng = Random(f"{seed}/clocks")
        self.hosts = [Host(i, self.id_of(i), rng.uniform(0, 1e5), seeds) for i in range(nodes)]
        self._by_id = {host.id: host for host in self.hosts}
        self._slots = tuple(slots)
        for host in self.hosts:
            host.slots = self._slots[host.index % len(self._slots)]
            self.start(host)

    @staticmethod
    def id_of(index: int) -> NodeId:
        return node_id(World.key_of(index))

    @staticmethod
    def key_of(index: int) -> bytes:
        """The 32 bytes that stand for a node's public key."""
        return (index + 1).to_bytes(32, "little")

    # What a scenario says ------------------------------------------------------------------------------------------

    def submit(self, node: int, pipeline: Pipeline, nonce: str = "0") -> RunId:
        """A client of `node` submits; nothing is promised until its reply is there."""
        host = self.hosts[node]
        run = run_id(pipeline.text_id, CLIENT, nonce)
        self.engines[run] = Engines(self.ledger, pipeline, self._noise, Random(f"{self.seed}/work/{run}"))
        self._requests += 1
        self.deliver(host, Submitted(self._requests, pipeline.canonical(), "/spec", CLIENT, nonce))
        return run

    def cancel(self, node: int, run: RunId) -> None:
        self._requests += 1
        self.deliver(self.hosts[node], CancelRequested(self._requests, run))

    def resume(self, node: int, run: RunId, from_start: bool = False) -> None:
        self._requests += 1
        self.deliver(self.hosts[node], ResumeRequested(self._requests, run, from_start))

    def at(self, time: float, fault: Fault) -> None:
        self.after(time - self.now, lambda: strike(self, fault, None))

    def when(self, moment: Moment, fault: Fault, after_s: float = 0.0) -> None:
        """`after_s` 0: between the action that is the moment and the next one; else so long after it."""
        self._moments.append((moment, fault, after_s))

    def calm(self) -> None:
        """From here on nothing is lost, cut or paused; who is dead for good stays so."""
        self._moments.clear()
        self.network.heal()
        for host in self.hosts:
            host.break_works = 0
            if host.paused:
                self.wake(host)

    def run(self, deadline_s: float, until: Callable[[], bool] | None = None) -> bool:
        """Live on until `until()` holds (checked after each event) or `deadline_s` has passed from now."""
        end = self.now + deadline_s
        while self._heap and self._heap[0][0] <= end:
            if until is not None and until():
                return True
            self.now, _, then = heapq.heappop(self._heap)
            then()
        self.now = end if until is None else self.now
        return until is not None and until()

    def expect(self, deadline_s: float, until: Callable[[], bool], what: str) -> None:
        if not self.run(deadline_s, until):
            raise self.violation(f"after {deadline_s:g} s still not so: {what}")

    def live(self) -> list[Host]:
        return [host for host in self.hosts if host.machine is not None]

    def violation(self, what: str) -> Violation:
        words: dict[str, str] = {host.id: host.name for host in self.hosts}
        story = "\n".join(self.trace.story(STORY_LINES, words))
        return Violation(f"{story}\n{what}\nreplay: {self._replay or f'seed {self.seed}'}")

    # Lives -----------------------------------------------------------------------------------------------------------

    def add(self, seeds: tuple[int, ...]) -> Host:
        """A machine that was not there before; `start` turns it on."""
        index = len(self.hosts)
        host = Host(index, self.id_of(index), Random(f"{self.seed}/clock/{index}").uniform(0, 1e5), seeds)
        host.slots = self._slots[index % len(self._slots)]
        self.hosts.append(host)
        self._by_id[host.id] = host
        return host

    def start(self, host: Host) -> None:
        host.incarnation += 1
        host.comes_back = False
        rng = Random(f"{self.seed}/{host.name}/{host.incarnation}")
        birth = Birth(
            host.index,
            host.incarnation,
            rng,
            self.now + host.offset_s,
            dict(host.disk),
            tuple(host.saved.values()),
            host.seeds,
            host.roles,
            host.slots,
        )
        host.machine = self._bear(birth)
        host.shelf.on_shed = partial(self._tell_shed, host)
        host.bulk = BulkLane(
            host.shelf,
            self.network,
            lambda seconds, then: self._after_alive(host, seconds, then),
            lambda holder: self._serves(host, holder),
            lambda event: self._post(host, event),
            lambda asked: self._has_room(host, Place(asked.run, asked.step), [asked.ref], asked.is_state),
        )
        self.trace.add(self.now, host.name, "!", f"starts, incarnation {host.incarnation}")
        self._arm(host)

    def kill(self, host: Host) -> None:
        self.trace.add(self.now, host.name, "!", "dies")
        host.lose_memory()

    def wake(self, host: Host) -> None:
        self.trace.add(self.now, host.name, "!", "wakes")
        host.paused = False
        backlog, host.backlog = host.backlog, []
        for event in backlog:
            self.deliver(host, event)
        self._arm(host)

    # Events ----------------------------------------------------------------------------------------------------------

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, then))

    def _after_alive(self, host: Host, seconds: float, then: Callable[[], None]) -> None:
        life = host.machine
        self.after(seconds, lambda: then() if host.machine is life else None)

    def deliver(self, host: Host, event: Event) -> None:
        if host.paused:
            host.backlog.append(event)
        elif host.machine is not None:
            self._handle(host, event)

    def _post(self, host: Host, event: Event) -> None:
        """What the slot and the store tell waits in the node's inbox for a moment, in order. What the node gives up
        meanwhile is told all the same: it was true when it was posted."""
        host.inbox_until = max(host.inbox_until, self.now + self._inbox.uniform(0.0, INBOX_S))
        self._after_alive(host, host.inbox_until - self.now, lambda: self.deliver(host, event))

    def _handle(self, host: Host, event: Event) -> None:
        machine = host.machine
        assert machine is not None
        self.events += 1
        if isinstance(event, Finished):
            host.shelf.untold -= host.made.pop(event.call)
        cause, now = host.count_turn(), self.now + host.offset_s
        self.trace.add(self.now, host.name, "<-", event, cause)
        try:
            actions = machine.handle(now, event)
            machine.check()
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{at.filename.rpartition('/')[2]}:{at.lineno}, {at.line}"
            raise self.violation(f"{host.name} raised {type(error).__name__}: {error} ({place})") from error
        host.story.take(cause, now, event, actions)
        for action in actions:
            if host.machine is not machine:
                return  # it died between two actions
            self.trace.add(self.now, host.name, "->", action, cause)
            self._perform(host, action)
            self._look(host, action)
            host.performed += 1
        if host.machine is machine:
            self._arm(host)

    def _look(self, host: Host, action: Action) -> None:
        """Does this action set off a fault?"""
        due = [(m, f, s) for m, f, s in self._moments if m(host.index, host.performed, action)]
        for entry in due:
            self._moments.remove(entry)
            _, fault, after_s = entry
            if after_s:
                self.after(after_s, partial(strike, self, fault, host))
            else:
                strike(self, fault, host)

    def _arm(self, host: Host) -> None:
        """One alarm a node, at its deadline."""
        if host.machine is None or host.paused or host.machine.deadline == float("inf"):
            return
        due = max(self.now, host.machine.deadline - host.offset_s)
        if host.alarm == due:
            return
        host.alarm = due
        self._after_alive(host, due - self.now, lambda: self._tick(host, due))

    def _tick(self, host: Host, due: float) -> None:
        if host.alarm != due or host.paused:
            return
        host.alarm = None
        host.ticks_in_place = host.ticks_in_place + 1 if host.last_tick == self.now else 0
        host.last_tick = self.now
        if host.ticks_in_place > STUCK_TICKS:
            raise self.violation(f"{host.name} sets its deadline to the past for ever")
        self.deliver(host, Tick())

    # Actions ---------------------------------------------------------------------------------------------------------

    def _perform(self, host: Host, action: Action) -> None:
        match action:
            case Send(to, message):
                self._send(host, to, message)
            case Persist(key, value):
                host.disk[key] = value
            case Start():
                self._begin(host, action)
            case Stop(call):
                self._stop(host, call)
            case Trim(call, end):
                if call in host.calls:
                    host.trims[call] = end
            case Fetch():
                assert host.bulk is not None
                host.bulk.fetch(action)
            case Drop(run, shards):
                assert host.bulk is not None
                for shard in shards:
                    host.bulk.give_up(run, shard)
                    if host.shelf.drop(run, shard):
                        self._post(host, RoomMade())
            case Discard(_, _, version):
                host.saved.pop(version, None)
            case Reply(request, ok, value):
                host.replies[request] = (ok, value)
            case Dial(node, _, _, bulk):
                host.dialled[node] = bulk
            case Report():
                self.reports.append((host.index, action))

    def _send(self, host: Host, to: NodeId, frame: Frame) -> None:
        receiver = self._by_id.get(to)
        for message in frame.messages:
            if isinstance(message, SealPut):
                self._check(partial(self._seals.check, message.seal, self.engines[message.run]))
            elif isinstance(message, HeaderPut):
                self._check(partial(check_header, self.engines[message.run], message.header))
        if self.network.frames % ENCODE_EVERY == 0:
            there = decode_frame(encode_frame(frame.standings, frame.messages))
            if there != frame:
                raise self.violation(f"a frame is not the same after its bytes: {frame} became {there}")
        delay = self.network.fate(host.id, to)
        if delay is not None and receiver is not None and _is_linked(host, receiver):
            self.after(delay, lambda: self._arrive(host.id, receiver, frame))

    def _arrive(self, source: NodeId, receiver: Host, frame: Frame) -> None:
        if self.network.is_cut(source, receiver.id):
            return
        self.deliver(receiver, Received(source, frame))

    def _serves(self, asker: Host, holder: NodeId) -> Shelf | None:
        host = self._by_id.get(holder)
        if (
            host is None
            or not host.answers
            or "mute" in host.handicaps
            or not self.network.linked(asker.id, holder)
            or not asker.dialled.get(holder)
        ):
            return None
        return host.shelf

    def _begin(self, host: Host, start: Start) -> None:
        """Queue a work for a slot. Its inputs are pinned from here on, as a daemon pins what a call maps."""
        for ref, first, end in inputs_of(start.work):
            if not host.shelf.has(ref, first, end):
                if ref.id in host.shelf.shed:  # the node was not told yet
                    self._post(host, Broke(start.call, Failed("lost", "shed", ref.id)))
                    return
                raise self.violation(f"{host.name} starts {start.task} without having {ref.id[:8]} [{first}, {end})")
        engines = self.engines[start.run]
        self._check(partial(check_work, engines, start.work))
        if isinstance(start.work, SaveWork):
            self.saved[start.work.version] = start.work.state
        host.calls[start.call] = start
        self._occupy(host)

    def _stop(self, host: Host, call: int) -> None:
        host.calls.pop(call, None)
        host.running.discard(call)
        host.trims.pop(call, None)
        self._occupy(host)

    def _occupy(self, host: Host) -> None:
        """Let the first of the waiting works run in the slots that are free."""
        waiting = [start for call, start in host.calls.items() if call not in host.running]
        for start in waiting[: host.slots - len(host.running)]:
            host.running.add(start.call)
            self._post(host, Began(start.call))
            seconds = self.engines[start.run].seconds(start.work) / host.speed
            if "broken" in host.handicaps:
                self._after_alive(host, BREAKS_AFTER_S, partial(self._done, host, start))
            elif isinstance(start.work, BlockWork):
                each = seconds / (start.work.end - start.work.first)
                self._leaf(host, start, start.work.first, each)
            else:
                self._after_alive(host, seconds, partial(self._done, host, start))

    def _leaf(self, host: Host, start: Start, leaf: int, seconds: float) -> None:
        """Begin with a leaf of a block; end the call where the block ends by now."""
        if host.calls.get(start.call) is not start:
            return
        assert isinstance(start.work, BlockWork)
        if leaf >= host.trims.get(start.call, start.work.end):
            self._done(host, start, leaf)
            return
        self._post(host, Reached(start.call, leaf))
        self._after_alive(host, seconds, lambda: self._leaf(host, start, leaf + 1, seconds))

    def _done(self, host: Host, start: Start, end: int | None = None) -> None:
        """A work is over; `end`: of a block, the leaf before which it stopped."""
        if host.calls.get(start.call) is not start:
            return  # stopped meanwhile
        event: Event
        if "broken" in host.handicaps:
            event = Broke(start.call, Failed("engine", "this machine can compute nothing", start.task.stage))
        elif "read-only" in host.handicaps and isinstance(start.work, SaveWork):
            event = Broke(start.call, Failed("full", "this disk takes nothing"))
        elif host.break_works and (host.break_kind != "user" or isinstance(start.work, ChainWork)):
            host.break_works -= 1
            event = Broke(start.call, Failed(host.break_kind, "broken on purpose", start.task.stage))
        elif (start.task.stage, start.task.part) in self.poison:
            kind = self.poison[start.task.stage, start.task.part]
            event = Broke(start.call, Failed(kind, "poison", start.task.stage))
        elif isinstance(start.work, LoadWork) and start.work.header.id in host.damaged:
            event = Broke(start.call, Failed("damaged", "damaged on purpose", start.task.stage))
        else:
            event = self._finish(host, start, end)
        del host.calls[start.call]
        host.running.discard(start.call)
        host.trims.pop(start.call, None)
        self._occupy(host)
        self._post(host, event)

    def _save(self, host: Host, work: SaveWork) -> None:
        """The folder is whole on the disk; one of the same step that was there before is gone."""
        pipeline, header = self.engines[work.run].pipeline, work.header
        same = [v for v, other in host.saved.items() if (other.run, other.header.step) == (work.run, header.step)]
        for version in same:
            del host.saved[version]
        host.damaged.discard(header.id)
        host.saved[header.id] = Saved(work.run, pipeline.id, pipeline.plan_version, pipeline.name, header, ())

    def _finish(self, host: Host, start: Start, end: int | None) -> Event:
        """What a work gives, if there is room for it."""
        done = self.engines[start.run].run(start.work, end)
        made = [ref for each in done.made for _, ref in each.outputs]
        is_state = isinstance(start.work, InitWork | ApplyWork | LoadWork)
        if not self._has_room(host, Place(start.run, start.task.step), made, is_state):
            return Broke(start.call, Failed("full", "no room"))
        if isinstance(start.work, SaveWork):
            self._save(host, start.work)
        for ref in made:
            host.shelf.put(start.run, ref)
        host.made[start.call] = Counter((start.run, ref.id) for ref in made)
        host.shelf.untold += host.made[start.call]
        return Finished(start.call, done)

    def _has_room(self, host: Host, place: Place, refs: list[ShardRef], is_state: bool) -> bool:
        """Take room for all of these, or for none. What calls read stays where it is."""
        pinned = {ref.id for start in host.calls.values() for ref, _, _ in inputs_of(start.work)}
        new = [ref for ref in refs if ref.id not in host.shelf.sizes]
        for ref in refs:
            if not host.shelf.take(self.now, place, ref, is_state, pinned | {ref.id for ref in refs}):
                for taken in new:
                    host.shelf.drop(place.run, taken.id)
                return False
        return True

    def _tell_shed(self, host: Host, run: RunId, shard: ShardId) -> None:
        if host.bulk is not None:
            host.bulk.give_up(run, shard)
        self._post(host, Shed(run, shard))

    def _check(self, checker: Callable[[], Any]) -> None:
        try:
            checker()
        except AssertionError as error:
            raise self.violation(str(error)) from error


def _is_linked(one: Host, other: Host) -> bool:
    """Whether there is a connection: one of the two was told the other's address."""
    return other.id in one.dialled or one.id in other.dialled
