"""Where reports and finished works go: log, timeline, metrics, problems. Knows which report means what to whom."""

from __future__ import annotations

import time
from collections.abc import Callable

from dflow_protocols.events import Advanced, Began, Broke, Event, Finished, Report, Start
from dflow_protocols.names import RunId
from dflow_protocols.work import SaveWork

from .counts import Counts
from .idle import Idle
from .log import ReportLog
from .metrics import MetricsBook
from .news import News
from .problems import Problems
from .timeline import Timeline

SHORTAGE_S = 60.0  # that a run is said to lack room after it was refused some


class Recorder:
    """Feeds the rooms that people read. `wall_clock`: seconds since 1970. `news` is published when a run moved."""

    def __init__(
        self,
        log: ReportLog,
        timeline: Timeline,
        metrics: MetricsBook,
        problems: Problems,
        idle: Idle,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.log, self.timeline, self.metrics, self.problems = log, timeline, metrics, problems
        self._idle, self._wall_clock, self.news, self.counts = idle, wall_clock, News(), Counts()
        self._started: dict[int, Start] = {}  # calls that were not answered yet
        self._at: dict[RunId, int] = {}  # steps of the versions held last
        self._to_regain: dict[RunId, int] = {}  # steps that runs had reached here, and are not at

    def report(self, report: Report, cause: int | None = None) -> None:
        """`cause`: the number of the node's event that it came of, where it came of one."""
        now_s = self._wall_clock()
        match report.name:
            case "run.submitted" | "run.heard":
                self.metrics.begin(report.fields["run"], now_s)
            case "run.resumed":
                self.metrics.resume(report.fields["run"])
            case "run.ended":
                self.metrics.end(report.fields["run"], now_s)
                self._idle.forget(report.fields["run"])
                self._at.pop(report.fields["run"], None)
                self._to_regain.pop(report.fields["run"], None)
        self._tell(report, now_s, cause)

    def advance(self, action: Advanced, cause: int | None = None) -> None:
        """A run is at another version here. `cause`: as in `report`."""
        now_s, run, head = self._wall_clock(), action.run, action.head
        if action.fork_step is not None:
            self.metrics.abandon(run, action.fork_step)
        self._compare(run, head.step, now_s, cause)
        waited = self._idle.advance(run, now_s, is_made=action.seconds is not None)
        self.metrics.advance(run, head.step, head.version, head.samples, action.metrics, action.seconds, now_s, waited)
        fields = {"run": run, "step": head.step, "version": head.version, "copied": action.is_copied}
        self._tell(Report("step.advanced", {**fields, "seconds": action.seconds}), now_s, cause)

    def _tell(self, report: Report, now_s: float, cause: int | None) -> None:
        self.counts.note(report)
        self.problems.learn(report)
        self.log.write(report, now_s, cause)
        if report.name.startswith(("run.", "step.", "task.")):
            self.news.publish()

    def note_shortage(self, run: RunId, why: str) -> None:
        """A run was refused room for its shards; it asks more often than SHORTAGE_S while it waits."""
        hint = (
            "raise shards.memory_limit or the limit that is named, free some disk, or cancel a run; see `dflow shards`"
        )
        what = f"run {run} waits for room for its shards: {why}"
        self.problems.note(f"shards.full/{run}", what, hint, SHORTAGE_S, run)

    def start(self, asked: Start) -> None:
        """A call was asked for; Began tells when it begins."""
        self._started[asked.call] = asked

    def stop(self, call: int) -> None:
        now_s = self._wall_clock()
        self._started.pop(call, None)
        self._idle.end(call, now_s)
        self.timeline.stop(call, now_s)

    def observe(self, event: Event) -> None:
        """See an event before the node does."""
        now_s = self._wall_clock()
        match event:
            case Began() if event.call in self._started:
                self._idle.begin(self._started[event.call], now_s)
                self.timeline.start(self._started[event.call], now_s)
            case Finished():
                self._finish(event, now_s)
            case Broke():
                asked = self._started.pop(event.call, None)
                if asked is not None:
                    self.counts.end(asked, event.failed.kind)
                self._idle.end(event.call, now_s)
                self.timeline.fail(event.call, event.failed, now_s)

    def _finish(self, event: Finished, now_s: float) -> None:
        asked = self._started.pop(event.call, None)
        self._idle.end(event.call, now_s)
        self.timeline.finish(event.call, event.done, now_s)
        if asked is None:
            return
        self.counts.end(asked, "done")
        if event.done.samples:
            self.metrics.add_samples(asked.run, asked.task.step, event.done.samples)
        if isinstance(asked.work, SaveWork) and event.done.detail:
            self.metrics.add_checkpoint(asked.run, asked.work.step, event.done.detail)

    def _compare(self, run: RunId, step: int, now_s: float, cause: int | None) -> None:
        """Tell where a run goes on from less than this node had of it, in this life or an earlier one."""
        before, self._at[run] = self._at.get(run), step
        reached = self.metrics.reached(run)
        if step < reached and (before is None or step < before):
            self._to_regain[run] = reached
            fields = {"run": run, "step": step, "reached": reached, "lost": reached - step}
            self._tell(Report("run.set_back", fields, "warning"), now_s, cause)
        elif step >= self._to_regain.get(run, step + 1):
            del self._to_regain[run]
            self._tell(Report("run.regained", {"run": run, "step": step}), now_s, cause)
