"""The pipeline's stages as boxes, each below what it reads from, with its time and its share of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dflow_protocols.pipeline import Stage

from ...views.dag import waited_for
from ..bottleneck import duration, percent
from ..loads import Load
from .shapes import Palette, Path, Picture, Rect, Shape, Text

BOX, HIGH, ACROSS, DOWN, EDGE = 168.0, 62.0, 18.0, 34.0, 10.0


def graph(stages: Sequence[Stage], loads: Sequence[Load], palette: Palette) -> Picture | None:
    """None without stages. `loads`: the largest first; the stage of that is marked."""
    if not stages:
        return None
    depth = _depths(stages)
    rows: dict[int, list[Stage]] = {}
    for stage in stages:
        rows.setdefault(depth[stage.id], []).append(stage)
    widest = max(len(row) for row in rows.values())
    width = 2 * EDGE + widest * BOX + (widest - 1) * ACROSS
    places: dict[str, tuple[float, float]] = {}
    for at, row in rows.items():
        left = (width - len(row) * BOX - (len(row) - 1) * ACROSS) / 2
        for index, stage in enumerate(row):
            places[stage.id] = left + index * (BOX + ACROSS), EDGE + at * (HIGH + DOWN)
    took = taken(stages, loads)
    slowest = next((load.stage for load in loads if load.share > 0), "")
    shapes: list[Shape] = [arrow for stage in stages for arrow in _arrows(stage, places)]
    for stage in stages:
        x, y = places[stage.id]
        shapes += _box(stage, x, y, took.get(stage.id), stage.id == slowest, palette)
    height = 2 * EDGE + len(rows) * HIGH + (len(rows) - 1) * DOWN
    return Picture(width, height, "the stages of the pipeline and who reads what", shapes)


def taken(stages: Sequence[Stage], loads: Sequence[Load]) -> Mapping[str, tuple[float, float]]:
    """Stage -> (share of the steps' time, seconds in a step that has it), all parts of training together."""
    found: dict[str, tuple[float, float]] = {}
    for load in loads:
        if load.stage in {stage.id for stage in stages}:
            share, a_step_s = found.get(load.stage, (0.0, 0.0))
            found[load.stage] = share + load.share, a_step_s + load.a_step_s
    return found


def _depths(stages: Sequence[Stage]) -> dict[str, int]:
    depth: dict[str, int] = {}
    left = list(stages)
    while left:  # a pipeline has no circle
        for stage in [stage for stage in left if all(name in depth for name in waited_for(stage))]:
            depth[stage.id] = max((depth[name] + 1 for name in waited_for(stage)), default=0)
            left.remove(stage)
    return depth


def _arrows(stage: Stage, places: Mapping[str, tuple[float, float]]) -> list[Shape]:
    x, y = places[stage.id]
    arrows: list[Shape] = []
    for name in waited_for(stage):
        from_x, from_y = places[name][0] + BOX / 2, places[name][1] + HIGH
        to_x, bend = x + BOX / 2, DOWN / 2
        line = f"M{from_x} {from_y}C{from_x} {from_y + bend} {to_x} {y - bend} {to_x} {y - 2}"
        arrows.append(Path(line, "arrow", f"{stage.id} reads {name}"))
        arrows.append(Path(f"M{to_x} {y}l-4-7h8z", "head"))
    return arrows


def _box(
    stage: Stage, x: float, y: float, took: tuple[float, float] | None, is_slowest: bool, palette: Palette
) -> list[Shape]:
    share, a_step_s = took or (0.0, 0.0)
    told = f"{duration(a_step_s)} a step, {percent(share)}" if took else "did not run"
    about = stage.op if stage.model is None else f"{stage.op} · {stage.model}"
    shapes: list[Shape] = [
        Rect(x, y, BOX, HIGH, "box slowest" if is_slowest else "box", f"{stage.id}: {about}; {told}"),
        Rect(x, y, 6, HIGH, palette.style(stage.id)),
        Text(x + 14, y + 19, _cut(stage.id, 16), "strong"),
        Text(x + 14, y + 36, _cut(about, 24), "tick"),
        Text(x + 14, y + 53, told, "label"),
    ]
    if is_slowest:
        shapes.append(Text(x + BOX - 8, y + 19, "slowest", "flag", "end"))
    return shapes


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
