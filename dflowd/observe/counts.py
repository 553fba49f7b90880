"""What happened since the daemon's start, counted: reports by name, and tasks by stage, origin and result."""

from __future__ import annotations

from collections import Counter

from dflow_protocols.events import Report, Start

MOST_STAGES = 256  # that are counted by name; those of further specs are counted together, as OTHERS
OTHERS = "(others)"


class Counts:
    """Only ever grows."""

    def __init__(self) -> None:
        self.reports: Counter[tuple[str, str]] = Counter()  # (name, level)
        self.tasks: Counter[tuple[str, str, str]] = Counter()  # (stage, origin, result)
        self._stages: set[str] = set()

    def note(self, report: Report) -> None:
        self.reports[report.name, report.level] += 1

    def end(self, asked: Start, result: str) -> None:
        """A call came to an end. `result`: `done`, or the kind of its failure."""
        stage = asked.task.stage
        if len(self._stages) < MOST_STAGES:
            self._stages.add(stage)
        self.tasks[stage if stage in self._stages else OTHERS, str(asked.origin), result] += 1
