"""Faults of processes: kills, restarts, goodbyes, stalls and power cuts, while a task of a kind runs there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.nemesis.trial import TASKS, Trial
from tests.support.mesh import Daemon
from tests.support.strike import running_step, sealer

PAUSE_S = (1.0, 10.0)  # shorter and longer than it takes to be declared dead


def process_faults(trial: Trial) -> dict[str, Callable[[], None]]:
    """Name -> a trial of that fault."""
    return _at_a_task(trial) | _at_many(trial)


def _at_a_task(trial: Trial) -> dict[str, Callable[[], None]]:
    """Who runs a task of some kind is hit."""

    def hit(what: str, kind: str, by: Callable[[Daemon], object]) -> Callable[[], None]:
        def strike(run: str) -> None:
            by(trial.seen(run, kind)[-1])

        return partial(trial.try_fault, what, kind, strike)

    tried: dict[str, Callable[[], None]] = {}
    for kind in TASKS:
        tried[f"kill/{kind}"] = hit("kill -9 of a daemon", kind, trial.kill)
    for kind in ("generation", "apply"):
        tried[f"restart/{kind}"] = hit("kill -9, started again at once", kind, trial.restart)
        tried[f"leave/{kind}"] = hit("SIGTERM of a daemon", kind, trial.leave)
        tried[f"engine/{kind}"] = hit("kill -9 of an engine", kind, trial.kill_engines)
        for seconds in PAUSE_S:
            what = f"SIGSTOP of a daemon for {seconds:g} s"
            tried[f"stop-{seconds:g}/{kind}"] = hit(what, kind, partial(trial.pause_daemon, seconds))
        what = f"SIGSTOP of an engine for {PAUSE_S[-1]:g} s"
        tried[f"stop-engine/{kind}"] = hit(what, kind, partial(trial.pause_engines, PAUSE_S[-1]))
    return tried


def _at_many(trial: Trial) -> dict[str, Callable[[], None]]:
    """A node with a part of its own is hit, or several at once."""
    mesh = trial.mesh

    def kill_first(run: str) -> None:
        trial.seen(run, "generation")
        trial.kill(mesh.running()[0])

    def kill_sealer(run: str) -> None:
        trial.kill(sealer(mesh, run, running_step(mesh, run)))

    def kill_some(count: int, run: str) -> None:
        trial.kill(*trial.seen(run, "generation", count)[:count])

    def cut_power(back: int, run: str) -> None:
        running_step(mesh, run)
        trial.kill_all_and_start(back)

    first, leaves = "generation", "a block of leaves"
    tried: dict[str, Callable[[], None]] = {
        "submitter": partial(trial.try_fault, "kill -9 of the daemon submitted to", first, kill_first),
        "sealer": partial(trial.try_fault, "kill -9 of the sealer", leaves, kill_sealer),
    }
    for count in (2, 3):
        tried[f"kill-{count}"] = partial(trial.try_fault, f"kill -9 of {count} of 4", first, partial(kill_some, count))
    for back in (4, 2):
        what = f"kill -9 of all 4, {back} started again"
        tried[f"power-cut-{back}"] = partial(trial.try_fault, what, leaves, partial(cut_power, back))
    return tried
