"""Who did what when: a row a node. Of a whole run the share of each stage of a node's time, of one step every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from ..nodes import NodeLine
from ..presence import Incident
from ..spans import Phase, Span
from .charts import Scale
from .shapes import Palette, Path, Picture, Rect, Shape, Text, polyline, ticks

WIDTH, LEFT, RIGHT, TOP = 1160.0, 90.0, 10.0, 24.0
ROW, GAP, LANE = 34.0, 10.0, 15.0
MOST_BINS = 3000  # of all nodes together
LEAST_BIN = 3.0  # its width
LABEL = 60.0  # the width of `step 1000`
SLOWEST = 1.3  # times the median step: one that took so long is shown beside it
LEAST_WIDTH = 1.0  # of a task that is drawn alone: shorter neighbours of a kind are drawn as one
TOLERANCE_S = 0.02  # that two tasks of one slot may overlap, as ends are noted a little late

_MARKS = {
    "membership.died": "gone",
    "membership.left": "gone",
    "daemon.stopped": "gone",
    "membership.returned": "back",
    "membership.restarted": "back",
    "membership.joined": "back",
    "daemon.started": "back",
    "engine.died": "engine",
    "slot.drained": "engine",
}
_CROSS, _UP = "m-5-5l10 10m0-10l-10 10", "m-6 5l6-10l6 10z"
_DRAWN = {"gone": _CROSS, "back": _UP, "engine": "m-5-4h10l-5 9z"}


def whole(
    spans: Sequence[Span],
    nodes: Sequence[NodeLine],
    incidents: Sequence[Incident],
    times: tuple[float, float],
    palette: Palette,
) -> Picture | None:
    """The run from end to end, `times`."""
    if not spans or not nodes:
        return None
    begin, end = times
    across = Scale(0.0, max(end - begin, 0.001), LEFT, WIDTH - RIGHT)
    height = TOP + len(nodes) * (ROW + GAP)
    shapes: list[Shape] = [*time_axis(across, height), *_step_marks(spans, across, begin)]
    by_node: dict[str, list[Span]] = {}
    for span in spans:
        by_node.setdefault(span.node, []).append(span)
    for row, node in enumerate(nodes):
        y = TOP + row * (ROW + GAP)
        shapes.append(Text(LEFT - 8, y + ROW / 2 + 4, node.name, "label", "end"))
        for stay in node.stays:
            x, until = across(stay.begin - begin), across(stay.end - begin)
            shapes.append(Rect(x, y, max(until - x, 1.0), ROW, "stay"))
        shapes += _bins(by_node.get(node.name, []), node.slots, across, begin, y, _bin_width(len(nodes)), palette)
        shapes += _marks([it for it in incidents if it.node == node.name], across, times, y)
    return Picture(WIDTH, height + 22, "what each node did over the whole run, by stage", shapes)


def _bin_width(nodes: int) -> float:
    return max(LEAST_BIN, (WIDTH - LEFT - RIGHT) * nodes / MOST_BINS)


def _bins(
    spans: Sequence[Span], slots: int | None, across: Scale, begin: float, y: float, width: float, palette: Palette
) -> list[Shape]:
    """The share of each stage of the slots' time, a column for some pixels; one path a stage."""
    a_bin_s = width / (across.last - across.first) * across.high
    busy: dict[int, dict[str, float]] = {}
    for span in spans:
        first, last = int((span.begin - begin) / a_bin_s), int((span.end - begin) / a_bin_s)
        for at in range(first, last + 1):
            within = min(span.end - begin, (at + 1) * a_bin_s) - max(span.begin - begin, at * a_bin_s)
            column = busy.setdefault(at, {})
            column[span.name] = column.get(span.name, 0.0) + max(within, 0.0)
    full_s = a_bin_s * max(slots or 1, 1)
    lines: dict[str, list[str]] = {}
    for at, column in sorted(busy.items()):
        scale = ROW / max(full_s, sum(column.values()))
        base = y + ROW
        for name, seconds in column.items():
            if (size := seconds * scale) >= 0.4:
                base -= size
                lines.setdefault(name, []).append(
                    f"M{LEFT + at * width:.1f} {base:.1f}h{width:.2f}v{size:.1f}h-{width:.2f}z"
                )
    return [Path("".join(parts), palette.style(name), name) for name, parts in lines.items()]


def _marks(incidents: Sequence[Incident], across: Scale, times: tuple[float, float], y: float) -> list[Shape]:
    begin, end = times
    shapes: list[Shape] = []
    for incident in incidents:
        mark = _MARKS.get(incident.name)
        if mark and begin < incident.time_s < end:
            x = across(incident.time_s - begin)
            title = f"{incident.name} after {incident.time_s - begin:.1f} s: {incident.meaning}"
            shapes.append(Path(polyline([(x, y - 4), (x, y + ROW + 2)]), f"mark {mark}"))
            shapes.append(Path(f"M{x:.1f} {y - 4:.1f}{_DRAWN[mark]}", f"mark {mark} filled", title))
    return shapes


def _step_marks(spans: Sequence[Span], across: Scale, begin: float) -> list[Shape]:
    """Where some of the steps began, above the rows."""
    first: dict[int, float] = {}
    for span in spans:
        if span.phase is not Phase.OTHER:
            first[span.step] = min(first.get(span.step, span.begin), span.begin)
    chosen = [int(step) for step in ticks(min(first, default=0), max(first, default=0), 8) if int(step) in first]
    shapes: list[Shape] = []
    free = LEFT
    for step in chosen:
        x = min(across(first[step] - begin), WIDTH - LABEL)
        if x >= free:
            shapes.append(Text(x, 12, f"step {step}", "tick"))
            free = x + LABEL
    return shapes


