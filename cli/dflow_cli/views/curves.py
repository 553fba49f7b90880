"""A run's curves as a PNG: reward, held-out accuracy, throughput, time by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import EXIT_FAILED, CliError

_SIZE_INCHES = (11.0, 7.0)
_DPI = 110
INSTALL = "pip install '.[plot]' in the checkout"


Rows = Sequence[Mapping[str, Any]]


def write_png(rows: Rows, evals: Rows, path: Path, title: str) -> None:
    """Draw `rows` (one a step, in step order, as `metrics` answers them) and `evals` ({step, accuracy}).

    Raises CliError without matplotlib, or when the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CliError("drawing needs matplotlib", hint=INSTALL, exit_code=EXIT_FAILED) from error
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    figure.suptitle(title)
    (reward, accuracy), (throughput, stages) = figure.subplots(2, 2)
    _draw_reward(reward, rows)
    _draw_accuracy(accuracy, evals)
    throughput.plot(*_column(rows, "tokens_per_s"))
    throughput.set_title("tokens a second")
    throughput.set_ylim(bottom=0.0)
    _draw_stages(stages, rows)
    for axes in (reward, accuracy, throughput, stages):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    try:
        FigureCanvasAgg(figure).print_figure(str(path), dpi=_DPI)
    except (OSError, ValueError) as error:
        raise CliError(str(error), where=str(path), hint="name a .png file in a folder that can be written") from error


def _column(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    kept = [(int(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def _draw_accuracy(axes: Any, evals: Rows) -> None:
    """One line an `evaluate` stage."""
    stages = sorted({str(row.get("stage", "")) for row in evals})
    for stage in stages:
        points = [row for row in evals if str(row.get("stage", "")) == stage]
        axes.plot(*_column(points, "accuracy"), marker="o", label=stage)
    if len(stages) > 1:
        axes.legend(fontsize="small")
    axes.set_title("held-out accuracy")
    axes.set_ylim(0.0, 1.02)


def _draw_reward(axes: Any, rows: Rows) -> None:
    """The mean of a step's completions, one standard deviation to both sides; each stage's mean if several reward."""
    steps, means = _column(rows, "reward_mean")
    if steps:
        axes.plot(steps, means, label="trained on")
    each = sorted({name for row in rows for name in row if name.startswith("reward_mean/")})
    for name in each:
        axes.plot(*_column(rows, name), linewidth=1.0, label=name.partition("/")[2])
    if each:
        axes.legend(fontsize="small")
    spread = {int(row["step"]): float(row["reward_std"]) for row in rows if row.get("reward_std") is not None}
    low = [mean - spread.get(step, 0.0) for step, mean in zip(steps, means, strict=True)]
    high = [mean + spread.get(step, 0.0) for step, mean in zip(steps, means, strict=True)]
    axes.fill_between(steps, low, high, alpha=0.15, linewidth=0)
    axes.set_title("reward, mean and standard deviation")


def _draw_stages(axes: Any, rows: Rows) -> None:
    """Compute seconds of each step, all nodes together, one band a stage."""
    from matplotlib import colormaps

    timed = [row for row in rows if row.get("seconds") and row["step"] > 0]  # row 0: the first weights were made
    names = sorted({name for row in timed for name in row["seconds"]})
    if names:
        bands = [[float(row["seconds"].get(name, 0.0)) for row in timed] for name in names]
        colours = [colormaps["tab20"](index % 20) for index in range(len(names))]
        axes.stackplot([int(row["step"]) for row in timed], bands, labels=names, colors=colours, step="mid")
        axes.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, frameon=False)
    axes.set_title("compute seconds by stage, all nodes")
