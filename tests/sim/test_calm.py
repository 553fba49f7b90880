"""Nothing breaks: any number of nodes makes the same weights, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from dflow_protocols.events import Action, Event, Finished, Send, Start
from dflow_protocols.names import CHUNK_BYTES, NodeId, TaskKey
from dflow_protocols.simulator.goals import ended, final_versions, finish
from dflow_protocols.simulator.model import provenance, work
from dflow_protocols.simulator.model.files import Answer
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.model.network import Lanes
from dflow_protocols.simulator.model.provenance import PARAMETER_BYTES, BlockSum, PartitionOutput, SliceSum
from dflow_protocols.simulator.model.work import NOISY, PURE, SECONDS, WILD
from dflow_protocols.simulator.toy import TOY_LEAVES, two_steps, warm_then_two
from dflow_protocols.simulator.world import World
from dflow_protocols.work import ChainWork
from tests.support.simulated import ENDS_S, FORMED_S, mesh, samples_moved, undisturbed_weights


@pytest.mark.parametrize(
    ("nodes", "slots"),
    [(2, (1,)), (3, (1,)), (4, (1,)), (7, (1,)), (1, (8,)), (2, (3,)), (3, (8, 1)), (5, (1, 3, 8))],
)
def test_any_number_of_nodes_and_slots_makes_the_same_weights(nodes: int, slots: tuple[int, ...]) -> None:
    """Pure engines: weights, and the version's very name, are a function of the spec, not of who took part."""
    world, run = mesh(nodes, seed=nodes, submit_to=nodes - 1, slots=slots)
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    alone, same = mesh(1)
    finish(alone, same, ENDS_S)
    assert final_versions(world, run) == final_versions(alone, same)


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
@pytest.mark.parametrize("noise", [NOISY, WILD], ids=["noisy", "wild"])
def test_engines_that_never_agree_still_make_one_version(nodes: int, noise: frozenset[type]) -> None:
    """vLLM, a judge, unlike hosts: what ran twice differs, and still nothing is mixed and one version is left."""
    world, run = mesh(nodes, seed=nodes, noise=noise)
    finish(world, run, ENDS_S)


class Executions:
    """How often each partition's chain was done, by who drives."""

    def __init__(self) -> None:
        self.begun: dict[tuple[NodeId, int], TaskKey] = {}
        self.done: Counter[TaskKey] = Counter()

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Start) and isinstance(action.work, ChainWork):
            self.begun[host.id, action.call] = action.task

    def heard(self, host: Host, event: Event) -> None:
        if isinstance(event, Finished) and (host.id, event.call) in self.begun:
            self.done[self.begun.pop((host.id, event.call))] += 1

    def dies(self, host: Host) -> None:
        """None does."""


@pytest.mark.parametrize("age_s", [0.5, 2.0, FORMED_S])
def test_nothing_is_done_twice_where_nothing_breaks(age_s: float) -> None:
    """Also in a mesh that is a moment old: who is idle knows too little then, and asks before it takes over."""
    units = again = 0
    for seed in range(2):
        world, run = mesh(8, seed=seed, age_s=age_s, pipeline=two_steps(partitions=24, leaves=8))
        seen = Executions()
        world.watch(seen)
        finish(world, run, ENDS_S)
        units += len(seen.done)
        again += seen.done.total() - len(seen.done)
    assert units == 2 * (2 * 24 + 3 * 2)
    assert again <= 1, "a theft may cross with the work"


@pytest.mark.parametrize(("nodes", "without"), [(6, 2), (8, 3), (8, 5)])
def test_nothing_is_done_twice_where_members_lack_files(nodes: int, without: int) -> None:
    """What they were dealt is dealt again to the others, each of whom has heard of another part of what is done."""
    here, nowhere = (Answer(0.0),), (Answer(0.0, "2 of 2 files are nowhere"),)
    files = (*[here] * (nodes - without), *[nowhere] * without)
    world, run = mesh(nodes, pipeline=two_steps(partitions=24, leaves=8), files=files)
    seen = Executions()
    world.watch(seen)
    finish(world, run, ENDS_S)
    assert seen.done.total() <= len(seen.done) + 1, "a theft may cross with the work"


