"""How long a run still takes: steps that train the same stage take about as long as each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .stages import read_pipeline

NEWEST = 20  # steps of a kind whose mean is its pace: evaluations and checkpoints are spread over about as many
LEAST = 3  # steps before a pace is believed


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
