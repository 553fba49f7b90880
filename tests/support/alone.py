"""A pipeline run by one engine in one process: what a node does with a run, without the mesh around it."""

from __future__ import annotations

import functools
import math
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dflow_protocols.metrics import finish, merge
from dflow_protocols.names import CHUNK_BYTES, SealId, ShardRef, hash_shard
from dflow_protocols.pipeline import Chain, Pipeline, Training, plan
from dflow_protocols.ranges import RANGE_BYTES, State, gradient_sizes, pieces, range_bytes, shards_of
from dflow_protocols.steps.reduction import cut_leaves, slices
from dflow_protocols.steps.view import params_of
from dflow_protocols.versions import facts
from dflow_protocols.wire.steps import Header
from dflow_protocols.work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    Failed,
    InitWork,
    LeafGroups,
    Made,
    SliceWork,
    SumWork,
    Work,
)
from dflowd.engines.contract import Engine, perform
from dflowd.engines.emulated import profile as emulated_profile
from dflowd.engines.registry import open_engine
from dflowd.jobs.baton import Baton
from dflowd.jobs.failures import Lost, NoRoom
from dflowd.jobs.job import Hashes, Job
from dflowd.jobs.main_thread import ERRANDS

HANGS_S = 300.0  # without anything to do for this process's main thread


@dataclass
class MemoryShards:
    """Shards in a dict. `limit_bytes`: what outputs may take together."""

    shards: dict[str, bytes] = field(default_factory=dict)
    limit_bytes: int = 1 << 32
    places: dict[int, tuple[memoryview, int]] = field(default_factory=dict)  # of rooms, by id()

    def read(self, *refs: ShardRef) -> memoryview:
        for ref in refs:
            if ref.id not in self.shards:
                raise Lost(ref.id)
        blobs = [self.shards[ref.id] for ref in refs]
        return memoryview(blobs[0] if len(blobs) == 1 else b"".join(blobs))

    def read_chunks(self, ref: ShardRef, first: int, end: int) -> memoryview:
        return self.read(ref)[first * CHUNK_BYTES : end * CHUNK_BYTES]

    def allocate(self, sizes: Sequence[int]) -> list[memoryview]:
        if sum(sizes) + sum(map(len, self.shards.values())) > self.limit_bytes:
            raise NoRoom(f"no room for {sum(sizes)} bytes")
        whole, at, rooms = memoryview(bytearray(sum(sizes))), 0, []
        for size in sizes:
            rooms.append(whole[at : at + size])
            self.places[id(rooms[-1])] = (whole, at)
            at += size
        return rooms

    def joined(self, rooms: Sequence[memoryview]) -> memoryview:
        whole, at = self.places[id(rooms[0])]
        return whole[at : at + sum(map(len, rooms))]

    def seal(self, rooms: Sequence[memoryview], hashes: Hashes | None = None) -> tuple[ShardRef, ...]:
        assert hashes is None or [tuple(each) for each in hashes] == [hash_shard(room)[1] for room in rooms]
        return tuple(self.add(bytes(room)) for room in rooms)

    def add(self, blob: bytes) -> ShardRef:
        shard, _ = hash_shard(blob)
        self.shards[shard] = blob
        return ShardRef(shard, len(blob))


