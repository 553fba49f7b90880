"""The node: membership and runs wired as one machine, pure as they are.

The daemon drives it over sockets, the simulator over pretended ones; both drive this wiring, turn by turn: they `take`
all events that are there, then have it `act` once. What happens to a message: the sender's heartbeats first (they may
name runs or versions unknown here), then the message, to the machine that owns it. When all are taken every run looks
at its books again, and all that is due to one peer leaves in one frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .clock import NodeClock
from .events import (
    Action,
    Began,
    Broke,
    CancelRequested,
    DrainRequested,
    Event,
    FetchAdvanced,
    Fetched,
    FetchFailed,
    FilesFound,
    Finished,
    HangUp,
    Lagged,
    LaneFailed,
    LaneOpened,
    Leaving,
    NotPersisted,
    Persist,
    Persisted,
    Reached,
    Received,
    Reply,
    Restored,
    ResumeRequested,
    Rng,
    RoomMade,
    Send,
    Shed,
    SlotsChanged,
    Start,
    StopRequested,
    Submitted,
    Tick,
)
from .membership.bootstrap import Seed
from .membership.machine import Membership
from .membership.table import DRAINED, Changed
from .membership.timing import Timing, answer_s
from .names import NodeId, RunId
from .run_state import status as runs
from .run_state.calls import FreeSlots
from .run_state.heartbeats import Heartbeats
from .run_state.run_state import MeshView
from .runs.anti_entropy import REFRESH
from .runs.framing import framed, pass_on
from .runs.mesh import Mesh
from .runs.registry import Registry
from .runs.run import Run
from .runs.silence import decline, give_up
from .versions.saved import Saved
from .wire.frame import Frame
from .wire.gossip import GossipMessage, Meta, Relayed
from .wire.heartbeat import Delta
from .wire.steps import RunAck, RunGet, RunPut, RunStates, StealAsk, StepMessage

SAVED_TOLD = 64  # ended runs whose checkpoints one greeting tells of
MAX_CALLS = 4_096  # given up, and perhaps not yet known to the slot to be so


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is in this life. `incarnation`: higher than in every earlier one."""

    id: NodeId
    incarnation: int
    meta: Meta


