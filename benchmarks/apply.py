"""How long does one optimizer update take, a billion parameters?

The engine's own apply over the daemon's own store, in one process. Versions follow one another as in a run: the first
update writes into `fresh` memory, later ones into what was freed before (`warm`). The least of all rounds:

    parameters    of the model that was updated
    threads       that shared the work
    warm_s        seconds a billion parameters, of the clock; `warm_cpu_s` of all cores together
    fresh_s       the same in fresh memory, with what the store takes to get it

Beside it, on one thread, the same promise made with PyTorch's optimizer: the old state is copied, `torch.optim.AdamW`
with `fused=True` steps it, and all chunks are hashed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from benchmarks.figure import Figure, Goal, Tell
from dflow_protocols.names import CHUNK_BYTES, RunId, ShardRef, chunk_hash
from dflow_protocols.ranges import State
from dflow_protocols.shards.space import Priority
from dflow_protocols.work import ApplyWork, InitWork, Product
from dflowd.child.mapping import MappedShards
from dflowd.child.mappings import Mappings
from dflowd.jobs.job import Job
from dflowd.jobs.threads import Threads
from dflowd.shards.segment import Segment
from dflowd.shards.store import Store
from dflowd.slots import calls
from dflowd.training.apply import apply_slices
from tests.support.toy import toy_pipeline

QUICK = {"millions": 32, "rounds": 7}
RUN = RunId("0" * 32)
MOST_OF_ANCHOR = 1.0
WARM_AFTER = 4  # updates: by then each segment was written and read, so that all are mapped
LR, BETAS, DECAY, CLIP = 1e-5, (0.9, 0.95), 0.01, 1.0
CONFIG = {"optimizer": {"adamw": {"lr": LR, "betas": BETAS, "weight_decay": DECAY}}, "clip_norm": CLIP}


class Daemon:
    """What stands for the daemon on the other end of a link: the store gives room, and takes what was sealed."""

    def __init__(self, nbytes: int) -> None:
        self.store = Store(nbytes, "benchmark")
        self.mappings = Mappings()
        self._granted: dict[int, Segment] = {}
        self._step = 0

    def grant(self, sizes: tuple[int, ...]) -> tuple[calls.GrantedSegment, ...]:
        found = [self.store.grant(Priority(RUN, self._step, Product.STATE), size) for size in sizes]
        self._granted |= {each.number: each for each in found}
        return tuple(calls.GrantedSegment(each.number, each.nbytes, each.path) for each in found)

    def send(self, message: calls.Sealed) -> None:
        for shard in message.shards:
            self.store.seal(self._granted.pop(shard.segment), shard.id, shard.nbytes, shard.hashes)

    def progress(self) -> None:
        """Nobody watches."""

    def put(self, values: Any) -> ShardRef:
        shards = self.shards([])
        (room,) = shards.allocate([values.nbytes])
        room[:] = memoryview(values).cast("B")
        return shards.seal([room])[0]

    def shards(self, refs: Sequence[ShardRef]) -> MappedShards:
        inputs = tuple(
            calls.Input(ref.id, ref.nbytes, self.store.path(ref.id), 0, -(-ref.nbytes // CHUNK_BYTES)) for ref in refs
        )
        return MappedShards(calls.Call(1, b"", "", "", "", InitWork(), inputs), self, self.mappings)

    def drop(self, state: State) -> None:
        self.store.drop(RUN, [ref.id for _, ref in state])


def updates(parameters: int, threads: int, rounds: int) -> tuple[list[str], list[tuple[float, float]]]:
    """One after the other: ids of the last state; seconds of each, of the clock and of all cores."""
    daemon = Daemon(64 * parameters)
    params, moments, gradient = vectors(parameters)
    slices = (daemon.put(gradient),)
    state: State = (("optimizer:learn", daemon.put(moments)), ("params:policy", daemon.put(params)))
    pool, times = Threads(threads), []
    for update in range(rounds):
        work = ApplyWork(update, "learn", state, slices, update, rounds, keep_optimizer=True)
        shards = daemon.shards([*slices, *(ref for _, ref in state)])
        job = Job(toy_pipeline(), Path(), Path(), Path(), shards, daemon.progress, threads=pool)
        wall, cpu = time.perf_counter(), time.process_time()
        made, _ = apply_slices(job, work, "policy", CONFIG)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        daemon.drop(state)
        state = made
    daemon.store.close()
    return [ref.id for _, ref in state], times


def vectors(parameters: int) -> list[Any]:
    """Parameters, both moments in one, and a gradient."""
    rng = np.random.default_rng(1)
    params, first, second, gradient = (rng.standard_normal(parameters, np.float32) for _ in range(4))
    return [params, np.concatenate([first, np.abs(second)]), gradient]


def with_torch(parameters: int, rounds: int) -> tuple[float, float]:
    """Least seconds of an update on one thread, of the clock and of the core: copied, stepped by PyTorch's fused
    optimizer, hashed."""
    torch.set_num_threads(1)
    params, moments, gradient = vectors(parameters)
    old = [params, *np.split(moments, 2)]
    new = [np.zeros_like(each) for each in old]
    parameter = torch.nn.Parameter(torch.from_numpy(new[0]))
    optimizer = torch.optim.AdamW([parameter], LR, BETAS, weight_decay=DECAY, fused=True)
    names = {"exp_avg": torch.from_numpy(new[1]), "exp_avg_sq": torch.from_numpy(new[2]), "step": torch.tensor(3.0)}
    optimizer.state[parameter] = names
    parameter.grad = torch.from_numpy(gradient)
    times = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        for source, into in zip(old, new, strict=True):
            np.copyto(into, source)
        torch.nn.utils.clip_grad_norm_([parameter], CLIP)
        optimizer.step()
        for each in new:
            view = memoryview(each).cast("B")
            for at in range(0, len(view), CHUNK_BYTES):
                chunk_hash(view[at : at + CHUNK_BYTES])
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return least(times)


def least(times: list[tuple[float, float]]) -> tuple[float, float]:
    wall, cpu = zip(*times, strict=True)
    return min(wall), min(cpu)


def measure(
    tell: Tell,
    *,
    millions: Annotated[int, "of parameters"] = 128,
    threads: Annotated[tuple[int, ...], "that share the work, one measurement each"] = (1, 2),
    rounds: Annotated[int, "updates of each measurement"] = 8,
) -> list[Figure]:
    parameters = millions * 1_000_000 + 1001  # no whole number of chunks
    billions = parameters / 1e9
    torch_s, torch_cpu_s = (each / billions for each in with_torch(parameters, max(3, rounds // 2)))
    words, figures, ids = "torch, fused, 1 thread", [], []
    for count in threads:
        made, times = updates(parameters, count, rounds)
        ids.append(made)
        warm_s, warm_cpu_s = (each / billions for each in least(times[WARM_AFTER:]))
        fresh_s, fresh_cpu_s = (each / billions for each in least([times[0], updates(parameters, count, 1)[1][0]]))
        row = {"warm_s": warm_s, "warm_cpu_s": warm_cpu_s, "fresh_s": fresh_s, "fresh_cpu_s": fresh_cpu_s}
        tell({"parameters": parameters, "threads": count} | {name: round(seconds, 2) for name, seconds in row.items()})
        figures += [
            Figure(f"clock, {count} threads", "s", warm_s, words, torch_s, Goal(MOST_OF_ANCHOR)),
            Figure(f"clock, {count} threads, fresh memory", "s", fresh_s, words, torch_s),
            Figure(f"cores, {count} threads", "s", warm_cpu_s, words, torch_cpu_s),
        ]
    return [*figures, Figure("same ids", "yes", float(all(each == ids[0] for each in ids)), goal=Goal(1.0, True))]
