"""Coefficients: weights of a pipeline that follow what its seals settled, from version to version.

A weight of a divergence from a reference is moved towards where that has its target: with e = clip(KL / target - 1,
-0.2, 0.2) it is the weight before times 1 + e n / horizon (Ziegler et al. 2019, arXiv 1909.08593, section 2.2; its K is
n / horizon, of a step's n completions). KL is the mean of log-probability differences over all tokens that the step
sampled, as records of the reference's stage tell it, and so the manifest. Functions of the seals alone; and in a
version's id, so who makes, copies or loads a version has the same.
"""

from __future__ import annotations

import math
from typing import Final

from .. import metrics
from ..names import Coefficients
from ..pipeline.spec import Pipeline
from ..pipeline.weighing import Adaptive, adaptive
from ..wire.steps import Seal

MOST_OFF: Final = 0.2  # of the target, that one step makes up for
FARTHEST: Final = 1e6  # times the first weight, or its part: what never meets its target stays a number


def first(pipeline: Pipeline) -> Coefficients:
    """Those of version 0."""
    return tuple((each.stage, each.coefficient) for each in adaptive(pipeline))


def after(pipeline: Pipeline, before: Coefficients, update: Seal, manifest: Seal | None) -> Coefficients:
    """Those of the version that `update` makes of one with `before`. They move where a step of the pipeline ends: all
    updates of it go by the same. `manifest`: that the update was made of; None: there is none."""
    if not before or manifest is None or not pipeline.schedule.place(update.step).is_last:
        return before
    known = dict(before)
    return tuple((each.stage, _moved(each, known[each.stage], manifest)) for each in adaptive(pipeline))


def are_of(pipeline: Pipeline, coefficients: Coefficients) -> bool:
    """Whether a version of the pipeline may have these."""
    due = adaptive(pipeline)
    return [stage for stage, _ in coefficients] == [each.stage for each in due] and all(
        each.coefficient / FARTHEST <= value <= each.coefficient * FARTHEST
        for each, (_, value) in zip(due, coefficients, strict=True)
    )


def told(pipeline: Pipeline, coefficients: Coefficients, step: int) -> metrics.Sums:
    """For people, what a step of the pipeline went by: the one there is, or each by its stage."""
    alone = len(coefficients) == 1
    return tuple(
        (metrics.KL_COEFFICIENT if alone else f"{metrics.KL_COEFFICIENT}/{stage}", value)
        for stage, value in coefficients
        if pipeline.schedule.is_active(stage, step)
    )


def _moved(weight: Adaptive, before: float, manifest: Seal) -> float:
    """As it was where nothing was measured."""
    parts = (record.metrics for record in manifest.entries if record.task.stage == weight.measured)
    sums = dict(metrics.merge(parts))
    names = metrics.REFERENCE_KL_SUM, metrics.REFERENCE_KL_COUNT, metrics.REFERENCE_KL_SAMPLES
    total, tokens, samples = (sums.get(name, 0.0) for name in names)
    if not (math.isfinite(total) and tokens > 0 and samples > 0):
        return before
    off = max(-MOST_OFF, min(MOST_OFF, total / tokens / weight.target - 1))
    moved = before * (1 + off * min(1.0, samples / weight.horizon))
    return max(weight.coefficient / FARTHEST, min(weight.coefficient * FARTHEST, moved))
