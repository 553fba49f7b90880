"""How many bytes does a step move between nodes, and how many should it?

Real daemons on loopback with emulated engines, eight leaves, rollouts that are small beside the gradient. A row a mesh;
bytes of the bulk lane are in units of S, the bytes of one gradient:

    derived   by hand from the deal, the blocks and the slices (see `derived_bytes`)
    placed    the same of the blocks and slices as they were made: a stolen leaf makes a block more
    measured  what all nodes together received in frames, mean of a step; `most` the busiest node's
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from benchmarks.figure import Figure, Goal, Tell
from dflow_protocols.claiming.deal import deal
from dflow_protocols.names import CHUNK_BYTES, NodeId, Slice
from dflow_protocols.steps.reduction import aligned_blocks, slices
from tests.support.mesh import Mesh
from tests.support.strike import await_stable
from tests.support.toy import toy_pipeline

LEAVES = 8
RUN_S = 180.0
MOST = 1.1  # times what is derived: heads of frames, retries, and small shards beside the gradient
MOST_TASKS = 1000  # of a run
PART = re.compile(r"/([bs])(\d+)-(\d+)$")  # of a task's id: a block of leaves or a slice of chunks
QUICK = {"nodes": (2, 3), "steps": 3}


def update_bytes(blocks: Mapping[str, int], owners: Mapping[Slice, str], gradient_bytes: int) -> int:
    """Bytes that all trainers together receive for one update: `blocks` summed by each, slices reduced by `owners`.

    A slice's owner brings that range of every block that another node summed; then everybody brings all slices that
    another node reduced.
    """
    total = 0
    for chunks, owner in owners.items():
        nbytes = min(chunks.end * CHUNK_BYTES, gradient_bytes) - chunks.first * CHUNK_BYTES
        total += nbytes * (sum(blocks.values()) - blocks[owner])
        total += nbytes * (len(blocks) - 1)
    return total


def derived_bytes(nodes: int, leaves: int, gradient_bytes: int) -> int:
    """As update_bytes, where everybody does what it was dealt. Who is who changes with each step, how much does not."""
    trainers = [NodeId(f"{index:032x}") for index in range(nodes)]
    summed = deal(range(leaves), trainers)
    blocks = {
        str(node): len(list(aligned_blocks([leaf for leaf in range(leaves) if summed[leaf] == node])))
        for node in trainers
    }
    owners = {chunks: str(owner) for chunks, owner in deal(slices(gradient_bytes), trainers).items()}
    return update_bytes(blocks, owners, gradient_bytes)


def placed_bytes(mesh: Mesh, run: str, gradient_bytes: int) -> int:
    """As update_bytes, summed over a run's updates, by who did what in fact: some fast tasks are stolen."""
    nodes = mesh.running()
    tasks = mesh.ask(nodes[0], "tasks", run=run, limit=MOST_TASKS)["tasks"]
    blocks: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys((node.name for node in nodes), 0))
    owners: dict[int, dict[Slice, str]] = defaultdict(dict)
    for task in tasks:
        if found := PART.search(task["id"]):
            kind, first, end = found[1], int(found[2]), int(found[3])
            if kind == "b":
                blocks[task["step"]][task["node"]] += 1
            else:
                owners[task["step"]][Slice(first, end)] = task["node"]
    return sum(update_bytes(blocks[step], owners[step], gradient_bytes) for step in owners)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a run of `steps` moved, by node: bytes received on each lane."""

    steps: int
    bulk: dict[str, int]
    control: dict[str, int]
    placed: int  # bytes of the bulk lane that follow from who did what (see placed_bytes)
    is_calm: bool  # nobody was suspected, so nothing was dealt or asked for twice

    def per_step(self) -> float:
        return sum(self.bulk.values()) / self.steps

    def placed_per_step(self) -> float:
        return self.placed / self.steps


def received(mesh: Mesh, lane: str) -> dict[str, int]:
    """Bytes that each daemon received on a lane since it started."""
    return {
        node.name: sum(count["received"] for count in mesh.ask(node, "status")["traffic"][lane].values())
        for node in mesh.running()
    }


def times_suspected(mesh: Mesh) -> int:
    """How often its members suspected each other since they started."""
    return sum("membership.suspected" in line for node in mesh.running() for line in node.log_lines())


def moved_by(mesh: Mesh, parameters: int, steps: int, nonce: str) -> Moved:
    """Run `steps` updates of a model with so many float32 parameters, on a mesh whose members are stable."""
    before = {lane: received(mesh, lane) for lane in ("bulk", "control")}
    suspected = times_suspected(mesh)
    asked = mesh.running()[0]
    pipeline = toy_pipeline(steps, 12, LEAVES, parameters, generate_s=0.02, gradient_s=0.02)
    run = mesh.submit(asked, pipeline, nonce)
    mesh.until(lambda: mesh.ask(asked, "run", run=run)["state"] == "done", RUN_S)
    after = {lane: received(mesh, lane) for lane in ("bulk", "control")}
    moved = {lane: {name: after[lane][name] - before[lane][name] for name in before[lane]} for lane in before}
    placed = placed_bytes(mesh, run, 4 * parameters)
    return Moved(steps, moved["bulk"], moved["control"], placed, times_suspected(mesh) == suspected)


def measure(
    tell: Tell,
    *,
    nodes: Annotated[tuple[int, ...], "sizes of the meshes"] = (2, 3, 4, 7),
    parameters: Annotated[int, "float32 of the model"] = 2_000_000,
    steps: Annotated[int, "of each run"] = 6,
) -> list[Figure]:
    size = 4 * parameters
    figures = []
    for count in nodes:
        with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), count) as mesh:
            await_stable(mesh)
            moved = moved_by(mesh, parameters, steps, "measured")
        measured, placed = moved.per_step() / size, moved.placed_per_step() / size
        row = {
            "nodes": count,
            "derived": round(derived_bytes(count, LEAVES, size) / size, 3),
            "placed": round(placed, 3),
            "measured": round(measured, 3),
            "most": round(max(moved.bulk.values()) / steps / size, 3),
            "control_bytes": round(sum(moved.control.values()) / steps),
            "calm": moved.is_calm,
        }
        tell(row)
        figures.append(Figure(f"bytes of a step, {count} nodes", "S", measured, "placed", placed, Goal(MOST)))
    return figures
