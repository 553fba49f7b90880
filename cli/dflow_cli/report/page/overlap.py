"""Sampling while training: what each node did in a few successive steps, and of which version its rollouts are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..nodes import NodeLine
from ..spans import Phase, Span
from .charts import Scale
from .shapes import Palette, Path, Picture, Rect, Shape, Text, polyline
from .timeline import GAP, LEFT, RIGHT, TOP, WIDTH, lanes, time_axis

STEPS = 4  # that are shown, from the middle of the run
LANE = 20.0
LEAST_LABEL = 7.0  # pixels that a character takes; what has less room is not labelled


def overlap(spans: Sequence[Span], nodes: Sequence[NodeLine], palette: Palette) -> Picture | None:
    """None of a run in which no rollout was ahead."""
    return successive(spans, nodes, palette) if any(span.behind for span in spans) else None


def successive(spans: Sequence[Span], nodes: Sequence[NodeLine], palette: Palette) -> Picture | None:
    """The same of any run; None of one that is not past its first version."""
    made = _versions(spans)
    if not made:
        return None
    steps = sorted(made)[max(0, (len(made) - STEPS) // 2) :][:STEPS]
    begin = min(span.begin for span in spans if span.step == steps[0] and span.phase in (Phase.BLOCK, Phase.APPLY))
    end = made[steps[-1]]
    across = Scale(0.0, max(end - begin, 1e-6), LEFT, WIDTH - RIGHT)
    shown = [span for span in spans if span.end > begin and span.begin < end]
    shapes: list[Shape] = []
    y = TOP
    for node in nodes:
        shapes.append(Text(LEFT - 8, y + LANE - 6, node.name, "label", "end"))
        rows = lanes([span for span in shown if span.node == node.name], node.slots)
        shapes.append(Rect(LEFT, y, WIDTH - LEFT - RIGHT, LANE * max(len(rows), 1), "stay"))
        for at, lane in enumerate(rows):
            for group in _groups(lane):
                shapes += _group(group, across, begin, y + at * LANE, palette)
        y += LANE * max(len(rows), 1) + GAP
    for step in steps:
        x = across(made[step] - begin)
        shapes.append(Path(polyline([(x, TOP - 6), (x, y - GAP)]), "mark"))
        shapes.append(Text(x, 12, f"version {step + 1}", "tick", "end" if step == steps[-1] else "middle"))
    about = f"what each node did while steps {steps[0]} to {steps[-1]} trained"
    return Picture(WIDTH, y + 22, about, [*time_axis(across, y), *shapes])


def _versions(spans: Sequence[Span]) -> dict[int, float]:
    """When what each step made was first there, of its last update, by step."""
    made: dict[int, tuple[int, float]] = {}
    for span in spans:
        if span.phase is Phase.APPLY and not span.is_failed:
            update, end = made.get(span.step, (-1, 0.0))
            if span.update >= update:
                made[span.step] = span.update, span.end if span.update > update else min(end, span.end)
    return {step: end for step, (_, end) in made.items()}


def _groups(lane: Sequence[Span]) -> Iterator[list[Span]]:
    """Neighbours that sample, or do not, for one step from one version."""
    group: list[Span] = []
    for span in lane:
        if group and _what(group[0]) != _what(span):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _what(span: Span) -> tuple[int, bool, int | None]:
    return span.step, span.samples_from is not None, span.samples_from


def _group(group: Sequence[Span], across: Scale, begin: float, y: float, palette: Palette) -> Iterator[Shape]:
    """Each task, and their step: `7←5` where it samples from version 5. On the longest of them, or where that is too
    short over all."""

    def ends(span: Span) -> tuple[float, float]:
        return across(max(span.begin - begin, 0.0)), across(min(span.end - begin, across.high))

    step, samples, source = _what(group[0])
    from_version = f", from version {source}" if samples else ""
    for span in group:
        x, until = ends(span)
        title = f"{span.step}/{span.stage}/{span.part} on {span.node}: {span.seconds:.3g} s{from_version}"
        yield Rect(x, y + 1, max(until - x, 0.6), LANE - 2, palette.style(span.name), title)
    label = f"{step}←{source}" if span.behind else f"{step}"
    longest = max(map(ends, group), key=lambda of: of[1] - of[0])
    over_all = min(map(ends, group))[0], max(map(ends, group))[1]
    for (x, until), style in ((longest, "inside"), (over_all, "over")):
        if until - x >= LEAST_LABEL * len(label):
            yield Text((x + until) / 2, y + LANE - 6, label, style, "middle")
            return
