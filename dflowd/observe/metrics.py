"""What each step gave and when, as this node saw it: one row a version it adopted, kept on disk (see books.py)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dflow_protocols.books import CHECKPOINTS, METRICS, SAMPLES, TIMES, Steps, first_version, steps_of, times_of
from dflow_protocols.names import RunId
from dflow_protocols.pipeline.schedule import Schedule

from .journal import Journal

RUNS_KEPT = 32
TIMES_KEPT = 4_096  # runs; more than a node knows at once
SAMPLES_KEPT = 400  # of a run in memory
FIRST_SAMPLES = 40  # among them: what was said before it learnt


@dataclass(slots=True)
class _RunBook:
    steps: Steps
    samples: list[dict[str, Any]]
    checkpoint: tuple[int, str] = (0, "")  # step, folder


class MetricsBook:
    """Rows of this node, by run."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._books: OrderedDict[RunId, _RunBook] = OrderedDict()
        self._times: OrderedDict[RunId, tuple[float | None, float | None]] = OrderedDict()

    def begin(self, run: RunId, now_s: float) -> None:
        """This node heard of the run for the first time."""
        began_s, ended_s = self.times(run)
        if began_s is None:
            self._times[run] = now_s, ended_s
            self._journal.append(run, TIMES, {"began_s": now_s})

    def resume(self, run: RunId) -> None:
        """The run goes on: it has not ended yet."""
        began_s, ended_s = self.times(run)
        if ended_s is not None:
            self._times[run] = began_s, None
            self._journal.append(run, TIMES, {"ended_s": None})

    def end(self, run: RunId, now_s: float) -> None:
        """This node heard that the run is over."""
        began_s, ended_s = self.times(run)
        if ended_s is None:
            self._times[run] = began_s, now_s
            self._journal.append(run, TIMES, {"ended_s": now_s})

    def times(self, run: RunId) -> tuple[float | None, float | None]:
        """When this node heard of the run, and that it is over; seconds since 1970."""
        if run not in self._times:
            self._times[run] = times_of(self._journal.read(run, TIMES))
            if len(self._times) > TIMES_KEPT:
                self._times.popitem(last=False)
        return self._times[run]

    def advance(
        self,
        run: RunId,
        step: int,
        version: str,
        samples: int,
        sums: Mapping[str, float],
        step_s: float | None,
        now_s: float,
        waited: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """This node holds the version after `step` steps, `step_s` seconds after it began the step; None if it took
        no part. `waited`: by role that it had, seconds that its slots did nothing, of so many. A second version of one
        step replaces the first one's row."""
        steps = self._book(run).steps
        row = {
            "step": step,
            "version": version,
            "samples_total": samples,
            "time_s": now_s,
            "own_step_s": step_s,
            "sums": dict(sums),
            "waited": {role: list(seconds) for role, seconds in (waited or {}).items()},
        }
        known = steps.rows.get(step)
        if known is not None and known["version"] == version and known["sums"] and not sums:
            return  # it came back from a checkpoint: what it gave is known
        steps.add(row)
        self._journal.append(run, METRICS, row)

    def abandon(self, run: RunId, fork_step: int) -> None:
        """Versions after `fork_step` lost the fork choice: their rows tell of training that does not count."""
        self._book(run).steps.abandon(fork_step)
        self._journal.append(run, METRICS, {"abandoned_after": fork_step})

    def abandoned(self, run: RunId, since_step: int) -> list[dict[str, Any]]:
        return [row for row in self._book(run).steps.abandoned if row["step"] >= since_step]

    def reached(self, run: RunId) -> int:
        """Steps of the furthest version that this node ever had of the run, branches that lost aside."""
        return max(self._book(run).steps.rows, default=0)

    def add_samples(self, run: RunId, step: int, samples: Iterable[Mapping[str, Any]]) -> None:
        """A few completions for people to read."""
        book = self._book(run)
        for sample in samples:
            entry = {"step": step, **sample}
            if entry in book.samples:
                continue  # the step was run before a power cut
            book.samples.append(entry)
            self._journal.append(run, SAMPLES, entry)
        _thin(book.samples)

    def add_checkpoint(self, run: RunId, step: int, folder: str) -> None:
        """A checkpoint of the version after `step` steps lies in `folder` on this node."""
        self._journal.append(run, CHECKPOINTS, {"step": step, "folder": folder})
        self._book(run).checkpoint = (step, folder)

    def checkpoint(self, run: RunId) -> tuple[int, str]:
        """Step and folder of the newest checkpoint here; the folder is empty where there is none."""
        return self._book(run).checkpoint

    def checkpoints(self, run: RunId) -> list[tuple[int, str]]:
        """Step and folder of every checkpoint ever written here, each once, in step order. Reads a file."""
        return sorted({(int(row["step"]), str(row["folder"])) for row in self._journal.read(run, CHECKPOINTS)})

    def rows(self, run: RunId, since_step: int) -> list[dict[str, Any]]:
        return [row for step, row in sorted(self._book(run).steps.rows.items()) if step >= since_step]

    def newest(self, run: RunId, schedule: Schedule) -> list[dict[str, Any]]:
        """The rows of the furthest step of the pipeline that is whole here."""
        step = schedule.nearest(self.reached(run)).step
        return [row for row in self.rows(run, first_version(schedule, step)) if row["step"] <= schedule.first(step)]

    def samples(self, run: RunId, limit: int) -> list[dict[str, Any]]:
        return self._book(run).samples[-limit:] if limit > 0 else []

    def samples_between(self, run: RunId, since_step: int, before_step: int, limit: int) -> list[dict[str, Any]]:
        """The newest of these steps, however long ago. Reads a file."""
        return [row for row in self._journal.read(run, SAMPLES) if since_step <= row["step"] < before_step][-limit:]

    def _book(self, run: RunId) -> _RunBook:
        book = self._books.get(run)
        if book is None:
            saved = self._journal.read(run, CHECKPOINTS)
            book = _RunBook(
                steps_of(self._journal.read(run, METRICS)),
                _thin(self._journal.read(run, SAMPLES)),
                (saved[-1]["step"], saved[-1]["folder"]) if saved else (0, ""),
            )
            self._books[run] = book
        self._books.move_to_end(run)
        if len(self._books) > RUNS_KEPT:
            self._books.popitem(last=False)
        return book


def _thin(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`samples` with the first and the newest left."""
    del samples[FIRST_SAMPLES : FIRST_SAMPLES + max(len(samples) - SAMPLES_KEPT, 0)]
    return samples
