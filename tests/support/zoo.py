"""Tiny models of many architectures and in many forms on disk, and what this project's passes say of each.

python -m tests.support.zoo          the table of docs/models.md, one line a model
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as token_models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from dflow_protocols.names import RunId, VersionId
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.wire.steps import Header
from dflow_protocols.work import LoadWork, SaveWork
from dflowd.data.prompts import prompt_tokens
from dflowd.engines.contract import Engine
from dflowd.jobs.failures import UserError
from dflowd.models.likelihood import likelihood
from dflowd.models.packing import micro_batches
from dflowd.models.policy import Policy
from dflowd.models.sampling import Sampler, sample, seats_of
from dflowd.training.leaf import LeafData, Objective, add_gradient
from tests.support.alone import Alone

TEMPERATURE = 0.7
SAMPLES = 3
WINDOW = 8  # shorter than all but one of the prompts
QUESTIONS = ("What is 12 + 30?", "Hi", "Spell abc backwards")
TURNS = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<|im_start|>", "<|im_end|>"]
SIZES: Mapping[str, Any] = {
    "vocab_size": 262,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.1,  # far from uniform, so that a wrong state would show
}


@dataclass(frozen=True)
class Kind:
    """`more`: of its config, beside SIZES. `tokenizer`: options of `tokenizer_of`. `save`: of save_pretrained."""

    model_type: str
    more: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    save: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    ends: tuple[int, ...] = ()  # of generation_config.json


HEAD = {"head_dim": 8}
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
FEW_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}

ARCHITECTURES: Mapping[str, Kind] = {
    "Llama": Kind("llama"),
    "Llama, rope scaled as Llama 3": Kind(
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "Qwen2, tied": Kind("qwen2", {"tie_word_embeddings": True}),
    "Qwen3": Kind("qwen3", HEAD),
    "Gemma": Kind("gemma", HEAD),
    "Gemma 3, windows in half of its layers": Kind("gemma3_text", {"query_pre_attn_scalar": 8, **HEAD, **MIXED}),
    "Mistral": Kind("mistral", {"sliding_window": None}),
    "Mistral, a window": Kind("mistral", {"sliding_window": WINDOW}),
    "Llama 4, chunks": Kind(
        "llama4_text",
        {
            **HEAD,
            "attention_chunk_size": WINDOW,
            "intermediate_size_mlp": 48,
            "num_local_experts": 4,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
            "interleave_moe_layer_step": 2,
        },
    ),
    "OLMo 2": Kind("olmo2"),
    "OLMo 3, windows": Kind("olmo3", MIXED),
    "Phi-3": Kind("phi3", {"sliding_window": None}),
    "GPT-2": Kind("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "GPT-NeoX": Kind("gpt_neox"),
    "OPT": Kind("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Falcon": Kind("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "StarCoder 2, a window": Kind("starcoder2", {"sliding_window": WINDOW}),
    "SmolLM 3": Kind("smollm3", {"no_rope_layers": [1, 0]}),
    "Granite, scaled logits": Kind("granite", {"logits_scaling": 8.0, "attention_multiplier": 0.3}),
    "Cohere 2, windows": Kind("cohere2", {"logit_scale": 0.0625, **MIXED}),
    "GLM 4": Kind("glm4", HEAD),
    "Mixtral": Kind("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW}),
    "Qwen2-MoE": Kind("qwen2_moe", {**FEW_EXPERTS, "shared_expert_intermediate_size": 24}),
    "Qwen3-MoE": Kind("qwen3_moe", {**HEAD, **FEW_EXPERTS}),
    "DeepSeek V3": Kind("deepseek_v3", LATENT),
}
"""By name: what is computed right."""

ON_DISK: Mapping[str, Kind] = {
    "in several files": Kind("llama", save={"max_shard_size": "20KB"}),
    "in bfloat16": Kind("llama", dtype=torch.bfloat16),
    "in float64": Kind("llama", dtype=torch.float64),
    "padded vocabulary": Kind("llama", {"vocab_size": 320}),
    "no padding token": Kind("llama", {"pad_token_id": None}, {"pad": None}),
    "padding is the end": Kind("llama", {"pad_token_id": 2}, {"pad": "<eos>"}),
    "begin in the template": Kind("llama", tokenizer={"chat": "{{bos_token}}" + TURNS, "begins": True}),
    "no template, begin added": Kind("llama", tokenizer={"chat": None, "begins": True}),
    "several end tokens": Kind("llama", ends=(2, 5)),
}
"""By name: forms in which a Llama may lie in its folder."""


REFUSED: Mapping[str, tuple[Kind, str]] = {
    "Gemma 2": (Kind("gemma2", HEAD), "softcapping"),
    "GPT-OSS": (Kind("gpt_oss", {**HEAD, "num_local_experts": 4}), "attention sinks"),
    "Bloom": (Kind("bloom", {"n_head": 4}), "takes no positions"),
    "Mamba": (Kind("mamba"), "state space"),
    "Qwen3-Next": (Kind("qwen3_next", {**HEAD, "num_experts": 4}), "linear"),
    "BERT": (Kind("bert"), "it is an encoder"),
    "T5": (Kind("t5"), "has an encoder"),
}
"""By name: what is refused, and a word of the reason."""


def tokenizer_of(
    chat: str | None = TURNS, pad: str | None = "<pad>", begins: bool = False, special: list[str] = SPECIAL
) -> PreTrainedTokenizerFast:
    """Bytes as tokens. `begins`: texts begin with a token, unless told otherwise."""
    words = [*special, *sorted(set(pre_tokenizers.ByteLevel.alphabet()))]
    made = Tokenizer(token_models.BPE(vocab={word: at for at, word in enumerate(words)}, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if begins:
        made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    marks = {"eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>", "pad_token": pad}
    fast = PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=special[4:], **marks)  # type: ignore[no-untyped-call]
    fast.chat_template = chat
    return fast


def config_of(kind: Kind) -> Any:
    return AutoConfig.for_model(kind.model_type, **{**SIZES, **kind.more})


def write(kind: Kind, folder: Path) -> Path:
    """A folder as its makers publish it, with random weights."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config_of(kind), dtype=kind.dtype)  # type: ignore[no-untyped-call]
        if kind.ends:
            model.generation_config.eos_token_id = list(kind.ends)
        model.save_pretrained(folder, **kind.save)
    tokenizer_of(**kind.tokenizer).save_pretrained(folder)
    return folder


