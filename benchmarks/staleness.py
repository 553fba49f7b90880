"""What do rollouts that are some steps behind cost in learning? GRPO with several lags, and `async`.

As `algorithms`, with which it shares budget and form: examples/spell_backward.yaml from several seeds, on one core,
figures kept by run under `out`. What differs is whose rollouts a step trains on: those of the newest version (`lag` 0),
of the one so many steps before, or of whatever version a sampler has (`async`, where completions go on under newer
weights).
An async run has several daemons, since one that is alone samples nothing ahead. After each run `out` has

    curves.csv     reward and held-out accuracy by variant, seed and step
    summary.json   mean and deviation over the seeds; `gap`: steps that a step's tokens were behind, in the mean
    curves.png     reward and held-out accuracy by step, means over the seeds

A run takes some three minutes on a core of its own; an async one longer, by its further daemons.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from benchmarks.algorithms import OVERLAYS
from benchmarks.figure import Figure, Tell
from benchmarks.learning import SMOOTH, Curve, Variant, by_name, compare_curves, smoothed

QUICK = {"lags": (0, 1), "staleness": (2,), "seeds": (0,), "warmup": 4, "steps": 4}


def measure(
    tell: Tell,
    *,
    lags: Annotated[tuple[int, ...], "steps that rollouts are behind"] = (0, 1, 2, 4),
    staleness: Annotated[tuple[int, ...], "steps that they are behind at most, where they are `async`"] = (4,),
    nodes: Annotated[int, "daemons of an async run"] = 2,
    seeds: Annotated[tuple[int, ...], "of a run each"] = (0, 1, 2),
    warmup: Annotated[int, "steps on demonstrations"] = 50,
    steps: Annotated[int, "steps of GRPO"] = 60,
    out: Annotated[str, "folder of results"] = "out/staleness",
) -> list[Figure]:
    variants = [*map(lagging, lags), *(loose(most, nodes) for most in staleness)]
    rows = compare_curves(tell, Path(out), variants, seeds, warmup, steps, draw)
    first = rows[0]
    return [
        Figure(f"{row['algorithm']}: held-out accuracy", "", row["after"], first["algorithm"], first["after"])
        for row in rows
    ]


def lagging(lag: int) -> Variant:
    return Variant(f"grpo_lag_{lag}", (str(OVERLAYS / "grpo.yaml"), f"--set=lag={lag}"))


def loose(most: int, nodes: int) -> Variant:
    """At most so many steps behind, completions in segments."""
    words = ("reproducibility=replay", f"async.max_staleness={most}", "async.partial=true")
    return Variant(f"grpo_async_{most}", (str(OVERLAYS / "grpo.yaml"), *(f"--set={word}" for word in words)), nodes)


def draw(path: Path, curves: Sequence[Curve]) -> None:
    """Two panels, a line a variant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rewards, accuracies) = pyplot.subplots(1, 2, figsize=(9.6, 3.6))
    for name, own in by_name(curves).items():
        gap = statistics.fmean(each.gap for each in own)
        rewards.plot(
            *smoothed(mean_of([each.rewards for each in own])), label=f"{name} ({gap:.1f} behind)", linewidth=1
        )
        accuracies.plot(*zip(*mean_of([each.accuracies for each in own]), strict=True), marker="o", markersize=3)
    rewards.set_title(f"reward (mean of {SMOOTH} steps)", fontsize=10)
    accuracies.set_title("held-out accuracy", fontsize=10)
    for place in (rewards, accuracies):
        place.grid(alpha=0.3)
        place.set_xlabel("steps after the warm-up", fontsize=9)
    rewards.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def mean_of(lines: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """Of several lines of [step, value] the one between them, by the steps that each of them has."""
    return [[points[0][0], statistics.fmean(value for _, value in points)] for points in zip(*lines, strict=False)]
