"""A world in one seed, as a discrete-event simulation: nodes, virtual time, a network, engines and faults.

Drives whole nodes exactly as a daemon does (turn by turn, actions performed in order) and knows what no node
can: every shard's provenance. Anything that a node must never do ends the world with a `Violation`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import count
from math import inf
from random import Random
from typing import Any

from ..events import (
    Action,
    Advanced,
    Broke,
    CancelRequested,
    Dial,
    Discard,
    DrainRequested,
    Drop,
    Event,
    Fetch,
    FindFiles,
    HangUp,
    Persist,
    Received,
    Reply,
    Report,
    ResumeRequested,
    RoomMade,
    Send,
    SendThrough,
    Shed,
    Start,
    Stop,
    StopRequested,
    Submitted,
    Tick,
    Trim,
    Unseal,
)
from ..names import NodeId, Part, Partition, RunId, ShardId, node_id, run_id
from ..pipeline.spec import Pipeline
from ..ranges import State
from ..shards.space import Priority
from ..wire.codec import type_name
from ..wire.frame import Frame, encode_frame
from ..wire.gossip import Relayed
from ..wire.listing import FileRef
from ..work import Failed, FailureKind, LoadWork, SaveWork, inputs_of
from .faults import At, Fault, Join, Moment, Trigger, When
from .faults.inject import inject
from .faults.traps import Trap, Traps
from .invariants import Violation, check_bytes, check_files, check_headers, check_work
from .machines import Machines, key_of
from .model.bulk import BulkLane
from .model.disk import Writes, without_disk
from .model.files import Search
from .model.host import Host, Process, Spawn, Watcher
from .model.network import Lanes, Network
from .model.provenance import Ledger
from .model.schedule import Life, Schedule
from .model.sealing import close, opened
from .model.slots import Site, Slots
from .model.store import Store
from .model.work import PURE, Engines
from .sealed import SealCheck, check_seals
from .trace import Trace, told_error

CHECKED_WHOLE = 8  # nodes: of so many and more the books are looked over at fewer events
START_AGAIN_S = 1.0
ENCODE_EVERY = 16  # frames; each of those passes through its bytes on the way
STORY_LINES = 60
CLIENT = node_id(b"a client's key")


class World:
    """`spawn` makes the machine that is driven. `seeds`: indices of the nodes that every node's configuration names.
    `slots`, `host_slots`, `roles`: of one node after the other, again from the first where nodes are more. `alike`:
    what comes out with equal bytes (provenance.py); for pure engines, as checkers tell executions apart by bytes."""

    def __init__(
        self,
        spawn: Spawn,
        *,
        nodes: int,
        seed: int = 0,
        seeds: tuple[int, ...] = (0,),
        slots: Sequence[int] = (1,),
        host_slots: Sequence[int] = (0,),
        roles: Sequence[tuple[str, ...]] = ((),),
        noise: frozenset[type] = PURE,
        classes: int = 1,
        alike: frozenset[str] = frozenset(),
        digest: bool = False,
        replay: str = "",
    ) -> None:
        self.seed = seed
        self.network = Network(Random(f"{seed}/network"))
        self.ledger = Ledger(alike)
        self.trace = Trace(digest)
        self.events = 0
        self.engines: dict[RunId, Engines] = {}
        self.reports: list[tuple[int, Report]] = []  # node, what it told people
        self.advanced: list[tuple[int, Advanced]] = []  # node, the versions that it came to hold
        self.struck: Counter[str] = Counter()  # faults that met a run at work; any, where none was submitted
        self.saved: dict[str, State] = {}  # versions of which a checkpoint was begun
        self._spawn, self._noise, self._classes = spawn, noise, classes
        self._replay = replay
        self.disturbed_until = 0.0  # by a fault, or by what came of one
        self._watch: Watcher | None = None
        self._schedule = Schedule()
        self._poison: dict[tuple[str, Part], FailureKind] = {}
        self._site = Site(self.engines, self._poison)
        self._traps, self._seals, self._requests = Traps(), SealCheck(), count(1)
        self.with_files: set[RunId] = set()  # whose works open some
        self.cancelled: set[RunId] = set()  # by a client, in time or not
        self._ended: set[RunId] = set()  # somewhere, as far as anybody was told
        self._inbox = Random(f"{seed}/inbox")
        self.machines = Machines(seed, slots, host_slots, roles, classes)
        self.hosts = self.machines.all
        clocks = Random(f"{seed}/clocks")
        for _ in range(nodes):
            self.machines.add(seeds, clocks)
        self._check_every = 1 + (nodes // CHECKED_WHOLE) ** 2
        for host in self.hosts:
            self.start(host)

    @staticmethod
    def id_of(index: int) -> NodeId:
        return node_id(key_of(index))

    @property
    def now(self) -> float:
        return self._schedule.now

    @property
    def runs(self) -> Collection[RunId]:
        return self.engines.keys()

    # What a scenario says ------------------------------------------------------------------------------------------

    def submit(self, node: int, pipeline: Pipeline, nonce: str = "0", files: tuple[FileRef, ...] = ()) -> RunId:
        """A client of `node` submits; nothing is promised until its reply is there. `files`: that its works open."""
        host = self.machines.served(node)
        run = run_id(pipeline.text_id, CLIENT, nonce)
        if run not in self.engines:
            work = Random(f"{self.seed}/work/{run}")
            self.engines[run] = Engines(self.ledger, pipeline, self._noise, work, self._classes)
        self.deliver(host, Submitted(next(self._requests), pipeline.canonical(), "/spec", CLIENT, nonce, files))
        if files:
            self.with_files.add(run)
        return run

    def cancel(self, node: int, run: RunId) -> None:
        self.cancelled.add(run)
        self.deliver(self.machines.served(node), CancelRequested(next(self._requests), run))

    def stop(self, node: int, run: RunId) -> None:
        self.deliver(self.machines.served(node), StopRequested(next(self._requests), run))

    def resume(self, node: int, run: RunId, from_start: bool = False) -> None:
        self.deliver(self.machines.served(node), ResumeRequested(next(self._requests), run, from_start))

    def drain(self, node: int, drained: bool) -> None:
        self.deliver(self.machines.served(node), DrainRequested(next(self._requests), drained))

    def watch(self, watch: Watcher) -> None:
        """From now on it is told of all that happens."""
        self._watch = watch

    def plan(self, moment: Moment, fault: Fault) -> None:
        match moment:
            case At(seconds):
                self.at(seconds, fault)
            case When():
                self.when(moment.trigger(), fault, told=moment)

    def at(self, time: float, fault: Fault) -> None:
        self.after(max(0.0, time - self.now), partial(inject, self, fault, None))

    def when(self, trigger: Trigger, fault: Fault, after_s: float = 0.0, told: When | None = None) -> None:
        """`after_s` 0: between the action that sets it off and the next one; else so long after it. `told`: how the
        story calls that action."""
        self._traps.set(Trap(trigger, fault, after_s, told))

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        self._schedule.after(seconds, then)

    def calm(self) -> None:
        """From here on nothing is lost, cut or paused; who is dead for good stays so."""
        self._traps.clear()
        self.network.heal()
        for host in self.hosts:
            host.mend()
            if host.paused:
                self.wake(host)

    def run(self, deadline_s: float, until: Callable[[], bool] | None = None) -> bool:
        """Live on until `until()` holds (asked before each event) or `deadline_s` has passed from now."""
        return self._schedule.run(deadline_s, until)

    def expect(self, deadline_s: float, until: Callable[[], bool], what: str, invariant: str = "scenario") -> None:
        if not self.run(deadline_s, until):
            raise self.violation(f"after {deadline_s:g} s still not so: {what}", invariant)

    def live(self) -> list[Host]:
        """Whose process is there, but for one that is silent: another is who it was."""
        return [host for host in self.hosts if host.process is not None and not host.is_silent]

    def violation(self, what: str, invariant: str) -> Violation:
        story = "\n".join(self.trace.story(STORY_LINES, self.machines.names()))
        return Violation(f"{story}\n{what}\nreplay: {self._replay or f'seed {self.seed}'}", invariant, self.now)

    # What a fault does -----------------------------------------------------------------------------------------------

    def note(self, fault: object) -> None:
        self.trace.add(self.now, "", "!", fault)
        self.disturbed_until = max(self.disturbed_until, self.now + (getattr(fault, "seconds", 0.0) or 0.0))
        node = getattr(fault, "node", None)
        is_up = node is None or isinstance(fault, Join) or self.hosts[node].process is not None
        if is_up and (not self.engines or self.engines.keys() - self._ended):
            self.struck[type_name(type(fault))] += 1

    def poison_work(self, stage: str, partition: int, kind: FailureKind) -> None:
        self._poison[stage, Partition(partition)] = kind

    def mend_works(self) -> None:
        self._poison.clear()

    # Lives -----------------------------------------------------------------------------------------------------------

    def add(self, seeds: tuple[int, ...]) -> Host:
        """A machine that was not there before; `start` turns it on."""
        return self.machines.add(seeds)

    def copy(self, host: Host) -> Host:
        """A machine that was not there before, with a copy of what lies on another one's disk, its key with it."""
        return self.machines.copy(host)

    def start(self, host: Host) -> None:
        """Turn it on; without a disk that takes its incarnation a daemon does not start, and is tried again."""
        if host.disk.is_full:
            self.after(START_AGAIN_S, lambda: self.start(host) if host.process is None else None)
            return
        machine = self._spawn(host.boot(self.seed, self.now))
        life = Life(self._schedule, self._inbox, partial(self.deliver, host))
        slots = Slots(host.slot_count, host.host_slot_count, life, self._site, host.store, host.disk, host.health)
        lanes = Lanes(host.place, life, self.network, self.machines.place)
        bulk = BulkLane(life, host.store, lanes, partial(self._serves, host), partial(self._grant, host))
        host.store.watch(partial(self._shed, host))
        writes, turn = Writes(life, host.disk), partial(self._turn, host)
        host.run(Process(machine, life, slots, bulk, Search(life), lanes, writes, turn))
        self._tell_life(host, f"starts, life {host.lives}")
        self.arm(host)

    def kill(self, host: Host) -> None:
        if self._watch is not None and host.process is not None:
            self._watch.dies(host)
        self._tell_life(host, "dies")
        if host.disk.unconfirmed is not None and Random(f"{self.seed}/{host.name}/{self.now}/write").random() < 0.5:
            self._tell_life(host, f"loses its write of {host.disk.unconfirmed[0]}")
            host.disk.undo_unconfirmed()
        host.lose_memory()

    def wake(self, host: Host) -> None:
        self._tell_life(host, "wakes")
        for event in host.wake():
            self.deliver(host, event)
        self.arm(host)

    def _tell_life(self, host: Host, what: str) -> None:
        self.trace.add(self.now, host.name, "!", what)
        self.disturbed_until = max(self.disturbed_until, self.now)

    # Events ----------------------------------------------------------------------------------------------------------

    def deliver(self, host: Host, event: Event) -> None:
        process = host.process
        if host.paused:
            host.backlog.append(event)
        elif process is not None:
            waits_s = process.lateness.wait(self.now, host.lag_s)
            if waits_s:
                process.life.after(waits_s, partial(self._handle_late, host, process, event, waits_s))
            else:
                process.post(event)

    def _handle_late(self, host: Host, process: Process, event: Event, waited_s: float) -> None:
        process.lateness.note(waited_s)
        if host.paused:
            host.backlog.append(event)
            return
        told = process.lateness.take(self.now)
        if told is not None:
            process.post(told)
        if host.process is process:
            process.post(event)

    def _turn(self, host: Host) -> None:
        """The node takes what its inbox has, acts, and its actions are performed."""
        process = host.process
        assert process is not None, "a loop ends with its process"
        cause, now, events = host.count_turn(), host.clock.read(self.now), list[Event]()
        try:
            while process.inbox and not process.machine.must_act:
                events.append(process.inbox.popleft())
                self._note(host, events[-1], cause)
                process.machine.take(now, events[-1])
            actions = process.machine.act(now)
            if cause % self._check_every == 0:
                process.machine.check()
        except Violation:  # of a promise that was broken before
            raise
        except Exception as error:
            raise self.violation(f"{host.name} raised {told_error(error)}", "no_error") from error
        host.story.take(cause, now, events, actions)
        if self._perform_all(host, process, actions, cause):
            self.arm(host)

    def _perform_all(self, host: Host, process: Process, actions: Sequence[Action], cause: int) -> bool:
        """Whether the process lives on: it may die between two actions."""
        now, is_kept = self.now, True
        for intended in actions:
            if host.process is not process:
                return False
            host.disk.confirm()  # the driver waits for a write before it goes on
            action = intended if is_kept else without_disk(intended)
            if action is None:
                continue
            self.trace.add(now, host.name, "->", action, cause)
            if isinstance(action, Persist):
                is_kept = process.write(action) and is_kept
            else:
                self._perform(host, process, action)
            if self._watch is not None:
                self._watch.saw(host, action)
            if self._traps.are_set:
                self._set_off(host, action)
            host.note_performed()
        host.disk.confirm()
        return True

    def _note(self, host: Host, event: Event, cause: int) -> None:
        """What the world keeps of an event that a node took."""
        self.events += 1
        host.heard(event)
        if self._watch is not None:
            self._watch.heard(host, event)
        self.trace.add(self.now, host.name, "<-", event, cause)

    def _set_off(self, host: Host, action: Action) -> None:
        """Does this action set off a fault?"""
        for trap in self._traps.sprung(host.index, host.performed, action):
            if trap.told is not None:
                self.trace.add(self.now, host.name, "!", trap.told)
            if trap.after_s:
                self.after(trap.after_s, partial(inject, self, trap.fault, host))
            else:
                inject(self, trap.fault, host)

    def arm(self, host: Host) -> None:
        """One alarm a node, at its deadline."""
        process, now = host.process, self.now
        deadline = inf if process is None or host.paused else process.machine.deadline
        if process is None or deadline == inf:
            return
        due = max(now, host.clock.when(deadline))
        if host.alarm.arm(due):
            process.life.after(due - now, partial(self._tick, host, due))

    def _tick(self, host: Host, due: float) -> None:
        if host.alarm.due != due or host.paused:
            return
        if not host.alarm.ring(self.now):
            raise self.violation(f"{host.name} sets its deadline to the past for ever", "time_passes")
        self.deliver(host, Tick())

    # Actions ---------------------------------------------------------------------------------------------------------

    def _perform(self, host: Host, process: Process, action: Action) -> None:
        match action:
            case Send():
                self._send(host, action.to, action.message)
            case Dial():
                process.lanes.watch(action)
            case Report():
                self.reports.append((host.index, action))
                self.ledger.learn(action)
                if action.name == "membership.silenced":
                    host.fall_silent()
                    self._tell_life(host, "falls silent")
                if action.name in ("run.ended", "run.resumed"):
                    (self._ended.add if action.name == "run.ended" else self._ended.discard)(action.fields["run"])
            case SendThrough(relay, to, _, message):
                self._check_frame(message)
                self._send(host, relay, Frame(None, (Relayed(host.id, to, 0, close(host.id, to, message)),)))
            case Unseal(origin, _, relay, sealed):
                frame = opened(origin, host.id, sealed)
                if frame is not None:
                    process.life.tell(Received(origin, frame, relay))
            case HangUp(node):
                process.bulk.hang_up(node)
            case Start():
                self._begin(host, process, action)
            case Stop(call):
                process.slots.stop(call)
            case Trim(call, end):
                process.slots.trim(call, end)
            case Fetch():
                process.bulk.fetch(action)
            case Drop(run, shards):
                for shard in shards:
                    process.bulk.give_up(run, shard)
                    if host.store.drop(run, shard):
                        process.life.tell(RoomMade())
            case FindFiles():
                process.search.find(action, host.files)
            case Discard(_, _, version):
                host.disk.discard(version)
            case Reply(request, ok, value):
                host.answer(request, ok, value)
            case Advanced():
                self.advanced.append((host.index, action))

    def _begin(self, host: Host, process: Process, start: Start) -> None:
        if host.is_drained and not isinstance(start.work, SaveWork | LoadWork):  # by which it hands over what it has
            raise self.violation(f"{host.name} is drained and starts {start.task}", "drained_rests")
        for ref, first, end in inputs_of(start.work):
            if not host.store.has(ref, first, end):
                if ref.id in host.store.shed:  # the node was not told yet
                    process.life.tell(Broke(start.call, Failed("lost", "shed", ref.id)))
                    return
                what = f"{host.name} starts {start.task} without having {ref.id[:8]} [{first}, {end})"
                raise self.violation(what, "inputs_here")
        self._check(partial(check_work, self.engines[start.run], start.work), "work_linked")
        if start.run in self.with_files:
            found = process.search.of(start.run)
            self._check(partial(check_files, self.engines[start.run], start.work, found), "files_here")
        if isinstance(start.work, SaveWork):
            self.saved[start.work.version] = start.work.state
        process.slots.begin(start)

    def _grant(self, host: Host, asked: Fetch) -> bool:
        """Whether there is room for what a fetch brings."""
        pinned: set[ShardId] = host.process.slots.pinned() if host.process else set()
        return host.store.take_all(self.now, Priority(asked.run, asked.step, asked.product), [asked.ref], pinned)

    def _shed(self, host: Host, run: RunId, shard: ShardId) -> None:
        """A shard gave way to an earlier priority."""
        if host.process is not None:
            host.process.bulk.give_up(run, shard)
            host.process.life.tell(Shed(run, shard))

    # Links -----------------------------------------------------------------------------------------------------------

    def _send(self, host: Host, to: NodeId, frame: Frame) -> None:
        receiver = self.machines.reached(host, to)
        self._check_frame(frame)
        if self.network.frames % ENCODE_EVERY == 0:
            self._check(partial(check_bytes, frame), "bytes_same")
        way = host.place, to if receiver is None else receiver.place
        delays = self.network.fates(self.now, *way, lambda: len(encode_frame(frame.delta, frame.messages)))
        if receiver is not None and host.is_linked(receiver):
            for delay in delays:
                self.after(delay, partial(self._arrive, host, receiver, frame))

    def _check_frame(self, frame: Frame) -> None:
        if self.engines:
            self._check(partial(check_seals, self._seals, self.engines, frame), "seal_true")
            self._check(partial(check_headers, self.engines, frame), "header_true")

    def _arrive(self, source: Host, receiver: Host, frame: Frame) -> None:
        if receiver.process is not None and not self.network.is_cut(source.place, receiver.place):
            receiver.process.lanes.note_frame(source.id, source.place)
            self.deliver(receiver, Received(source.id, frame))

    def _serves(self, asker: Host, holder: NodeId) -> Store | None:
        """The store of a holder that can be reached there and back."""
        host = self.machines.holder(asker, holder)
        if host is None or not host.answers or host.is_silent or host.health.is_mute:
            return None
        is_reached = self.network.opens(asker.place, host.place, "bulk") and asker.knows(holder)
        return host.store if is_reached else None

    def _check(self, checker: Callable[[], Any], invariant: str) -> None:
        try:
            checker()
        except AssertionError as error:
            raise self.violation(str(error), invariant) from error
