"""The live run: a picture that redraws itself on a terminal, plain lines elsewhere. Both on stderr."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Protocol, Self

from ..output import note, seconds
from ..runs.follow import Picture
from .chart import chart

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

LINE_S = 5.0  # between two plain lines
REDRAW_S = 1.0
CURVE_HEIGHT = 6
_CURVES = (("reward_mean", "reward"), ("loss", "loss"))  # the first that the run has


class View(Protocol):
    @property
    def look_s(self) -> float: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def show(self, picture: Picture) -> None: ...


def progress() -> View:
    """The view that suits stderr: a terminal that can move its cursor gets the picture."""
    can_draw = sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return LiveView() if can_draw else PlainView()


class PlainView:
    """Lines for a log file: every few seconds one, and one for each evaluation."""

    look_s = LINE_S

    def __init__(self) -> None:
        self._shown = (-1, "")
        self._evals = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def show(self, picture: Picture) -> None:
        outcome = picture.outcome
        for row in outcome.evals[self._evals :]:
            note(f"step {row['step']}: accuracy {float(row['accuracy']):.3f} ({row.get('stage') or 'held out'})")
        self._evals = len(outcome.evals)
        if (outcome.step, outcome.remark) != self._shown:
            self._shown = (outcome.step, outcome.remark)
            note(line(picture))


def line(picture: Picture) -> str:
    """How the run stands, in one line."""
    outcome = picture.outcome
    parts = [f"step {outcome.step}/{outcome.steps}"]
    named = {"reward_mean": "reward", "loss": "loss", "entropy": "entropy", "tokens_per_s": "tokens/s"}
    for name, label in named.items():
        if (value := picture.newest.get(name)) is not None:
            parts.append(f"{label} {value:.0f}" if name == "tokens_per_s" else f"{label} {value:.3f}")
        parts += [f"{label}/{stage} {value:.3f}" for stage, value in picture.by_stage(name).items()]
    if (pace := picture.newest.get("step_s")) is not None:
        parts.append(f"{seconds(pace)} a step")
    if not outcome.is_final and outcome.remark:
        parts.append(outcome.remark)
    elif not outcome.is_final and (left := picture.left_s()) is not None:
        parts.append(f"about {seconds(left)} left")
    return "  ".join(parts)


class LiveView:
    """The whole picture, redrawn in place; its last state stays on the screen."""

    look_s = REDRAW_S

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, picture: Picture) -> None:
        if self._live is not None:
            self._live.update(render(picture, self._console.width), refresh=True)


def render(picture: Picture, width: int) -> RenderableType:
    """The picture as rich draws it, `width` characters wide."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    outcome = picture.outcome
    title = f"{outcome.name}  {outcome.run[:8]}  {outcome.state}"
    inner = width - 4
    parts: list[RenderableType] = [Text(_headline(picture)), Text(_bar(outcome.step, outcome.steps, inner), "cyan")]
    parts.append(_side_by_side(_mesh(picture), _stages(picture)))
    curves = [(label, points) for name, label in _CURVES if (points := picture.column(name))]
    for label, points in curves[:1]:
        parts.extend(_curve(points, label, inner))
    if each := picture.by_stage("reward_mean"):
        parts.append(Text("   ".join(f"reward/{stage} {value:.3f}" for stage, value in each.items()), "bold"))
    for stage, evals in outcome.evals_by_stage.items():
        rates = ", ".join(f"{float(row['accuracy']):.3f} at step {row['step']}" for row in evals[-4:])
        parts.append(
            Text(f"accuracy  {rates}  ({stage or 'held out'})", "bold green", no_wrap=True, overflow="ellipsis")
        )
    if picture.samples:
        parts.append(_samples(picture, inner))
    if outcome.error:
        parts.append(Text(f"error: {outcome.error}", "bold red"))
    elif outcome.remark:
        parts.append(Text(outcome.remark, "bold yellow"))
    return Panel(Group(*parts), title=title, width=width)


def _headline(picture: Picture) -> str:
    outcome = picture.outcome
    text = f"step {outcome.step} of {outcome.steps}   {seconds(outcome.wall_s)} so far"
    if not outcome.is_final and (left := picture.left_s()) is not None:
        text += f", about {seconds(left)} left"
    if (pace := picture.newest.get("tokens_per_s")) is not None:
        text += f"   {pace:.0f} tokens/s"
    return text


def _bar(done: int, of: int, width: int) -> str:
    full = width * done // of if of else 0
    return "━" * full + "╌" * (width - full)


def _mesh(picture: Picture) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("node", "state", "running", box=None, pad_edge=False, header_style="bold")
    colours = {"alive": "green", "suspect": "yellow", "dead": "red"}
    for member in sorted(picture.members, key=lambda member: str(member["name"])):
        state = str(member["state"])
        colour = colours.get(state, "dim")
        doing = picture.doing.get(str(member["name"]), [])
        table.add_row(Text(str(member["name"])), Text(state, colour), Text(", ".join(doing)))
    return table


def _stages(picture: Picture) -> Table:
    """Compute seconds of the newest step by stage, all nodes together."""
    from rich.table import Table
    from rich.text import Text

    table = Table("stage", "seconds", "", box=None, pad_edge=False, header_style="bold")
    spent: dict[str, Any] = picture.newest.get("seconds") or {}
    most = max(spent.values(), default=0.0)
    for stage, value in spent.items():
        table.add_row(Text(stage), f"{value:.3f}", "█" * (round(16 * value / most) if most else 0))
    return table


def _side_by_side(left: Table, right: Table) -> Table:
    from rich.table import Table

    both = Table.grid(padding=(0, 4))
    both.add_row(left, right)
    return both


def _curve(points: list[tuple[int, float]], label: str, width: int) -> list[RenderableType]:
    from rich.text import Text

    values = [value for _, value in points]
    head = f"{label} {values[-1]:.3f}   least {min(values):.3f}, greatest {max(values):.3f}, from step {points[0][0]}"
    return [Text(head, "bold"), *(Text(row, "cyan") for row in chart(values, width, CURVE_HEIGHT))]


def _samples(picture: Picture, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("prompt", "completion", "reward", box=None, pad_edge=False, header_style="bold")
    for sample in picture.samples:
        cut = max((width - 12) // 2, 10)
        prompt, completion = (" ".join(str(sample[name]).split()) for name in ("prompt", "completion"))
        reward = sample.get("reward")
        if len(prompt) > cut:
            prompt = f"…{prompt[1 - cut :]}"  # prompts of a task begin alike and differ at the end
        table.add_row(Text(prompt), Text(completion[:cut]), "-" if reward is None else f"{reward:.2f}")
    return table
