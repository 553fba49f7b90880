"""The process of a Ray driver that restarts: `python -m benchmarks.goodput.restarting PROFILE NODES STEPS KILLS
CHECKPOINT` prints what it did, as JSON. `KILLS`: a JSON list; `CHECKPOINT`: the file."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from benchmarks.goodput.account import Trial
from benchmarks.goodput.kills import Kill, Striker
from benchmarks.scaling.profile import Profile, load

T = TypeVar("T")
GLANCE_S = 0.05
PARAMETERS = 4096  # as the mesh's model has
STATES = 3  # float32 values of each parameter: itself and two of its optimizer
HEALTH = {  # a death is known after some 2 s, as with the mesh's `local` times; by default it takes Ray 15 s
    "health_check_period_ms": 700,
    "health_check_failure_threshold": 3,
}


class Checkpoint:
    """A file that is whole at any time. `took`: seconds of each time it was written."""

    def __init__(self, path: Path) -> None:
        self._path, self.took = path, list[float]()
        self._state = np.zeros((STATES, PARAMETERS), np.float32)

    def save(self, step: int, tokens: float) -> None:
        began, new = time.monotonic(), self._path.with_suffix(".new")
        with new.open("wb") as file:
            np.savez(file, state=self._state, step=step, tokens=tokens)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._path)
        self.took.append(time.monotonic() - began)

    def load(self) -> tuple[int, float]:
        """Steps and trained tokens that it holds; none without a file."""
        if not self._path.exists():
            return 0, 0.0
        with np.load(self._path) as saved:
            self._state = saved["state"]
            return int(saved["step"]), float(saved["tokens"])


def run(profile: Profile, nodes: int, steps: int, checkpoint: Checkpoint, kills: list[Kill]) -> Trial:
    from benchmarks.scaling.baselines.cluster import RayNodes
    from benchmarks.scaling.baselines.references import ByReferences
    from benchmarks.scaling.baselines.work import Share

    with RayNodes(profile, nodes, 1, HEALTH) as cluster:
        driver = ByReferences(profile, [Share(profile, nodes, steps, node, 1) for node in range(nodes)])
        striker = Striker(kills, nodes, cluster.kill, cluster.start)
        begun, seconds = while_struck(striker, lambda: timed(lambda: train(driver, steps, checkpoint)))
    settings = {"checkpoint_s": round(statistics.median(checkpoint.took), 4), "steps_lost": begun - steps}
    settings |= cluster.settings
    step, tokens = checkpoint.load()
    return Trial("ray, references, restarted", seconds, striker.done, f"{step} steps, {tokens:.0f} tokens", settings)


class Restartable(Protocol):
    """A driver that can go on after a death, as `ByReferences` can."""

    def step(self, step: int) -> float: ...

    def replace_dead(self) -> None: ...


def train(driver: Restartable, steps: int, checkpoint: Checkpoint) -> int:
    """Steps that were begun, those among them that a death broke off or undid. What was done is in the checkpoint."""
    from ray.exceptions import RayError

    begun, step, tokens = 0, 0, 0.0
    while step < steps:
        begun += 1
        try:
            trained = driver.step(step)
        except RayError:
            driver.replace_dead()
            step, tokens = checkpoint.load()
            continue
        step, tokens = step + 1, tokens + trained
        checkpoint.save(step, tokens)
    return begun


def while_struck(striker: Striker, work: Callable[[], T]) -> T:
    """What `work` gives. It is done in a thread, and nodes are killed and started in this one, which has to be the main
    thread: a node of Ray that starts sets handlers of signals. Raises what the work or a strike raises."""
    began, done = time.monotonic(), Future[T]()

    def to_the_end() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # whatever it is, nobody waits for ever
            done.set_exception(error)

    threading.Thread(target=to_the_end, daemon=True).start()
    while not wait([done], GLANCE_S).done:
        striker.strike(time.monotonic() - began)
    return done.result()


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the seconds it took."""
    began = time.monotonic()
    return work(), time.monotonic() - began


def main(name: str, nodes: str, steps: str, struck: str, path: str) -> None:
    kills = [Kill(**kill) for kill in json.loads(struck)]
    print(json.dumps(asdict(run(load(name), int(nodes), int(steps), Checkpoint(Path(path)), kills))))


if __name__ == "__main__":
    main(*sys.argv[1:])
