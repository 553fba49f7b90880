"""What a node does not do, though it could: run far ahead, pass hearsay on, work on what it left to others."""

from __future__ import annotations

from ...controllers.advance import UNCOMMITTED
from ...events import Advanced, Send, Start
from ...names import NodeId, TaskKey
from ...wire.steps import BucketPut, ClaimPut
from ...work import BlockWork, ChainWork
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, node_of, on_duty_at


class Restraint(Checker):
    """`bounded_ahead`, `claim_first_hand`, `withdrawn_rests`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._claimed: dict[tuple[NodeId, NodeId], set[TaskKey]] = {}  # from whom, to whom

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced, Send: self._sent, Start: self._started}

    def _advanced(self, host: Host, action: Advanced) -> None:
        ahead = action.head.step - node_of(host).runs[action.run].state.committed_step
        if not action.is_copied and ahead > UNCOMMITTED:
            what = f"{host.name} makes version {action.head.step}, {ahead} steps beyond what is committed there"
            raise self.broken(what, "bounded_ahead")

    def _sent(self, host: Host, send: Send) -> None:
        for message in send.message.messages:
            match message:
                case ClaimPut(units=units):
                    self._claimed.setdefault((host.id, send.to), set()).update(units)
                case BucketPut(claims=claims):
                    for claim in claims:
                        self._passed_on(host, claim.node, claim.unit)

    def _passed_on(self, host: Host, node: NodeId, unit: TaskKey) -> None:
        if node != host.id and unit not in self._claimed.get((node, host.id), ()):
            raise self.broken(f"{host.name} passes on that {unit} is claimed by hearsay", "claim_first_hand")

    def _started(self, host: Host, start: Start) -> None:
        if not isinstance(start.work, ChainWork | BlockWork):
            return
        state = node_of(host).runs[start.run].state
        gone = state.ability.withdrawn_at(host.id, host.id)
        if start.task.stage not in gone or start.task in state.loans.borrowed:
            return
        others = [
            node for node in on_duty_at(host) if node != host.id and not state.ability.withdrawn_at(node, host.id)
        ]
        if others:
            what = f"{host.name} starts {start.task} and has withdrawn: {gone[start.task.stage]}"
            raise self.broken(what, "withdrawn_rests")