def opened_from_config(kind: Kind, folder: Path) -> Policy:
    """A model that a run begins with random weights. Raises UserError."""
    (folder / "model.json").write_text(json.dumps(config_of(kind).to_dict()))
    tokenizer_of().save_pretrained(folder / "tokenizer")
    described = {"init": {"config": "model.json", "tokenizer": "tokenizer"}}
    return Policy("policy", described, folder, 0)


@dataclass(frozen=True)
class Findings:
    """How far this project's passes lie from the model's own forward, one text at a time, as transformers opens it.

    sampled, trained: the largest difference of a token's log-probability, nats. gradient: the largest difference over
    the largest element. checkpoint: whether a saved version is read back as its shards. export: whether transformers
    opens what was saved with the version's weights, and computes the same logits.
    """

    sampled: float
    trained: float
    gradient: float
    checkpoint: bool
    export: bool
    ends: tuple[int, ...]


def examine(engine: Engine, folder: Path) -> Findings:
    policy = Policy("policy", {"path": folder.name}, folder.parent, 0)
    prompts = [
        np.array(prompt_tokens(policy.tokenizer, {"question": question, "answer": ""}), np.int32)
        for question in QUESTIONS
    ]
    sampler = Sampler(temperature=TEMPERATURE, key=b"tiny zoo")
    seats = seats_of(0, len(prompts), SAMPLES, 12)
    made = sample(policy, [prompt.tolist() for prompt in prompts], seats, sampler, lambda: None)
    said = [row[:length] for row, length in zip(made.tokens, made.lengths, strict=True)]
    owners = [sample // SAMPLES for sample in range(len(said))]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    fresh = [own_logprobs(model, prompts[owner], tokens) for owner, tokens in zip(owners, said, strict=True)]
    expected = [logp.detach().numpy() for logp in fresh]
    sampled = max(np.abs(made.logprobs[row, : len(logp)] - logp).max() for row, logp in enumerate(expected))
    trained = 0.0
    with torch.no_grad():
        for batch in micro_batches(prompts, owners, said, 8192, policy.in_line):
            logp, _ = likelihood(policy, batch, TEMPERATURE)
            known = [expected[row][at] for row, at in zip(batch.samples, batch.offsets, strict=True)]
            trained = max(trained, float(np.abs(logp.numpy() - np.array(known)).max()))
    data = LeafData(prompts=prompts, owners=owners, completions=said)
    gradient = np.zeros(policy.parameters.size, np.float32)
    policy.parameters.begin_gradient(gradient)
    add_gradient(policy, data, Objective("cross_entropy", {}, "tokens", 8192, TEMPERATURE), lambda: None)
    policy.parameters.end_gradient()
    (-torch.stack([logp.sum() for logp in fresh]).sum()).backward()  # type: ignore[no-untyped-call]
    own = flat(model, gradient_of)
    gap = float(np.abs(gradient - own).max() / np.abs(own).max())
    return Findings(float(sampled), trained, gap, *saved(engine, folder, prompts[0]), policy.stops)


def own_logprobs(model: Any, prompt: Any, said: Any, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Of the tokens of `said`, by the model alone: one text, no mask, no cache."""
    tokens = torch.from_numpy(np.concatenate((prompt, said)).astype(np.int64))[None]
    logp = torch.log_softmax(model(input_ids=tokens).logits[0].float() / temperature, -1)
    return logp[len(prompt) - 1 : -1].gather(-1, tokens[0, len(prompt) :, None])[:, 0]


def gradient_of(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def flat(model: Any, of: Any) -> Any:
    named = sorted(model.named_parameters(), key=lambda item: item[0])
    return torch.cat([of(parameter).detach().reshape(-1) for _, parameter in named]).numpy()


def saved(engine: Engine, folder: Path, prompt: Any) -> tuple[bool, bool]:
    """Whether a version of other weights than the folder's comes back from its checkpoint, and opens as an export."""
    spec = {
        "name": "zoo",
        "steps": 1,
        "models": {"policy": {"path": folder.name}},
        "data": {"words": {"jsonl": "words.jsonl"}},
        "stages": [
            {
                "id": "learn",
                "op": "sft",
                "model": "policy",
                "config": {"data": "words", "demos": 2, "batch": 2, "optimizer": {"adamw": {"lr": 0.001}}},
            }
        ],
    }
    runner = Alone(engine, Pipeline.from_dict(spec), folder.parent, folder.parent / f"{folder.name}-checkpoints")
    ((entry, first),) = runner.init()
    weights = np.frombuffer(runner.shards.read(first), np.float32) * np.float32(1.25)
    state = ((entry, runner.shards.add(weights.tobytes())),)
    header = Header(VersionId("c" * 64), 1, 8, "d" * 64, state, ())
    place = Path(runner.done(SaveWork(RunId("a" * 32), header)).detail)
    kept, runner.shards.shards = runner.shards.shards, {}
    found = runner.perform(LoadWork(RunId("a" * 32), header))
    back = getattr(found, "made", None)
    is_back = (
        back is not None and back[0].outputs == state and runner.shards.shards[state[0][1].id] == kept[state[0][1].id]
    )
    export = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter in wanted.parameters():
            parameter.mul_(1.25)
        tokens = torch.from_numpy(prompt.astype(np.int64))[None]
        is_same = torch.equal(export(input_ids=tokens).logits, wanted(input_ids=tokens).logits)
    return is_back, is_same and np.array_equal(flat(export, lambda parameter: parameter), weights)


def table() -> None:
    from dflowd.engines.registry import open_engine

    engine = open_engine("torch")
    print("| model | sampled = fresh | trained = fresh | gradient | checkpoint | export |\n|---|---|---|---|---|---|")
    forms = {f"Llama, {name}": kind for name, kind in ON_DISK.items()}
    for name, kind in {**ARCHITECTURES, **forms}.items():
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "words.jsonl").write_text(json.dumps({"prompt": "a", "answer": "b"}) + "\n")
            found = examine(engine, write(kind, Path(place) / "model"))
        kept = " | ".join("same" if is_same else "OTHER" for is_same in (found.checkpoint, found.export))
        print(f"| {name} | {found.sampled:.0e} | {found.trained:.0e} | {found.gradient:.0e} | {kept} |", flush=True)
    for name, (kind, _) in REFUSED.items():
        with tempfile.TemporaryDirectory() as place:
            try:
                opened_from_config(kind, Path(place))
            except UserError as told:
                print(f"| {name} | refused:{str(told).partition('model.json:')[2].partition(';')[0]} | | | | |")


if __name__ == "__main__":
    table()
