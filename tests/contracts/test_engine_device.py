"""What an engine holds on a device beside the host. `cpu:0` stands in for one: what goes there is a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.work import BlockWork, ChainWork
from dflowd.engines import torch_engine
from dflowd.engines.contract import Engine
from dflowd.engines.registry import open_engine
from dflowd.models.policy import Policy
from dflowd.training.device_memory import DeviceMemory
from tests.contracts.test_engine import tiny_spec, whole_run, write_base
from tests.support.alone import Alone

DEVICE = torch.device("cpu:0")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path)


def on_device(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that computes on the stand-in, where sums of micro-batches find no room."""

    def crowded(device: torch.device, size: int, progress: Callable[[], None]) -> DeviceMemory:
        return DeviceMemory(size, device, lambda nbytes: False, progress)

    monkeypatch.setattr(torch_engine, "own_device", lambda: DEVICE)
    monkeypatch.setattr(torch_engine, "memory_on", crowded)
    return open_engine("torch")


def spec(with_reference: bool = False, **model: Any) -> Pipeline:
    written = tiny_spec("torch")
    written["models"]["policy"] |= model
    for at in (0, 4):
        written["stages"][at]["config"] |= {"compute": "bfloat16", "micro_batch_tokens": 24}
    if with_reference:
        written["models"]["start"] = {**written["models"]["policy"], "dtype": "bfloat16"}
        written["stages"].insert(4, {"id": "ref", "op": "logprob", "model": "start"})
        written["stages"][5]["config"]["loss"] = {"kl": 0.1}
    return Pipeline.from_dict(written)


@pytest.mark.parametrize("model", [{}, {"lora": {"rank": 2, "alpha": 4}}], ids=["whole", "adapters"])
def test_a_device_trains_what_the_host_would(
    base: Path, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights come and go between phases, and sums wait elsewhere; none of that is arithmetic."""
    on_host = whole_run(Alone(open_engine("torch"), spec(**model), base, base / "checkpoints"))
    engine = on_device(monkeypatch)
    run = Alone(engine, spec(**model), base, base / "others")
    perform = run.perform

    def resting(work: Any) -> Any:
        engine.rest()  # as if another engine had the device before each work
        return perform(work)

    monkeypatch.setattr(run, "perform", resting)
    assert whole_run(run) == on_host


def test_a_phase_of_training_has_no_reference_on_its_device_and_no_copy_of_what_samples(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a model's size: beside gradients they would decide what a card can train."""
    there: dict[str, set[tuple[str, torch.dtype]]] = {}
    engine = on_device(monkeypatch)
    run = Alone(engine, spec(with_reference=True), base, base / "checkpoints")
    perform = run.perform
    opened: Any = engine.gradients._opened  # type: ignore[union-attr]

    def performing(work: Any) -> Any:
        done = perform(work)
        if isinstance(work, BlockWork | ChainWork):
            name = work.stage if isinstance(work, BlockWork) else work.stages[0]
            there[name] = {key for key, policy in opened._policies.items() if id(policy.model) not in opened._away}
        return done

    monkeypatch.setattr(run, "perform", performing)
    run.run(run.init(), range(3))
    assert there["roll"] == {("policy", torch.float32), ("start", torch.bfloat16)}
    assert there["learn"] == {("policy", torch.bfloat16)}
    reference: Policy = opened._policies["start", torch.bfloat16]
    (waiting,) = {each.dtype for each in reference.model.parameters()}
    assert waiting == torch.bfloat16
    assert [each.data_ptr() for each in reference.model.parameters()] == [
        reference._home[name].data_ptr() for name, _ in reference.model.named_parameters()
    ]
    assert not any(each.numel() for each in opened._policies["policy", torch.float32].model.parameters())


def test_a_reward_moves_no_model(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes through none, and comes between two partitions that do."""
    engine = on_device(monkeypatch)
    run = Alone(engine, spec(), base, base / "checkpoints")
    state = run.init()
    (rolled, *_) = run.done(ChainWork(1, ("roll",), 0, state)).made
    known = tuple((f"roll.{name}", ref) for name, ref in rolled.outputs)
    run.done(ChainWork(1, ("score", "adv"), 0, state, known))
    assert not engine.rollouts._opened._away  # type: ignore[union-attr]


def test_a_device_never_holds_in_float32_what_computes_in_less(base: Path) -> None:
    """A model of 7 billion parameters would take 30 GB of a card for a moment, and fail to open there."""
    brought: list[torch.dtype] = []
    policy = Policy("policy", {"init": {"config": "tiny.json", "tokenizer": "tokenizer"}}, base, 1)
    to: Any = torch.Tensor.to

    def noting(tensor: torch.Tensor, *where: Any, **how: Any) -> torch.Tensor:
        if DEVICE in where and isinstance(tensor, torch.Tensor):
            brought.append(tensor.dtype)
        return to(tensor, *where, **how)  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "to", noting)
        policy.parameters.compute_in(torch.bfloat16, DEVICE)
    assert set(brought) == {torch.bfloat16}
