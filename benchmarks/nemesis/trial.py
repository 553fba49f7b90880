"""A mesh whose runs are struck, one fault a run, and held against runs that nobody disturbed."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figure import Tell
from tests.support.mesh import Daemon, Mesh, Refused
from tests.support.strike import all_stages, await_stable, running_tasks

RUN_S = 180.0  # patience; an undisturbed run takes about ten seconds
UNDISTURBED = 3  # runs that the others are compared with
STEPS = 4

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
    struck: set[str] = field(default_factory=set)  # names of daemons that were killed, stopped or told to leave

    def submit(self) -> str:
        self.runs += 1
        self.struck.clear()
        return self.mesh.submit(self.mesh.running()[0], all_stages(STEPS), nonce=str(self.runs))

    def learn(self) -> None:
        """Undisturbed runs: the weights, and the time."""
        await_stable(self.mesh)
        answers = [self.wait(self.submit()) for _ in range(UNDISTURBED)]
        self.weights = answers[0]["weights"]
        self.undisturbed_s = statistics.median(answer["wall_s"] for answer in answers)
        self.tell({"undisturbed_s": round(self.undisturbed_s, 1), "weights": self.weights[:16]})

    def wait(self, run: str) -> dict[str, Any]:
        """The run's summary once it has ended for somebody who lives; as it is when patience ends."""
        found: dict[str, Any] = {"state": "unknown", "weights": "", "wall_s": RUN_S}

        def is_over() -> bool:
            for node in self.mesh.running():
                with suppress(TimeoutError, Refused):
                    found.update(self.mesh.ask(node, "run", deadline_s=3.0, run=run))
                    return bool(found["state"] != "active")
            return False

        with suppress(AssertionError):
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
        lost = {"lost_s": round(answer["wall_s"] - self.undisturbed_s, 1), "same_weights": same}
        if answer["state"] != "done":
            lost["ended"] = answer["state"]
        row = {**struck, **lost, **self.noticed()}
        self.rows.append(row)
        self.tell(row)
        self.restore()

    def noticed(self) -> dict[str, object]:
        """More that a row tells: what the daemons' logs say since the run began."""
        return {}

    def restore(self) -> None:
        for node in self.mesh.nodes.values():
            if node.process is None:
                self.mesh.launch(node)
        self.mesh.await_all()
        await_stable(self.mesh)

    # What strikes ---------------------------------------------------------------------------------------------------

    def kill(self, *nodes: Daemon) -> None:
        self.struck |= {node.name for node in nodes}
        for node in nodes:
            os.kill(node.pid, signal.SIGKILL)
        for node in nodes:
            self.mesh.kill(node)

    def restart(self, node: Daemon) -> None:
        self.kill(node)
        self.mesh.launch(node)

    def leave(self, node: Daemon) -> None:
        self.struck.add(node.name)
        self.mesh.terminate(node)

    def pause_daemon(self, seconds: float, node: Daemon) -> None:
        self.struck.add(node.name)
        self.pause([node.pid], seconds)

    def pause_engines(self, seconds: float, node: Daemon) -> None:
        self.pause(node.children(), seconds)

    def kill_engines(self, node: Daemon) -> None:
        for pid in node.children():
            os.kill(pid, signal.SIGKILL)

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
