"""The picture of a run that fills a terminal of any size: what matters most stays whole where there is little room.

From above: how far it is, seconds by stage, the nodes, curves, evaluations, samples. Each part is lines of which the
number is known before it is drawn, so that all of them together have as many as the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from ..output import about, escaped, seconds
from ..runs.follow import Picture
from ..runs.stages import in_order
from .chart import chart
from .nodes import state_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

CURVES = (("reward_mean", "reward"), ("loss", "loss"), ("entropy", "entropy"), ("grad_norm", "gradient norm"))
LEAST_CURVE = 4  # lines, its heading among them
FULL_CURVE = 8  # a second one is drawn where each has so many
LEAST_SAMPLES = 3
TOLD_SHARE = 0.01  # of a step's seconds: stages with less are not in the line that stands for the table
ERROR_LINES = 3  # the summary after the run has all of it
_COLOURS = {"alive": "green", "suspect": "yellow", "drained": "yellow", "dead": "red"}

Part = tuple["RenderableType", int]  # and its lines


def render(picture: Picture, width: int, height: int) -> Panel:
    """The picture as rich draws it, `width` characters wide and at most `height` lines high."""
    from rich.console import Group
    from rich.panel import Panel

    outcome = picture.outcome
    inner, left = width - 4, height - 2
    top = [_line(_headline(picture, inner)), _line(_bar(outcome.step, outcome.steps, inner), "cyan")]
    below = [*_rewards(picture), *_evaluations(picture), *_remark(picture, inner)]
    left -= len(top) + len(below)
    tables = _tables(picture, inner, left - LEAST_CURVE - LEAST_SAMPLES)
    left -= sum(lines for _, lines in tables)
    shown = min(len(picture.samples), max(left // 3, LEAST_SAMPLES) - 1)
    if left < LEAST_CURVE + LEAST_SAMPLES and picture.rows:
        shown = 0  # a curve says more than what one prompt got
    samples = [(_samples(picture, shown, inner), shown + 1)] if shown > 0 else []
    left -= sum(lines for _, lines in samples)
    parts = [*top, *tables, *_curves(picture, inner, left), *below, *samples]
    title = f"{outcome.name}  {outcome.run[:8]}  {outcome.state}"
    return Panel(Group(*(part for part, _ in parts)), title=title, width=width)


def _line(text: str, style: str = "") -> Part:
    from rich.text import Text

    return Text(text, style, no_wrap=True, overflow="ellipsis"), 1


def _headline(picture: Picture, width: int) -> str:
    outcome = picture.outcome
    parts = [f"step {outcome.step} of {outcome.steps}", f"{seconds(outcome.wall_s)} so far"]
    if not outcome.is_final and (left := picture.left_s()):
        parts[-1] += f", {about(left)} left"
    if (rate := picture.newest.get("tokens_per_s")) is not None:
        parts.append(f"{rate:,.0f} tokens/s")
    if (pace := picture.newest.get("step_s")) is not None:
        parts.append(f"{seconds(pace)} a step")
    return _as_fits(parts, width)


def _as_fits(parts: Sequence[str], width: int) -> str:
    """As many of the parts as have room, but one at least: half a figure is another figure."""
    text = parts[0]
    for part in parts[1:]:
        if len(text) + 3 + len(part) > width:
            break
        text += f"   {part}"
    return text


def _bar(done: int, of: int, width: int) -> str:
    full = width * done // of if of else 0
    return "━" * full + "╌" * (width - full)


def _tables(picture: Picture, width: int, room: int) -> list[Part]:
    """Stages, and the nodes below them: in tables where these have room, else in a line each."""
    spent: dict[str, float] = picture.newest.get("seconds") or {}
    members = len(picture.members) + 1 if picture.members else 0
    for costs in (spent, _whole(spent)):
        if costs and len(costs) + 1 + members <= room:
            nodes = [(_nodes(picture), members)] if members else []
            return [(_stages(costs, picture.stages, width), len(costs) + 1), *nodes]
    parts: list[Part] = []
    if spent:
        costs = _whole(spent)
        names = [name for name in in_order(costs, picture.stages) if costs[name] >= TOLD_SHARE * sum(costs.values())]
        each = _as_fits([f"{name} {seconds(costs[name])}" for name in names], width - 8)
        parts.append(_line(f"stages  {each}"))
    if picture.members:
        parts.append((_nodes(picture), members) if members + len(parts) <= room else _line(_counted_nodes(picture)))
    return parts


def _whole(spent: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage, those of their parts (`learn.apply`) put to them."""
    found: dict[str, float] = {}
    for name, value in spent.items():
        stage = name.partition(".")[0]
        found[stage] = found.get(stage, 0.0) + value
    return found


