"""What does a daemon make of hostile input on both lanes, in the middle of a run?

Three real daemons with emulated engines work on a run while one of them is attacked: by a stranger, with a client's
key, with a node's key. A row for each kind of attack:

    tried       connections, frames, requests or messages sent
    answered    what came back: bytes beyond ZeroMQ's greeting to a stranger, messages to who has a key
    reports     lines in the daemon's log that name it, counts of what they stand for included
    before_mib, after_mib   resident memory of the attacked daemon
    median_ms, p99_ms       of a client's `status` meanwhile

The figures are the worst of all rows, whether the daemons live, and whether the run has the weights of one that nobody
disturbed.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.figure import Figure, Goal, Tell
from dflow_protocols.names import RunId
from dflow_protocols.wire.keys import key_text
from dflowd.transport.keys import KeyPair, new_key_pair
from tests.support import attack
from tests.support.attack import Liar, Outcome
from tests.support.mesh import Daemon, Mesh
from tests.support.toy import toy_pipeline

RUN_S = 600.0
NODES = 3
QUICK = {"scale": 0.05, "steps": 20}
HOSTILE = re.compile(r" (transport|wire|membership\.bad|run\.refused|service|driver|shards\.corrupt)[a-z_.]* ")


class Pulse:
    """Asks the attacked daemon for its status all the time, on a link of its own."""

    def __init__(self, mesh: Mesh, node: Daemon) -> None:
        self._mesh, self._node = mesh, node
        self._stop = threading.Event()
        self.times_ms: list[float] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            began = time.monotonic()
            self._mesh.ask(self._node, "status", deadline_s=30.0)
            self.times_ms.append((time.monotonic() - began) * 1e3)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@dataclass
class Row:
    name: str
    outcome: Outcome
    reports: int
    before: int
    after: int
    times_ms: list[float]

    @property
    def p99_ms(self) -> float:
        return sorted(self.times_ms)[int(len(self.times_ms) * 0.99)] if self.times_ms else 0.0

    def told(self) -> dict[str, Any]:
        mib = 1 << 20
        return {
            "attack": self.name,
            "tried": self.outcome.tried,
            "answered": self.outcome.answered,
            "reports": self.reports,
            "before_mib": round(self.before / mib, 1),
            "after_mib": round(self.after / mib, 1),
            "median_ms": round(statistics.median(self.times_ms or [0.0]), 1),
            "p99_ms": round(self.p99_ms, 1),
        }


def measured(mesh: Mesh, node: Daemon, name: str, what: Callable[[], Outcome]) -> Row:
    """One attack, and the daemon before, during and after it."""
    before, lines = resident(mesh, node), len(node.log_lines())
    pulse = Pulse(mesh, node)
    try:
        outcome = what()
        time.sleep(0.5)
    finally:
        pulse.close()
    told = [line for line in node.log_lines()[lines:] if HOSTILE.search(line)]
    counts = sum(max([1, *(int(n) for n in re.findall(r"(?:count|repeated)=(\d+)", line))]) for line in told)
    return Row(name, outcome, counts, before, resident(mesh, node), pulse.times_ms)


def resident(mesh: Mesh, node: Daemon) -> int:
    return int(mesh.ask(node, "status")["memory"]["resident_bytes"])


def attacks(mesh: Mesh, node: Daemon, client: KeyPair, liar: Liar, scale: float) -> dict[str, Callable[[], Outcome]]:
    def times(count: int) -> int:
        return max(1, int(count * scale))

    members = [other.id for other in mesh.nodes.values()]
    return {
        "stranger: open links, control": lambda: attack.connections(node.control, times(3_000)),
        "stranger: open links, bulk": lambda: attack.connections(node.bulk, times(3_000)),
        "stranger: garbage, control": lambda: attack.garbage(node.control, times(400)),
        "stranger: garbage, bulk": lambda: attack.garbage(node.bulk, times(400)),
        "stranger: keys nobody listed": lambda: attack.unlisted_keys(node, times(60)),
        "stranger: guessed tokens, bulk": lambda: attack.stolen_names(node, members, times(60)),
        "client: broken frames": lambda: attack.broken_frames(node, client, times(1_600)),
        "client: wrong requests": lambda: attack.wrong_requests(node, client, times(800)),
        "client: answers never read": lambda: attack.unread_answers(node, client, times(2_000)),
        "node: broken frames": lambda: attack.broken_frames(node, liar.keys, times(1_600)),
        "node: bulk asks, replays": lambda: liar.greedy_fetches([], times(100)),
        "node: message without end": lambda: liar.endless_message(times(4 << 30)),
        "node: lies": lambda: liar.lies(times(4_000)),
    }


def measure(
    tell: Tell,
    *,
    scale: Annotated[float, "of every count of attempts"] = 1.0,
    steps: Annotated[int, "of the run that goes on meanwhile"] = 60,
) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), NODES) as mesh:
        keys = mesh.prepare().keys  # a listed node that never starts: the liar has its key
        client = new_key_pair()
        with (Path(folder) / "allow").open("a") as allow_list:
            allow_list.write(f"{key_text(client.public)} attacker client\n")
        node, other, _ = mesh.running()
        pipeline = toy_pipeline(steps=steps, generate_s=0.3)
        calm = mesh.submit(other, pipeline, nonce="calm")
        mesh.until(lambda: mesh.ask(other, "run", run=calm)["state"] == "done", RUN_S)
        run = mesh.submit(other, pipeline, nonce="stormy")
        mesh.until(lambda: mesh.ask(node, "run", run=run)["step"] >= 1, 60)
        rows = []
        for name, what in attacks(mesh, node, client, Liar(node, keys, RunId(run)), scale).items():
            rows.append(measured(mesh, node, name, what))
            tell(rows[-1].told())
        tell({"the attacks ended at step": mesh.ask(other, "run", run=run)["step"]})
        mesh.until(lambda: mesh.ask(other, "run", run=run)["state"] != "active", RUN_S)
        ends = [mesh.ask(other, "run", run=name) for name in (calm, run)]
        mesh.until(lambda: mesh.ask(node, "status")["memory"]["shards"]["used_bytes"] == 0, 60)
        alive = sum(each.process.poll() is None for each in mesh.running() if each.process)
    same = (ends[1]["state"], ends[1]["weights"]) == ("done", ends[0]["weights"])
    strangers = sum(row.outcome.answered for row in rows if row.name.startswith("stranger"))
    grown = max(row.after for row in rows) - rows[0].before
    return [
        Figure("answers to strangers", "bytes", strangers, goal=Goal(0.0)),
        Figure("memory grown", "MiB", grown / (1 << 20)),
        Figure("a client's answer, worst p99", "ms", max(row.p99_ms for row in rows)),
        Figure("daemons alive", "of 3", alive, goal=Goal(NODES, is_least=True)),
        Figure("same weights", "yes", float(same), goal=Goal(1.0, is_least=True)),
    ]
