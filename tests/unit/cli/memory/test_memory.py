"""What a pipeline takes of memory follows from its files and its stages, and is held against what daemons have."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.memory.fitting import Place, places_of
from dflow_cli.memory.needs import CUDA_CONTEXT, LIBRARIES, ROLLING, VLLM_ASLEEP, Needs, needs_of, trained_of
from dflow_cli.memory.outline import Outline, outline_of
from dflow_cli.memory.plan import place_row
from dflow_cli.memory.rollouts import PROMPT, step_bytes
from dflow_cli.spec.modelfiles import ModelFiles
from dflow_protocols.pipeline import Pipeline
from dflowd.models.adapters import Adapters
from tests.unit.protocols.written_specs import example, stage

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
GB = 1_000_000_000


def drawn(folder: Path, **config: Any) -> ModelFiles:
    (folder / "config.json").write_text(json.dumps(SMALL | config))
    return ModelFiles("policy", {"init": {"config": "config.json", "tokenizer": "tokenizer"}}, folder)


def outline(folder: Path, **config: Any) -> Outline:
    made = outline_of(drawn(folder, **config))
    assert made is not None
    return made


def made_by_torch(kind: str, **more: Any) -> Any:
    """The model that transformers builds from SMALL."""
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    return auto.from_config(AutoConfig.for_model(kind, **(SMALL | {"pad_token_id": 0} | more)))


EXPERTS = {"llama": {}, "mistral": {}, "olmo2": {}, "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2}}


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_drawn_model_has_as_many_parameters_as_its_numbers_say(kind: str, tied: bool, tmp_path: Path) -> None:
    made = outline(tmp_path, model_type=kind, tie_word_embeddings=tied, **EXPERTS[kind])
    model = made_by_torch(kind, tie_word_embeddings=tied, **EXPERTS[kind])
    real = sum(parameter.numel() for parameter in model.parameters())
    assert made.parameters == pytest.approx(real, rel=0.01)  # gates of experts, more norms: of a usual form they differ
    assert not made.is_exact


@pytest.mark.parametrize("tied", [False, True])
def test_a_critic_has_one_row_in_place_of_a_vocabulary(tied: bool, tmp_path: Path) -> None:
    """Its embedding stays; a head of its own, where it is not tied, goes."""
    files = drawn(tmp_path, model_type="llama", tie_word_embeddings=tied)
    critic = outline_of(ModelFiles("critic", {**files.source, "head": "value"}, tmp_path))
    policy, rows, width = outline(tmp_path, model_type="llama", tie_word_embeddings=True), 1, SMALL["hidden_size"]
    assert critic is not None
    assert critic.parameters == policy.parameters + rows * width


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("targets", [None, ["q_proj", "o_proj"]])
def test_adapters_are_as_large_as_an_engine_makes_them(kind: str, targets: list[str] | None, tmp_path: Path) -> None:
    model = made_by_torch(kind, **EXPERTS[kind])
    adapters = Adapters(model, {"rank": 4, "alpha": 8, "targets": targets, "dropout": 0}, 0, "models.policy.lora")
    real = sum(parameter.numel() for _, parameter in adapters.named())
    assert outline(tmp_path, model_type=kind, **EXPERTS[kind]).adapters(4, targets) == real


def test_shapes_are_read_from_the_weights_where_there_are_some(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": [50, 32], "model.x.bias": [7], "lm_head.weight": [50, 32]}
    at, head = 0, {}
    for name, shape in shapes.items():
        head[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * prod(shape)]}
        at += 2 * prod(shape)
    text = json.dumps(head).encode()
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"model_type": "llama"}))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    made = outline_of(ModelFiles("policy", {"path": "."}, tmp_path))
    assert made is not None
    assert made.is_exact
    assert made.parameters == 50 * 32 + 7  # the head is tied: it is the embedding


def test_nothing_is_said_of_a_model_whose_files_do_not_tell(tmp_path: Path) -> None:
    assert outline_of(drawn(tmp_path, hidden_size=None)) is None


def large(**changes: Any) -> tuple[Pipeline, dict[str, Outline]]:
    """A pipeline whose policy has a billion parameters, in one matrix of a decoder's layer and the embedding."""
    spec = example()
    spec["models"]["policy"] = {"path": "model/"} | changes.pop("policy", {})
    for stage_id, more in changes.items():
        written = stage(spec, stage_id)
        written.update(more | {"config": written.get("config", {}) | more.get("config", {})})
    shapes = {"model.embed_tokens.weight": (500_000, 1000), "model.layers.0.q_proj.weight": (500_000, 1000)}
    return Pipeline.from_dict(spec), {"policy": Outline(shapes, None, is_exact=True)}


def needs(has_gpu: bool, **changes: Any) -> Needs:
    pipeline, outlines = large(**changes)
    return needs_of(pipeline, outlines, has_gpu)