@dataclass
class Alone:
    """Runs steps of a pipeline. `blocks`: how each update's leaves are split into blocks of that size; with `sums` they
    are summed to one before they are cut into slices, as on a host with several slots."""

    engine: Engine
    pipeline: Pipeline
    base: Path
    folder: Path
    blocks: int = 1
    sums: bool = False
    range_bytes: int = RANGE_BYTES
    shards: MemoryShards = field(default_factory=MemoryShards)
    progress: Callable[[], None] = lambda: None
    log: Callable[[int, dict[str, float]], None] = lambda step, metrics: None

    def perform(self, work: Work) -> Done | Failed:
        return perform(
            self.engine, Job(self.pipeline, self.base, self.base, self.folder, self.shards, self.progress), work
        )

    def together(self, works: Sequence[Work], baton: Baton) -> list[Done | Failed]:
        """What they give, numbered from 1, in this process at once: as a slot's child does it."""
        results: dict[int, Done | Failed] = {}

        def live(number: int, work: Work) -> None:
            with baton.held(number):
                job = Job(self.pipeline, self.base, self.base, self.folder, self.shards, self.progress, baton=baton)
                results[number] = perform(self.engine, job, work)
            ERRANDS.put(lambda: None)

        threads = [
            threading.Thread(target=live, args=(number, work), daemon=True) for number, work in enumerate(works, 1)
        ]
        for thread in threads:
            thread.start()
        while len(results) < len(works):
            ERRANDS.get(timeout=HANGS_S)()
        for thread in threads:
            thread.join()
        while not ERRANDS.empty():
            ERRANDS.get()()
        return [results[number] for number in sorted(results)]

    def done(self, work: Work) -> Done:
        result = self.perform(work)
        assert isinstance(result, Done), result
        return result

    def init(self) -> State:
        return self.done(InitWork(self.range_bytes)).made[0].outputs

    def run(self, state: State, steps: range) -> State:
        for step in steps:
            state = self.step(step, state)
        return state

    def step(self, step: int, state: State) -> State:
        """One step; the shards of the step before are freed."""
        kept = {ref.id for _, ref in state}
        self.shards.shards = {name: blob for name, blob in self.shards.shards.items() if name in kept}
        step_plan = plan(self.pipeline, step)
        made = [made for chain in step_plan.chains for part in self.chain(step, chain, state) for made in part.made]
        for training in step_plan.trainings:
            updated = self.update(step, training, state, self.records(training, made))
            state = updated[-1].outputs if updated else state
            made += updated
        self.log(step, finish(dict(merge(item.metrics for item in made))))
        return state

    def chain(self, step: int, chain: Chain, state: State) -> list[Done]:
        params = params_of(state, chain.models, chain.bases)
        return [self.done(ChainWork(step, chain.stages, part, params)) for part in range(chain.partitions)]

    def records(self, training: Training, made: list[Made]) -> list[dict[str, Made]]:
        """Of each partition of the chains that this training reads: stage -> Made."""
        by_stage: dict[str, list[Made]] = {}
        for item in made:
            by_stage.setdefault(item.stage, []).append(item)
        count = len(by_stage[training.groups_from])
        return [{s: items[part] for s, items in by_stage.items() if len(items) == count} for part in range(count)]

    def update(self, step: int, training: Training, state: State, records: list[dict[str, Made]]) -> list[Made]:
        """Blocks, slices and apply; the last Made is the new state's. Nothing where every group was dropped."""
        counts = tuple(record[training.groups_from].groups for record in records)
        leaves = cut_leaves(counts, training.leaves)
        if not leaves:
            return []
        blocks = {
            (first, first + self.blocks): self.block(step, training, state, records, leaves, first)
            for first in range(0, training.leaves, self.blocks)
            if any(first <= leaf.leaf < first + self.blocks for leaf in leaves)
        }
        divisor = training.divide_by(count for groups in counts for count in groups)
        gradients = {block: shards_of(made.outputs, "gradient") for block, made in blocks.items()}
        if self.sums:
            sums = merge(made.metrics for made in blocks.values())
            cover = tuple((*block, refs) for block, refs in gradients.items())
            whole = self.done(SumWork(step, training.stage, 0, training.leaves, cover, sums)).made[0]
            block = (0, training.leaves)
            blocks, gradients = {block: whole}, {block: shards_of(whole.outputs, "gradient")}
        works = (
            SliceWork(
                step,
                training.stage,
                chunks.first,
                chunks.end,
                training.leaves,
                tuple((*block, pieces(refs, chunks.first, chunks.end)) for block, refs in gradients.items()),
                divisor,
            )
            for chunks in slices(
                sum(gradient_sizes(shards_of(state, f"params:{training.model}"), training.gradient_bytes)),
                training.leaves,
            )
        )
        reduced = tuple(self.done(work).made[0].outputs[0][1] for work in works)
        apply = ApplyWork(
            step, training.stage, state, reduced, training.update, training.updates, training.keep_optimizer
        )
        return [*blocks.values(), self.done(apply).made[0]]

    def block(
        self,
        step: int,
        training: Training,
        state: State,
        records: list[dict[str, Made]],
        leaves: tuple[LeafGroups, ...],
        first: int,
    ) -> Made:
        end = first + self.blocks
        own = tuple(leaf for leaf in leaves if first <= leaf.leaf < end)
        inputs = tuple(
            (part, name, dict(records[part][name.partition(".")[0]].outputs)[name.partition(".")[2]])
            for part in sorted({part for leaf in own for part, _, _ in leaf.pieces})
            for name in training.reads
        )
        params = params_of(state, [training.model], [(training.model, training.model)])
        return self.done(BlockWork(step, training.stage, first, end, own, inputs, params)).made[0]


def weights_of(pipeline: Pipeline) -> str:
    """The weights in which a run of this pipeline ends, with emulated engines: computed in this process, without their
    pretended times and without a mesh, so that it can be what disturbed meshes are held against."""
    return _weights_of(pipeline.canonical())


@functools.cache
def _weights_of(spec: bytes) -> str:
    pipeline, engine = Pipeline.from_canonical(spec), open_engine("emulated")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulated_profile, "SPEED", math.inf)
        alone = Alone(engine, pipeline, Path(folder), Path(folder), range_bytes=range_bytes(pipeline))
        state = alone.run(alone.init(), range(pipeline.schedule.steps))
    return str(facts.named(Header(None, 0, 0, SealId(""), state))["weights"])
