"""What does a fault of a process or of the network cost a run, and does it change a single bit of the weights?

Real daemons with emulated engines (their work sleeps, their sums are real), a run of every kind of task. Each fault
strikes one run; a row says what struck, what was being done there, how many seconds longer the run took than the
median undisturbed one of the same session, and whether it ended in the same weights. `--storm RUNS` strikes that many
runs with random faults at random moments instead.

Of processes, on four daemons: kill/TASK for each kind of task; restart, leave, engine, stop-1, stop-10 and
stop-engine, each with /generation and /apply; submitter, sealer, kill-2, kill-3, power-cut-4, power-cut-2.

Of the network (`--network`), on five daemons, each in a network namespace of its own: one-way, pair, pairs, line, star,
loss-5, loss-20, slow, flap, mtu, bulk, split. With +leave, +stop, +kill or +full behind the name a process is struck
too while the network is not whole. A row tells beside it

    suspected   how often a member that lived was suspected, by all nodes together
    died        how often one was declared dead
    named       reports in anybody's log that name a fault of the network; `no` if there is none

Needs root and Linux's `ip`, `tc` and `nft`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from benchmarks.figure import Figure, Skipped, Tell
from benchmarks.nemesis.measurement import Wanted, of_network, of_processes
from tests.support.hosts import lacks

QUICK = {"faults": ("kill/generation", "kill/apply", "engine/generation", "pair", "bulk", "split")}


def measure(
    tell: Tell,
    *,
    network: Annotated[bool, "faults of the network in place of those of processes"] = False,
    faults: Annotated[tuple[str, ...], "only these, as far as they are of that kind"] = (),
    storm: Annotated[int, "runs that are struck at random instead"] = 0,
    seed: Annotated[int, "of the storm"] = 0,
) -> list[Figure]:
    wanted = Wanted(faults, storm, seed)
    if network and lacks("nft", "tc"):
        raise Skipped(lacks("nft", "tc"))
    with tempfile.TemporaryDirectory() as folder:
        return (of_network if network else of_processes)(Path(folder), tell, wanted)
