"""What the scenarios share: a mesh that has just been given the toy pipeline, and what an undisturbed one makes."""

from __future__ import annotations

import os
from collections import Counter
from functools import cache, partial

import pytest

from dflow_protocols.events import Action, Event, Start
from dflow_protocols.names import RunId, ShardId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.faults import Pause, Trigger
from dflow_protocols.simulator.goals import finish
from dflow_protocols.simulator.model.files import FILES, Script
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.model.provenance import PartitionOutput
from dflow_protocols.simulator.model.work import NOISY, PURE, WILD
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from dflow_protocols.work import ChainWork

FORMED_S = 4.0  # after so long all know each other and count as stable
NOISES = (
    pytest.param(PURE, id="pure"),
    pytest.param(NOISY, id="noisy", marks=pytest.mark.slow),  # less than wild is, which the short form has
    pytest.param(WILD, id="wild"),
)
"""Engines that agree, that make other gradients each time, and that make another update too: the last hold most."""
EVALUATES = "held"  # the toy pipeline's stage whose outputs no training reads
ENDS_S = 120.0  # virtual seconds of calm in which every run of the toy pipeline must end


def mesh(
    nodes: int,
    *,
    seed: int = 0,
    noise: frozenset[type] = PURE,
    alike: frozenset[str] = frozenset(),
    pipeline: Pipeline | None = None,
    submit_to: int = 0,
    seeds: tuple[int, ...] = (0, 1),
    age_s: float = FORMED_S,
    steals: bool = True,
    slots: tuple[int, ...] = (1,),
    host_slots: tuple[int, ...] = (0,),
    files: tuple[Script, ...] = (),
) -> tuple[World, RunId]:
    """A formed mesh in the moment of the submit. `files`: how those of the run stand on each node, if it has any. A
    failure names the test (and its parameters) that shows it again."""
    replay = "pytest '" + os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0] + "'"
    known = tuple(index for index in seeds if index < nodes)
    machine = partial(spawn, steals=steals)
    world = World(
        machine,
        nodes=nodes,
        seed=seed,
        seeds=known,
        slots=slots,
        host_slots=host_slots,
        noise=noise,
        alike=alike,
        replay=replay,
    )
    world.run(age_s)
    for host, script in zip(world.hosts, files, strict=False):
        host.answer_files(script)
    return world, world.submit(submit_to, pipeline or two_steps(), files=FILES if files else ())


class Sampled:
    """A watcher that counts which partitions were begun at which version."""

    def __init__(self) -> None:
        self.of: Counter[tuple[int, int]] = Counter()

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Start) and isinstance(action.work, ChainWork) and "roll" in action.work.stages:
            self.of[action.work.step, action.work.partition] += 1

    def heard(self, host: Host, event: Event) -> None:
        """Of no account."""

    def dies(self, host: Host) -> None:
        """Of no account."""


def samples_moved(world: World) -> dict[int, list[float]]:
    """By step, what each node fetched of that which training reads, in copies of all of it."""
    made, moved = Counter[int](), Counter[tuple[int, int]]()
    for shard in world.ledger.entries:
        output = world.ledger[shard]
        if isinstance(output, PartitionOutput) and output.stage != EVALUATES:
            made[output.step] += output.ref.nbytes
            for host in world.hosts:
                assert host.process is not None
                moved[output.step, host.index] += host.process.bulk.fetched_bytes[shard]
    return {step: [moved[step, host.index] / nbytes for host in world.hosts] for step, nbytes in made.items()}


@cache
def undisturbed_weights(pipeline: Pipeline | None = None) -> tuple[ShardId, ...]:
    """The parameters that one node alone makes of a pipeline, or of the toy one."""
    world, run = mesh(1, pipeline=pipeline)
    return finish(world, run, ENDS_S)


@cache
def undisturbed_actions(nodes: int, seed: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many actions each node of an undisturbed mesh has performed at the submit, and when the run has finished."""
    world, run = mesh(nodes, seed=seed)
    before = tuple(host.performed for host in world.hosts)
    finish(world, run, ENDS_S)
    return before, tuple(host.performed for host in world.hosts)


def first_time(trigger: Trigger, nodes: int, noise: frozenset[type]) -> tuple[int, int]:
    """Which node of an undisturbed mesh is the one that acts so, and how many actions it performed before."""
    seen: list[tuple[int, int]] = []

    def notes(node: int, performed: int, action: Action) -> bool:
        if trigger(node, performed, action):
            seen.append((node, performed))
        return bool(seen)

    world, _ = mesh(nodes, noise=noise)
    world.when(notes, Pause(0.0))
    world.expect(ENDS_S, lambda: bool(seen), "the action is performed")
    return seen[0]
