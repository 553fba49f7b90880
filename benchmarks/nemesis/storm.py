"""Random faults at random moments, from a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

from benchmarks.nemesis.trial import Trial
from tests.support.mesh import Daemon

MOST_FAULTS = 4  # in a run


def strike_at_random(trial: Trial, runs: int, seed: int, network: Mapping[str, Callable[[], None]]) -> None:
    """One to MOST_FAULTS faults in a run; at least one daemon always lives on. `network`: name -> from now on the
    network is so; half of the faults are of these, where there are any."""
    rng = random.Random(seed)
    for number in range(runs):
        run = trial.submit()
        struck = []
        for _ in range(rng.randint(1, MOST_FAULTS)):
            time.sleep(rng.uniform(0.1, trial.undisturbed_s / 2))
            if network and rng.random() < 0.5:
                name = rng.choice(sorted(network))
                struck.append(name)
                network[name]()
            else:
                struck.append(_strike_a_process(trial, rng))
        trial.judge(run, {"run": number, "struck": struck})


def _strike_a_process(trial: Trial, rng: random.Random) -> str:
    """What was done to whom."""
    nodes = trial.mesh.running()
    node = rng.choice(nodes)
    kinds: dict[str, Callable[[Daemon], None]] = {
        "stop 1 s": lambda node: trial.pause_daemon(1.0, node),
        "engine": trial.kill_engines,
    }
    if len(nodes) > 1:
        kinds |= {"kill": trial.kill, "restart": trial.restart, "leave": trial.leave}
    kind = rng.choice(sorted(kinds))
    kinds[kind](node)
    return f"{kind} {node.name}"