def test_shards_hold_twenty_eight_bytes_a_trained_parameter_while_an_update_is_applied() -> None:
    adapters = 16 * (500_000 + 1000)
    lora = {"policy": {"lora": {"rank": 16, "alpha": 32}}}
    pipeline, outlines = large(**lora)
    rollouts = step_bytes(pipeline)
    assert needs(False).most_shards == 28 * GB + rollouts
    assert needs(False, **lora).most_shards == 28 * adapters + rollouts
    assert trained_of(pipeline, outlines, "policy") == adapters


def test_what_waits_to_be_trained_lies_beside_the_weights() -> None:
    """Long completions and further rounds may take more than a small model."""
    usual, one = needs(False).most_shards, step_bytes(large()[0])
    rounds = needs(False, adv={"rounds": {"until": 96, "max": 3}})
    (rollouts,) = (need for need in rounds.shards if need.what == "rollouts")
    assert rollouts.nbytes == 3 * one
    assert rounds.most_shards == usual + 2 * one


def test_a_version_that_is_kept_lies_beside_the_one_that_trains() -> None:
    """Of adapters they alone; an engine maps it as it does the policy."""
    spec = large()[0].to_dict()
    spec["models"]["reference"] = {"version_of": "policy", "at": 50}
    spec["stages"].insert(2, {"id": "ref", "op": "logprob", "model": "reference"})
    _, outlines = large()
    outlines |= {"reference": outlines["policy"]}
    found = needs_of(Pipeline.from_dict(spec), outlines, has_gpu=False)
    assert [need.nbytes for need in found.shards if need.what == "earlier versions"] == [4 * GB]
    assert [need.nbytes for need in found.engine if need.what == "weights of `reference`"] == [0]
    spec["models"]["policy"]["lora"] = {"rank": 16, "alpha": 32}
    found = needs_of(Pipeline.from_dict(spec), outlines, has_gpu=False)
    assert [need.nbytes for need in found.shards if need.what == "earlier versions"] == [4 * 16 * (500_000 + 1000)]


def test_a_lag_takes_as_many_copies_however_many_updates_a_step_makes() -> None:
    """Versions amid a step carry those that began steps, of which one is kept whole beside them: its parameters are the
    very same shards. Two steps' rollouts lie there, and not two updates'."""
    pipeline, outlines = large()
    several = {**pipeline.stage("learn").config, "minibatches": 4}
    stages = [replace(each, config=several) if each.id == "learn" else each for each in pipeline.stages]
    behind = replace(pipeline, lag=1), replace(pipeline, lag=1, stages=stages)
    once, often = (needs_of(each, outlines, has_gpu=False) for each in behind)
    assert often.kept - once.kept == ROLLING * once.trained


