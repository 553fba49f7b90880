"""What a training stage computes in: float32 weights and sums around passes in bfloat16, on any number of nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.ranges import State
from dflow_protocols.work import BlockWork, Done, Failed, LeafGroups, Work
from dflowd.engines import torch_engine
from dflowd.engines.contract import Engine
from dflowd.engines.registry import open_engine
from dflowd.training.device_memory import DeviceMemory
from tests.contracts.test_engine import tiny_spec, whole_run, write_base
from tests.support.alone import Alone


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine("torch")


def runner(engine: Engine, base: Path, compute: str, **more: Any) -> Alone:
    spec = tiny_spec("torch")
    for at in (0, 4):
        spec["stages"][at]["config"] |= {"compute": compute, **more}
    return Alone(engine, Pipeline.from_dict(spec), base, base / "checkpoints")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path)


def parameters(run: Alone, state: State) -> Any:
    return np.frombuffer(run.shards.read(dict(state)["params:policy"]), np.float32)


def test_bfloat16_gives_the_same_weights_however_leaves_are_gathered(engine: Engine, base: Path) -> None:
    """A leaf's gradient is a function of its data in any precision; the tree above it is float32."""
    single = runner(engine, base, "bfloat16")
    state = whole_run(single)
    for blocks, sums in ((2, False), (4, False), (2, True)):
        gathered = runner(open_engine("torch"), base, "bfloat16")
        gathered.blocks, gathered.sums = blocks, sums
        assert whole_run(gathered) == state
    first = parameters(single, single.init())
    trained = parameters(single, state)
    assert first.size == trained.size
    assert not np.array_equal(first, trained)
    assert (trained.view(np.uint32) & 0xFFFF).any()  # no bfloat16 has these bits


def test_a_pass_in_bfloat16_points_where_one_in_float32_does(engine: Engine, base: Path) -> None:
    """Half the bytes must not mean another direction: one update of the same weights on the same data."""
    moved = []
    for compute in ("float32", "bfloat16"):
        run = runner(engine, base, compute)
        state = seeded(run)
        before = parameters(run, state).copy()
        moved.append(parameters(run, run.step(0, state)) - before)
    assert not np.array_equal(*moved)
    exact, rough = moved
    assert exact @ rough > 0.95 * np.linalg.norm(exact) * np.linalg.norm(rough)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_weights_do_not_depend_on_where_the_sums_of_micro_batches_lie(
    engine: Engine, base: Path, compute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device without room for them sums what a host does, in blocks of any size. The processor stands in for one."""
    on_host = runner(engine, base, compute, micro_batch_tokens=16)
    state = on_host.run(on_host.init(), range(2))
    made: list[DeviceMemory] = []

    def crowded(device: torch.device, size: int, progress: Callable[[], None]) -> DeviceMemory:
        made.append(DeviceMemory(size, device, lambda nbytes: False, progress))
        return made[-1]

    monkeypatch.setattr(torch_engine, "memory_on", crowded)
    for blocks in (1, 2):
        crowd = runner(engine, base, compute, micro_batch_tokens=16)
        crowd.blocks = blocks
        assert crowd.run(crowd.init(), range(2)) == state
    assert any(memory._is_full for memory in made)  # some waited beside the device


def seeded(run: Alone) -> State:
    """The same weights for any spec."""
    ((name, ref),) = run.init()
    values = np.random.default_rng(1).normal(0, 0.05, ref.nbytes // 4).astype(np.float32)
    return ((name, run.shards.add(values.tobytes())),)


def diverging(run: Alone, step: int, at_leaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the loss of one leaf of a step is no number, while its gradient is one."""
    here: list[tuple[int, int]] = []
    module: Any = torch_engine
    perform, gather, add = run.perform, module.leaf_data, module.add_gradient

    def performing(work: Work) -> Done | Failed:
        here.append((work.step, -1) if isinstance(work, BlockWork) else (-1, -1))
        return perform(work)

    def gathering(pipeline: Any, stage: Any, leaf: LeafGroups, *inputs: Any) -> Any:
        here.append((here[-1][0], leaf.leaf))
        return gather(pipeline, stage, leaf, *inputs)

    def adding(*arguments: Any) -> dict[str, float]:
        sums: dict[str, float] = add(*arguments)
        return sums | ({"loss_sum": math.nan} if here[-1] == (step, at_leaf) else {})

    monkeypatch.setattr(run, "perform", performing)
    monkeypatch.setattr(torch_engine, "leaf_data", gathering)
    monkeypatch.setattr(torch_engine, "add_gradient", adding)


@pytest.mark.parametrize(("blocks", "sums"), [(1, False), (2, True), (4, False)])
def test_a_leaf_that_is_not_finite_leaves_its_update_out_alike_everywhere(
    engine: Engine, base: Path, blocks: int, sums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters and moments stay, on every node; the step says which leaf it was, and the next one goes on."""
    run = runner(engine, base, "float32", on_nonfinite="skip")
    run.blocks, run.sums = blocks, sums
    seen: dict[int, dict[str, float]] = {}
    run.log = lambda step, metrics: seen.update({step: metrics})
    before = run.run(run.init(), range(1))
    diverging(run, 1, 2, monkeypatch)
    after = run.step(1, before)
    assert dict(after)["params:policy"] == dict(before)["params:policy"]
    assert not np.frombuffer(run.shards.read(dict(after)["optimizer:learn"]), np.float32).any()
    assert (seen[1]["update_skipped"], seen[1]["nonfinite_leaf_min"], seen[1]["nonfinite_leaves"]) == (1, 2, 1)
    assert all(map(math.isfinite, seen[1].values()))
    assert dict(run.step(2, after))["params:policy"] != dict(after)["params:policy"]


def test_a_leaf_that_is_not_finite_ends_a_run_by_its_name(
    engine: Engine, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the spec says otherwise; with the step and the leaf, so that its samples can be looked at."""
    run = runner(engine, base, "float32")
    state = run.run(run.init(), range(1))
    diverging(run, 1, 2, monkeypatch)
    with pytest.raises(AssertionError, match="loss_sum of leaf 2 at step 1 is not finite: the training diverged"):
        run.step(1, state)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-9), ("bfloat16", 1e-3)])
def test_a_reference_starts_where_its_policy_does_whatever_it_computes_in(
    engine: Engine, base: Path, dtype: str, most: float
) -> None:
    """Half the memory for what nobody trains; the KL from it is still one from the policy's first weights."""
    spec = tiny_spec("torch")
    spec["models"]["start"] = spec["models"]["policy"] | {"dtype": dtype}
    spec["stages"].insert(4, {"id": "ref", "op": "logprob", "model": "start"})
    spec["stages"][5]["config"]["loss"] = {"kl": 0.1}
    seen: dict[int, dict[str, float]] = {}
    run = Alone(engine, Pipeline.from_dict(spec), base, base / "checkpoints")
    run.log = lambda step, metrics: seen.update({step: metrics})
    run.step(1, run.init())
    assert 0 <= seen[1]["kl"] < most
    assert (seen[1]["kl"] > 1e-9) == (dtype == "bfloat16")