def test_nothing_is_done_twice_where_works_last_longer_than_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most nodes of a large mesh keep no books for others: who is idle must hear from a replica who is at work, though
    nothing else is new there."""
    monkeypatch.setitem(SECONDS, ChainWork, 3.0)
    monkeypatch.setattr(work, "STRAGGLER_SHARE", 0.0)
    world, run = mesh(7, pipeline=two_steps(partitions=14, leaves=4), steals=False)
    seen = Executions()
    world.watch(seen)
    finish(world, run, ENDS_S)
    assert seen.done.total() == len(seen.done) == 2 * (14 + 2) + 2


def test_a_warm_up_hands_its_parameters_on_and_drops_its_moments() -> None:
    """Two training stages, one after the other: each has an optimizer of its own."""
    world, run = mesh(3, pipeline=warm_then_two())
    alone, same = mesh(1, pipeline=warm_then_two())
    assert finish(world, run, ENDS_S) == finish(alone, same, ENDS_S)


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_node_holds_two_states_and_the_gradient_between_them(nodes: int) -> None:
    """What a model needs of a host decides which models fit: while nobody is late, the old state, the reduced gradient
    and the new state, and nothing of the steps before. A stolen leaf is one more block while slices are made."""
    state = 3 * PARAMETER_BYTES  # parameters and both moments
    for steals, bound in ((False, 2 * state + PARAMETER_BYTES), (True, state + (TOY_LEAVES + 1) * PARAMETER_BYTES)):
        world, run = mesh(nodes, pipeline=warm_then_two(), steals=steals)
        finish(world, run, ENDS_S)
        assert max(host.store.peak_bytes for host in world.hosts) <= bound + CHUNK_BYTES


def test_no_node_comes_to_hold_every_partition() -> None:
    """Data stays where it was made, but for a second copy and what a leaf reads: no host is a bottleneck."""
    world, run = mesh(7, pipeline=two_steps(partitions=12, leaves=8), steals=False)
    ever: list[set[str]] = [set() for _ in world.hosts]

    def look() -> bool:
        for host, seen in zip(world.hosts, ever, strict=True):
            seen.update(shard for shard in host.store.sizes if isinstance(world.ledger[shard], PartitionOutput))
        return ended(world, run)()

    world.expect(ENDS_S, look, "the run finishes")
    assert max(len(seen) for seen in ever) <= 0.75 * len(set.union(*ever))


@pytest.mark.parametrize(
    ("nodes", "slots", "gradients"),
    [(2, 1, 2.0), (3, 1, 16 / 3), (4, 1, 6.0), (2, 8, 2.0), (3, 8, 16 / 3), (4, 3, 6.0)],
)
def test_a_step_moves_the_gradients_that_the_tree_needs_and_no_more(
    nodes: int, slots: int, gradients: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each owner of slices fetches the blocks of the others, each trainer the others' slices, and that is all: a host
    sums what its slots made before anything leaves it."""
    monkeypatch.setattr(provenance, "PARAMETER_BYTES", 24 * CHUNK_BYTES)
    world, run = mesh(nodes, pipeline=two_steps(partitions=12, leaves=8), steals=False, slots=(slots,))
    finish(world, run, ENDS_S)
    assert gradients_moved(world) <= 1.1 * gradients


def gradients_moved(world: World) -> float:
    """Bytes of blocks and slices that were fetched in the step that moved most, in gradients."""
    moved = Counter[int]()
    for host in world.hosts:
        assert host.process is not None
        for shard, count in host.process.bulk.fetched_bytes.items():
            made = world.ledger[shard]
            if isinstance(made, BlockSum | SliceSum):
                moved[made.step] += count
    return max(moved.values()) / provenance.PARAMETER_BYTES


