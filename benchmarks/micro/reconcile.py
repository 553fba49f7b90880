"""What does a run cost a node's one thread, as its steps have more partitions?

A calm mesh of real nodes in the simulator, two steps of GRPO; the CPU time that each node's `take` and `act` need is
measured, without frames' bytes, sockets and engines: their share of the time that passes, of the CPU time of all. To
ask for that at each turn takes as long as a turn on some machines. A row a size:

    cpu_s       of a node and step, mean
    task_ms     CPU of all nodes for each partition, leaf's block and slice that was run
    twice       works on partitions beyond those that the steps have: done by two nodes
    frames      that all nodes sent
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

from benchmarks.figure import Figure, Goal, Tell
from dflow_protocols.names import Partition
from dflow_protocols.node import Node
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.simulator.goals import ended
from dflow_protocols.simulator.model.host import BootContext
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World

STEPS = 2
SETTLED_S = 6.0  # virtual, in which members get to know each other
ENDS_S = 600.0  # virtual
GOAL_S = 0.5
QUICK = {"partitions": (32,)}


class Spent:
    """The CPU seconds of all nodes of a world since it was last begun."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._within_s, self._began, self._cpu_began = 0.0, time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        share = self._within_s / (time.perf_counter() - self._began)
        return share * (time.process_time() - self._cpu_began)

    def spawn(self, boot: BootContext) -> Node:
        node = spawn(boot)
        for name in ("take", "act"):
            setattr(node, name, self._timed(getattr(node, name)))
        return node

    def _timed(self, does: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return does(*arguments)
            finally:
                self._within_s += time.perf_counter() - began

        return timed


def of_size(nodes: int, partitions: int, leaves: int) -> dict[str, Any]:
    """One world's row."""
    spent, pipeline, works = Spent(), two_steps(partitions=partitions, leaves=leaves), Counter[type]()
    world = World(spent.spawn, nodes=nodes, seed=1)
    world.run(SETTLED_S)
    spent.begin()
    before = world.network.frames
    run = world.submit(0, pipeline)
    calls: set[tuple[int, int]] = set()

    def is_over() -> bool:
        for host in world.hosts:
            for number, start in host.calls.items():
                if (host.index, number) not in calls:
                    calls.add((host.index, number))
                    works[type(start.task.part)] += 1
        return ended(world, run)()

    world.expect(ENDS_S, is_over, "the run finishes")
    cpu_s = spent.seconds
    due = sum(chain.partitions for step in range(STEPS + 1) for chain in plan(pipeline, step).chains)
    return {
        "nodes": nodes,
        "partitions": partitions,
        "cpu_s": round(cpu_s / nodes / STEPS, 3),
        "task_ms": round(1e3 * cpu_s / sum(works.values()), 2),
        "twice": works[Partition] - due,
        "frames": world.network.frames - before,
    }


def measure(
    tell: Tell,
    *,
    partitions: Annotated[tuple[int, ...], "of a step"] = (32, 128, 512),
    nodes: Annotated[int, "of the mesh"] = 3,
    leaves: Annotated[int, "of a step's gradient"] = 8,
) -> list[Figure]:
    figures = []
    for count in partitions:
        found = of_size(nodes, count, leaves)
        tell(found)
        what = f"{count} partitions on {nodes} nodes: CPU of a node and step"
        figures.append(Figure(what, "s", found["cpu_s"], goal=Goal(GOAL_S)))
    return figures
