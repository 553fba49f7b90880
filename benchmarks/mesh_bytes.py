"""How many bytes does a step move between nodes, and how many should it?

Real daemons on loopback with emulated engines, eight leaves, rollouts that are small beside the gradient. A row a mesh;
bytes of the bulk lane are in units of S, the bytes of one float32 gradient:

    derived   by hand from the deal, the blocks and the slices (see `derived_bytes`)
    measured  what all nodes together received in frames where nothing is stolen, mean of a step; `most` the busiest
              node's
    stealing  the same where tasks may be stolen: ones as short as these are without need, and a leaf that is stolen
              makes of a block of two leaves two blocks, which every owner of slices brings
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Annotated, Literal

from benchmarks.figure import Figure, Goal, Tell
from dflow_protocols.claiming.deal import deal
from dflow_protocols.names import CHUNK_BYTES, NodeId
from dflow_protocols.pipeline.grammar.signatures import GRADIENT_BYTES
from dflow_protocols.ranges import FLOAT_BYTES
from dflow_protocols.simulator.toy import with_bfloat16
from dflow_protocols.steps.reduction import aligned_blocks, slices
from tests.support.mesh import Mesh
from tests.support.strike import await_stable
from tests.support.toy import toy_pipeline

LEAVES = 8
RUN_S = 180.0
MOST = 1.02  # times what is derived: heads of frames, and small shards beside the gradient
QUICK = {"nodes": (2, 3), "steps": 3}


def derived_bytes(nodes: int, leaves: int, gradient_bytes: int, element_bytes: int = FLOAT_BYTES) -> tuple[int, int]:
    """Bytes that all trainers together receive for one update: the least and the most.

    A slice's owner brings that range of every block that another node summed, of `element_bytes` an element; then
    everybody brings all slices that another node reduced, of float32. Leaves are dealt in another order in each step,
    slices in one, so how many blocks an owner has summed itself is chance where nodes have not equally many: least if
    who has most blocks has the longest slices, and most if it has the shortest.
    """
    trainers = [NodeId(f"{index:032x}") for index in range(nodes)]
    summed = deal(range(leaves), trainers)
    blocks = [len(list(aligned_blocks([leaf for leaf in range(leaves) if summed[leaf] == node]))) for node in trainers]
    block_bytes = gradient_bytes // FLOAT_BYTES * element_bytes
    owned = dict.fromkeys(trainers, 0)
    for chunks, owner in deal(slices(block_bytes, leaves), trainers).items():
        owned[owner] += min(chunks.end * CHUNK_BYTES, block_bytes) - chunks.first * CHUNK_BYTES
    reduced = block_bytes // element_bytes * FLOAT_BYTES * (nodes - 1)
    own = [sum(map(mul, sorted(blocks), sorted(owned.values(), reverse=shortest))) for shortest in (False, True)]
    least, most = (block_bytes * sum(blocks) - nbytes + reduced for nbytes in own)
    return least, most


@dataclass(frozen=True, slots=True)
class Moved:
    """What a run of `steps` moved, by node: bytes received on each lane."""

    steps: int
    bulk: dict[str, int]
    control: dict[str, int]
    is_calm: bool  # nobody was suspected, so nothing was dealt or asked for twice

    def per_step(self) -> float:
        return sum(self.bulk.values()) / self.steps


def received(mesh: Mesh, lane: str) -> dict[str, int]:
    """Bytes that each daemon received on a lane since it started."""
    return {
        node.name: sum(count["received"] for count in mesh.ask(node, "status")["traffic"][lane].values())
        for node in mesh.running()
    }


def times_suspected(mesh: Mesh) -> int:
    """How often its members suspected each other since they started."""
    return sum("membership.suspected" in line for node in mesh.running() for line in node.log_lines())


def without_stealing(mesh: Mesh) -> Mesh:
    """Have each node do what it is dealt: a leaf that is stolen makes a block more to fetch, whether it pays or not."""
    for node in mesh.nodes.values():
        node.environment = {"DFLOWD_STEALS": "0"}
    return mesh


def moved_by(mesh: Mesh, parameters: int, steps: int, nonce: str, gradient: str = "float32") -> Moved:
    """Run `steps` updates of a model with so many float32 parameters, on a mesh whose members are stable. `gradient`:
    the dtype of its gradients."""
    before = {lane: received(mesh, lane) for lane in ("bulk", "control")}
    suspected = times_suspected(mesh)
    asked = mesh.running()[0]
    pipeline = toy_pipeline(steps, 12, LEAVES, parameters, generate_s=0.02, gradient_s=0.02)
    run = mesh.submit(asked, pipeline if gradient == "float32" else with_bfloat16(pipeline), nonce)
    mesh.until(lambda: mesh.ask(asked, "run", run=run)["state"] == "done", RUN_S)
    after = {lane: received(mesh, lane) for lane in ("bulk", "control")}
    moved = {lane: {name: after[lane][name] - before[lane][name] for name in before[lane]} for lane in before}
    return Moved(steps, moved["bulk"], moved["control"], times_suspected(mesh) == suspected)


def measure(
    tell: Tell,
    *,
    nodes: Annotated[tuple[int, ...], "sizes of the meshes"] = (2, 3, 4, 7),
    parameters: Annotated[int, "float32 of the model"] = 2_000_000,
    steps: Annotated[int, "of each run"] = 6,
    gradient: Annotated[Literal["float32", "bfloat16"], "dtype of the blocks"] = "float32",
) -> list[Figure]:
    size = 4 * parameters
    figures = []
    for count in nodes:
        with tempfile.TemporaryDirectory() as folder:
            with without_stealing(Mesh(Path(folder) / "dealt", count)) as mesh:
                await_stable(mesh)
                moved = moved_by(mesh, parameters, steps, "measured", gradient)
            with Mesh(Path(folder) / "stealing", count) as mesh:
                await_stable(mesh)
                stealing = moved_by(mesh, parameters, steps, "stealing", gradient).per_step() / size
        least, most = (nbytes / size for nbytes in derived_bytes(count, LEAVES, size, GRADIENT_BYTES[gradient]))
        measured = moved.per_step() / size
        row = {
            "nodes": count,
            "derived": [round(least, 3), round(most, 3)],
            "measured": round(measured, 3),
            "stealing": round(stealing, 3),
            "most": round(max(moved.bulk.values()) / steps / size, 3),
            "control_bytes": round(sum(moved.control.values()) / steps),
            "calm": moved.is_calm,
        }
        tell(row)
        figures.append(Figure(f"bytes of a step, {count} nodes", "S", measured, "derived, at most", most, Goal(MOST)))
    return figures