class Node:
    """See the module. `deadline`: when a `Tick` is next due. `must_act`: whether a turn ends here, since something that
    was taken is to be written: what relies on that must be told from what comes of the next event."""

    def __init__(
        self,
        identity: Identity,
        timing: Timing,
        rng: Rng,
        seeds: Sequence[Seed],
        cached_peers: Sequence[Seed],
        restored: Sequence[Restored],
        now: float,
        steals: bool = True,
        saved: Sequence[Saved] = (),
        unread: Sequence[tuple[RunId, str]] = (),
        host_slots: int = 0,
        drained: bool = False,
    ) -> None:
        """`restored`: all `runs/...` that were persisted. `steals`: whether this node takes work of
        others; without it a mesh shows what stealing is worth. `saved`: the checkpoints on this node's disk; `unread`:
        those that cannot be read, in words. `host_slots`: slots for works on shards alone, beside those that others
        are told of; 0: they take the same. `drained`: something is kept under DRAINED."""
        self.me = identity.id
        self.slots, self._host_slots = max(1, identity.meta.slots), host_slots
        self._usable, self._unable = self.slots, ""  # slots that take work now; why none does
        self.timing = timing
        self.membership = Membership(
            identity.id, identity.incarnation, identity.meta, timing, rng, seeds, cached_peers, now, drained
        )
        self._views = Mesh(self.membership, identity.meta, self.slots)
        self._registry = Registry(identity.id, restored, saved, unread, now, rng if steals else None)
        self.runs = self._registry.runs
        self._heartbeats, self._opened = Heartbeats(), self._registry.opened
        self.has_left = self.must_act = self._leaving = False
        self._due: list[Action] = []  # of what was taken in this turn
        self._reconciled = self._registry.revision.number  # up to where
        self._clock = NodeClock()
        self._started: dict[int, RunId] = {}  # whose each call is that was not answered yet
        self._refresh_at = self._reminded_at = now
        self._awaited = frozenset(seed.node for seed in cached_peers) - {self.me}  # who was there in the last life
        self._await_until = now + timing.resume_wait_s

    @property
    def deadline(self) -> float:
        due = self.membership.deadline
        if self.runs and self.membership.silenced_by is None:
            due = min(due, self._refresh_at, self._registry.revision.due)
        return self._clock.outside(due)

    @property
    def may_rest(self) -> bool:
        """Whether no step waits for this node: partitions of the only run wait behind what its slots are at, so neither
        do these run dry at once, nor is the step's manifest due. Thieves and clients may wait for an answer. Who is
        alone hears too little for a rest to be worth it."""
        active = [run for run in self.runs.values() if run.is_active]
        return len(active) == 1 and active[0].calls.has_waiting and len(self._views.living()) > 1

    def handle(self, now: float, event: Event) -> list[Action]:
        """A turn with one event."""
        self.take(now, event)
        return self.act(now)

    def take(self, now: float, event: Event) -> None:
        """Take one event; what it changes is looked at again in every run when the node acts. Never raises for what a
        peer said. All machines live in the node's own time, which stands still while the process sleeps."""
        if self.membership.silenced_by is not None:
            self.has_left |= isinstance(event, Leaving)
            self._due += decline(event)
            return
        known = len(self._due)
        now, slept_s = self._clock.read(now, self.deadline, self.timing.probe_timeout_s)
        actions: list[Action | Changed] = [*self._registry.unreadable]
        self._registry.unreadable.clear()
        if slept_s:
            actions += self.membership.slept(now, slept_s)
        was_apart, routes = self.membership.is_rejoining, self.membership.routes
        self._gather(now)
        self._take(now, event, actions)
        if self.membership.silenced_by is not None:
            self._due += [action for action in actions if not isinstance(action, Changed)]
            self._due += give_up(self.runs.values())
        else:
            self._note_routes(routes, actions)
            is_back = was_apart and not self.membership.is_rejoining
            if actions or is_back:
                self._due += self._route(now, actions, is_back)
        self.must_act = self.must_act or any(isinstance(action, Persist) for action in self._due[known:])

    def act(self, now: float) -> list[Action]:
        """What is to be done about all that was taken since, and what is due now that it was: the actions of a turn, in
        the order in which they must be performed."""
        now -= self._clock.slept_s
        actions, self._due, self.must_act = self._due, [], False
        before, self._reconciled = self._reconciled, self._registry.revision.number
        is_apart = self.has_left or self.membership.is_rejoining or self.membership.silenced_by is not None
        if before != self._reconciled and not is_apart:
            actions += self._reconcile(now)
            self._reconciled = self._registry.revision.number
        return self._framed(now, actions)

    def withdrawn(self, member: NodeId) -> list[dict[str, str]]:
        """The stages of active runs that a member leaves to others now: `{run, stage, error}` each."""
        return [
            {"run": run.id, "stage": stage, "error": error}
            for run in self.runs.values()
            if run.is_active
            for stage, error in run.state.ability.withdrawn_at(member, self.me).items()
        ]

    def unfinished(self, now: float) -> dict[str, int]:
        """What runs here (`tasks`), and what would be lost with this node (`shards`, `nbytes`): of a node that is
        drained, until others have it."""
        mesh = self._mesh(now)
        alone = [ref for run in self.runs.values() if run.is_active for ref in run.leaving.held_alone(mesh)]
        tasks = sum(len(run.state.calls) for run in self.runs.values())
        return {"tasks": tasks, "shards": len(alone), "nbytes": sum(ref.nbytes for ref in alone)}

    def silent_s(self, now: float, member: NodeId) -> float | None:
        """How long ago a member last said anything to this node; None if it never did."""
        known = self.membership.members.get(member)
        if known is None or known.heard < 0.0:
            return None
        return 0.0 if member == self.me else max(0.0, now - self._clock.outside(known.heard))

    def check(self) -> None:
        """Assert what must hold after every event."""
        self.membership.check()
        for run in self.runs.values():
            run.check()

    def _take(self, now: float, event: Event, actions: list[Action | Changed]) -> None:
        match event:
            case Received(source, message, relay):
                self._receive(now, source, message, actions, relay)
            case Tick():
                self._tick(now, actions)
            case Lagged():
                actions += self.membership.handle(now, event)
            case LaneOpened() | LaneFailed():  # whether a member can be reached decides what it is dealt
                self._registry.revision.bump()
                actions += self.membership.handle(now, event)
            case Submitted():
                actions += self._registry.submit(now, self._mesh(now), event)
            case CancelRequested():
                actions += self._registry.cancel(self._mesh(now), event)
            case StopRequested():
                actions += self._registry.stop(self._mesh(now), event)
            case ResumeRequested():
                actions += self._registry.resume(now, self._mesh(now), event)
            case DrainRequested():
                self._drain(now, event, actions)
            case Finished(call, done):
                if (run := self._end_call(call)) is not None:
                    actions += run.finished(now, self._mesh(now), call, done)
            case Broke(call, failed):
                if (run := self._end_call(call)) is not None:
                    actions += run.broke(now, self._mesh(now), call, failed)
            case Began(call):
                if (run := self._run_of(call)) is not None:
                    run.calls.began(call)
            case Reached(call, leaf):
                if (run := self._run_of(call)) is not None:
                    run.calls.reached(now, call, leaf)
            case Fetched() | FetchFailed() | FetchAdvanced():
                if event.run in self.runs:
                    actions += self.runs[event.run].fetch_moved(now, self.membership.suspicion_s(), event)
            case Shed(name, shard):
                if name in self.runs:
                    self.runs[name].shed(now, shard)
            case RoomMade():
                for run in self.runs.values():
                    run.room_made()
            case FilesFound():
                if event.run in self.runs:
                    actions += self.runs[event.run].files_found(now, self._mesh(now), event)
            case SlotsChanged():
                self._count_slots(now, event, actions)
            case NotPersisted(key, is_given_up):
                actions += self._registry.not_persisted(key, is_given_up)
            case Persisted(key):
                actions += self._registry.persisted(self.membership.alive(), key)
            case Leaving():
                self._leave(now, actions)

    # The mesh -------------------------------------------------------------------------------------------------------

    def _gather(self, now: float) -> None:
        """Note whether all are back who were here in the last life, or were waited for long enough."""
        if self._awaited and (self._awaited <= self._views.living() or now >= self._await_until):
            self._awaited = frozenset()

    def _mesh(self, now: float) -> MeshView:
        return self._views.view(
            now,
            is_gathered=not self._awaited,
            is_shared=sum(run.is_active for run in self.runs.values()) > 1,
            unable=self._unable,
        )

    def _note_routes(self, before: Mapping[NodeId, NodeId], actions: list[Action | Changed]) -> None:
        """If whom this node can talk to has changed, nothing more is awaited of those whom it cannot."""
        routes = self.membership.routes
        if routes is not before:
            self._registry.revision.bump()
            actions += [HangUp(node) for node in routes if node not in before]

    def _route(self, now: float, actions: Sequence[Action | Changed], is_back: bool) -> list[Action]:
        """Membership's news to the runs; the rest goes on. `is_back`: this node acts again after a long sleep."""
        settled: list[Action] = []
        changed = is_back
        for action in actions:
            if not isinstance(action, Changed):
                settled.append(action)
                continue
            changed = True
            if self.runs and action.node != self.me and action.new == "alive" and action.old in (None, "dead", "left"):
                settled += self._greet(now, action.node)
            if action.new in ("dead", "left") or action.restarted:
                self._heartbeats.forget(action.node)
                for run in self.runs.values():
                    run.forget(action.node)
        if changed:
            self._gather(now)
            self._registry.revision.bump()
            settled += self._say_again(now, at_once=True)
        return settled

    def _say_again(self, now: float, at_once: bool = False) -> list[Action]:
        """What others may not have heard of the runs. Nothing while this node finds its way back: all that it knows is
        old, and it says all of it at once when it is back."""
        if self.membership.is_rejoining or not self.runs:
            return []
        mesh = self._mesh(now)
        return [action for run in self.runs.values() for action in run.refresh(now, mesh, at_once)]

    def _greet(self, now: float, node: NodeId) -> list[Action]:
        """Tell a member that is new, or was away, how runs ended, as they ride on no frame; and of some of them, of
        others the next time, which checkpoints lie here: it may have older ones, which can go."""
        if not self.runs:
            return []
        ended = [run for run in self.runs.values() if not run.is_active]
        states = tuple((run.id, run.status.state, runs.outcome_id(run.status)) for run in ended)
        out: list[Action] = [Send(node, RunStates(states))] if states else []
        saved = [run for run in ended if run.checkpoints.mine]
        first = int(now / self.timing.sync_interval_s) * SAVED_TOLD % len(saved) if saved else 0
        for run in (saved[first:] + saved[:first])[:SAVED_TOLD]:
            run.checkpoints.tell([node], out)
        return out

    def _reconcile(self, now: float) -> list[Action]:
        """Every run, the one that has waited longest for a slot first."""
        out: list[Action] = []
        if not self.runs and not self._leaving:
            return out
        mesh = self._mesh(now)
        for run in sorted(self.runs.values(), key=lambda run: (run.state.last_started, run.id)):
            out += run.reconcile(now, mesh, self._free(run, mesh))
        for run in [run for run in self.runs.values() if run.stealing.is_in_want]:
            free = self._free(run, mesh)
            if free.device > 0 or free.seats > 0:
                run.seek(now, mesh, free.device > 0, out)
        if self._leaving and not self.has_left and all(run.leaving.is_done(mesh) for run in self.runs.values()):
            self.has_left = True
            out += [action for action in self.membership.leave(now) if not isinstance(action, Changed)]
        return out

    def _free(self, run: Run, mesh: MeshView) -> FreeSlots:
        """As this run finds them. Where runs share the slots none adds to what it has in one: each would hold its own
        for as long as it has partitions."""
        own, *others = [
            [call.work for call in each.state.calls.values()]
            for each in (run, *(other for other in self.runs.values() if other is not run))
        ]
        return FreeSlots.beside(self._usable, self._host_slots, own, others, seats=not mesh.is_shared)

    def _count_slots(self, now: float, event: SlotsChanged, actions: list[Action | Changed]) -> None:
        """With one less the node runs less at once, and idle members take from it; with none it stands aside. What it
        announced of itself, by which work is dealt, stays for its life."""
        self._usable, self._unable = event.usable, event.why if event.usable <= 0 else ""
        self._registry.revision.bump()
        if self._unable:
            mesh = self._mesh(now)
            for run in self.runs.values():
                actions += run.stand_aside(now, mesh)

    def _remind(self, now: float) -> list[Action]:
        """Tell one living member after another how runs ended, in case a greeting was lost; those too that cannot be
        dialled, and so were not told when it happened."""
        self._reminded_at = now
        others = [node for node in self.membership.alive() if node != self.me]
        return self._greet(now, others[int(now / self.timing.sync_interval_s) % len(others)]) if others else []

    def _tick(self, now: float, actions: list[Action | Changed]) -> None:
        if now >= self.membership.deadline:
            living = self._views.living()
            actions += self.membership.handle(now, Tick())
            if self._views.living() is not living:  # who was found to be out of reach is no change of the members
                self._registry.revision.bump()
        self._registry.revision.tick(now)
        if now >= self._refresh_at:
            self._registry.revision.bump()
            self._refresh_at = now + REFRESH * answer_s(self.membership.suspicion_s()) / 2
            actions += self._say_again(now)
            actions += self._registry.put_again(self._views.living())
            if self.runs:
                actions += self._registry.share_room(now, self._mesh(now))
            actions += self._registry.sweep(now)
            if now - self._reminded_at >= self.timing.sync_interval_s:
                actions += self._remind(now)

    def _framed(self, now: float, actions: list[Action]) -> list[Action]:
        """One frame a member, with what it may lack of where this node stands in the active runs; other actions keep
        their order."""
        if self.runs:
            self._note_calls(actions)
        if any(isinstance(action, Send) for action in actions):
            self._publish(now)
        return framed(actions, self.membership, self._heartbeats.delta)

    def _publish(self, now: float) -> None:
        """A run that was opened since, perhaps anew, knows nothing of what others said before."""
        if self._opened != self._registry.opened:
            self._opened = self._registry.opened
            self._heartbeats.acknowledge_nothing()
        active = [run for run in self.runs.values() if run.is_active]
        mesh = self._mesh(now) if active else None
        said = [run.heartbeat(now, mesh) for run in active if mesh is not None]
        self._heartbeats.publish(self.membership.incarnation, said)

    def _run_of(self, call: int) -> Run | None:
        """Whose call it is, if the run is still known."""
        return self.runs.get(self._started.get(call, RunId("")))

    def _end_call(self, call: int) -> Run | None:
        """Forget a call, of which nothing more will be said. Whose it was, if the run is still known."""
        return self.runs.get(self._started.pop(call, RunId("")))

    def _note_calls(self, actions: list[Action]) -> None:
        """Remember whose calls are; of those that were given up, and so may never be answered, only the latest."""
        self._started.update({action.call: action.run for action in actions if isinstance(action, Start)})
        while len(self._started) > MAX_CALLS:
            del self._started[next(iter(self._started))]

    # Messages -------------------------------------------------------------------------------------------------------

    def _receive(
        self, now: float, source: NodeId, message: Any, actions: list[Action | Changed], relay: NodeId | None = None
    ) -> None:
        if isinstance(message, Frame):
            if message.delta is not None and source != self.me:
                self._observe(now, source, message.delta, actions)
            for each in message.messages:
                self._receive(now, source, each, actions, relay)
            if source != self.me:  # else it is another process with this node's key, as membership finds
                incarnation = message.delta.mark.incarnation if message.delta is not None else None
                actions += self.membership.observe(now, source, incarnation, relay is None)
        elif isinstance(message, GossipMessage):
            actions += self.membership.handle(now, Received(source, message, relay))
        elif source == self.me or (self.membership.is_rejoining and isinstance(message, StealAsk)):
            return  # what was its to give when it fell asleep may be done long since: who is in want asks again
        elif isinstance(message, Relayed) and relay is None:
            actions += pass_on(self.membership, self.me, source, message)
        elif isinstance(message, RunPut):
            actions += self._registry.take(now, self._mesh(now), source, message)
        elif isinstance(message, RunGet):
            actions += self._registry.tell(now, source, message.run)
        elif isinstance(message, RunStates):
            actions += self._registry.compare(source, message)
        elif isinstance(message, RunAck):
            actions += self._registry.acknowledged(self._mesh(now).living, source, message)
        elif isinstance(message, StepMessage):
            actions += self._registry.deliver(now, self._mesh(now), source, message)

    def _observe(self, now: float, source: NodeId, delta: Delta, actions: list[Action | Changed]) -> None:
        """Where a member stands in its runs. Nothing of an unknown run, or of another attempt, is stored before both
        know the same of it: then the member says it again."""
        is_taken = True
        for heartbeat in self._heartbeats.take(source, delta):
            run = self.runs.get(heartbeat.run)
            if run is None or (run.is_active and runs.is_later(heartbeat.attempt, run.status.attempt)):
                is_taken = False
                actions += self._registry.ask(now, self._mesh(now), source, heartbeat.run)
            elif not run.is_active or runs.is_later(run.status.attempt, heartbeat.attempt):
                is_taken = False
                if self._registry.is_due_again(now, self._mesh(now), heartbeat.run, source):
                    actions += self._registry.tell(now, source, heartbeat.run)
            else:
                is_taken &= run.observe(source, heartbeat, self.membership.alive())
        if is_taken:
            self._heartbeats.taken(source, delta)

    # Leaving, draining ----------------------------------------------------------------------------------------------

    def _leave(self, now: float, actions: list[Action | Changed]) -> None:
        """Start nothing more, give up what runs, and ask another member to keep what only this one has. To all others
        it is drained from now on, which is kept on no disk."""
        self._leaving = True
        drained = self.membership.drained()
        actions += self.membership.drain(now, True)
        mesh = self._mesh(now)
        for run in self.runs.values():
            actions += run.leave(now, mesh, drained)

    def _drain(self, now: float, event: DrainRequested, actions: list[Action | Changed]) -> None:
        """Take no new work, or some again. It is kept on disk: a host may be started more than once while it is
        mended."""
        actions += self.membership.drain(now, event.drained or self._leaving)
        self._registry.revision.bump()
        actions += self._say_again(now, at_once=True)
        what = "drained" if event.drained else "takes work"
        unkept = {"what": f"it {what}, but only until it is restarted: its state directory takes nothing"}
        unkept["hint"] = "free some of that disk; `dflow doctor` says more"
        actions.append(Persist(DRAINED, b"\xc3" if event.drained else b""))
        actions.append(Reply(event.request, True, {"node": self.me, "drained": event.drained}, unkept))
