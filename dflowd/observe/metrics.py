"""What each step gave and what it cost, as this node saw it: one row a version it adopted, kept on disk.

A row's figures are functions of sealed sums and alike on every node; its times are this node's own. What the mesh did
in a step is put together from the rows and costs of all members by whoever is asked (`merge_rows`):

    step_s      seconds from beginning the step to adopting the version it made, the longest of any node
    compute_s   seconds that slots were busy with the step, summed over nodes
    idle_frac   the share of step_s that the slots of all members together were not busy
    mesh_s      step_s less the time the own slot was busy, the least of any node: what is not compute. Clocks are not
                compared between nodes, so this is a bound from above, tight where one node is busy all the time
    seconds     seconds by stage, summed over nodes; `STAGE.reduce` and `STAGE.apply` are parts of training
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dflow_protocols.metrics import finish
from dflow_protocols.names import RunId

from .timeline import StepCost

ROWS_KEPT = 100_000  # of a run in memory; the file keeps all
RUNS_KEPT = 32
SAMPLES_KEPT = 400  # of a run in memory


@dataclass(slots=True)
class _RunBook:
    rows: OrderedDict[int, dict[str, Any]]
    samples: list[dict[str, Any]]
    abandoned: list[dict[str, Any]]  # rows of versions that lost the fork choice after a split
    checkpoint: tuple[int, str] = (0, "")  # step, folder
    began_s: float | None = None
    ended_s: float | None = None


class MetricsBook:
    """Rows of this node, by run. `folder`: where a run's files go."""

    def __init__(self, folder: Callable[[str], Path]) -> None:
        self._folder = folder
        self._books: OrderedDict[RunId, _RunBook] = OrderedDict()

    def begin(self, run: RunId, now_s: float) -> None:
        """This node heard of the run for the first time."""
        book = self._book(run)
        if book.began_s is None:
            book.began_s = now_s
            self._append(run, "times.jsonl", {"began_s": now_s})

    def resume(self, run: RunId) -> None:
        """The run goes on: it has not ended yet."""
        book = self._book(run)
        if book.ended_s is not None:
            book.ended_s = None
            self._append(run, "times.jsonl", {"ended_s": None})

    def end(self, run: RunId, now_s: float) -> None:
        """This node heard that the run is over."""
        book = self._book(run)
        if book.ended_s is None:
            book.ended_s = now_s
            self._append(run, "times.jsonl", {"ended_s": now_s})

    def times(self, run: RunId) -> tuple[float | None, float | None]:
        """When this node heard of the run, and that it is over; seconds since 1970."""
        book = self._book(run)
        return book.began_s, book.ended_s

    def advance(
        self,
        run: RunId,
        step: int,
        version: str,
        samples: int,
        sums: Mapping[str, float],
        step_s: float | None,
        now_s: float,
    ) -> None:
        """This node holds the version after `step` steps, `step_s` seconds after it began the step; None if it took
        no part. A second version of one step replaces the first one's row."""
        book = self._book(run)
        row = {
            "step": step,
            "version": version,
            "samples_total": samples,
            "time_s": now_s,
            "own_step_s": step_s,
            "sums": dict(sums),
        }
        known = book.rows.get(step)
        if known is not None and known["version"] == version and known["sums"] and not sums:
            return  # it came back from a checkpoint: what it gave is known
        book.rows[step] = row
        if len(book.rows) > ROWS_KEPT:
            book.rows.popitem(last=False)
        self._append(run, "metrics.jsonl", row)

    def abandon(self, run: RunId, fork_step: int) -> None:
        """Versions after `fork_step` lost the fork choice: their rows tell of training that does not count."""
        _abandon(self._book(run), fork_step)
        self._append(run, "metrics.jsonl", {"abandoned_after": fork_step})

    def abandoned(self, run: RunId, since_step: int) -> list[dict[str, Any]]:
        return [row for row in self._book(run).abandoned if row["step"] >= since_step]

    def reached(self, run: RunId) -> int:
        """Steps of the furthest version that this node ever had of the run, branches that lost aside."""
        return max(self._book(run).rows, default=0)

    def add_samples(self, run: RunId, step: int, samples: Iterable[Mapping[str, Any]]) -> None:
        """A few completions for people to read."""
        book = self._book(run)
        for sample in samples:
            entry = {"step": step, **sample}
            if entry in book.samples:
                continue  # the step was run before a power cut
            book.samples.append(entry)
            self._append(run, "samples.jsonl", entry)
        del book.samples[:-SAMPLES_KEPT]

    def add_checkpoint(self, run: RunId, step: int, folder: str) -> None:
        """A checkpoint of the version after `step` steps lies in `folder` on this node."""
        self._append(run, "checkpoints.jsonl", {"step": step, "folder": folder})
        book = self._book(run)
        book.checkpoint = (step, folder)

    def checkpoint(self, run: RunId) -> tuple[int, str]:
        """Step and folder of the newest checkpoint here; the folder is empty where there is none."""
        return self._book(run).checkpoint

    def checkpoints(self, run: RunId) -> list[tuple[int, str]]:
        """Step and folder of every checkpoint ever written here, each once, in step order. Reads a file."""
        return sorted({(int(row["step"]), str(row["folder"])) for row in self._read(run, "checkpoints.jsonl")})

    def rows(self, run: RunId, since_step: int) -> list[dict[str, Any]]:
        return [row for step, row in sorted(self._book(run).rows.items()) if step >= since_step]

    def samples(self, run: RunId, limit: int) -> list[dict[str, Any]]:
        return self._book(run).samples[-limit:] if limit > 0 else []

    def _book(self, run: RunId) -> _RunBook:
        book = self._books.get(run)
        if book is None:
            book = _RunBook(OrderedDict(), self._read(run, "samples.jsonl")[-SAMPLES_KEPT:], [])
            for row in self._read(run, "metrics.jsonl"):
                if "abandoned_after" in row:
                    _abandon(book, row["abandoned_after"])
                else:
                    book.rows[row["step"]] = row
            saved = self._read(run, "checkpoints.jsonl")
            if saved:
                book.checkpoint = (saved[-1]["step"], saved[-1]["folder"])
            for entry in self._read(run, "times.jsonl"):
                book.began_s, book.ended_s = entry.get("began_s", book.began_s), entry.get("ended_s", book.ended_s)
            self._books[run] = book
        self._books.move_to_end(run)
        if len(self._books) > RUNS_KEPT:
            self._books.popitem(last=False)
        return book

    def _append(self, run: RunId, name: str, row: Mapping[str, Any]) -> None:
        # A full disk costs the file, never the step. Not fsynced: other nodes have the same rows.
        with contextlib.suppress(OSError), (self._folder(run) / name).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _read(self, run: RunId, name: str) -> list[dict[str, Any]]:
        try:
            lines = (self._folder(run) / name).read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return []
        rows = []
        for line in lines:
            with contextlib.suppress(ValueError):  # the last line of a daemon that was killed may be torn
                rows.append(json.loads(line))
        return rows


