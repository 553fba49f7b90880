"""The faults that were asked for, and the figures that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, Goal, Tell
from benchmarks.nemesis.network import imposers, network_faults, network_names, network_trial
from benchmarks.nemesis.processes import process_faults
from benchmarks.nemesis.storm import strike_at_random
from benchmarks.nemesis.trial import Trial
from tests.support.mesh import Mesh

MOST = 3.0  # a run on a faulty network takes at most so many times the undisturbed one's time


@dataclass(frozen=True)
class Wanted:
    """Names of faults, all if none; or that many runs of a storm."""

    faults: tuple[str, ...]
    storm: int
    seed: int

    def strike(
        self, trial: Trial, tried: Mapping[str, Callable[[], None]], network: Mapping[str, Callable[[], None]]
    ) -> None:
        """`tried`: name -> a trial of that fault. `network`: what else a storm may do."""
        unknown = set(self.faults) - network_names() - process_faults(trial).keys()
        if unknown:
            raise ValueError(f"no fault is called {', '.join(sorted(unknown))}; see --help")
        trial.learn()
        if self.storm:
            strike_at_random(trial, self.storm, self.seed, network)
            return
        for name, strike in tried.items():
            if not self.faults or name in self.faults:
                strike()


def of_processes(folder: Path, tell: Tell, wanted: Wanted) -> list[Figure]:
    with Mesh(folder, 4) as mesh:
        trial = Trial(mesh, tell)
        wanted.strike(trial, process_faults(trial), {})
    lost = [Figure(f"lost to {row['fault']} while {row['while']}", "s", row["lost_s"]) for row in _single(trial)]
    return [*lost, _same_weights(trial)]


def of_network(folder: Path, tell: Tell, wanted: Wanted) -> list[Figure]:
    with network_trial(folder, tell) as trial:
        wanted.strike(trial, network_faults(trial), imposers(trial))
    calm_s = trial.undisturbed_s
    took = [
        Figure(f"a run while {row['fault']}", "s", calm_s + row["lost_s"], "undisturbed", calm_s, Goal(MOST))
        for row in _single(trial)
    ]
    return [*took, _same_weights(trial)]


def _single(trial: Trial) -> list[dict[str, Any]]:
    """Runs that one fault struck: none of a storm."""
    return [row for row in trial.rows if "fault" in row]


def _same_weights(trial: Trial) -> Figure:
    same = sum(bool(row["same_weights"]) for row in trial.rows)
    return Figure("runs with the same weights", "runs", same, "runs", len(trial.rows), Goal(1.0, is_least=True))
