"""Updates and sums by chunks on threads: the bytes of plain arithmetic over whole vectors, whatever the host gives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dflow_protocols.ranges import State
from dflow_protocols.work import ApplyWork, SliceWork, SumWork
from dflowd.jobs.failures import GivenUp
from dflowd.jobs.job import Job
from dflowd.jobs.threads import Threads
from dflowd.training.accumulate import Finisher
from dflowd.training.apply import NORM_BLOCK, apply_slices, global_norm
from dflowd.training.update import CHUNK, reduce_slice, sum_blocks
from tests.support.alone import MemoryShards
from tests.support.toy import toy_pipeline

Array = npt.NDArray[Any]
ODD = (1, NORM_BLOCK - 1, CHUNK, 3 * CHUNK + 2 * NORM_BLOCK + 5)
CLIP = 1.0
CONFIG = {"optimizer": {"adamw": {"lr": 0.01, "betas": [0.9, 0.95], "weight_decay": 0.1}}, "clip_norm": CLIP}


def job_on(shards: MemoryShards, threads: int = 1, progress: Callable[[], None] = lambda: None) -> Job:
    return Job(toy_pipeline(), Path(), Path(), Path(), shards, progress, threads=Threads(threads))


def draw(*sizes: int) -> list[Array]:
    rng = np.random.default_rng(7)
    return [rng.normal(size=size).astype(np.float32) for size in sizes]


def apply_plainly(params: Array, moments: Array, gradient: Array, update: int) -> tuple[Array, Array]:
    """AdamW of CONFIG, an operation after the other over whole vectors, each rounded to float32."""
    f32, lr, beta1, beta2 = np.float32, 0.01, 0.9, 0.95
    blocks = [gradient[at : at + NORM_BLOCK].astype(np.float64) ** 2 for at in range(0, len(gradient), NORM_BLOCK)]
    norm = math.sqrt(math.fsum(float(block.sum()) for block in blocks))
    p: Array = params
    m, v = moments.reshape(2, -1)
    g = gradient * f32(1.0 if norm <= CLIP else CLIP / norm)
    m = m * f32(beta1) + g * f32(1 - beta1)
    v = v * f32(beta2) + g * g * f32(1 - beta2)
    p = p * f32(1 - lr * 0.1)
    under = np.sqrt(v) * f32(1 / math.sqrt(1 - beta2 ** (update + 1))) + f32(1e-8)
    p = p - m / under * f32(lr / (1 - beta1 ** (update + 1)))
    return p, np.concatenate([m, v])


def state_of(shards: MemoryShards, params: list[Array], moments: list[Array]) -> State:
    entries = [("optimizer:learn", shards.add(each.tobytes())) for each in moments]
    return (*entries, *(("params:policy", shards.add(each.tobytes())) for each in params))


def slices_of(gradient: Array, *chunks: int) -> list[Array]:
    """Cut after so many chunks each."""
    cuts = [0, *(CHUNK * at for at in itertools.accumulate(chunks)), len(gradient)]
    return [gradient[first:end] for first, end in itertools.pairwise(cuts) if first < end]


def applied(job: Job, state: State, slices: list[Array], keep: bool = True) -> tuple[State, dict[str, float]]:
    assert isinstance(job.shards, MemoryShards)
    refs = tuple(job.shards.add(each.tobytes()) for each in slices)
    work = ApplyWork(4, "learn", state, refs, update=3, updates=10, keep_optimizer=keep)
    made, metrics = apply_slices(job, work, "policy", CONFIG)
    return made, dict(metrics)


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("threads", [1, 3])
def test_an_update_is_that_of_whole_vectors_on_any_number_of_threads(size: int, threads: int) -> None:
    """Weights must tell neither how many threads a host gave, nor where its chunks end: moments of an odd size share
    chunks between threads."""
    params, gradient, moments = draw(size, size, 2 * size)
    moments = np.abs(moments)
    shards = MemoryShards()
    state = state_of(shards, [params], [moments])
    made, metrics = applied(job_on(shards, threads), state, slices_of(gradient, 1, 1))
    expected = apply_plainly(params, moments, gradient, update=3)
    assert [shards.shards[ref.id] for _, ref in made] == [expected[1].tobytes(), expected[0].tobytes()]
    assert metrics["grad_norm"] == pytest.approx(float(np.linalg.norm(gradient.astype(np.float64))), rel=1e-12)


def test_a_state_in_several_shards_is_applied_as_one() -> None:
    """A model that is too long for a shard has its moments cut where its parameters are."""
    params, gradient, moments = draw(2 * CHUNK + 9, 2 * CHUNK + 9, 2 * (2 * CHUNK + 9))
    first, second = np.abs(moments).reshape(2, -1)
    cut = CHUNK
    parts = [params[:cut], params[cut:]]
    cut_moments = [np.concatenate([first[:cut], second[:cut]]), np.concatenate([first[cut:], second[cut:]])]
    shards = MemoryShards()
    made, _ = applied(job_on(shards, 2), state_of(shards, parts, cut_moments), slices_of(gradient, 2))
    expected, _ = apply_plainly(params, np.abs(moments), gradient, update=3)
    bytes_of = b"".join(shards.shards[ref.id] for role, ref in made if role == "params:policy")
    assert bytes_of == expected.tobytes()


@pytest.mark.parametrize("keep", [True, False])
def test_first_moments_are_zeros_and_the_last_ones_are_not_kept(keep: bool) -> None:
    """Version 0 has none, and after a stage's last update nobody reads them."""
    size = CHUNK + 17
    params, gradient = draw(size, size)
    shards = MemoryShards()
    made, _ = applied(job_on(shards, 2), state_of(shards, [params], []), [gradient], keep)
    expected = apply_plainly(params, np.zeros(2 * size, np.float32), gradient, update=3)
    found = {role: shards.shards[ref.id] for role, ref in made}
    assert found.pop("params:policy") == expected[0].tobytes()
    assert found == ({"optimizer:learn": expected[1].tobytes()} if keep else {})


