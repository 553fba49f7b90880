"""A run ends in time where little or nothing is in its way."""

from __future__ import annotations

from ....events import Advanced, Report
from ....names import RunId
from ...model.files import HERE
from ...model.host import Host
from ...world import World
from ..checker import Checker, Seen, Steady, is_at_ease, is_small

CALM_S = 4.0  # a step, from the first version on: drawn ones take up to 2.3 in the mean
TURN_S = 1.5  # more for each further turn of the samples: one node with one slot takes up to 1
LOSSY_S = 8.0  # where up to a tenth of all frames never arrives: up to 3
LOSES = frozenset({"lose", "repeat", "join"})


class Ending(Checker):
    """`ends_in_time`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._begun: dict[RunId, float] = {}  # when its first version was made; of those that have not ended

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced, "run.ended": self._ended}

    def _advanced(self, host: Host, action: Advanced) -> None:
        if action.head.step == 0:
            self._begun.setdefault(action.run, self.world.now)

    def _ended(self, host: Host, report: Report) -> None:
        self._begun.pop(report.fields["run"], None)

    def _is_able(self, host: Host) -> bool:
        """Whether it can do any part of what there is to do, and at once."""
        return is_at_ease(host) and (host.files == HERE or not self.world.with_files)

    def inspect(self) -> None:
        """How many steps there are says what time there is. Any other fault, and it is not held to here."""
        if not self._begun:
            return
        struck = self.world.struck.keys()
        if (
            not struck <= LOSES
            or len(self.world.runs) > 1
            or not all(self._is_able(host) for host in self.world.live())
        ):
            self._begun.clear()
        for run, since in self._begun.items():
            pipeline = self.world.engines[run].pipeline
            turns = sum(stage.operator.continues for stage in pipeline.stages)
            due_s = ((LOSSY_S if struck else CALM_S) + TURN_S * turns) * pipeline.schedule.versions
            if is_small(pipeline) and self.world.now - since > due_s:
                raise self.broken(
                    f"a run of {pipeline.schedule.versions} steps takes more than {due_s:g} s", "ends_in_time"
                )
