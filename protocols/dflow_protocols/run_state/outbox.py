"""The outbox: what a run tells the others of its own accord.

Puts are hints that spare waiting; the books of the step's replicas, asked for while a step waits, are what heals any
loss. Nothing here is a promise that a message arrives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..events import Action, Send
from ..names import NodeId, Partition, RecordId, ShardId, Slice, TaskKey
from ..steps.view import StepView
from ..wire.books import Holding
from ..wire.steps import BucketPut, ClaimPut, Held, OutputsPut, Record, RecordPut, RecordsHeld, Roster, Seal, SealPut
from . import status as runs
from .long_seals import RECORDS_A_MESSAGE, parted
from .run_state import MeshView, RunState

LEASE = 2.0  # suspicion times that a claim lives without renewal
FEW = 16  # members that one tells by itself: of more each passes on to as many, or the step's replicas tell for it


def is_few(mesh: MeshView | StepView) -> bool:
    """Whether each member tells all others of its versions, blocks and slices itself."""
    return len(mesh.living) <= FEW


class Outbox:
    """One run's at one node."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._copied: dict[int, list[RecordId]] = {}  # by step, what it is the second to hold, untold

    def tell(self, nodes: Iterable[NodeId], message: Any, out: list[Action]) -> None:
        """To each of these once, in this order, but not to itself."""
        out.extend(Send(node, message) for node in dict.fromkeys(nodes) if node != self._state.me)

    def tell_all(self, mesh: MeshView, message: Any, out: list[Action]) -> None:
        """To every living member; `None` is a frame with nothing but the own heartbeat."""
        self.tell(sorted(mesh.living), message, out)

    def tell_advance(self, view: StepView, mesh: MeshView, out: list[Action]) -> None:
        """The own newest version is another one. Where members are many the replicas of the step that begins there are
        told, who tell all when they get there: that is evidence enough, and each speaks to three."""
        is_for_all = is_few(mesh) or view.step.roster is None or self._state.me in view.replicas
        self.tell(sorted(mesh.living) if is_for_all else view.replicas, None, out)

    def tell_arrival(self, view: StepView, mesh: MeshView, out: list[Action]) -> None:
        """All on duty hold the version that the step begins with: where members are many only its replicas know."""
        if not is_few(mesh) and view.step.roster is not None and self._state.me in view.replicas:
            self.tell_all(mesh, None, out)

    def put_records(
        self,
        view: StepView,
        records: list[Record],
        out: list[Action],
        owners: Iterable[NodeId] = (),
        readers: Iterable[NodeId] = (),
        short: tuple[tuple[ShardId, bytes], ...] = (),
    ) -> None:
        """To the step's replicas, and to who is to be the second to hold what a partition made. `owners`: whom the work
        was stolen from; `readers`: who sums or applies what it made; `short`: bytes of that, which go along."""
        put, task, second = RecordPut(self._state.id, tuple(records)), records[0].task, tuple[NodeId, ...]()
        if isinstance(task.part, Partition):
            second = view.back_up_order(task, {self._state.me})[:1]
        if short:
            self.tell(second, OutputsPut(self._state.id, short), out)
        self.tell([*view.replicas, *second, *sorted(owners)], put, out)
        self.tell([node for node in readers if node in view.living and node not in view.replicas], put, out)
        self.tell_copied(view, out)

    def copied(self, view: StepView, records: list[Record]) -> None:
        """This node has the outputs of these, too. Nobody acts on that while partitions are being done, so it waits for
        the next word of the step."""
        self._copied = {step: names for step, names in self._copied.items() if step >= self._state.freed_before}
        self._copied.setdefault(view.step.number, []).extend(record.id for record in records)

    def tell_copied(self, view: StepView, out: list[Action]) -> None:
        """What it has, too, to the step's replicas: who lacks one of these asks for it."""
        names = self._copied.pop(view.step.number, ())
        if names:
            self.tell(view.replicas, RecordsHeld(self._state.id, view.step.number, "", tuple(names)), out)

    def tell_books(self, view: StepView, records: list[Record], out: list[Action]) -> None:
        """What these books have of a step, to all who keep none of it."""
        others = sorted(view.living.difference(view.replicas))
        held = [Held(record, self.holders_of(view.living, record)) for record in records]
        for at in range(0, len(held), RECORDS_A_MESSAGE):
            put = BucketPut(self._state.id, view.step.number, tuple(held[at : at + RECORDS_A_MESSAGE]), ())
            self.tell(others, put, out)

    def put_claims(self, view: StepView, out: list[Action], owners: Iterable[NodeId] = ()) -> None:
        """What this node has in hand, to whom it concerns. Nobody is told while there is no roster, nor after a long
        sleep before this node knows what became of all that it had claimed: then it says everything again. `owners`:
        whom something was taken from that is given back."""
        if view.step.roster is None or view.is_rejoining:
            return
        state, units = self._state, self._state.taken_on(view)
        view.step.claim(view.now, state.me, units, view.now + LEASE * view.suspicion_s)
        others = [*self._concerned(view, units), *state.loans.concerned(), *owners]
        self.tell(others, ClaimPut(state.id, view.step.number, units), out)

    def put_all_claims(self, views: Iterable[StepView], out: list[Action], owners: Iterable[NodeId] = ()) -> None:
        """The same of all open steps. Of one ahead only if there is, or was, something."""
        told = tuple(owners)
        for view in views:
            claims = self._state.taken_on(view) or view.step.claimed_by(view.now, self._state.me)
            if claims or not view.is_ahead:
                self.put_claims(view, out, told)

    def _concerned(self, view: StepView, units: Iterable[TaskKey]) -> list[NodeId]:
        """The step's replicas, and for a slice all trainers who know from the blocks that it is due, and would take it
        for an orphan before the replicas' books say whose it is. Where members are many few hear of blocks."""
        is_for_all = is_few(view) and any(isinstance(unit.part, Slice) for unit in units)
        trainers = [node for node in view.trainers if node in view.living] if is_for_all else []
        return [*view.replicas, *trainers]

    def put_seal(self, view: StepView, seal: Seal, out: list[Action]) -> None:
        """A seal that is to be settled, to the replicas that have not acknowledged it."""
        acked = view.step.acks[seal.id]
        records, last = parted(SealPut(self._state.id, seal, False, self.holdings(view.living, seal), None))
        for message in (*records, last):
            self.tell([node for node in view.replicas if node not in acked], message, out)

    def announce_seal(self, view: StepView, seal: Seal, roster: Roster | None, out: list[Action]) -> None:
        """A settled seal, to everybody alive: who is in the roster acts on it, who is not may follow."""
        rest = [node for node in view.succession if node != self._state.me]
        rest += sorted(view.living.difference(rest, [self._state.me]))
        self.pass_on(SealPut(self._state.id, seal, True, self.holdings(view.living, seal), roster, tuple(rest)), out)

    def pass_on(self, put: SealPut, out: list[Action]) -> None:
        """To `onward` by a tree: FEW are told, and each of them whom to tell in turn. Who is cut off by one that lost
        it asks a replica."""
        first, rest = put.onward[:FEW], put.onward[FEW:]
        records, last = parted(put)
        to_leaves = replace(last, onward=())
        for at, node in enumerate(first):
            theirs = rest[at::FEW]
            out.extend(Send(node, each) for each in records)
            out.append(Send(node, replace(last, onward=theirs) if theirs else to_leaves))

    def holdings(self, living: frozenset[NodeId], seal: Seal) -> tuple[Holding, ...]:
        """Who is known to hold what a seal names."""
        places: dict[tuple[NodeId, ...], list[int]] = {}
        for place, shard in enumerate(seal.shards):
            places.setdefault(self._state.holdings.live_holders(shard, living), []).append(place)
        return tuple(Holding(tuple(each), nodes) for nodes, each in places.items() if nodes)

    def holders_of(self, living: frozenset[NodeId], record: Record) -> tuple[NodeId, ...]:
        """Living nodes that are known to hold all that the record names; none of one that names nothing."""
        each = [set(self._state.holdings.live_holders(ref.id, living)) for ref in record.shards]
        return tuple(sorted(set.intersection(*each))) if each else ()

    def end(self, state: runs.Lifecycle, outcome: dict[str, Any], mesh: MeshView, out: list[Action]) -> None:
        """Move the run's status up, and tell everybody."""
        run = self._state
        run.end(state, outcome)
        out.append(run.end_report({"state": run.status.state, **runs.outcome(run.status)}))
        out.append(run.persist())
        self.tell_all(mesh, run.status, out)