def test_an_update_that_is_not_finite_leaves_all_as_it_is() -> None:
    """One infinite gradient would make every later version worthless."""
    size = CHUNK + 17
    params, gradient, moments = draw(size, size, 2 * size)
    gradient[-1] = np.inf
    shards = MemoryShards()
    state = state_of(shards, [params], [moments])
    made, metrics = applied(job_on(shards, 2), state, [gradient])
    assert made == state
    assert math.isnan(metrics["grad_norm"])


def test_the_norm_is_that_of_the_whole_gradient() -> None:
    """Clipping by a norm that depends on the number of slices would make weights depend on it too."""
    (gradient,) = draw(3 * CHUNK + 17)
    alone, several = job_on(MemoryShards()), job_on(MemoryShards(), 3)
    assert global_norm(alone, [gradient]) == global_norm(several, slices_of(gradient, 2))
    assert global_norm(alone, [gradient]) == pytest.approx(np.linalg.norm(gradient.astype(np.float64)), rel=1e-12)
    assert math.isnan(global_norm(alone, [np.array([1.0, np.inf], np.float32)]))


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_are_summed_and_cut_alike_on_any_number_of_threads(threads: int) -> None:
    """What leaves a host is hashed chunk by chunk as it is made; the tree's bits are those of whole vectors."""
    size = 2 * CHUNK + 9
    left, right = draw(size, size)
    shards = MemoryShards()
    job = job_on(shards, threads)
    cover = tuple((at, at + 1, (shards.add(each.tobytes()),)) for at, each in enumerate((left, right)))
    ((_, total),) = sum_blocks(job, SumWork(1, "learn", 0, 2, cover, ()))
    expected = Finisher().finish({(0, 1): left, (1, 2): right}, 2)
    assert shards.shards[total.id] == expected.tobytes()
    pieces = tuple((first, end, ((refs[0], 1, 3),)) for first, end, refs in cover)
    ref = reduce_slice(job, SliceWork(1, "learn", 1, 3, 2, pieces, 7))
    assert shards.shards[ref.id] == (expected[CHUNK:] / np.float32(7)).tobytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_update_that_nobody_waits_for_ends_soon(threads: int) -> None:
    """Its rooms go back to the store when the call ends: no thread may write there any more."""
    told = itertools.count(1)

    def progress() -> None:
        if next(told) == 8:
            raise GivenUp

    (params,) = draw(40 * CHUNK)
    shards = MemoryShards()
    state = state_of(shards, [params], [])
    job = job_on(shards, threads)
    with pytest.raises(GivenUp):
        applied(replace(job, progress=progress), state, [params])
    assert next(told) == 9
    assert 4 * len(params) == len(shards.shards[state[0][1].id])
