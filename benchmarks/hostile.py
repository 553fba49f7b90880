"""What does a daemon make of hostile input on both lanes, in the middle of a run?

    python benchmarks/hostile.py [--scale 1.0] [--steps 60]

Three real daemons with emulated engines work on a run while one of them is attacked: by a stranger, with a client's
key, with a node's key. Prints a row for each kind of attack:

    tried       connections, frames, requests or messages sent
    answered    what came back: bytes beyond ZeroMQ's greeting to a stranger, messages to who has a key
    reports     lines in the daemon's log that name it, counts of what they stand for included
    rss         resident MiB of the attacked daemon before and after
    answers ms  a client's `status` meanwhile: median, p99

and at the end whether the daemons live and the run has the weights of one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dflow_protocols.keys import key_text
from dflow_protocols.names import RunId
from dflowd.transport.keys import KeyPair, new_key_pair
from tests.support import attack
from tests.support.attack import Liar, Outcome
from tests.support.mesh import Daemon, Mesh
from tests.support.toy import toy_pipeline

RUN_S = 600.0
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

    def __str__(self) -> str:
        times = sorted(self.times_ms) or [0.0]
        lag = f"{statistics.median(times):7.1f} {times[int(len(times) * 0.99)]:8.1f}"
        out, mib = self.outcome, 1 << 20
        memory = f"{self.before / mib:6.1f} {self.after / mib:6.1f}"
        return f"{self.name:32} {out.tried:7} {out.answered:8} {self.reports:8} {memory} {lag}"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of every count of attempts")
    parser.add_argument("--steps", type=int, default=60, help="of the run that goes on meanwhile")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mesh = Mesh(Path(folder), 3)
        with mesh:
            keys = mesh.prepare().keys  # a listed node that never starts: the liar has its key
            client = new_key_pair()
            with (Path(folder) / "allow").open("a") as allow_list:
                allow_list.write(f"{key_text(client.public)} attacker client\n")
            node, other, _ = mesh.running()
            pipeline = toy_pipeline(steps=args.steps, generate_s=0.3)
            calm = mesh.submit(other, pipeline, nonce="calm")
            mesh.until(lambda: mesh.ask(other, "run", run=calm)["state"] == "done", RUN_S)
            run = mesh.submit(other, pipeline, nonce="stormy")
            mesh.until(lambda: mesh.ask(node, "run", run=run)["step"] >= 1, 60)
            print(f"load {os.getloadavg()[0]:.1f}, {args.steps} steps, scale {args.scale}")
            print(f"{'attack':32} {'tried':>7} {'answered':>8} {'reports':>8} {'rss':>6} {'after':>6} answers ms (p99)")
            for name, what in attacks(mesh, node, client, Liar(node, keys, RunId(run)), args.scale).items():
                print(measured(mesh, node, name, what), flush=True)
            steps = mesh.ask(other, "run", run=run)["step"]
            mesh.until(lambda: mesh.ask(other, "run", run=run)["state"] != "active", RUN_S)
            ends = [mesh.ask(other, "run", run=name) for name in (calm, run)]
            print(f"the attacks ended at step {steps}; the run: {ends[1]['state']}, ", end="")
            print("same weights" if ends[0]["weights"] == ends[1]["weights"] else "OTHER WEIGHTS")
            mesh.until(lambda: mesh.ask(node, "status")["memory"]["shards"]["used_bytes"] == 0, 60)
            print(f"daemons alive: {sum(each.process.poll() is None for each in mesh.running() if each.process)} of 3")


if __name__ == "__main__":
    main()
