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

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from benchmarks.figure import Figure, Goal, Skipped, Tell
from benchmarks.learning import Curve, Variant, by_name, compare_curves, smoothed
from benchmarks.plain_loop import DEFAULT_SPEC

OVERLAYS = DEFAULT_SPEC.parent / "algorithms"
COLUMNS = 4  # panels beside each other
QUICK = {"names": ("grpo", "rloo"), "seeds": (0,), "warmup": 4, "steps": 4}


def measure(
    tell: Tell,
    *,
    names: Annotated[tuple[str, ...], "algorithms; all without it"] = (),
    seeds: Annotated[tuple[int, ...], "of a run each"] = (0, 1, 2),
    warmup: Annotated[int, "steps on demonstrations"] = 50,
    steps: Annotated[int, "steps by the algorithm"] = 60,
    out: Annotated[str, "folder of results"] = "out/algorithms",
) -> list[Figure]:
    variants = [Variant(path.stem, (str(path),)) for path in chosen(names)]
    rows = compare_curves(tell, Path(out), variants, seeds, warmup, steps, draw)
    what = "held-out accuracy"
    return [
        Figure(f"{row['algorithm']}: {what}", "", row["after"], "warm-up", row["before"], Goal(1.0, is_least=True))
        for row in rows
    ]


def chosen(names: Sequence[str]) -> list[Path]:
    """The overlays of these algorithms, or of all. Raises Skipped for a name that has none."""
    known = {path.stem: path for path in sorted(OVERLAYS.glob("*.yaml"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Skipped(f"there is no algorithm `{unknown[0]}` under {OVERLAYS}; known: {', '.join(known)}")
    return [known[name] for name in names or known]


def draw(path: Path, curves: Sequence[Curve]) -> None:
    """One panel an algorithm, all with the same axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = by_name(curves)
    rows = -(-len(panels) // COLUMNS)
    size = (3.2 * COLUMNS, 2.4 * rows + 0.4)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=size, sharex=True, sharey=True, squeeze=False)
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    for place, (name, own) in zip(axes.flat, panels.items(), strict=False):
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