def _abandon(book: _RunBook, fork_step: int) -> None:
    for step in [step for step in book.rows if step > fork_step]:
        book.abandoned.append(book.rows.pop(step))
    del book.abandoned[:-ROWS_KEPT]


def own_report(
    rows: list[dict[str, Any]], abandoned: list[dict[str, Any]], costs: Mapping[int, StepCost], slots: int
) -> dict[str, Any]:
    """What one node answers when asked for its share of `metrics`. A task of step s is a cost of row s + 1."""
    return {
        "rows": rows,
        "abandoned": abandoned,
        "slots": slots,
        "costs": [[step + 1, cost.busy_s, cost.seconds] for step, cost in sorted(costs.items())],
    }


def merge_rows(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a step from the reports of all members, the asked one's first, whose figures count if it has any."""
    figures: dict[int, Mapping[str, Any]] = {}
    walls: dict[int, list[tuple[float, float, int]]] = {}
    seconds: dict[int, dict[str, float]] = {}
    busy: dict[int, float] = {}
    for report in reports:
        costs = {int(step): (float(busy_s), by_stage) for step, busy_s, by_stage in report["costs"]}
        for step, (busy_s, by_stage) in costs.items():
            busy[step] = busy.get(step, 0.0) + busy_s
            total = seconds.setdefault(step, {})
            for stage, value in by_stage.items():
                total[stage] = total.get(stage, 0.0) + value
        for row in report["rows"]:
            step = int(row["step"])
            if not figures.get(step, {}).get("sums"):  # who copied a version knows no figures of it
                figures[step] = row
            if row["own_step_s"] is not None:
                own_busy = costs[step][0] if step in costs else 0.0
                walls.setdefault(step, []).append((float(row["own_step_s"]), own_busy, int(report["slots"])))
    return [
        _merged_row(figures[step], walls.get(step, []), busy.get(step, 0.0), seconds.get(step, {}))
        for step in sorted(figures)
    ]


def merge_abandoned(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a version that lost the fork choice, with `abandoned` set, by step."""
    found: dict[tuple[int, str], Mapping[str, Any]] = {}
    for report in reports:
        for row in report["abandoned"]:
            key = (int(row["step"]), str(row["version"]))
            if not found.get(key, {}).get("sums"):
                found[key] = row
    return [_merged_row(found[key], [], 0.0, {}) | {"abandoned": True} for key in sorted(found)]


def _merged_row(
    row: Mapping[str, Any], walls: list[tuple[float, float, int]], busy_s: float, seconds: dict[str, float]
) -> dict[str, Any]:
    sums = row["sums"]
    merged: dict[str, Any] = {
        "step": row["step"],
        "version": row["version"],
        "samples_total": row["samples_total"],
        "time_s": row["time_s"],
        **finish(sums),
        "compute_s": busy_s,
        "seconds": dict(sorted(seconds.items())),
    }
    if walls:
        step_s = max(wall for wall, _, _ in walls)
        capacity_s = step_s * sum(slots for _, _, slots in walls)
        merged["step_s"] = step_s
        merged["mesh_s"] = min(max(0.0, wall - own_busy) for wall, own_busy, _ in walls)
        if capacity_s > 0:
            merged["idle_frac"] = min(1.0, max(0.0, 1.0 - busy_s / capacity_s))
        if step_s > 0 and "generated_tokens" in merged:
            merged["tokens_per_s"] = merged["generated_tokens"] / step_s
    return merged
