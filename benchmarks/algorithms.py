"""Does every algorithm learn? Each on one task, with the same budget, from several seeds.

Each algorithm by its overlay in examples/algorithms, laid over examples/spell_backward.yaml: the same warm-up, the
same number of rollouts, one daemon with one engine on one core. A run's figures are kept in a file of its own under
`out`, and one that is there is not run again: what was interrupted goes on where it was. After each run `out` has

    curves.csv     reward and held-out accuracy by algorithm, seed and step
    summary.json   mean and deviation over the seeds, before and after
    curves.png     one panel an algorithm: the reward of each seed, and held-out accuracy

Goal: held-out accuracy is higher than after the warm-up, in the mean. A run takes some three minutes on a core of its
own.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.figure import Figure, Goal, Skipped, Tell
from benchmarks.plain_loop import DEFAULT_SPEC, need_engine

OVERLAYS = DEFAULT_SPEC.parent / "algorithms"
RUN_S = 3600.0
COLUMNS = 4  # panels beside each other
SMOOTH = 5  # steps that a point of a drawn reward is the mean of
QUICK = {"names": ("grpo", "rloo"), "seeds": (0,), "warmup": 4, "steps": 4}


@dataclass(frozen=True, slots=True)
class Curve:
    """What one run gave. `rewards`: [step, mean reward] of each step with a rollout; `accuracies`: [step, held-out
    accuracy]; steps counted from the end of the warm-up. `clipped`: share of tokens that a clip cut, in the mean."""

    algorithm: str
    seed: int
    warmup: int
    steps: int
    rewards: list[list[float]]
    accuracies: list[list[float]]
    clipped: float
    wall_s: float

    @property
    def before(self) -> float:
        return self.accuracies[0][1]

    @property
    def after(self) -> float:
        return self.accuracies[-1][1]


def measure(
    tell: Tell,
    *,
    names: Annotated[tuple[str, ...], "algorithms; all without it"] = (),
    seeds: Annotated[tuple[int, ...], "of a run each"] = (0, 1, 2),
    warmup: Annotated[int, "steps on demonstrations"] = 50,
    steps: Annotated[int, "steps by the algorithm"] = 60,
    out: Annotated[str, "folder of results"] = "out/algorithms",
) -> list[Figure]:
    need_engine()
    overlays = chosen(names)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Curve] = []
    rows: list[dict[str, Any]] = []
    for seed in seeds:  # all algorithms of a seed first, so that a part of it is a comparison, too
        for overlay in overlays:
            found.append(curve(folder, overlay, seed, warmup, steps))
            last = found[-1]
            tell({"algorithm": last.algorithm, "seed": seed, "before": last.before, "after": last.after})
            rows = publish(folder, found)
    for row in rows:
        tell(row)
    what = "held-out accuracy"
    return [
        Figure(f"{row['algorithm']}: {what}", "", row["after"], "warm-up", row["before"], Goal(1.0, is_least=True))
        for row in rows
    ]


def publish(folder: Path, found: Sequence[Curve]) -> list[dict[str, Any]]:
    """Write down what there is so far. Returns the summary."""
    names = dict.fromkeys(each.algorithm for each in found)
    rows = [summary([each for each in found if each.algorithm == name]) for name in names]
    (folder / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    write_csv(folder / "curves.csv", found)
    draw(folder / "curves.png", found)
    return rows


def chosen(names: Sequence[str]) -> list[Path]:
    """The overlays of these algorithms, or of all. Raises Skipped for a name that has none."""
    known = {path.stem: path for path in sorted(OVERLAYS.glob("*.yaml"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Skipped(f"there is no algorithm `{unknown[0]}` under {OVERLAYS}; known: {', '.join(known)}")
    return [known[name] for name in names or known]


def curve(folder: Path, overlay: Path, seed: int, warmup: int, steps: int) -> Curve:
    """A run's figures: those that were kept, if they are of the same budget, else of a run that is made now."""
    kept = folder / f"{overlay.stem}-{seed}-{warmup}-{steps}.json"
    if kept.exists():
        return Curve(**json.loads(kept.read_text()))
    found = run(overlay, seed, warmup, steps)
    beside = kept.with_suffix(".part")
    beside.write_text(json.dumps(asdict(found)) + "\n")
    beside.replace(kept)
    return found