def time_axis(across: Scale, height: float) -> list[Shape]:
    unit, name = (60.0, "min") if across.high > 300 else (1.0, "s")
    unit, name = (3600.0, "h") if across.high > 3 * 3600 else (unit, name)
    shapes: list[Shape] = []
    for value in ticks(across.low / unit, across.high / unit, 8):
        x = across(value * unit)
        shapes.append(Path(polyline([(x, TOP - 6), (x, height)]), "grid"))
        anchor = "end" if x > WIDTH - 60 else "middle"
        shapes.append(Text(x, height + 14, f"{value:.10g} {name}", "tick", anchor))
    return shapes


# One step ---------------------------------------------------------------------------------------------------------


def steps_to_show(spans: Sequence[Span]) -> list[tuple[int, str]]:
    """(step, why it): the median one of the kind that most of the time went into, and the slowest of that kind if it
    took much longer."""
    kinds: dict[frozenset[str], list[int]] = {}
    lengths: dict[int, float] = {}
    for step, own in _by_step(spans).items():
        kinds.setdefault(frozenset(span.name for span in own if not span.evaluates), []).append(step)
        lengths[step] = max(span.end for span in own) - min(span.begin for span in own)
    if not kinds:
        return []
    steps = max(kinds.values(), key=lambda steps: (sum(lengths[step] for step in steps), steps[0]))
    usual = sorted(steps, key=lambda step: (lengths[step], step))[(len(steps) - 1) // 2]
    slowest = max(steps, key=lambda step: (lengths[step], -step))
    shown = [(usual, f"the median one of {len(steps)} such steps")]
    if slowest != usual and lengths[slowest] > SLOWEST * median(lengths[step] for step in steps):
        shown.append((slowest, "the slowest of them"))
    return shown


def one_step(spans: Sequence[Span], nodes: Sequence[NodeLine], step: int, palette: Palette) -> Picture:
    """Every task of a step, and what else ran meanwhile, paler."""
    own = _by_step(spans)[step]
    begin, end = min(span.begin for span in own), max(span.end for span in own)
    across = Scale(0.0, max(end - begin, 1e-6), LEFT, WIDTH - RIGHT)
    shown = [span for span in spans if span.end > begin and span.begin < end]
    shapes: list[Shape] = []
    y = TOP
    for node in nodes:
        rows = lanes([span for span in shown if span.node == node.name], node.slots)
        shapes.append(Text(LEFT - 8, y + LANE - 3, node.name, "label", "end"))
        height = LANE * max(len(rows), 1)
        shapes.append(Rect(LEFT, y, WIDTH - LEFT - RIGHT, height, "stay"))
        for at, lane in enumerate(rows):
            shapes += _tasks(lane, across, begin, end, y + at * LANE, step, palette)
        y += height + GAP
    return Picture(WIDTH, y + 22, f"every task of step {step}, by node", [*time_axis(across, y), *shapes])


def _tasks(
    lane: Sequence[Span], across: Scale, begin: float, end: float, y: float, step: int, palette: Palette
) -> list[Shape]:
    shapes: list[Shape] = []
    for group in _merged(lane, LEAST_WIDTH / (across.last - across.first) * across.high):
        first, last = group[0], group[-1]
        x, until = across(max(first.begin - begin, 0.0)), across(min(last.end, end) - begin)
        what = f"{first.step}/{first.stage}/{first.part}" if len(group) == 1 else f"{len(group)} tasks of {first.name}"
        how = "" if first.origin == "dealt" else f", {first.origin}"
        title = f"{what} on {first.node}: {last.end - first.begin:.3g} s{how}{', failed' if first.is_failed else ''}"
        style = palette.style(first.name)
        style += " other" if first.step != step else ""
        style += " stolen" if first.origin == "stolen" else " again" if first.origin == "again" else ""
        shapes.append(Rect(x, y + 1, max(until - x, 0.6), LANE - 2, style, title))
    return shapes


def _merged(lane: Sequence[Span], least_s: float) -> list[list[Span]]:
    """Neighbours of one kind, each too short to be seen."""
    groups: list[list[Span]] = []
    for span in lane:
        before = groups[-1][-1] if groups else None
        if (
            before is not None
            and (before.name, before.step, before.origin) == (span.name, span.step, span.origin)
            and max(before.seconds, span.seconds, span.begin - before.end) < least_s
        ):
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def lanes(spans: Sequence[Span], slots: int | None) -> list[list[Span]]:
    """Tasks of a node that ran at once lie in different lanes, of which there are no more than slots, if it is known
    how many it has."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: (span.begin, span.end)):
        free = next((row for row in rows if row[-1].end <= span.begin + TOLERANCE_S), None)
        if free is None and len(rows) == slots:
            free = min(rows, key=lambda row: row[-1].end)
        if free is None:
            rows.append([span])
        else:
            free.append(span)
    return rows


def _by_step(spans: Sequence[Span]) -> Mapping[int, list[Span]]:
    steps: dict[int, list[Span]] = {}
    for span in spans:
        if span.phase is not Phase.OTHER:
            steps.setdefault(span.step, []).append(span)
    return steps
