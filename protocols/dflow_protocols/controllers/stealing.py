"""Stealing: an idle slot asks one of two members with a backlog, the richer, and gets half of what waits there.

Both sides of it. The thief asks when nothing is due here; its request has a number, is repeated until it is answered,
and a repeat gets the same grant. The victim gives the later half of its untouched units of the most urgent kind:
partitions that wait, also in the slot's queue, and leaves that no engine has begun, also of a running block. Of unequal
hosts the faster one ends with more, and none gets what it would not finish well before the victim. A refusal says truly
what waits, and for how long to ask elsewhere. No timer lies on the way: backlogs ride on frames, and who became idle
asks at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil, log2
from operator import attrgetter

from ..events import Action, Rng, Send
from ..names import Block, NodeId, Partition, TaskKey, VersionId
from ..pipeline.plan import Chain
from ..run_state.calls import Calls
from ..run_state.outbox import Outbox, is_few
from ..run_state.run_state import MeshView, RunState
from ..steps.batch import Batch
from ..steps.duties import known_backlog
from ..steps.duty import AHEAD, AHEAD_REST, BLOCK, CHAIN, CHAIN_REST, EVALUATE, Duty, order_of
from ..steps.reduction import aligned_blocks
from ..steps.view import StepView
from ..wire.heartbeat import Heartbeat
from ..wire.steps import StealAsk, StealGrant, StealRefuse, Stolen
from ..work import BlockWork, ChainWork

GRANT_LEASE = 1.0  # suspicion times that a grant waits for the thief's first claim; a fetch of inputs lies between
REPEAT_AFTER = 0.25  # answer times without an answer
REPEATS = 2
LEAVE_ALONE = 0.5  # answer times that one who refused is not asked again
STEAL_COST_S = 0.03  # two messages, a start elsewhere, perhaps a fetch
WORTH = 0.75  # of the time that the victim alone would take: the thief has to be done by then, or it is not worth it
STEALABLE = (BLOCK, CHAIN, CHAIN_REST, EVALUATE, AHEAD, AHEAD_REST)


@dataclass(frozen=True, slots=True)
class Open:
    """What there is to do from the version that this node works from."""

    step: int
    version: VersionId
    chains: tuple[Chain, ...]
    batch: Batch | None


@dataclass(slots=True)
class Asked:
    """A request that was not answered yet."""

    victim: NodeId
    message: StealAsk
    at: float
    repeats: int = 0

    def again(self, now: float) -> None:
        """It is sent once more."""
        self.at, self.repeats = now, self.repeats + 1


class Stealing:
    """One run's at one node. `rng`: chance decides whom to ask; without it nothing is stolen from here."""

    def __init__(self, state: RunState, calls: Calls, outbox: Outbox, rng: Rng | None) -> None:
        self._state = state
        self._calls = calls
        self._outbox = outbox
        self.open: Open | None = None
        self.must_claim = False  # what was borrowed has to be claimed before its lease ends
        self._rng = rng
        self._untouched: list[Duty] = []
        self._last: dict[NodeId, tuple[VersionId, int]] = {}  # which version each other works from, and its backlog
        self._told: dict[NodeId, int] = {}  # backlogs of others in this phase, by their own word
        self._left_alone: dict[NodeId, float] = {}
        self._answers: dict[NodeId, StealGrant] = {}
        self._asked: Asked | None = None
        self._tries = 0
        self._tries_until = 0.0

    # What this node has ---------------------------------------------------------------------------------------------

    def enter(self, opened: Open) -> None:
        """The step as this look finds it. Loans of the one before are over; with a new phase all may be rich again, and
        who said before this node got there that it is said so once."""
        before, self.open = self.open, opened
        is_new = before is None or before.version != opened.version
        if before is None or _phase(before) != _phase(opened):
            said = {node: count for node, (at, count) in self._last.items() if at == opened.version}
            self._told = {node: count for node, count in said.items() if count or is_new}
            self._left_alone.clear()
            self._tries = 0
        if is_new:
            self._state.loans.end_step(opened.step if before is None else before.step)
            self._answers.clear()
            self._asked = None

    def close(self) -> None:
        """This node gave the run up: no step is open to it, also where it comes back to the same version."""
        self.open, self._asked, self._untouched = None, None, []

    def settle(self, duties: Sequence[Duty]) -> None:
        """After a reconcile: what is due here (in its order) and has not begun, and which borrowed units still
        matter."""
        self._untouched = [duty for duty in duties if duty.rank in STEALABLE]
        for call in self._state.calls.values():
            at = bisect_left(self._untouched, order_of(call.rank, call.unit), key=attrgetter("order"))
            if at < len(self._untouched) and self._untouched[at].unit == call.unit:
                del self._untouched[at]
        if not self._state.loans.borrowed:
            return
        kept_back = self._state.step(self.open.step).kept_back if self.open is not None else ()
        borne = [duty.unit for duty in self._untouched if self._calls.may_begin(duty.work)]  # the rest is its home's
        running = [call.unit for call in self._state.calls.values()]
        self._state.loans.keep_only([*running, *borne, *kept_back])

    def claimed(self) -> None:
        """What was borrowed has been claimed."""
        self.must_claim = False

    def backlog(self) -> int:
        """How many units wait here that others could have."""
        in_blocks = sum(max(1, len(duty.unit.leaves)) for duty in takewhile(_is_block, self._untouched))
        others = len(self._untouched) - bisect_left(self._untouched, BLOCK + 1, key=attrgetter("rank"))
        return in_blocks + others + len(self._begun_spare())

    def give_back(self, but: Collection[TaskKey] = ()) -> list[NodeId]:
        """This node looks for nothing more, and what it took is its owners' again, `but` what lies in these units. Who
        is to hear so."""
        self._untouched, self._asked = [], None
        return self._state.loans.give_back(but)

    def _view(self, now: float, mesh: MeshView) -> StepView | None:
        """The open step as it is now, if this node still works from its version."""
        position = self._state.position
        if self.open is None or position is None or position.id != self.open.version:
            return None
        return self._state.view(now, mesh, position)

    def _spare(self) -> list[tuple[int, TaskKey]]:
        """(rank, unit) of all partitions and leaves that are due here and that no engine has begun."""
        return [(duty.rank, unit) for duty in self._untouched for unit in duty.unit.singles] + self._begun_spare()

    def _begun_spare(self) -> list[tuple[int, TaskKey]]:
        """Of these, those that slots were given."""
        found: list[tuple[int, TaskKey]] = []
        position = self._state.position
        for call in self._state.calls.values():
            if self.open is None or position is None or position.id != self.open.version:
                continue
            if not self._state.is_of(call, position):
                continue
            if isinstance(call.work, BlockWork):
                found += [(BLOCK, unit) for unit in call.unit.singles if unit.leaves[0] > call.reached]
            elif isinstance(call.work, ChainWork) and call.waits:
                found.append((call.rank, call.unit))
        return found

    # The thief ------------------------------------------------------------------------------------------------------

    def observe(self, node: NodeId, heartbeat: Heartbeat) -> bool:
        """A member's frame says what waits there. True if this node has been looking for that."""
        if heartbeat.own is None:
            self._last.pop(node, None)
            return False
        self._last[node] = heartbeat.own.version, heartbeat.backlog
        if self.open is None or heartbeat.own.version != self.open.version:
            return False
        before, self._told[node] = self._told.get(node, 0), heartbeat.backlog
        return heartbeat.backlog > before and not self._untouched and self._asked is None

    @property
    def is_in_want(self) -> bool:
        """Whether all that is due here has begun, and nothing waits behind it: only then this node looks for more."""
        return self.open is not None and not self._untouched and not self._is_crowded()

    def seek(self, now: float, mesh: MeshView, is_idle: bool, out: list[Action]) -> None:
        """A slot is idle, or has seats for partitions beside those that it works on: if nothing is due here, ask for
        somebody else's. A leaf finds no seat."""
        if self._rng is None or self.open is None or not self.is_in_want:
            return
        if not is_idle and self.open.batch is not None:
            return
        may_work = self._state.me in mesh.on_duty and not self._state.ability.missing
        if not self._state.is_active or self._state.is_leaving or not may_work:
            return
        if self._asked is not None:
            self._ask_again(now, mesh, out)
            return
        if now >= self._tries_until:
            self._tries, self._tries_until = 0, now + LEAVE_ALONE * mesh.answer_s
        if self._tries > log2(len(mesh.living)):
            return
        rich = self._rich(now, mesh)
        if rich:
            pair = self._rng.sample(rich, min(2, len(rich)))
            _, victim = max(pair)
            version, manifest = _phase(self.open)
            pace = tuple(sorted(self._calls.pace.items()))
            message = StealAsk(self._state.id, self._rng.randrange(1 << 53), version, pace, manifest)
            self._asked = Asked(victim, message, now)
            self._tries += 1
            out.append(Send(victim, message))

    def _is_crowded(self) -> bool:
        return any(call.waits for call in self._state.calls.values())

    def _ask_again(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        asked = self._asked
        assert asked is not None
        if now - asked.at <= REPEAT_AFTER * mesh.answer_s:
            return
        if asked.repeats == REPEATS or asked.victim not in mesh.living:
            self._left_alone[asked.victim] = now + LEAVE_ALONE * mesh.answer_s
            self._asked = None
            return
        asked.again(now)
        out.append(Send(asked.victim, asked.message))

    def _rich(self, now: float, mesh: MeshView) -> list[tuple[int, NodeId]]:
        """(backlog, member) of those that may have something: by their own word, else by this node's books, if these
        can tell: where members are many, who keeps none for others has to ask first."""
        assert self.open is not None
        view, by_books = self._view(now, mesh), Counter[NodeId]()
        if view is not None and (is_few(mesh) or view.me in view.replicas or view.step.was_polled):
            by_books = known_backlog(view, self.open.chains, self.open.batch)
        backlogs = {**by_books, **self._told}
        return sorted(
            (count, node)
            for node, count in backlogs.items()
            if count > 0 and node != self._state.me and node in mesh.living and self._left_alone.get(node, now) <= now
        )

    def take_grant(self, source: NodeId, grant: StealGrant, stolen: Iterable[Stolen]) -> None:
        """`stolen`: those units of the grant that the step has."""
        asked = self._asked
        if asked is None or (asked.victim, asked.message.request) != (source, grant.request):
            return  # too late: the lease ends by itself
        self._asked = None
        if self.open is not None and self.open.version == grant.version:
            self._state.loans.borrow(source, stolen)
            self._tries = 0
            self.must_claim = True

    def take_refusal(self, now: float, mesh: MeshView, source: NodeId, refusal: StealRefuse) -> None:
        asked = self._asked
        if asked is None or (asked.victim, asked.message.request) != (source, refusal.request):
            return
        self._asked = None
        wait_s = min(max(refusal.wait_s, 0.0), 4 * mesh.suspicion_s)
        self._left_alone[source] = now + wait_s
        self._told[source] = refusal.backlog

    # The victim -----------------------------------------------------------------------------------------------------

    def answer(self, now: float, mesh: MeshView, source: NodeId, ask: StealAsk, out: list[Action]) -> None:
        last = self._answers.get(source)
        if last is not None and last.request == ask.request:
            units = self._state.loans.still_lent(source, last.units)
        else:
            units = self._give(now, mesh, source, ask, out)
        if units:
            self._answers[source] = StealGrant(self._state.id, ask.request, ask.version, units)
            out.append(Send(source, self._answers[source]))
        else:
            wait_s = LEAVE_ALONE * mesh.answer_s
            out.append(Send(source, StealRefuse(self._state.id, ask.request, ask.version, self.backlog(), wait_s)))

    def _give(self, now: float, mesh: MeshView, source: NodeId, ask: StealAsk, out: list[Action]) -> tuple[Stolen, ...]:
        view, paces = self._view(now, mesh), dict(ask.pace)
        if view is None or view.trains.id != ask.version or self._state.is_leaving:
            return ()
        knows_leaves = self.open is not None and _phase(self.open) == (ask.version, ask.manifest)
        spare = [
            (rank, unit)
            for rank, unit in self._spare()
            if (rank != BLOCK or knows_leaves) and self._can(view, source, unit)
        ]
        if not spare:
            return ()
        first = min(spare)[0]
        units = sorted((unit for rank, unit in spare if rank == first), key=_place)
        units = [unit for unit in units if (unit.step, unit.stage) == (units[0].step, units[0].stage)]
        stage = units[0].stage
        slots = view.slots, mesh.slots.get(source, 1)
        count = self._share(now, len(units), self._calls.pace.get(stage), paces.get(stage), *slots)
        chosen = _upper(units, count)
        if not chosen:
            return ()
        stolen = self._state.loans.lend(chosen, source, now + GRANT_LEASE * mesh.suspicion_s)
        self._untouched = [duty for duty in self._untouched if not any(duty.unit.holds(unit) for unit in chosen)]
        if self._calls.withdraw(set(chosen), out):
            self._outbox.put_all_claims(self._state.views(now, mesh, view.trains), out)
        return stolen

    def _can(self, view: StepView, thief: NodeId, unit: TaskKey) -> bool:
        """Whether the thief may run it at all, and did not fail at it before."""
        chains = [chain.stages for chain in self._state.plan(unit.step).chains if chain.stages[0] == unit.stage]
        able = view.able(chains[0] if chains else (unit.stage,))
        return thief in able and thief not in self._state.failures.nodes(unit)

    def _share(
        self, now: float, count: int, own_s: float | None, thief_s: float | None, own_slots: int, thief_slots: int
    ) -> int:
        """Such a part that both are done at once, as fast as their slots together are: half where they are equal;
        rounded up if this node is busy; and no more than the thief is clearly done with before this node would be with
        everything."""
        thief_s = thief_s if thief_s is not None and thief_s > 0 else None
        own_each = (1.0 if own_s is None or thief_s is None else own_s) / own_slots
        thief_each = (1.0 if own_s is None or thief_s is None else thief_s) / thief_slots
        part = count * own_each / (own_each + thief_each)
        share = ceil(part) if self._state.calls else int(part)
        if own_s is None:
            return share
        begun_s = max(0.0, own_s - (now - self._calls.moved_at)) if self._state.calls else 0.0
        limit_s = WORTH * (begun_s + ceil(count / own_slots) * own_s) - STEAL_COST_S
        return max(0, min(share, int(limit_s / max(thief_s or own_s, 1e-9)) * thief_slots))

    def forget(self, node: NodeId) -> None:
        """`node` is dead or lives a new life."""
        self._last.pop(node, None)
        self._told.pop(node, None)
        self._answers.pop(node, None)
        self._left_alone.pop(node, None)
        if self._asked is not None and self._asked.victim == node:
            self._asked = None


def _is_block(duty: Duty) -> bool:
    return duty.rank == BLOCK


def _phase(opened: Open) -> tuple[VersionId, str]:
    return opened.version, opened.batch.manifest.id if opened.batch is not None else ""


def _place(unit: TaskKey) -> tuple[int, str, int]:
    assert isinstance(unit.part, Partition | Block), "slices and what is done once are not given away"
    return unit.step, unit.stage, unit.part.first if isinstance(unit.part, Block) else unit.part.index


def _upper(units: Sequence[TaskKey], count: int) -> list[TaskKey]:
    """The last `count` units; of leaves whole aligned blocks, so that few gradients are published."""
    if not units or not units[0].leaves or count == 0:
        return list(units[len(units) - count :])
    leaves = [unit.leaves[0] for unit in units]
    taken = 0
    for block in reversed(list(aligned_blocks(leaves))):
        size = len(block.leaves)
        if taken and taken + size > count:
            break
        while size > max(1, count):
            size //= 2
        taken += size
        if size < len(block.leaves):
            break
    return list(units[len(units) - taken :])
