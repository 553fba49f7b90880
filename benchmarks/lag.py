"""What is a lag worth where some hosts sample and others train?

Four real daemons on loopback with emulated engines, two that sample and two that learn; what they do they sleep. The
same steps with rollouts of the newest version, with such that are behind by `lag`, and of whatever version there is, at
most so many behind (`async`). A row each:

    roll_s, learn_s  seconds of a step that the device of a sampler, and of a learner, is at work
    step_s           mean seconds from one version to the next, the first step and the last one left out
    idle             the share of a step in which the slots of samplers, and of learners, do nothing, as daemons count
    load             of the machine, when the run ended

Nothing can be faster than the longer of the two. What is on top: seals, copies, sums, and an update on every host.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from benchmarks.figure import Figure, Goal, Tell
from dflow_protocols.pipeline import Pipeline
from tests.support.mesh import Mesh
from tests.support.strike import await_stable, ended
from tests.support.toy import toy_pipeline

SAMPLER, LEARNER = "sampler", "learner"  # roles; `trainer` is every node's
HOSTS = {SAMPLER: 2, LEARNER: 2}
IDLE = {SAMPLER: "sampler_idle_frac", LEARNER: "trainer_idle_frac"}  # in rows of steps
PARTITIONS, LEAVES = 16, 16
OVERHEAD = 1.05  # of the longer of both
QUICK = {"steps": 6, "roll_s": 1.0, "learn_s": 0.8}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run; see the module."""

    lag: int
    max_staleness: int  # 0: not `async`
    roll_s: float
    learn_s: float
    step_s: float
    idle: Mapping[str, float]
    load: float

    @property
    def overlaps(self) -> bool:
        """Whether rollouts may be under way while their weights are trained on."""
        return bool(self.lag or self.max_staleness)


def spec(steps: int, lag: int, max_staleness: int, roll_s: float, learn_s: float) -> Pipeline:
    """Whose rollouts take each sampler so long, and whose leaves each learner."""
    pipeline = toy_pipeline(
        steps,
        PARTITIONS,
        LEAVES,
        generate_s=roll_s * HOSTS[SAMPLER] / PARTITIONS,
        gradient_s=learn_s * HOSTS[LEARNER] / LEAVES,
    )
    needs = {"roll": (SAMPLER,), "learn": (LEARNER,)}
    stages = [replace(stage, requires=needs.get(stage.id, ())) for stage in pipeline.stages]
    if max_staleness:
        stale = {"max_staleness": max_staleness}
        return replace(pipeline, asynchrony=stale, reproducibility="replay", stages=stages)
    return replace(pipeline, lag=lag, stages=stages)


def told(folder: Path, pipeline: Pipeline) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the daemons tell of a run of it: rows of steps, and tasks."""
    mesh = Mesh(folder, sum(HOSTS.values()))
    roles = [role for role, count in HOSTS.items() for _ in range(count)]
    for node, role in zip(mesh.nodes.values(), roles, strict=True):
        node.environment = {"DFLOWD_NODE_ROLES": role}
    with mesh:
        await_stable(mesh)
        asked = mesh.running()[0]
        run = mesh.submit(asked, pipeline)
        ended(mesh, run)
        return mesh.ask(asked, "metrics", run=run)["rows"], mesh.ask(asked, "tasks", run=run)["tasks"]


def attempt(folder: Path, pipeline: Pipeline, roll_s: float, learn_s: float) -> Outcome:
    rows, _ = told(folder, pipeline)
    step_s, idle = settled(rows)
    return Outcome(
        pipeline.lag,
        pipeline.max_staleness,
        roll_s,
        learn_s,
        round(step_s, 3),
        {role: round(share, 3) for role, share in idle.items()},
        round(os.getloadavg()[0], 2),
    )


def settled(rows: Sequence[Mapping[str, Any]]) -> tuple[float, dict[str, float]]:
    """Of a run's rows: mean seconds from one version to the next, and the idle share of each role, without the first
    step, in which nothing can overlap yet, and the last, beside which there is nothing left to sample."""
    first, *kept, _ = (row for row in rows if row["step"] > 0)  # version 0 has a row, too
    step_s = (kept[-1]["time_s"] - first["time_s"]) / len(kept)
    return step_s, {role: statistics.mean(row[name] for row in kept if name in row) for role, name in IDLE.items()}


def measure(
    tell: Tell,
    *,
    steps: Annotated[int, "of each run"] = 10,
    lags: Annotated[tuple[int, ...], "versions that rollouts are behind"] = (0, 1),
    staleness: Annotated[tuple[int, ...], "versions that they are behind at most, where they are `async`"] = (1, 4),
    roll_s: Annotated[float, "that each sampler rolls out in a step"] = 4.0,
    learn_s: Annotated[float, "that each learner trains in a step"] = 3.0,
) -> list[Figure]:
    outcomes = []
    for lag, stale in (*((lag, 0) for lag in lags), *((0, stale) for stale in staleness)):
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(attempt(Path(folder), spec(steps, lag, stale, roll_s, learn_s), roll_s, learn_s))
        tell(asdict(outcomes[-1]))
    longer = max(roll_s, learn_s)
    return [
        Figure(
            f"a step, async, at most {each.max_staleness} behind" if each.max_staleness else f"a step, lag {each.lag}",
            "s",
            each.step_s,
            "the longer of sampling and training" if each.overlaps else "both, one after the other",
            longer if each.overlaps else roll_s + learn_s,
            Goal(OVERHEAD) if each.overlaps else None,
        )
        for each in outcomes
    ]
