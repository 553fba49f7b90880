"""Clocks of hosts differ. What one node began after another one had ended cannot lie before it: each phase of a step
waits for the one before, on whatever node. Where the nodes' times contradict that, one clock is ahead, and by how much
at least follows; where they do not, nothing is known against the clocks, and they are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from .spans import Phase, Span

LEAST_S = 0.005  # of a contradiction: less is what a daemon takes to note a task's end
LEAST_STEPS = 3  # that tell of two nodes before they are believed

Gaps = dict[tuple[str, str], list[float]]


def ahead_of_others(spans: Iterable[Span]) -> dict[str, float]:
    """Node -> seconds that its clock is ahead of the first node's (negative: behind), of those that must be."""
    waited = _waited(spans)
    nodes = sorted({node for pair in waited for node in pair})
    found: dict[str, float] = {}
    for node in nodes[1:]:
        before = _least(waited.get((nodes[0], node), ()))  # seconds that it began after the first had ended
        after = _least(waited.get((node, nodes[0]), ()))
        if before is not None and before < -LEAST_S:
            found[node] = before
        elif after is not None and after < -LEAST_S:
            found[node] = -after
    return found


def _waited(spans: Iterable[Span]) -> Gaps:
    """(A, B) -> of each phase of a step, seconds from the end of A's part of the one before to the beginning of B's."""
    phases: dict[tuple[int, Phase], dict[str, tuple[float, float]]] = {}
    for span in _once(spans):
        parts = phases.setdefault((span.step, span.phase), {})
        begin, end = parts.get(span.node, (span.begin, span.end))
        parts[span.node] = min(begin, span.begin), max(end, span.end)
    gaps: Gaps = {}
    for parts, later in _successive(phases):
        for one, (_, end) in parts.items():
            for other, (begin, _) in later.items():
                if one != other:
                    gaps.setdefault((one, other), []).append(begin - end)
    return gaps


Parts = dict[str, tuple[float, float]]


def _successive(phases: Mapping[tuple[int, Phase], Parts]) -> Iterator[tuple[Parts, Parts]]:
    """Each phase of a step and the one that waits for it."""
    for first, second in pairwise(sorted(phases)):
        if first[0] == second[0]:
            yield phases[first], phases[second]


def _once(spans: Iterable[Span]) -> list[Span]:
    """Tasks that one node alone did, as the next phase waits for: of what was done twice it is not known which."""
    chosen = [span for span in spans if span.phase is not Phase.OTHER and not span.is_failed and not span.evaluates]
    counts: dict[tuple[int, str, str], int] = {}
    for span in chosen:
        key = span.step, span.name, span.part
        counts[key] = counts.get(key, 0) + 1
    return [span for span in chosen if span.phase is Phase.APPLY or counts[span.step, span.name, span.part] == 1]


def _least(gaps: Sequence[float]) -> float | None:
    """A low one, yet not the least: a few that are out of order by chance (leaves that were done twice) say nothing."""
    return sorted(gaps)[max(1, len(gaps) // 20)] if len(gaps) >= LEAST_STEPS else None
