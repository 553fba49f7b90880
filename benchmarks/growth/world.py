"""A calm world in which handling takes time, and all devices compute as long as each other."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from random import Random

from benchmarks.growth.charged import Costs
from benchmarks.scaling.profile import Profile
from dflow_protocols.events import Action, Advanced, Event
from dflow_protocols.names import NodeId, RunId, run_id
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.model.provenance import Ledger
from dflow_protocols.simulator.model.work import PURE, Engines
from dflow_protocols.simulator.world import CLIENT, World
from dflow_protocols.wire.frame import Frame
from dflow_protocols.work import BlockWork, ChainWork, Work, at_once

COLLECT_EVERY = 200_000  # turns


class Devices(Engines):
    """What a step takes beyond their seconds is the mesh's: none is late, sums and updates take no time."""

    def __init__(self, ledger: Ledger, pipeline: Pipeline, profile: Profile, seconds: float, nodes: int) -> None:
        """`seconds`: that one node computes in a step."""
        super().__init__(ledger, pipeline, PURE, Random(0))
        roll, learn = pipeline.stages[0], pipeline.stages[-1]
        shares, self._partitions = profile.shares, int(roll.config["partitions"]) // nodes
        self._stage_s = {  # of one partition; what passes through no model takes no time
            roll.id: seconds * shares["generate"] / self._partitions,
            "ref": seconds * shares["score"] / self._partitions,
        }
        self._leaf_s = seconds * shares["train"] * nodes / int(learn.config["leaves"])

    def seconds(self, work: Work) -> float:
        if isinstance(work, ChainWork):
            each_s = sum(self._stage_s.get(stage, 0.0) for stage in work.stages)
            return each_s * min(self._partitions, at_once(work))
        return self._leaf_s * len(work.leaves) if isinstance(work, BlockWork) else 0.0


class Arrivals:
    """When each node came to hold each version, or a later one: a watcher of a world."""

    def __init__(self, world: World) -> None:
        self.at: dict[int, dict[int, float]] = defaultdict(dict)  # by steps done, and node
        self._world = world

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Advanced):
            for step in range(action.head.step + 1):  # who copies a later one passes some over
                self.at[step].setdefault(host.index, self._world.now)

    def complete(self, step: int) -> Callable[[], bool]:
        """Whether all nodes have held it."""
        nodes, there = len(self._world.hosts), self.at[step]
        return lambda: len(there) == nodes

    def heard(self, host: Host, event: Event) -> None:
        pass

    def dies(self, host: Host) -> None:
        pass


class BusyWorld(World):
    """A node that handles is busy as long as that takes, and what it says leaves when it is done."""

    def __init__(self, costs: Costs, nodes: int) -> None:
        self._costs = costs
        self._turns = 0
        super().__init__(costs.spawn, nodes=nodes, seed=1)

    def begin(self, pipeline: Pipeline, profile: Profile, seconds: float) -> RunId:
        """A client of the first node submits."""
        run = run_id(pipeline.text_id, CLIENT, "0")
        self.engines[run] = Devices(self.ledger, pipeline, profile, seconds, len(self.hosts))
        return self.submit(0, pipeline)

    def _turn(self, host: Host) -> None:
        super()._turn(host)
        if host.process is not None:
            host.process.keep_busy(self._costs.end_turn(host.index))
        self._turns += 1
        if self._turns % COLLECT_EVERY == 0:
            gc.collect()  # between turns, at nobody's cost

    def _send(self, host: Host, to: NodeId, frame: Frame) -> None:
        self.after(self._costs.turn_s(host.index), partial(super()._send, host, to, frame))
