"""How runs end: what has finished or was cancelled never comes back, and a lost branch is told once."""

from __future__ import annotations

from collections import Counter

from ...events import Persist, Report
from ...names import NodeId, RunId
from ...run_state.status import CANCELLED, FAILED, FINISHED, load
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, node_of

ENDED = {FINISHED: 1, CANCELLED: 2}  # of these none is left for one before it, whatever the attempt
RUNS = "runs/"  # under which a status lies on disk


class Ends(Checker):
    """`end_stays`, `branch_told_once`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._highest: dict[tuple[NodeId, RunId], tuple[int, int]] = {}
        self._told: Counter[tuple[RunId, int, str, str, int]] = Counter()

    @property
    def sees(self) -> Seen:
        return {Persist: self._persisted, "run.branch_lost": self._lost_branch}

    def _persisted(self, host: Host, action: Persist) -> None:
        if not action.key.startswith(RUNS) or not action.value:
            return
        status = load(action.value)
        now = (
            ENDED.get(status.state, 0),
            0 if status.state in ENDED else 2 * status.attempt + (status.state == FAILED),
        )
        before = self._highest.get((host.place, status.run), now)
        if now < before:
            raise self.broken(f"{host.name} takes a run for {status.state} that was further", "end_stays")
        self._highest[host.place, status.run] = now

    def _lost_branch(self, host: Host, report: Report) -> None:
        run = report.fields["run"]  # what is made again after a restart, or at another attempt, may be lost again
        known = node_of(host).runs.get(run)
        key = (run, known.status.attempt if known else 0, report.fields["version"], host.place, host.lives)
        self._told[key] += 1
        if self._told[key] > 1:
            raise self.broken(f"{host.name} tells twice of a lost branch", "branch_told_once")
