"""A run that trains adapters keeps what every engine promises, with the base outside of its versions."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dflow_protocols.pipeline import Pipeline, plan
from dflow_protocols.ranges import State, shards_of
from dflow_protocols.steps.view import params_of
from dflow_protocols.versions import kept
from dflow_protocols.work import ChainWork, Done, Failed, InitWork, LoadWork
from dflowd.engines.contract import Engine
from dflowd.engines.opened import first_seed
from dflowd.engines.registry import open_engine
from dflowd.jobs.failures import UserError
from dflowd.models.merging import merge
from dflowd.models.policy import Policy
from dflowd.shards import layout
from tests.contracts.test_engine import CHECKPOINTED, chain_work, saved, tiny_spec, whole_run, write_base
from tests.support.alone import Alone


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine("torch")


def adapted(engine: Engine, folder: Path, dtype: str = "float32", **more: Any) -> Alone:
    """The tiny pipeline with adapters, and a learning rate at which a step moves them far. `dtype`: of all passes."""
    base = folder if (folder / "words.jsonl").exists() else write_base(folder)
    spec = tiny_spec("torch", **more)
    spec["models"]["policy"] |= {"lora": {"rank": 4, "alpha": 16}, "dtype": dtype}
    for stage in spec["stages"]:
        if "optimizer" in stage.get("config", {}):
            stage["config"] |= {"optimizer": {"adamw": {"lr": 0.05}}, "compute": dtype}
    return Alone(engine, Pipeline.from_dict(spec), base, base / "checkpoints")


def opened(runner: Alone, model: str = "policy") -> Policy:
    """A model as a fresh process opens it."""

    seed = first_seed(runner.pipeline, model)
    return Policy(model, runner.pipeline.models[model], runner.base, seed)


def loaded(runner: Alone, state: State) -> Policy:
    policy = opened(runner)
    refs = shards_of(state, "params:policy")
    policy.parameters.load(tuple(ref.id for ref in refs), runner.shards.read(*refs))
    return policy


def columns_of(runner: Alone, done: Done, stage: str) -> Any:
    ((_, ref),) = next(made.outputs for made in done.made if made.stage == stage)
    return layout.decode(runner.shards.read(ref))


def scores(policy: Policy, rollout: Any, group: int) -> tuple[Any, Any]:
    """(sampled, trained): log-probabilities of all tokens of a rollout, as they were sampled and as a training has
    them."""
    from dflowd.data import columns
    from dflowd.models.likelihood import likelihood
    from dflowd.models.packing import assemble, pack

    prompts, said = columns.rows(rollout["prompt"]), columns.rows(rollout["tokens"])
    owners = [at // group for at in range(len(said))]
    found = [np.zeros(len(text), np.float32) for text in said]
    for rows in pack([len(prompt) for prompt in prompts], owners, [len(text) for text in said], 8192):
        batch = assemble(rows, prompts, said)
        logp, _ = likelihood(policy, batch, 1.0)
        for value, text, at in zip(logp.tolist(), batch.samples, batch.offsets, strict=True):
            found[text][at] = value
    return columns.values(rollout["logprobs"]), np.concatenate(found)


def test_a_version_holds_adapters_and_names_their_base(engine: Engine, tmp_path: Path) -> None:
    """What travels, is summed, saved and copied is as small as they are; the base stays what it was."""
    runner = adapted(engine, tmp_path)
    first = runner.init()
    last = runner.run(first, range(3))
    assert [name for name, _ in first] == ["params:policy", "base:policy"]
    assert [name for name, _ in last] == ["base:policy", "params:policy"]
    assert dict(first)["base:policy"] == dict(last)["base:policy"]
    assert dict(first)["params:policy"] != dict(last)["params:policy"]
    plain = Policy("policy", {"init": runner.pipeline.models["policy"]["init"]}, tmp_path, 0)
    assert dict(last)["params:policy"].nbytes < 4 * plain.parameters.size


@pytest.mark.parametrize(
    ("blocks", "sums", "dtype"),
    [(2, False, "float32"), (4, False, "float32"), (1, True, "float32"), (2, False, "bfloat16")],
)
def test_adapters_do_not_depend_on_how_leaves_are_gathered(
    engine: Engine, tmp_path: Path, blocks: int, sums: bool, dtype: str
) -> None:
    """The same weights on any number of nodes and slots, and of an engine that has nothing open: as after a kill. So it
    is with float32 adapters beside a base that passes in bfloat16."""
    single = whole_run(adapted(engine, tmp_path, dtype))
    gathered = adapted(open_engine("torch"), tmp_path, dtype)
    gathered.blocks, gathered.sums = blocks, sums
    assert whole_run(gathered) == single


def test_what_is_sampled_is_sampled_by_the_adapters_of_its_version(engine: Engine, tmp_path: Path) -> None:
    """A sampler that goes on with the base, or with the version before, trains a policy that nobody samples from, and
    no curve tells. So tokens are scored by a model that was opened anew with the version that their work names."""
    runner = adapted(engine, tmp_path)
    states = [runner.init()]
    for step in range(2):
        states.append(runner.step(step, states[-1]))
        runner.shards.shards |= {ref.id: runner.shards.shards[ref.id] for _, ref in states[-1]}
    work = chain_work(runner, 2, "roll", 0, states[2])
    rollout = columns_of(runner, runner.done(work), "roll")
    sampled, now = scores(loaded(runner, states[2]), rollout, 4)
    assert np.abs(sampled - now).max() < 1e-4
    _, by_base = scores(opened(runner), rollout, 4)
    assert np.abs(sampled - by_base).max() > 0.1


def test_a_node_with_another_base_refuses_and_names_itself(engine: Engine, tmp_path: Path) -> None:
    """Its torch may draw other numbers: adapters that were trained beside another base would be noise to it."""
    runner = adapted(engine, tmp_path)
    state = runner.init()
    other = runner.shards.add(bytes(32))
    params = tuple((name, other if name == "base:policy" else ref) for name, ref in state)
    failed = runner.perform(chain_work(runner, 1, "roll", 0, params))
    assert isinstance(failed, Failed)
    assert failed.kind == "host"
    assert failed.error.startswith(f"host {socket.gethostname()}: models.policy: its base (hash ")
    assert "is not the one that the run began with (00000000)" in failed.error
    assert isinstance(runner.perform(chain_work(runner, 1, "roll", 0, state)), Done)


@pytest.mark.parametrize("reference", [None, {"version_of": "policy", "at": 1}], ids=["frozen", "kept"])
def test_a_reference_beside_another_base_is_refused_as_the_policy_is(
    engine: Engine, tmp_path: Path, reference: dict[str, Any] | None
) -> None:
    """A host may score what others sampled: what its own base says of that would be held for the run's."""
    drawn = {"init": {"config": "tiny.json", "tokenizer": "tokenizer"}}
    stages = tiny_spec("torch")["stages"]
    stages.insert(4, {"id": "ref", "op": "logprob", "model": "reference"})
    models = {"policy": dict(drawn), "reference": reference or drawn}
    runner = adapted(engine, tmp_path, models=models, stages=stages)
    (chain,) = (chain for chain in plan(runner.pipeline, 1).chains if "ref" in chain.stages)
    assert chain.bases == (("policy", "policy"), ("reference", "policy"))
    state = kept.carry(runner.pipeline, 0, None, runner.init())
    rolled = dict(runner.done(chain_work(runner, 1, "roll", 0, state)).made[0].outputs)["rollout"]

    def scored(version: State) -> Done | Failed:
        params = params_of(version, chain.models, chain.bases)
        asked = tuple(entry for entry in params if entry[0].endswith(":reference"))
        return runner.perform(ChainWork(1, ("ref",), 0, asked, (("roll.rollout", rolled),)))

    assert isinstance(scored(state), Done)
    other = runner.shards.add(bytes(32))
    failed = scored(tuple((name, other if name == "base:policy" else ref) for name, ref in state))
    assert isinstance(failed, Failed)
    assert failed.kind == "host"
    assert failed.error.startswith(f"host {socket.gethostname()}: models.reference: its base (hash ")