@pytest.mark.parametrize(("nodes", "partitions"), [(4, 16), (8, 32), (16, 64)])
def test_a_step_moves_what_it_sampled_once_and_each_node_its_share(
    nodes: int, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies at three replicas were six times a node's share, and who trained fetched a quarter of all once more."""
    monkeypatch.setattr("dflow_protocols.work.MOST_SHORT_BYTES", 0)
    world, run = mesh(nodes, pipeline=two_steps(partitions=partitions, leaves=partitions), steals=False)
    finish(world, run, ENDS_S)
    for moved in samples_moved(world).values():
        assert sum(moved) <= 1.1
        assert max(moved) <= 1.5 / nodes


@pytest.mark.parametrize(("nodes", "gradients"), [(4, 6.0), (7, 12.0)])
def test_on_slow_links_a_slice_is_left_to_who_brings_its_blocks(
    nodes: int, gradients: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was idle took it for silent and fetched the same blocks: twice the bytes, where they are slow already. Those
    who are no replicas of the step, as four of seven, have to hear of it, too."""
    monkeypatch.setattr(Lanes, "fetch_seconds", lambda lanes, holder, nbytes: 4.0 * nbytes / CHUNK_BYTES)
    world, run = mesh(nodes, pipeline=two_steps(partitions=12, leaves=8), steals=False)
    world.expect(ENDS_S, ended(world, run), "the run ends")
    assert gradients_moved(world) <= 1.1 * gradients


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
def test_two_runs_of_one_spec_share_a_mesh(noise: frozenset[type]) -> None:
    """Equal bytes are kept once, yet freed only by the run that ended; where nothing is equal, nothing is mixed."""
    world, first = mesh(3, noise=noise)
    world.run(0.5)
    second = world.submit(1, two_steps(), nonce="again")
    assert finish(world, first, ENDS_S) == finish(world, second, ENDS_S) or noise


def test_two_pipelines_share_a_mesh() -> None:
    """Slots take turns; each run gets what it would get alone."""
    world, short = mesh(3)
    long = world.submit(2, warm_then_two())
    alone, same = mesh(1, pipeline=warm_then_two())
    assert finish(world, short, ENDS_S) == undisturbed_weights()
    assert finish(world, long, ENDS_S) == finish(alone, same, ENDS_S)


@pytest.mark.parametrize("seed", [3, 11])
def test_a_seed_gives_one_digest_in_every_process(seed: int) -> None:
    """Whatever iterates over a set would differ between two processes that hash strings differently."""
    command = [sys.executable, "-m", "dflow_cli.app", "sim", "--first-seed", str(seed)]
    told = [
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": salt}, capture_output=True, text=True, check=True, timeout=120
        ).stdout
        for salt in ("1", "2")
    ]
    assert told[0] == told[1] != ""


class Told:
    """When frames carried heartbeats."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.at: list[float] = []

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Send) and action.message.heartbeats:
            self.at.append(self._world.now)

    def heard(self, host: Host, event: Event) -> None:
        pass

    def dies(self, host: Host) -> None:
        pass


def test_who_stands_still_says_so_once() -> None:
    """Where nodes stand was half of all bytes on the control lane: it is told until it is known, and then no more."""
    never = (Answer(0.0, "the file is nowhere"),)
    world, _ = mesh(3, files=(never,) * 3)
    told = Told(world)
    world.watch(told)
    world.run(60.0)
    assert told.at
    assert max(told.at) - min(told.at) < 5.0


@pytest.mark.parametrize("come_along", [True, False])
def test_short_outputs_come_along_with_their_records(come_along: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask for some KB costs both ends more than to send them with what is said of them anyhow."""
    monkeypatch.setattr("dflow_protocols.work.MOST_SHORT_BYTES", CHUNK_BYTES if come_along else 0)
    world, run = mesh(2)
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    lanes = [host.process.bulk for host in world.hosts if host.process is not None]
    asked_for = [shard for lane in lanes for shard in lane.fetched_bytes]
    assert any(isinstance(world.ledger[shard], PartitionOutput) for shard in asked_for) != come_along