def test_a_training_reads_what_was_replied_to_as_well() -> None:
    """It is no part of what the reply may have, and is in its micro-batches all the same."""
    spec = example()
    spec["models"]["policy"] = {"path": "model/"}
    stage(spec, "learn")["config"]["micro_batch_tokens"] = 13_000  # as many as a leaf has of short completions
    _, outlines = large()
    waiting = []
    for heard in (6, 600):
        stage(spec, "roll")["config"]["max_tokens"] = heard
        replying = [*spec["stages"]]
        replying.insert(2, {"id": "read", "op": "reply", "model": "policy", "config": {"max_tokens": 6}})
        made = needs_of(Pipeline.from_dict(spec | {"stages": replying}), outlines, has_gpu=True)
        waiting += [need.nbytes // (4 * GB) for need in made.engine if need.what == "gradients"]
    assert waiting == [1, 2]


def test_a_gpu_has_a_copy_for_each_dtype_that_is_computed_in_and_one_gradient() -> None:
    by_name = {need.what: need.nbytes for need in needs(True).device}
    assert by_name["weights of `policy`"] == 4 * GB
    assert by_name["gradient"] == 4 * GB
    mixed = needs(True, learn={"config": {"compute": "bfloat16"}})
    weights = [need.nbytes for need in mixed.device if need.what == "weights of `policy`"]
    assert sorted(weights) == [2 * GB, 4 * GB]  # what trains in bfloat16, what samples in float32
    on_cores = {need.what: need.nbytes for need in needs(False).engine}
    assert on_cores["weights of `policy`"] == 0  # mapped from its shards


def test_a_model_is_opened_in_float32_on_the_host_whatever_it_computes_in_later() -> None:
    lora = {"policy": {"lora": {"rank": 16, "alpha": 32}, "dtype": "bfloat16"}}
    small = needs(True, learn={"config": {"compute": "bfloat16"}}, warm={"config": {"compute": "bfloat16"}}, **lora)
    assert small.most_engine == 4 * GB + LIBRARIES > sum(need.nbytes for need in small.engine)
    assert small.most_device == CUDA_CONTEXT + 2 * GB + 4 * small.trained  # and rounded there, before it is on the GPU


def test_phases_of_a_gpu_follow_one_another() -> None:
    """A copy that only samples is no part of what training takes, nor the other way round."""
    mixed = needs(True, learn={"config": {"compute": "bfloat16"}}, warm={"config": {"compute": "bfloat16"}})
    assert mixed.most_device == CUDA_CONTEXT + 2 * GB + 4 * GB  # a gradient beside the copy that trains
    assert sum(need.nbytes for need in mixed.device) == mixed.most_device + 4 * GB


@pytest.mark.parametrize(("tokens", "waiting"), [(1 << 20, 1), (600, 3)])
def test_gradients_that_wait_grow_with_the_logarithm_of_micro_batches(tokens: int, waiting: int) -> None:
    """Each is a model's size: short micro-batches trade activations for them."""
    short = {name: {"config": {"micro_batch_tokens": tokens}} for name in ("learn", "warm")}
    (gradients,) = (need for need in needs(False, **short).engine if need.what == "gradients")
    assert gradients.nbytes == waiting * 4 * GB


def test_a_gradient_that_shards_of_half_its_bytes_cannot_hold_is_the_engines_own() -> None:
    """Passes add to float32; where blocks are float32 too, that is in their shards."""
    narrow = {name: {"config": {"micro_batch_tokens": 1 << 20, "gradient": "bfloat16"}} for name in ("learn", "warm")}
    (gradients,) = (need for need in needs(False, **narrow).engine if need.what == "gradients")
    assert gradients.nbytes == 2 * 4 * GB


def test_what_torch_samples_keeps_keys_and_values_of_a_partition(tmp_path: Path) -> None:
    """Of that stage whose partitions take most: here of questions, which have one answer each."""
    small = outline(tmp_path, model_type="llama")
    spec = example()
    texts = {
        engine: [
            need.nbytes
            for need in needs_of(Pipeline.from_dict(spec | {"engine": engine}), {"policy": small}, False).engine
            if need.what == "keys and values"
        ]
        for engine in ("torch", "vllm")
    }
    held_out, layers, keys, tokens = 1000 // 8, 3, 2 * 8, PROMPT + 6
    assert texts == {"torch": [2 * layers * keys * 4 * held_out * tokens], "vllm": []}


def member(shards: int = 64, total: int = 256, gpus: int = 0, gpu: int | None = 80) -> dict[str, Any]:
    one = {"memory_total": gpu and gpu * GB}
    return {
        "name": "a1",
        "boot_id": "a",
        "device": "NVIDIA x1" if gpus else "cpu x8",
        "slots": max(1, gpus),
        "gpus": [one] * gpus,
        "memory": {"total": total * GB, "cgroup_limit": None, "shards_limit": shards * GB},
    }


def places_on(hosts: list[dict[str, Any]], **changes: Any) -> list[Place]:
    pipeline, outlines = large(**changes)
    return list(places_of(pipeline, outlines, hosts, partial(needs_of, pipeline, outlines)))


def misfits(host: dict[str, Any], **changes: Any) -> dict[str, Place]:
    return {place.kind: place for place in places_on([host], **changes) if not place.fits}


def test_what_does_not_fit_is_told_with_what_would_make_it_fit() -> None:
    assert not misfits(member())
    shards = misfits(member(shards=20))["shards"]
    assert 'DFLOWD_SHARDS_MEMORY_LIMIT="31 GB"' in shards.mend
    assert "models.policy.lora.rank=16" in shards.mend
    assert "micro_batch_tokens" in misfits(member(total=30))["host"].mend
    assert not misfits(member(gpus=1))
    assert not misfits(member(gpus=1, gpu=None))
    assert "bfloat16" in misfits(member(gpus=1, gpu=8))["GPU 0"].mend


@pytest.mark.parametrize(("there", "told"), [(5 * GB, "yes"), (GB, "no"), (None, "?")])
def test_whether_it_fits_is_said_in_a_word(there: int | None, told: str) -> None:
    """A blank under `fits` stood for yes, and for what no daemon told as well."""
    assert place_row(Place("a1", "host", 2 * GB, there))[-1] == told


def test_daemons_of_one_host_share_its_memory() -> None:
    """Each of three would fit by itself."""
    (alone,) = [place.needed for place in places_on([member()]) if place.kind == "host"]
    near = [member(total=2 * alone // GB) | {"name": name} for name in ("a1", "a2", "a3")]
    (misfit,) = [place for place in places_on(near) if not place.fits]
    assert (misfit.node, misfit.needed) == ("a1, a2, a3", 3 * alone)
    assert "fewer daemons" in misfit.mend
    assert all(place.fits for place in places_on([host | {"boot_id": host["name"]} for host in near]))


def test_a_gpu_whose_driver_is_not_asked_is_listed_and_not_judged() -> None:
    gpu = places_on([member() | {"device": "NVIDIA H100 x1"}])[-1]
    assert (gpu.kind, gpu.there, gpu.fits) == ("GPU 0", None, True)


def test_a_gpu_of_vllm_trains_while_that_sleeps() -> None:
    """What it keeps counts all the same."""
    served = {"roll": {"engine": "vllm"}, "heldout": {"engine": "vllm"}}
    (gpu,) = (place for place in places_on([member(gpus=1)], **served) if place.kind == "GPU 0")
    assert gpu.fits
    assert gpu.there == 80 * GB - VLLM_ASLEEP