def test_a_checkpoint_of_adapters_is_read_back_to_the_same_shards(engine: Engine, tmp_path: Path) -> None:
    """Their bytes lie once on the disk, in the file that peft opens; what goes on from there goes on as it was."""
    runner = adapted(engine, tmp_path)
    state = runner.run(runner.init(), range(2))
    folder, header = saved(runner, state, 2)
    assert not list(folder.glob("params-*"))
    kept, runner.shards.shards = runner.shards.shards, {}
    assert runner.done(LoadWork(CHECKPOINTED, header)).made[0].outputs == state
    assert all(runner.shards.shards[ref.id] == kept[ref.id] for _, ref in state)
    resumed = runner.run(state, range(2, 4))
    straight = adapted(open_engine("torch"), tmp_path)
    assert whole_run(straight) == resumed


def test_a_reference_described_as_the_policy_is_its_base_and_needs_no_memory(engine: Engine, tmp_path: Path) -> None:
    """KL is measured from where the policy came from, whose weights lie beneath its adapters."""
    drawn = {"init": {"config": "tiny.json", "tokenizer": "tokenizer"}}
    stages = tiny_spec("torch")["stages"]
    stages.insert(4, {"id": "ref", "op": "logprob", "model": "reference"})
    runner = adapted(engine, tmp_path, models={"policy": dict(drawn), "reference": drawn}, stages=stages)
    assert first_seed(runner.pipeline, "reference") == first_seed(runner.pipeline, "policy")
    state = runner.run(runner.init(), range(1))
    done = runner.done(replace(chain_work(runner, 1, "roll", 0, state), stages=("roll", "score", "ref", "adv")))
    rollout = columns_of(runner, done, "roll")
    _, alone = scores(opened(runner, "reference"), rollout, 4)
    from dflowd.data import columns

    assert np.abs(columns.values(columns_of(runner, done, "ref")["logprob"]) - alone).max() < 1e-5
    assert np.abs(columns.values(rollout["logprobs"]) - alone).max() > 0.1


