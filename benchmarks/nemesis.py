"""What does a fault cost a run, and does it change a single bit of the weights?

Four real daemons on loopback with emulated engines (their work sleeps, their sums are real), a run of every kind of
task. Each fault strikes one run; a row says what struck, what was being done there, how many seconds longer the run
took than the median undisturbed one of the same session, and whether it ended in the same weights. `--storm RUNS`
strikes that many runs with random faults at random moments instead. Cuts of the network need root.

Names of faults: kill/TASK for each kind of task; restart, leave, engine, stop-1, stop-10 and stop-engine, each with
/generation and /apply; submitter, sealer, kill-2, kill-3, power-cut-4, power-cut-2, cut.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from benchmarks.figure import Figure, Goal, Tell
from tests.support.mesh import Daemon, Mesh, Refused
from tests.support.sites import TwoSites, can_cut
from tests.support.strike import all_stages, await_stable, running_step, running_tasks, sealer

RUN_S = 180.0  # patience; an undisturbed run takes about ten seconds
UNDISTURBED = 3  # runs that the others are compared with
STEPS = 4
PAUSE_S = (1.0, 10.0)  # shorter and longer than it takes to be declared dead
CUT_S = 6.0
QUICK = {"faults": ("kill/generation", "kill/apply", "engine/generation")}

TASKS = {
    "demonstrations": ("warm", "p", 0),
    "generation": ("roll", "p", 1),
    "a block of leaves": ("learn", "b", 1),
    "a slice": ("learn", "s", 1),
    "apply": ("learn", "apply", 1),
    "evaluation": ("heldout", "p", 1),
    "a checkpoint": ("checkpoint", "save", 3),
}


@dataclass
class Trial:
    """A mesh, and what its runs give when nobody disturbs them."""

    mesh: Mesh
    tell: Tell
    weights: str = ""
    undisturbed_s: float = 0.0
    runs: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def submit(self) -> str:
        self.runs += 1
        return self.mesh.submit(self.mesh.running()[0], all_stages(STEPS), nonce=str(self.runs))

    def learn(self) -> None:
        """Undisturbed runs: the weights, and the time."""
        await_stable(self.mesh)
        answers = [self.wait(self.submit()) for _ in range(UNDISTURBED)]
        self.weights = answers[0]["weights"]
        self.undisturbed_s = statistics.median(answer["wall_s"] for answer in answers)

    def wait(self, run: str) -> dict[str, Any]:
        """The run's summary once it has ended for somebody who lives."""
        found: dict[str, Any] = {}

        def is_over() -> bool:
            for node in self.mesh.running():
                with suppress(TimeoutError, Refused):
                    found.update(self.mesh.ask(node, "run", deadline_s=3.0, run=run))
                    return bool(found["state"] != "active")
            return False

        self.mesh.until(is_over, RUN_S)
        return found

    def seen(self, run: str, kind: str, count: int = 1) -> list[Daemon]:
        """Daemons that run such a task now."""

        def found() -> list[Daemon]:
            names = sorted({row["node"] for row in running_tasks(self.mesh, run, *TASKS[kind])})
            return [self.mesh.nodes[name] for name in names] if len(names) >= count else []

        return self.mesh.until(found, RUN_S)

    def try_fault(self, what: str, where: str, strike: Callable[[str], None]) -> None:
        """One run with one fault; afterwards everybody is there again."""
        run = self.submit()
        strike(run)
        self.judge(run, {"fault": what, "while": where})

    def judge(self, run: str, struck: dict[str, object]) -> None:
        """What became of the run; then all daemons are there again."""
        answer = self.wait(run)
        same = (answer["state"], answer["weights"]) == ("done", self.weights)
        row = {**struck, "lost_s": round(answer["wall_s"] - self.undisturbed_s, 1), "same_weights": same}
        self.rows.append(row)
        self.tell(row)
        self.restore()

    def restore(self) -> None:
        for node in self.mesh.nodes.values():
            if node.process is None:
                self.mesh.launch(node)
        self.mesh.await_all()
        await_stable(self.mesh)

    # What strikes ---------------------------------------------------------------------------------------------------

    def kill(self, *nodes: Daemon) -> None:
        for node in nodes:
            os.kill(node.pid, signal.SIGKILL)
        for node in nodes:
            self.mesh.kill(node)

    def pause_daemon(self, seconds: float, node: Daemon) -> None:
        self.pause([node.pid], seconds)

    def pause_engines(self, seconds: float, node: Daemon) -> None:
        self.pause(node.children(), seconds)

    def pause(self, pids: list[int], seconds: float) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            with suppress(ProcessLookupError):  # an engine that was silent too long was replaced
                os.kill(pid, signal.SIGCONT)

    def kill_all_and_start(self, count: int) -> None:
        """The whole site loses power; so many of its machines come back."""
        nodes = self.mesh.running()
        self.kill(*nodes)
        for node in nodes[:count]:
            self.mesh.launch(node)


