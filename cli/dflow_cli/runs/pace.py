"""How long a run still takes: steps that train the same stage take about as long as each other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import CliError
from .outcome import read_state
from .stages import read_pipeline

NEWEST = 20  # steps of a kind whose mean is its pace: evaluations and checkpoints are spread over about as many
LEAST = 3  # steps before a pace is believed

Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""What a daemon, or a folder, answers to a method."""


def kinds(spec: bytes) -> tuple[str, ...]:
    """The stage that trains, for every step of a canonical spec; empty text where none does. Nothing for a spec that
    cannot be read."""
    pipeline = read_pipeline(spec)
    if pipeline is None:
        return ()
    training = [stage.id for stage in pipeline.stages if stage.operator.trains]
    schedule = pipeline.schedule
    return tuple(
        next((name for name in training if schedule.is_active(name, step)), "") for step in range(schedule.steps)
    )


class Paces:
    """The paces of runs that are under way, asked for again and again."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, ...]] = {}

    def tell(self, ask: Ask, runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """An answer's `runs` in words that people use: `state` (see `read_state`), `age_s` since the submit and, of
        those that are active, `pace_s` (a step takes) and `left_s`; None where that is not known."""
        rows = []
        for run in runs:
            began_s, state = run.get("submitted_s"), read_state(run["state"])
            age_s = None if began_s is None else max(0.0, time.time() - began_s)
            pace_s, to_end_s = self._of(ask, str(run["run"]), int(run["step"])) if state == "active" else (None, None)
            rows.append({**run, "state": state, "age_s": age_s, "pace_s": pace_s, "left_s": to_end_s})
        return rows

    def _of(self, ask: Ask, run: str, step: int) -> tuple[float | None, float | None]:
        try:
            if run not in self._kinds:
                self._kinds[run] = kinds(ask("run", {"run": run})["spec"])
            told = ask("metrics", {"run": run, "since_step": max(0, step - 2 * NEWEST)})["rows"]
        except CliError:  # it ended meanwhile, or its daemons are busy
            return None, None
        rows = {int(row["step"]): row for row in told}
        times = [float(row["step_s"]) for row in rows.values() if row.get("step_s") is not None][-NEWEST:]
        return (sum(times) / len(times) if times else None), left_s(rows, self._kinds[run], step)


def left_s(rows: Mapping[int, Mapping[str, Any]], step_kinds: Sequence[str], done: int) -> float | None:
    """Seconds from step `done` to the end, or None while some kind of step that is to come has no pace yet.

    `rows`: figures by the count of steps done, so the row of step s is that of `step_kinds[s - 1]`.
    """
    if not step_kinds:
        return None
    total = 0.0
    for kind, count in Counter(step_kinds[done:]).items():
        times = [
            float(row["step_s"])
            for step, row in rows.items()
            if row.get("step_s") is not None and 0 < step <= len(step_kinds) and step_kinds[step - 1] == kind
        ]
        if len(times) < LEAST:
            return None
        newest = times[-NEWEST:]
        total += count * sum(newest) / len(newest)
    return total
