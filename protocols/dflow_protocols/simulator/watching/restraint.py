"""What a node does not do, though it could: run far ahead, pass hearsay on, work on what it left to others or in the
smaller part of a split, tell of what it is to sum first, count on whom nobody reaches."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import inf

from ...controllers.advance import UNCOMMITTED
from ...events import Advanced, Lane, LaneFailed, LaneOpened, Received, Send, Start
from ...names import Block, NodeId, RunId, TaskKey
from ...run_state.run_state import RunState
from ...versions.versions import preference
from ...wire.steps import BucketPut, ClaimPut, Record, RecordPut, StealGrant
from ...work import ApplyWork, BlockWork, ChainWork, SliceWork, SumWork
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, living_at, node_of, on_duty_at, others_claim, state_of

COPIES = 2  # of a better version, before a drained node gives up its own
MOST_KNOW_S = 1.0  # in which members tell each other whom they cannot dial
ALL_KNOW_S = 6.0  # and in which a push-pull tells whom that gossip passed by
LETS_GO_S = 1.0  # in which a node that is drained ends what runs of a step that is over


class Restraint(Checker):
    """`bounded_ahead`, `claim_first_hand`, `withdrawn_rests`, `drained_lets_go`, `summed_first`, `minority_waits`,
    `unreached_rests`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._claimed: dict[tuple[NodeId, NodeId], set[TaskKey]] = {}  # from whom, as whom it reached
        self._keeps: dict[tuple[NodeId, RunId], float] = {}  # what drained nodes need not any more; since when
        self._moved: set[RunId] = set()  # runs of which leaves were stolen
        self._begun: dict[
            tuple[NodeId, RunId, str], dict[Block, tuple[float, frozenset[NodeId]]]
        ] = {}  # blocks, by version and maker: when, and among whom leaves were dealt then
        self._told: dict[tuple[NodeId, RunId, tuple[str, ...]], set[Block]] = {}  # though it worked on the other half
        self._failed: dict[
            tuple[NodeId, int, NodeId], dict[Lane, float]
        ] = {}  # by a life, of another: which lanes; when

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced, Send: self._sent, Start: self._started}

    @property
    def hears(self) -> Seen:
        return {Received: self._received, LaneFailed: self._undialled, LaneOpened: self._dialled}

    def inspect(self) -> None:
        for host in self.world.live() if self.world.runs else ():
            for run in self.world.runs:
                state = state_of(host, run)
                if state is None or not (host.is_drained and host.answers and _is_outdone(host, state)):
                    self._keeps.pop((host.place, run), None)
                elif self.world.now - self._keeps.setdefault((host.place, run), self.world.now) > LETS_GO_S:
                    raise self.broken(
                        f"{host.name} is drained and keeps a version that others are beyond", "drained_lets_go"
                    )

        self._check_unreached()

    def _undialled(self, host: Host, event: LaneFailed) -> None:
        self._failed.setdefault((host.place, host.lives, event.node), {}).setdefault(event.lane, self.world.now)

    def _dialled(self, host: Host, event: LaneOpened) -> None:
        self._failed.get((host.place, host.lives, event.node), {}).pop(event.lane, None)

    def _check_unreached(self) -> None:
        """Whom all others found that they cannot dial counts as living to none of them, unless another has its key."""
        if not self._failed or not self.world.machines.are_unlike:
            return  # nearly always nobody was, and a thousand nodes are a million pairs
        for closed in self.world.live():
            others = [host for host in self.world.live() if host is not closed]
            since = [self._failed.get((host.place, host.lives, closed.id)) for host in others]
            found = [max(lanes.values()) if lanes else inf for lanes in since]
            if not found or self.world.now - max(found) < MOST_KNOW_S or not closed.answers:
                continue
            counting = [each for each in others if each.answers and not each.is_late and closed.id in living_at(each)]
            is_passed_by = self.world.now - max(found) < ALL_KNOW_S and 2 * len(counting) < len(others)
            if counting and not is_passed_by:
                what = f"{counting[0].name} counts on {closed.name}, which nobody has been able to dial"
                raise self.broken(what, "unreached_rests")

    def _received(self, host: Host, event: Received) -> None:
        for message in event.message.messages:
            match message:
                case ClaimPut(units=units):
                    self._claimed.setdefault((event.source, host.place), set()).update(units)

    def _advanced(self, host: Host, action: Advanced) -> None:
        ahead = action.head.step - node_of(host).runs[action.run].state.committed_step
        if not action.is_copied and ahead > UNCOMMITTED:
            what = f"{host.name} makes version {action.head.step}, {ahead} steps beyond what is committed there"
            raise self.broken(what, "bounded_ahead")

    def _sent(self, host: Host, send: Send) -> None:
        for message in send.message.messages:
            match message:
                case StealGrant(run=run, units=units) if any(isinstance(each.unit.part, Block) for each in units):
                    self._moved.add(run)
                case RecordPut(run=run, records=records):
                    for record in records:
                        self._tells(host, run, record)
                case BucketPut(claims=claims):
                    for claim in claims:
                        self._passed_on(host, claim.node, claim.unit)

    def _tells(self, host: Host, run: RunId, record: Record) -> None:
        """Where nothing struck and no leaf was stolen no two blocks that a node tells of are halves of one, of which it
        worked on the second, and nobody else did, when it told of the first, unless leaves were dealt anew in between:
        to others, or from them, as it turned out who can train."""
        state, block = state_of(host, run), record.task.part
        if state is None or not isinstance(block, Block):
            return
        step = state.steps.get(record.task.step)
        if step is None or record.id not in step.mine:
            return
        if self.world.struck or run in self._moved:
            return
        told = self._told.setdefault((host.place, run, record.inputs), set())
        first = block.first ^ len(block.leaves)
        half = Block(first, first + len(block.leaves))
        leaves = replace(record.task, part=half).singles
        is_own = not any(others_claim(state, leaf) for leaf in leaves)
        able = _able_at(host, state, [record.task.stage])
        if is_own and self._works_on(half, (host.place, run, record.inputs[0]), able):
            told.add(block)
        others = [] if step.roster is None else [node for node in step.roster.trainers if node != host.id]
        if others and half in told:
            what = f"{host.name} tells of both halves of a block, {block}, that it was to sum"
            raise self.broken(what, "summed_first")

    def _works_on(self, block: Block, at: tuple[NodeId, RunId, str], able: frozenset[NodeId]) -> bool:
        """Whether all of a block was begun before this turn, as leaves are dealt among these."""
        known = self._begun.get(at, {}).items()
        begun = [each for each, (when, among) in known if when < self.world.now and among == able]
        return {leaf for each in begun for leaf in each.leaves}.issuperset(block.leaves)

    def _passed_on(self, host: Host, node: NodeId, unit: TaskKey) -> None:
        if node != host.id and unit not in self._claimed.get((node, host.place), ()):
            raise self.broken(f"{host.name} passes on that {unit} is claimed by hearsay", "claim_first_hand")

    def _started(self, host: Host, start: Start) -> None:
        if isinstance(start.work, ChainWork | BlockWork | SumWork | SliceWork | ApplyWork):
            self._goes_on(host, start)
        if not isinstance(start.work, ChainWork | BlockWork):
            return
        state = state_of(host, start.run)
        if state is None:
            return
        if isinstance(start.task.part, Block) and state.position is not None:
            begun = self._begun.setdefault((host.place, start.run, state.position.id), {})
            begun.setdefault(start.task.part, (self.world.now, _able_at(host, state, [start.task.stage])))
        gone = state.ability.withdrawn_at(host.id, host.id)
        if start.task.stage not in gone or start.task in state.loans.borrowed:
            return
        stages = start.work.stages if isinstance(start.work, ChainWork) else [start.task.stage]
        if _able_at(host, state, stages) - {host.id}:
            what = f"{host.name} starts {start.task} and has withdrawn: {gone[start.task.stage]}"
            raise self.broken(what, "withdrawn_rests")

    def _goes_on(self, host: Host, start: Start) -> None:
        """A node works on a step, of whose roster it sees less than half alive."""
        state = state_of(host, start.run)
        if state is None or state.pipeline.on_split != "pause_minority":
            return
        step = state.steps.get(start.task.step)
        members = (step.roster if step is not None and step.roster is not None else state.status.roster).members
        here = living_at(host).intersection(members)
        if 2 * len(here) < len(members):
            what = f"{host.name} starts {start.task} where {len(here)} of {len(members)} live that the step is dealt to"
            raise self.broken(what, "minority_waits")


def _able_at(host: Host, state: RunState, stages: Collection[str]) -> frozenset[NodeId]:
    """Among whom a node deals these stages' work: whoever is on duty and has withdrawn from none of them."""
    withdrawn = state.ability.withdrawn_at
    return frozenset(node for node in on_duty_at(host) if withdrawn(node, host.id).keys().isdisjoint(stages))


def _is_outdone(host: Host, state: RunState) -> bool:
    """Whether two on duty, or the only one, hold a better version, as this node knows."""
    own, on_duty = state.versions.own, on_duty_at(host)
    if own is None or not state.is_active or not on_duty:
        return False
    better = [n for n, head in state.versions.heads.items() if n in on_duty and preference(head) < preference(own.head)]
    return len(better) >= min(COPIES, len(on_duty))
