"""How does the control plane's cost grow with the mesh, up to 1,024 nodes?

A calm mesh of real nodes in the simulator, which runs a profile's work (benchmarks/scaling/profiles): each node brings
its own, so a step ideally takes as long on a thousand nodes as on one. Devices compute for the seconds that the profile
publishes, or `--seconds`, without a tail. The CPU time of handling is measured, turn by turn, and charged to virtual
time: a node that handles is busy, and what it says leaves when it is done. So a loaded machine changes little, and a
slow one makes a slow mesh. A row a size, of the steps after the first:

    step_s      virtual seconds of a step; efficiency: the ideal seconds over these
    cpu_s       of a node and step, on one thread: mean, and of the busiest node
    sent_kb     control bytes of a node and step: mean, of the busiest, and mean by kind of message
    frames      of a node and step
    spread_s    from the first node that has a version until the last has it

Not in it: sockets and cipher, payloads' bytes, the exchange of gradients (models have three chunks).
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

from benchmarks.figure import Figure, Goal, Tell
from benchmarks.growth.charged import Costs
from benchmarks.growth.world import Arrivals, BusyWorld
from benchmarks.scaling.profile import NAMES, PARTITIONS, Profile, load
from dflow_protocols.membership.timing import Timing
from dflow_protocols.pipeline.grammar.signatures import MAX_LEAVES, MAX_PARTITIONS
from dflow_protocols.pipeline.spec import Pipeline

TIMINGS = {"lan": Timing.lan, "local": Timing.local}
FORM_TIMES = 3.0  # as long as a member must be alive to be dealt to: in that they get to know each other
ENDS_STEPS, LEAST_S = 20, 600.0  # virtual: times the ideal, and at least, after which a run is given up
KINDS = 6  # of messages that a row names
GOAL = 0.95
QUICK = {"nodes": (8, 32), "steps": 2}


@dataclass(frozen=True)
class Found:
    """Of one size, a node and step."""

    nodes: int
    partitions: int
    step_s: float
    efficiency: float
    spread_s: float
    cpu_s: float
    busiest_cpu_s: float
    frames: float
    sent_kb: float
    busiest_sent_kb: float
    kinds_kb: Mapping[str, float]
    took_s: float


@contextmanager
def no_collections() -> Iterator[None]:
    """All nodes share one heap here, so one that looks for cycles would be charged for what all of them have."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@no_collections()
def of_size(
    nodes: int, profile: Profile, seconds: float, steps: int, timing: Timing, partitions: int = PARTITIONS
) -> Found:
    """What the steps after the first cost. Raises Violation where a promise is broken or the run does not end."""
    began, costs = time.monotonic(), Costs(timing)
    world, pipeline = (
        BusyWorld(costs, nodes),
        sized(profile, nodes, steps + 1, partitions),
    )  # at its end a run asks for more
    arrivals = Arrivals(world)
    world.run(FORM_TIMES * timing.stable_s)
    world.watch(arrivals)
    world.begin(pipeline, profile, seconds)
    patience_s = max(LEAST_S, ENDS_STEPS * steps * seconds)
    world.expect(patience_s, arrivals.complete(1), "all have the version after the first step")
    costs.begin()
    world.expect(patience_s, arrivals.complete(steps), "all have the last version that is looked at")
    there = {step: sorted(arrivals.at[step].values()) for step in range(1, steps + 1)}
    step_s = (there[steps][-1] - there[1][-1]) / (steps - 1)
    each = 1.0 / nodes / (steps - 1)
    return Found(
        nodes=nodes,
        partitions=pipeline.stages[0].config["partitions"],
        step_s=step_s,
        efficiency=seconds / step_s,
        spread_s=max(times[-1] - times[0] for times in there.values()),
        cpu_s=sum(costs.seconds.values()) * each,
        busiest_cpu_s=max(costs.seconds.values(), default=0.0) / (steps - 1),
        frames=costs.frames * each,
        sent_kb=sum(costs.sent.values()) * each / 1e3,
        busiest_sent_kb=max(costs.sent.values(), default=0) / (steps - 1) / 1e3,
        kinds_kb={kind: round(count * each / 1e3, 1) for kind, count in costs.bytes.most_common(KINDS)},
        took_s=time.monotonic() - began,
    )


def sized(profile: Profile, nodes: int, steps: int, most: int = PARTITIONS) -> Pipeline:
    """The profile's run for so many nodes, in as many parts as a step may have; each node has as many as another, and
    at most `most` partitions."""
    small = profile.pipeline(min(nodes, min(MAX_PARTITIONS, MAX_LEAVES) // PARTITIONS), steps)
    partitions = min(most, MAX_PARTITIONS // nodes) * nodes
    leaves = min(PARTITIONS, MAX_LEAVES // nodes) * nodes
    sizes = {
        "roll": {"partitions": partitions, "prompts": profile.prompts * nodes},
        "learn": {"leaves": leaves},
    }
    stages = [replace(each, config={**each.config, **sizes.get(each.id, {})}) for each in small.stages]
    return replace(small, stages=stages)


def measure(
    tell: Tell,
    *,
    nodes: Annotated[tuple[int, ...], "sizes of the mesh"] = (8, 32, 128, 512, 1024),
    profile: Annotated[str, f"the work: {', '.join(NAMES)}"] = "siirl-table1",
    seconds: Annotated[float, "that a node computes in a step; 0: as published"] = 0.0,
    steps: Annotated[int, "of each run"] = 3,
    partitions: Annotated[int, "that the prompts of a node are cut into, if a step may have so many"] = PARTITIONS,
    timing: Annotated[Literal["lan", "local"], "how fast deaths are noticed, as a daemon's key `timing`"] = "lan",
) -> list[Figure]:
    work = load(profile)
    each_s = seconds or work.seconds * work.scale
    figures = []
    for count in nodes:
        if count > MAX_PARTITIONS:
            tell({"nodes": count, "skipped": f"a step has at most {MAX_PARTITIONS} partitions"})
            continue
        found = of_size(count, work, each_s, steps, TIMINGS[timing](), partitions)
        rounded = {
            name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(found).items()
        }
        tell({**rounded, "load": round(os.getloadavg()[0], 2)})
        what = f"{count} nodes, steps of {each_s:g} s"
        figures += [
            Figure(f"{what}: efficiency", "of the ideal", found.efficiency, goal=Goal(GOAL, is_least=True)),
            Figure(f"{what}: CPU of a node and step", "s", found.cpu_s),
            Figure(f"{what}: CPU of the busiest node and step", "s", found.busiest_cpu_s),
            Figure(f"{what}: control bytes of a node and step", "kB", found.sent_kb),
        ]
    return figures
