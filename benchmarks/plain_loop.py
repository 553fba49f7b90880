"""How long does a step of a pipeline take without any mesh, written by hand?

One or more plain PyTorch loops at the same time, each a run of its own (benchmarks/plain_training.py): what the mesh is
compared with in `overhead`. The default is the example with every group trained on, about two seconds a step on a core.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from benchmarks.figure import Figure, Skipped, Tell

ROOT = Path(__file__).resolve().parents[1]
# Every group is trained on, whatever its rewards, so that a step's work is the same from the first one on: about two
# seconds on one core, and so one on each of two.
DEFAULT_SPEC = ROOT / "examples" / "spell_backward.yaml"
DEFAULT_SETS = (
    "params.warmup=0",
    "stages.roll.config.prompts=192",
    "stages.adv.config.drop_flat_groups=false",
    "stages.heldout.every=1000",
    "checkpoint.every=0",
)
WARM_STEPS = 2  # of each arm, not counted
RUN_S = 900.0
QUICK = {"steps": 3}


@dataclass(frozen=True, slots=True)
class Arm:
    """Of the counted steps: seconds of each, processor seconds of one, and where they went."""

    steps_s: list[float]
    cpu_s: float
    told: dict[str, Any] = field(default_factory=dict)


def need_engine() -> None:
    """Skip where models cannot be trained, or the example's data not be had."""
    missing = [name for name in ("torch", "transformers", "reasoning_gym") if importlib.util.find_spec(name) is None]
    if missing:
        raise Skipped(f"needs {', '.join(missing)}: pip install '.[engine,tasks]'")


def chosen_spec(spec: str, sets: Sequence[str], steps: int) -> tuple[Path, tuple[str, ...]]:
    """The pipeline to measure and what is set in it: the given one, else the example with as many steps as needed."""
    if spec:
        return Path(spec), tuple(sets)
    return DEFAULT_SPEC, (*DEFAULT_SETS, f"params.grpo={steps}", *sets)


def loops(spec: Path, sets: Sequence[str], steps: int, count: int) -> Arm:
    """`count` plain loops that run at the same time."""
    command = [sys.executable, "-m", "benchmarks.plain_training", str(spec), str(steps), *sets]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        for _ in range(count)
    ]
    told = [loop.communicate(timeout=RUN_S)[0] for loop in running]
    if any(loop.returncode for loop in running):
        raise RuntimeError(f"a plain loop failed: {' '.join(command)}")
    rows = [[json.loads(line) for line in text.splitlines()] for text in told]
    cpu_s = statistics.mean(loop[-1]["cpu_s"] - loop[WARM_STEPS]["cpu_s"] for loop in rows)
    ends = [spans([row["time_s"] for row in loop]) for loop in rows]
    return Arm([seconds for loop in ends for seconds in loop], cpu_s / len(ends[0]))


def spans(ends: list[float]) -> list[float]:
    """Seconds between the ends of consecutive steps, the first ones aside."""
    return [after - before for before, after in itertools.pairwise(ends)][WARM_STEPS:]


def measure(
    tell: Tell,
    *,
    spec: Annotated[str, "pipeline; the example without it"] = "",
    set: Annotated[tuple[str, ...], "KEY=VALUE of the pipeline"] = (),
    steps: Annotated[int, "counted ones"] = 12,
    count: Annotated[int, "loops at the same time"] = 1,
) -> list[Figure]:
    need_engine()
    in_all = WARM_STEPS + 1 + steps
    found = loops(*chosen_spec(spec, set, in_all), in_all, count)
    return [
        Figure("a step, median", "s", statistics.median(found.steps_s)),
        Figure("processor time of a step", "s", found.cpu_s),
    ]