def test_targets_that_the_model_has_not_are_the_users_mistake(engine: Engine, tmp_path: Path) -> None:
    """It would fail on every node alike."""
    base = write_base(tmp_path)
    spec = tiny_spec("torch")
    spec["models"]["policy"]["lora"] = {"rank": 4, "alpha": 16, "targets": ["query"]}
    failed = Alone(engine, Pipeline.from_dict(spec), base, base / "checkpoints").perform(InitWork())
    assert isinstance(failed, Failed)
    assert failed.kind == "user"
    assert "no linear layer `query`" in failed.error


def test_a_checkpoint_merges_into_a_whole_model_with_the_versions_logits(engine: Engine, tmp_path: Path) -> None:
    """For who serves models and knows of no adapters. On another base it would be another model, so that is refused."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    runner = adapted(engine, tmp_path)
    state = runner.run(runner.init(), range(2))
    folder, _ = saved(runner, state, 2)
    shutil.copytree(folder, tmp_path / "copy")
    merge(folder)
    assert not (folder / "base").exists()
    assert not [*folder.glob("adapter*"), *folder.glob("base-*"), *folder.glob("dflow.json")]
    whole = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.tensor([[4, 5, 6, 7]])
    with torch.inference_mode():
        assert torch.allclose(whole(tokens).logits, loaded(runner, state).model(tokens).logits, rtol=0, atol=1e-5)
        assert not torch.allclose(whole(tokens).logits, opened(runner).model(tokens).logits, rtol=0, atol=0.1)
    assert AutoTokenizer.from_pretrained(folder).decode([4, 5]) == "ab"
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "copy/base")
    next(other.parameters()).data[0, 0] += 1
    other.save_pretrained(tmp_path / "copy/base")
    with pytest.raises(UserError, match="holds other weights than those that model `policy` was trained beside"):
        merge(tmp_path / "copy")
