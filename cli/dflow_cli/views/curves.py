"""A run's curves as a PNG: what it earned and answered, how it was trained, and where the time went."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EXIT_FAILED, CliError, writing
from ..output import seconds
from ..runs.outcome import Outcome
from ..runs.stages import in_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSTALL = "pip install '.[plot]' in the checkout"
COLUMNS = (3, 4)  # up to nine panels, and for more
_PANEL_INCHES = (4.4, 2.9)
_DPI = 110
_OF_NO_STAGE = {"init": "0.4", "save": "0.55", "load": "0.7"}  # shades of grey
_NOTICED = 1e-4  # nats: by less two programs differ that compute the same

Rows = Sequence[Mapping[str, Any]]
Draw = Callable[[Any], None]  # of matplotlib's Axes


@dataclass(frozen=True)
class Curves:
    """`rows`: figures, one a step, in step order, as `metrics` answers them. `evals`: {stage, step, accuracy}.
    `stages`: ids in the pipeline's order, from which the colours follow, so that a stage has the same one in every
    panel and in every run of its pipeline; where they are not known, by name."""

    rows: Rows
    evals: Rows
    title: str
    stages: Sequence[str] = ()

    @cached_property
    def trained(self) -> Mapping[str, Rows]:
        """Rows by the stage whose update the step made."""
        by_stage: dict[str, list[Mapping[str, Any]]] = {}
        for row in self.rows:
            if (stage := trained_by(row)) is not None:
                by_stage.setdefault(stage, []).append(row)
        return {name: by_stage[name] for name in in_order(by_stage, self.stages)}

    @cached_property
    def _order(self) -> list[str]:
        timed = {name.partition(".")[0] for row in self.rows for name in row.get("seconds") or ()}
        return list(self.stages) or sorted(timed - _OF_NO_STAGE.keys())

    def colour(self, name: str) -> Any:
        """Of a stage, and lighter ones for its parts (`learn.apply`); grey for what belongs to no stage."""
        from matplotlib import colormaps

        stage, _, part = name.partition(".")
        if stage not in self._order:
            return _OF_NO_STAGE.get(stage, "0.8")
        red, green, blue, _ = colormaps["tab10"](self._order.index(stage) % 10)
        lighter = {"": 0.0, "apply": 0.35, "reduce": 0.6}.get(part, 0.75)
        return tuple(shade + (1 - shade) * lighter for shade in (red, green, blue))

    def panels(self) -> list[tuple[str, Draw]]:
        """Title and what draws it, of those that have something to show."""
        found: list[tuple[str, Draw]] = []
        if _column(self.rows, "reward_mean")[0]:
            found.append(("reward: mean, deviation, lowest to highest", self._reward))
        if self.evals:
            found.append(("held-out accuracy", self._accuracy))
        for stage in self.trained:
            if _column(self.trained[stage], "loss")[0]:
                found.append((f"loss of `{stage}`", partial(self._of_training, "loss", [stage])))
        for name, title in (("entropy", "entropy, nats a token"), ("kl", "KL to the reference, nats a token")):
            found += self._update(name, title)
        if max(_column(self.rows, "mismatch_kl")[1], default=0.0) > _NOTICED:
            found += self._update("mismatch_kl", "KL of sampler and training, nats a token")
        if _column(self.rows, "completion_length_mean")[0]:
            found.append(("completion length, tokens: mean and longest", self._length))
        found += self._update("grad_norm", "gradient norm, before it is clipped")
        found += self._update("learning_rate", "learning rate")
        if _column(self.rows, "tokens_per_s")[0]:
            found.append(("tokens a second", self._throughput))
        found.append(("compute seconds of a step by stage, all nodes", self._time))
        return found

    def _update(self, name: str, title: str) -> list[tuple[str, Draw]]:
        stages = [stage for stage, rows in self.trained.items() if _column(rows, name)[0]]
        return [(title, partial(self._of_training, name, stages))] if stages else []

    def _of_training(self, name: str, stages: Iterable[str], axes: Any) -> None:
        """A line for each stage that trains, in its colour."""
        for stage in stages:
            steps, values = _column(self.trained[stage], name)
            axes.plot(steps, values, color=self.colour(stage), label=stage, marker="." if len(steps) == 1 else "")
        if len(axes.lines) > 1:
            axes.legend(fontsize="small")

    def _reward(self, axes: Any) -> None:
        """Of a step's completions; each stage's mean where several reward."""
        rows = [row for row in self.rows if row.get("reward_mean") is not None]
        steps = [int(row["step"]) for row in rows]
        means = [float(row["reward_mean"]) for row in rows]
        low = [float(row.get("reward_min", mean)) for row, mean in zip(rows, means, strict=True)]
        high = [float(row.get("reward_max", mean)) for row, mean in zip(rows, means, strict=True)]
        spread = [float(row.get("reward_std") or 0.0) for row in rows]
        within = list(zip(means, spread, low, high, strict=True))
        axes.fill_between(steps, low, high, color="0.5", alpha=0.12, linewidth=0)
        axes.fill_between(
            steps,
            [max(mean - std, least) for mean, std, least, _ in within],
            [min(mean + std, most) for mean, std, _, most in within],
            color="C0",
            alpha=0.2,
            linewidth=0,
        )
        axes.plot(steps, means, color="C0", label="trained on")
        each = sorted({name for row in rows for name in row if name.startswith("reward_mean/")})
        for stage in in_order([name.partition("/")[2] for name in each], self.stages):
            axes.plot(*_column(rows, f"reward_mean/{stage}"), color=self.colour(stage), linewidth=1.0, label=stage)
        if each:
            axes.legend(fontsize="small")

    def _accuracy(self, axes: Any) -> None:
        """One line an `evaluate` stage."""
        stages = in_order({str(row.get("stage", "")) for row in self.evals}, self.stages)
        for stage in stages:
            points = [row for row in self.evals if str(row.get("stage", "")) == stage]
            axes.plot(*_column(points, "accuracy"), marker="o", color=self.colour(stage), label=stage, clip_on=False)
        if len(stages) > 1:
            axes.legend(fontsize="small")
        axes.set_ylim(0.0, 1.02)

    def _length(self, axes: Any) -> None:
        axes.plot(*_column(self.rows, "completion_length_mean"), color="C0")
        axes.plot(*_column(self.rows, "completion_length_max"), color="C0", linewidth=0.8, alpha=0.5)
        axes.set_ylim(bottom=0.0)

    def _throughput(self, axes: Any) -> None:
        axes.plot(*_column(self.rows, "tokens_per_s"), color="C0")
        axes.set_ylim(bottom=0.0)

    def _time(self, axes: Any) -> None:
        """One band a stage, the first at the bottom."""
        timed = [row for row in self.rows if row.get("seconds") and row["step"] > 0]  # row 0: first weights were made
        names = in_order({name for row in timed for name in row["seconds"]}, self.stages)
        if names:
            bands = [[float(row["seconds"].get(name, 0.0)) for row in timed] for name in names]
            colours = [self.colour(name) for name in names]
            axes.stackplot([int(row["step"]) for row in timed], bands, labels=names, colors=colours, step="mid")
            axes.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, frameon=False)


def trained_by(row: Mapping[str, Any]) -> str | None:
    """The stage whose update the step made: the one that applied something."""
    return next((name.removesuffix(".apply") for name in row.get("seconds") or () if name.endswith(".apply")), None)


def title_of(outcome: Outcome, rows: Rows) -> str:
    """What whoever finds the picture a month later asks: which run, when, on how many nodes, and what came of it."""
    daemons = f"{outcome.nodes} daemon{'' if outcome.nodes == 1 else 's'}"
    lines = [
        f"{outcome.name}   {outcome.run[:8]}   {outcome.state}, step {outcome.step} of {outcome.steps}",
        f"{daemons}   {_dates(rows)} ({seconds(outcome.wall_s)})",
    ]
    for stage, evals in outcome.evals_by_stage.items():
        first, last = float(evals[0]["accuracy"]), float(evals[-1]["accuracy"])
        lines.append(f"accuracy {first:.3f} before, {last:.3f} after  ({stage or 'held out'})")
    rewards = _column(rows, "reward_mean")[1]
    if len(lines) == 2 and rewards:
        lines.append(f"reward {rewards[0]:.3f} at first, {rewards[-1]:.3f} at the end")
    return "\n".join(lines)


def _dates(rows: Rows) -> str:
    """From the first figure to the last, by the clock where it is drawn."""
    times = [datetime.fromtimestamp(float(row["time_s"])) for row in rows]
    first, last = min(times), max(times)
    return f"{first:%Y-%m-%d %H:%M} to {last:{'%H:%M' if first.date() == last.date() else '%Y-%m-%d %H:%M'}}"


def draw_figure(curves: Curves) -> Figure:
    """All panels. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = curves.panels()
    columns = COLUMNS[len(panels) > 9]
    lines = -(-len(panels) // columns)
    wide, high = _PANEL_INCHES
    figure = Figure(figsize=(wide * columns, high * lines + 0.9), layout="constrained")
    figure.suptitle(curves.title, fontsize="medium")
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    last = max((int(row["step"]) for row in curves.rows), default=0)
    for axes, (title, draw) in zip(places, panels, strict=False):
        draw(axes)
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("step")
        axes.set_xlim(0, max(last, 1))  # one for all panels: what happened at a step stands below each other
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def write_png(curves: Curves, path: Path) -> None:
    """Raises CliError without matplotlib, or when the file cannot be written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = draw_figure(curves)
    except ImportError as error:
        raise CliError("drawing needs matplotlib", hint=INSTALL, exit_code=EXIT_FAILED) from error
    try:
        with writing(path):
            FigureCanvasAgg(figure).print_figure(str(path), dpi=_DPI)
    except ValueError as error:
        raise CliError(str(error), where=str(path), hint="name a .png file") from error


def _column(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    kept = [(int(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
    return [step for step, _ in kept], [value for _, value in kept]
