"""Facts: what a chain of seals settled for people and for plans. Functions of the seals alone.

They are named by the pipeline's steps, which people count: who makes them says which one.
"""

from __future__ import annotations

from typing import Any

from .. import metrics
from ..names import content_id
from ..pipeline.spec import Pipeline
from ..wire.steps import LOST, Header, Seal

Facts = tuple[tuple[str, float], ...]


def evaluated(pipeline: Pipeline, update: Seal, step: int) -> Facts:
    """What a seal's evaluations found, as `STAGE@STEP/NAME`."""
    stages = {stage.id for stage in pipeline.stages if stage.operator.evaluates}
    parts: dict[str, list[Facts]] = {}
    for record in update.entries:
        if record.task.stage in stages:
            parts.setdefault(record.task.stage, []).append(record.metrics)
    return tuple(
        (f"{stage}@{step}/{name}", value)
        for stage, found in sorted(parts.items())
        for name, value in metrics.merge(found)
    )


def left_out(manifest: Seal | None, step: int) -> Facts:
    """How many partitions a manifest lacks, as `skipped@STEP/partitions`: those at fault, and those that were lost
    after they were trained on for the first time; of these alone, as `lost@STEP/partitions`."""
    skipped = manifest.skipped if manifest is not None else ()
    counts = {"skipped": len(skipped), "lost": sum(skip.kind == LOST for skip in skipped)}
    return tuple((f"{name}@{step}/partitions", float(count)) for name, count in counts.items() if count)


def timed_out(manifest: Seal | None, step: int) -> Facts:
    """How many rewards of a manifest a limit decided, and not the inputs, as `timeouts@STEP/rewards`."""
    entries = () if manifest is None else manifest.entries
    count = sum(value for record in entries for name, value in record.metrics if name == metrics.REWARD_TIMEOUTS)
    return ((f"timeouts@{step}/rewards", float(count)),) if count else ()


def not_exact_since(facts: Facts) -> int | None:
    """The first step whose weights another run of the same spec may not find again, as the clock, or who died, decided
    a part of what they were trained on; None: there is none."""
    steps = [name.partition("@")[2].partition("/")[0] for name, _ in facts if name.startswith(("timeouts@", "lost@"))]
    return min((int(step) for step in steps if step.isascii() and step.isdigit()), default=None)


def skipped(facts: Facts) -> int:
    """Partitions left out in all steps so far."""
    return int(sum(value for name, value in facts if name.startswith("skipped@") and name.endswith("/partitions")))


def merge(*facts: Facts) -> Facts:
    return tuple(sorted({name: value for part in facts for name, value in part}.items()))


def evals(facts: Facts) -> list[dict[str, Any]]:
    """`{stage, step, accuracy, count}` of each evaluation, by step."""
    found: dict[tuple[int, str], dict[str, float]] = {}
    for name, value in facts:
        stage, _, rest = name.rpartition("@")
        step, _, what = rest.partition("/")
        if not (step.isascii() and step.isdigit()):
            continue  # a member's invention
        found.setdefault((int(step), stage), {})[what] = value
    rows = []
    for (step_number, stage), sums in sorted(found.items()):
        count = sums.get(metrics.EVALUATED, 0.0)
        if count:
            accuracy = sums.get(metrics.CORRECT, 0.0) / count
            rows.append({"stage": stage, "step": step_number, "accuracy": accuracy, "count": int(count)})
    return rows


def named(header: Header) -> dict[str, Any]:
    """A version as an outcome names it; `weights` is the id of the parameters' shard, or of all of them together."""
    params = [ref.id for name, ref in header.state if name.startswith("params:")]
    weights = params[0] if len(params) == 1 else content_id("weights", params)
    return {"version": header.id, "weights": weights, "step": header.step, "samples": header.samples}
