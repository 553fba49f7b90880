"""Runs of examples/spell_backward.yaml with the same budget, made one after the other, kept, and put together.

Each is one of a few variants, from one of a few seeds. Its figures are kept in a file of its own in the folder, and one
that is there is not run again: what was interrupted goes on where it was. After each run the folder has

    curves.csv     reward and held-out accuracy by variant, seed and step
    summary.json   mean and deviation over the seeds, before and after
    curves.png     as the benchmark draws it
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.figure import Tell
from benchmarks.plain_loop import DEFAULT_SPEC, need_engine

RUN_S = 3600.0
SMOOTH = 5  # steps that a point of a drawn reward is the mean of


@dataclass(frozen=True, slots=True)
class Variant:
    """`name`: the algorithm, and how it is run where that is not as ever. `words`: of `dflow run`, behind the example.
    `nodes`: daemons of a run, all on one core."""

    name: str
    words: tuple[str, ...] = ()
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Curve:
    """What one run gave. `algorithm`: its variant's name. `rewards`: [step, mean reward] of each step that gives any;
    `accuracies`: [step, held-out accuracy]; steps counted from the end of the warm-up. `clipped`: share of tokens that
    a clip cut, in the mean. `gap`: versions that what was trained on was behind, in the mean; `gap_max`: at most."""

    algorithm: str
    seed: int
    warmup: int
    steps: int
    rewards: list[list[float]]
    accuracies: list[list[float]]
    clipped: float
    wall_s: float
    gap: float = 0.0
    gap_max: float = 0.0

    @property
    def before(self) -> float:
        return self.accuracies[0][1]

    @property
    def after(self) -> float:
        return self.accuracies[-1][1]


Draw: TypeAlias = Callable[[Path, Sequence[Curve]], None]


def compare_curves(
    tell: Tell, folder: Path, variants: Sequence[Variant], seeds: Sequence[int], warmup: int, steps: int, draw: Draw
) -> list[dict[str, Any]]:
    """All variants from all seeds. Returns the summary, a row a variant. Raises Skipped where no engine can run, and
    RuntimeError with what a command said that failed."""
    need_engine()
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Curve] = []
    rows: list[dict[str, Any]] = []
    for seed in seeds:  # all variants of a seed first, so that a part of it is a comparison, too
        for variant in variants:
            found.append(curve(folder, variant, seed, warmup, steps))
            last = found[-1]
            tell({"algorithm": last.algorithm, "seed": seed, "before": last.before, "after": last.after})
            rows = publish(folder, found, draw)
    for row in rows:
        tell(row)
    return rows


def publish(folder: Path, found: Sequence[Curve], draw: Draw) -> list[dict[str, Any]]:
    """Write down what there is so far. Returns the summary."""
    rows = [summary(own) for own in by_name(found).values()]
    (folder / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    write_csv(folder / "curves.csv", found)
    draw(folder / "curves.png", found)
    return rows


def by_name(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Those of each variant, in the order in which they were made."""
    found: dict[str, list[Curve]] = {}
    for each in curves:
        found.setdefault(each.algorithm, []).append(each)
    return found


def curve(folder: Path, variant: Variant, seed: int, warmup: int, steps: int) -> Curve:
    """A run's figures: those that were kept, if they are of as many nodes and the same budget, else of a run that is
    made now."""
    kept = folder / f"{variant.name}-{variant.nodes}-{seed}-{warmup}-{steps}.json"
    if kept.exists():
        return Curve(**json.loads(kept.read_text()))
    found = run(variant, seed, warmup, steps)
    beside = kept.with_suffix(".part")
    beside.write_text(json.dumps(asdict(found)) + "\n")
    beside.replace(kept)
    return found


def run(variant: Variant, seed: int, warmup: int, steps: int) -> Curve:
    """One run to its end, on one core. Raises RuntimeError with what the command said."""
    every = max(5, steps // 6)
    values = {"seed": seed, "params.warmup": warmup, "params.grpo": steps, "checkpoint.every": 0}
    sets = [f"--set={key}={value}" for key, value in (values | {"stages.heldout.every": every}).items()]
    with tempfile.TemporaryDirectory() as mesh:
        where = ("--dir", mesh)
        (told,) = dflow("run", str(DEFAULT_SPEC), *variant.words, *sets, "--nodes", str(variant.nodes), *where)
        figures = figures_of(dflow("metrics", told["run"], *where))
    accuracies = [[each["step"] - warmup, each["accuracy"]] for each in told["evals"]]
    return Curve(variant.name, seed, warmup, steps, accuracies=accuracies, wall_s=told["wall_s"], **figures)


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`rewards`, `clipped`, `gap` and `gap_max` of a Curve. `rows`: of `dflow metrics`, one a version. A step that
    makes several updates has several: the first one has its reward, and the ratio moves in those behind it."""
    rewards = [row["reward_mean"] for row in rows if row.get("reward_mean") is not None]
    cut = [row["clip_frac_low"] + row["clip_frac_high"] for row in rows if "clip_frac_low" in row]
    most = [row["version_gap_max"] for row in rows if "version_gap_max" in row]
    gaps = [row.get("version_gap_mean", row["version_gap_max"]) for row in rows if "version_gap_max" in row]
    return {
        "rewards": [[step, reward] for step, reward in enumerate(rewards, 1)],
        "clipped": statistics.fmean(cut) if cut else 0.0,
        "gap": statistics.fmean(gaps) if gaps else 0.0,
        "gap_max": max(most, default=0.0),
    }


def dflow(*words: str) -> list[dict[str, Any]]:
    """The objects that a command prints, of a process that has one core."""
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "dflow_cli.app", *words, "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended by {done.returncode}:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def summary(curves: Sequence[Curve]) -> dict[str, Any]:
    """Means over the seeds of one variant, with their deviations. A reward is that of the first or last SMOOTH
    steps; None where nothing is rewarded."""
    begin = [statistics.fmean(reward for _, reward in each.rewards[:SMOOTH]) for each in curves if each.rewards]
    end = [statistics.fmean(reward for _, reward in each.rewards[-SMOOTH:]) for each in curves if each.rewards]
    after = [each.after for each in curves]
    return {
        "algorithm": curves[0].algorithm,
        "seeds": len(curves),
        "before": round(statistics.fmean(each.before for each in curves), 4),
        "after": round(statistics.fmean(after), 4),
        "after_sd": round(statistics.stdev(after), 4) if len(after) > 1 else None,
        "reward_begin": round(statistics.fmean(begin), 4) if begin else None,
        "reward_end": round(statistics.fmean(end), 4) if end else None,
        "reward_end_sd": round(statistics.stdev(end), 4) if len(end) > 1 else None,
        "clipped": round(statistics.fmean(each.clipped for each in curves), 5),
        "gap": round(statistics.fmean(each.gap for each in curves), 2),
        "gap_max": max(each.gap_max for each in curves),
        "wall_s": round(statistics.fmean(each.wall_s for each in curves), 1),
    }


def write_csv(path: Path, curves: Sequence[Curve]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("algorithm", "seed", "figure", "step", "value"))
        for each in curves:
            for figure, points in (("reward", each.rewards), ("held_out_accuracy", each.accuracies)):
                writer.writerows((each.algorithm, each.seed, figure, int(step), value) for step, value in points)


def smoothed(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Each point as the mean of itself and those before it, SMOOTH at most."""
    steps = [step for step, _ in points]
    rewards = [reward for _, reward in points]
    return steps, [statistics.fmean(rewards[max(0, at + 1 - SMOOTH) : at + 1]) for at in range(len(rewards))]
