"""Throughput and latency of a run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from .gathered import Rows
from .spans import Phase, Span


@dataclass(frozen=True, slots=True)
class Pace:
    """Of steps that have the figures; None where no step does. `sample_s`: from the beginning of a partition to its
    advantages; `learnt_s`: to the first weights that learnt from it."""

    steps: int
    step_s: float | None
    step_p90_s: float | None
    steps_per_hour: float | None
    samples_per_s: float | None
    tokens_per_s: float | None
    sample_s: float | None
    sample_p90_s: float | None
    learnt_s: float | None


def pace_of(rows: Rows, spans: Sequence[Span]) -> Pace:
    """Steps by their rows, samples by the tasks that made them. The time before the first step does not count."""
    timed = [row for row in rows if row.get("step_s") and row["step"] > 0]
    times = sorted(float(row["step_s"]) for row in timed)
    total = sum(times)
    scored, learnt = _latencies(spans)
    return Pace(
        steps=len(times),
        step_s=median(times) if times else None,
        step_p90_s=_p90(times),
        steps_per_hour=3600.0 * len(times) / total if total else None,
        samples_per_s=_rate(timed, "samples"),
        tokens_per_s=_rate(timed, "generated_tokens"),
        sample_s=median(scored) if scored else None,
        sample_p90_s=_p90(scored),
        learnt_s=mean(learnt) if learnt else None,
    )


def _rate(rows: Rows, name: str) -> float | None:
    """Of the steps that have any: a warm-up that samples nothing does not slow sampling down."""
    own = [row for row in rows if row.get(name)]
    return sum(float(row[name]) for row in own) / sum(float(row["step_s"]) for row in own) if own else None


def _p90(values: Sequence[float]) -> float | None:
    return values[min(len(values) * 9 // 10, len(values) - 1)] if values else None


def _latencies(spans: Sequence[Span]) -> tuple[list[float], list[float]]:
    """Of each partition that training read: seconds to its last stage, and to the step's first update; sorted."""
    partitions: dict[tuple[int, str], tuple[float, float]] = {}
    updates: dict[int, float] = {}
    for span in spans:
        if span.phase is Phase.CHAIN and not span.evaluates and not span.is_failed:
            begin, end = partitions.get((span.step, span.part), (span.begin, span.end))
            partitions[span.step, span.part] = min(begin, span.begin), max(end, span.end)
        elif span.phase is Phase.APPLY:
            updates[span.step] = min(updates.get(span.step, span.end), span.end)
    scored = sorted(end - begin for begin, end in partitions.values())
    learnt = sorted(updates[step] - begin for (step, _), (begin, _) in partitions.items() if step in updates)
    return scored, learnt