def all_faults(trial: Trial) -> dict[str, Callable[[], None]]:
    """Name -> a trial of that fault."""
    mesh = trial.mesh

    def in_task(what: str, kind: str, hit: Callable[[Daemon], object]) -> Callable[[], None]:
        """Who runs such a task is hit."""

        def strike(run: str) -> None:
            hit(trial.seen(run, kind)[-1])

        return partial(trial.try_fault, what, kind, strike)

    def restart(node: Daemon) -> None:
        trial.kill(node)
        mesh.launch(node)

    def kill_engines(node: Daemon) -> None:
        for pid in node.children():
            os.kill(pid, signal.SIGKILL)

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

    tried: dict[str, Callable[[], None]] = {}
    for kind in TASKS:
        tried[f"kill/{kind}"] = in_task("kill -9 of a daemon", kind, trial.kill)
    for kind in ("generation", "apply"):
        tried[f"restart/{kind}"] = in_task("kill -9, started again at once", kind, restart)
        tried[f"leave/{kind}"] = in_task("SIGTERM of a daemon", kind, mesh.terminate)
        tried[f"engine/{kind}"] = in_task("kill -9 of an engine", kind, kill_engines)
        for seconds in PAUSE_S:
            what = f"SIGSTOP of a daemon for {seconds:g} s"
            tried[f"stop-{seconds:g}/{kind}"] = in_task(what, kind, partial(trial.pause_daemon, seconds))
        what = f"SIGSTOP of an engine for {PAUSE_S[-1]:g} s"
        tried[f"stop-engine/{kind}"] = in_task(what, kind, partial(trial.pause_engines, PAUSE_S[-1]))
    first, leaves = "generation", "a block of leaves"
    tried["submitter"] = partial(trial.try_fault, "kill -9 of the daemon submitted to", first, kill_first)
    tried["sealer"] = partial(trial.try_fault, "kill -9 of the sealer", leaves, kill_sealer)
    for count in (2, 3):
        tried[f"kill-{count}"] = partial(trial.try_fault, f"kill -9 of {count} of 4", first, partial(kill_some, count))
    for back in (4, 2):
        what = f"kill -9 of all 4, {back} started again"
        tried[f"power-cut-{back}"] = partial(trial.try_fault, what, leaves, partial(cut_power, back))
    return tried


def cut(trial: Trial, mesh: TwoSites) -> None:
    def strike(run: str) -> None:
        trial.seen(run, "generation")
        mesh.cut()
        time.sleep(CUT_S)
        mesh.heal()

    trial.try_fault(f"the network cut in two halves for {CUT_S:g} s", "generation", strike)


def strike_at_random(trial: Trial, runs: int, seed: int) -> None:
    """Random faults at random moments, one to four in a run; at least one daemon always lives on."""
    rng = random.Random(seed)
    for number in range(runs):
        run = trial.submit()
        struck = []
        for _ in range(rng.randint(1, 4)):
            time.sleep(rng.uniform(0.1, trial.undisturbed_s / 2))
            nodes = trial.mesh.running()
            node = rng.choice(nodes)
            kinds = ["stop 1 s", "engine"] + (["kill", "restart", "leave"] if len(nodes) > 1 else [])
            kind = rng.choice(kinds)
            struck.append(f"{kind} {node.name}")
            match kind:
                case "stop 1 s":
                    trial.pause_daemon(1.0, node)
                case "engine":
                    for pid in node.children():
                        os.kill(pid, signal.SIGKILL)
                case "leave":
                    trial.mesh.terminate(node)
                case _:
                    trial.kill(node)
                    if kind == "restart":
                        trial.mesh.launch(node)
        trial.judge(run, {"run": number, "struck": struck})


def measure(
    tell: Tell,
    *,
    faults: Annotated[tuple[str, ...], "only these"] = (),
    storm: Annotated[int, "runs that are struck at random instead"] = 0,
    seed: Annotated[int, "of the storm"] = 0,
) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), 4) as mesh:
        trial = Trial(mesh, tell)
        tried = all_faults(trial)
        unknown = set(faults) - {*tried, "cut"}
        if unknown:
            raise ValueError(f"no fault is called {', '.join(sorted(unknown))}; see --help")
        trial.learn()
        if storm:
            strike_at_random(trial, storm, seed)
        else:
            for name, strike in tried.items():
                if not faults or name in faults:
                    strike()
    rows = trial.rows
    if not storm and can_cut() and (not faults or "cut" in faults):
        with tempfile.TemporaryDirectory() as folder, TwoSites(Path(folder), 4) as sites:
            apart = Trial(sites, tell)
            apart.learn()
            cut(apart, sites)
            rows = rows + apart.rows
    same = sum(bool(row["same_weights"]) for row in rows)
    lost = [
        Figure(f"lost to {row['fault']} while {row['while']}", "s", row["lost_s"]) for row in rows if "fault" in row
    ]
    return [*lost, Figure("runs with the same weights", "runs", same, "runs", len(rows), Goal(1.0, is_least=True))]