def _stages(spent: Mapping[str, float], stages: Sequence[str], width: int) -> Table:
    """Compute seconds of the newest step by stage, all nodes together."""
    from rich.text import Text

    table = _table("stage", "time", "")
    table.columns[1].justify = "right"
    names = in_order(spent, stages)
    times = {name: seconds(spent[name]) for name in names}
    most = max(spent.values()) or 1.0
    room = max(width - max(map(len, names)) - max(map(len, times.values())) - 4, 4)
    for name in names:
        table.add_row(Text(name), times[name], Text("█" * round(room * spent[name] / most), "cyan"))
    return table


def _nodes(picture: Picture) -> Table:
    from rich.text import Text

    table = _table("node", "state", "running")
    for member in sorted(picture.members, key=lambda member: str(member["name"])):
        name, state = str(member["name"]), state_of(member)
        doing = ", ".join(in_order(picture.doing.get(name, []), picture.stages))
        table.add_row(Text(name), Text(state, _COLOURS.get(state, "dim")), Text(doing))
    return table


def _counted_nodes(picture: Picture) -> str:
    """Where there are more nodes than lines: how many are in which state, and at which stage."""
    states = Counter(map(state_of, picture.members))
    running = Counter(stage for stages in picture.doing.values() for stage in stages)
    text = "nodes   " + ", ".join(f"{count} {state}" for state, count in states.most_common())
    if running:
        text += "   running " + ", ".join(f"{name} {running[name]}" for name in in_order(running, picture.stages))
    return text


def _curves(picture: Picture, width: int, room: int) -> list[Part]:
    """As many as have room, the first of them highest."""
    there = [(label, points) for name, label in CURVES if (points := picture.column(name))]
    there = there[: max(room // FULL_CURVE, 1)] if room >= 2 else []
    parts: list[Part] = []
    for index, (label, points) in enumerate(there):
        lines = -(-room // (len(there) - index))
        parts += _curve(points, label, width, lines)
        room -= lines
    return parts


def _curve(points: Sequence[tuple[int, float]], label: str, width: int, lines: int) -> list[Part]:
    values = [value for _, value in points]
    span = f"lowest {min(values):.3f}, highest {max(values):.3f}, since step {points[0][0]}"
    return [
        _line(f"{label} {values[-1]:.3f}   {span}", "bold"),
        *(_line(row, "cyan") for row in chart(values, width, lines - 1)),
    ]


def _rewards(picture: Picture) -> list[Part]:
    """Each one of several, as their sum hides which of them moves."""
    each = picture.by_stage("reward_mean")
    names = in_order(each, picture.stages)
    return [_line("   ".join(f"reward/{name} {each[name]:.3f}" for name in names), "bold")] if each else []


def _evaluations(picture: Picture) -> list[Part]:
    """The newest ones of each `evaluate` stage."""
    lines = []
    for stage, evals in picture.outcome.evals_by_stage.items():
        rates = ", ".join(f"{float(row['accuracy']):.3f} at step {row['step']}" for row in evals[-4:])
        lines.append(_line(f"accuracy  {rates}  ({stage or 'held out'})", "bold green"))
    return lines


def _remark(picture: Picture, width: int) -> list[Part]:
    outcome = picture.outcome
    if outcome.error:
        return [_line(text, "bold red") for text in wrap(f"error: {outcome.error}", width)[:ERROR_LINES]]
    return [_line(text, "bold yellow") for text in wrap(outcome.remark, width)[:ERROR_LINES]]


def _samples(picture: Picture, count: int, width: int) -> Table:
    """The newest `count`, a line each."""
    from rich.text import Text

    table = _table("prompt", "completion", "answer", "reward")
    shown = [[escaped(str(sample.get(name, ""))) for name in _TEXTS] for sample in picture.samples[-count:]]
    right = min(max(len(answer) for _, _, answer in shown), width // 4)
    room = max((width - right - 12) // 2, 4)
    for (prompt, completion, answer), sample in zip(shown, picture.samples[-count:], strict=True):
        reward = sample.get("reward")
        cells: list[Text] = [Text(_end_of(prompt, room)), Text(completion[:room]), Text(answer[:right])]
        table.add_row(*cells, "-" if reward is None else f"{reward:.2f}")
    return table


_TEXTS = ("prompt", "completion", "answer")


def _end_of(prompt: str, room: int) -> str:
    """Prompts of a task begin alike and differ at the end."""
    return prompt if len(prompt) <= room else f"…{prompt[1 - room :]}"


def _table(*columns: str) -> Table:
    """Of one line a row, whatever stands in it."""
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    return table
