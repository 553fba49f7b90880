"""The process of a Ray driver that restarts: `python -m benchmarks.goodput.restarting PROFILE NODES STEPS KILLS
CHECKPOINT` prints what it did, as JSON. `KILLS`: a JSON list; `CHECKPOINT`: the file."""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.goodput.account import Trial
from benchmarks.goodput.kills import Kill, Striker
from benchmarks.scaling.profile import Profile, load

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

    def save(self, step: int) -> None:
        began, new = time.monotonic(), self._path.with_suffix(".new")
        with new.open("wb") as file:
            np.savez(file, state=self._state, step=step)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._path)
        self.took.append(time.monotonic() - began)

    def step(self) -> int:
        """Steps that it holds; 0 without one."""
        if not self._path.exists():
            return 0
        with np.load(self._path) as saved:
            self._state = saved["state"]
            return int(saved["step"])


def run(profile: Profile, nodes: int, steps: int, checkpoint: Checkpoint, kills: list[Kill]) -> Trial:
    from benchmarks.scaling.baselines.cluster import RayNodes
    from benchmarks.scaling.baselines.references import ByReferences
    from benchmarks.scaling.baselines.work import Share

    with RayNodes(profile, nodes, 1, HEALTH) as cluster:
        driver = ByReferences(profile, [Share(profile.name, nodes, steps, node, 1) for node in range(nodes)])
        striker = Striker(kills, nodes, cluster.kill, cluster.start)
        began = time.monotonic()
        with striking(striker):
            trained = train(driver, steps, checkpoint)
        seconds = time.monotonic() - began
    settings = {"checkpoint_s": round(statistics.median(checkpoint.took), 4), "steps_done_again": trained - steps}
    settings |= cluster.settings
    return Trial("ray, references, restarted", seconds, striker.done, settings=settings)


class Restartable(Protocol):
    """A driver that can go on after a death, as `ByReferences` can."""

    def step(self, step: int) -> None: ...

    def replace_dead(self) -> None: ...


def train(driver: Restartable, steps: int, checkpoint: Checkpoint) -> int:
    """Steps that were done, those again among them."""
    from ray.exceptions import RayError

    step = trained = 0
    while step < steps:
        try:
            driver.step(step)
        except RayError:
            driver.replace_dead()
            step = checkpoint.step()
            continue
        step, trained = step + 1, trained + 1
        checkpoint.save(step)
    return trained


@contextmanager
def striking(striker: Striker) -> Iterator[None]:
    """In a thread, since the driver waits for its workers."""
    began, is_over = time.monotonic(), threading.Event()

    def strike() -> None:
        while not is_over.wait(GLANCE_S):
            striker.strike(time.monotonic() - began)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def main(name: str, nodes: str, steps: str, struck: str, path: str) -> None:
    kills = [Kill(**kill) for kill in json.loads(struck)]
    print(json.dumps(asdict(run(load(name), int(nodes), int(steps), Checkpoint(Path(path)), kills))))


if __name__ == "__main__":
    main(*sys.argv[1:])