def run(overlay: Path, seed: int, warmup: int, steps: int) -> Curve:
    """One run to its end, on one daemon and one core. Raises RuntimeError with what the command said."""
    every = max(5, steps // 6)
    values = {"seed": seed, "params.warmup": warmup, "params.grpo": steps, "checkpoint.every": 0}
    sets = [f"--set={key}={value}" for key, value in (values | {"stages.heldout.every": every}).items()]
    with tempfile.TemporaryDirectory() as mesh:
        (told,) = dflow("run", str(DEFAULT_SPEC), str(overlay), *sets, "--nodes", "1", "--dir", mesh)
        figures = dflow("metrics", told["run"], "--dir", mesh)
    rewards, clipped = figures_of(figures)
    accuracies = [[each["step"] - warmup, each["accuracy"]] for each in told["evals"]]
    return Curve(overlay.stem, seed, warmup, steps, rewards, accuracies, clipped, told["wall_s"])


def figures_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[float]], float]:
    """`rewards` and `clipped` of a Curve. `rows`: of `dflow metrics`, one a version. A step that makes several updates
    has several: the first one has its reward, and the ratio moves in those behind it."""
    rewards = [row["reward_mean"] for row in rows if row.get("reward_mean") is not None]
    cut = [row["clip_frac_low"] + row["clip_frac_high"] for row in rows if "clip_frac_low" in row]
    return [[step, reward] for step, reward in enumerate(rewards, 1)], statistics.fmean(cut) if cut else 0.0


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
    """Means over the seeds of one algorithm, with their deviations. A reward is that of the first or last SMOOTH
    steps."""
    begin = [statistics.fmean(reward for _, reward in each.rewards[:SMOOTH]) for each in curves]
    end = [statistics.fmean(reward for _, reward in each.rewards[-SMOOTH:]) for each in curves]
    after = [each.after for each in curves]
    return {
        "algorithm": curves[0].algorithm,
        "seeds": len(curves),
        "before": round(statistics.fmean(each.before for each in curves), 4),
        "after": round(statistics.fmean(after), 4),
        "after_sd": round(statistics.stdev(after), 4) if len(after) > 1 else None,
        "reward_begin": round(statistics.fmean(begin), 4),
        "reward_end": round(statistics.fmean(end), 4),
        "reward_end_sd": round(statistics.stdev(end), 4) if len(end) > 1 else None,
        "clipped": round(statistics.fmean(each.clipped for each in curves), 5),
        "wall_s": round(statistics.fmean(each.wall_s for each in curves), 1),
    }


def write_csv(path: Path, curves: Sequence[Curve]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("algorithm", "seed", "figure", "step", "value"))
        for each in curves:
            for figure, points in (("reward", each.rewards), ("held_out_accuracy", each.accuracies)):
                writer.writerows((each.algorithm, each.seed, figure, int(step), value) for step, value in points)


def draw(path: Path, curves: Sequence[Curve]) -> None:
    """One panel an algorithm, all with the same axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_name: dict[str, list[Curve]] = {}
    for each in curves:
        by_name.setdefault(each.algorithm, []).append(each)
    rows = -(-len(by_name) // COLUMNS)
    size = (3.2 * COLUMNS, 2.4 * rows + 0.4)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=size, sharex=True, sharey=True, squeeze=False)
    for place in axes.flat[len(by_name) :]:
        place.set_visible(False)
    for place, (name, own) in zip(axes.flat, by_name.items(), strict=False):
        place.set_title(name, fontsize=10)
        place.grid(alpha=0.3)
        for each in own:
            steps, rewards = smoothed(each.rewards)
            place.plot(steps, rewards, color="tab:blue", alpha=0.6, linewidth=1)
            place.plot(*zip(*each.accuracies, strict=True), color="tab:orange", alpha=0.8, marker="o", markersize=3)
    for name, colour in (("reward (mean of a step)", "tab:blue"), ("held-out accuracy", "tab:orange")):
        axes[0][0].plot([], [], color=colour, label=name)
    figure.legend(loc="lower right", fontsize=9)
    figure.supxlabel("steps after the warm-up", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def smoothed(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Each point as the mean of itself and those before it, SMOOTH at most."""
    steps = [step for step, _ in points]
    rewards = [reward for _, reward in points]
    return steps, [statistics.fmean(rewards[max(0, at + 1 - SMOOTH) : at + 1]) for at in range(len(rewards))]
