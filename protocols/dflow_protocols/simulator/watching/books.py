"""A node's books say what is: what lies in its store, and what it gave away for so long only as anybody may take it."""

from __future__ import annotations

from ...claiming.loans import Lent
from ...controllers.stealing import GRANT_LEASE
from ...names import NodeId, RunId, ShardId, TaskKey
from ...run_state.run_state import RunState
from ..model.host import Host
from ..world import World
from .checker import Checker, Steady, node_of

TOLD_S = 0.3  # in which a node hears that a shard gave way
LAPSES_S = 1.0  # after its lease, in which a node notices that a loan is over


class Books(Checker):
    """`books_true`, `loan_lapses`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._lacks: dict[tuple[NodeId, int, RunId, ShardId], float] = {}  # what is not where it should lie, since when
        self._lent: dict[tuple[NodeId, int, RunId, TaskKey], tuple[Lent, float]] = {}  # since when

    def inspect(self) -> None:
        lacks, lent, now = self._lacks, self._lent, self.world.now
        self._lacks, self._lent = {}, {}
        if not self.world.engines:
            return
        for host in self.world.live():
            if not host.answers or host.is_late:
                continue  # it hears of nothing, or too late
            for name, run in node_of(host).runs.items():
                for shard in run.state.holdings.local.keys() - host.store.chunks.keys():
                    key = host.place, host.lives, name, shard
                    self._lacks[key] = lacks.get(key, now)
                    if now - self._lacks[key] > TOLD_S:
                        what = f"{host.name} takes {shard[:6]} for here, which its store has not had for {TOLD_S:g} s"
                        raise self.broken(what, "books_true")
                if run.is_active:
                    self._check_loans(host, run.state, lent)

    def _check_loans(
        self, host: Host, state: RunState, lent: dict[tuple[NodeId, int, RunId, TaskKey], tuple[Lent, float]]
    ) -> None:
        due_s = GRANT_LEASE * node_of(host).membership.suspicion_s() + LAPSES_S
        for unit, loan in state.loans.lent.items():
            key = host.place, host.lives, state.id, unit
            before = lent.get(key)
            self._lent[key] = before if before is not None and before[0] == loan else (loan, self.world.now)
            if self.world.now - self._lent[key][1] > due_s:
                what = f"{host.name} leaves {unit} for {due_s:.1f} s to whom it lent it, who never claimed it"
                raise self.broken(what, "loan_lapses")
