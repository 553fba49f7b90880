"""What gpu/check asks of the torch engine's parts: gradients, their sums, samples, models that come and go, speed."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figure import Figure, Goal, Tell
from dflowd.jobs.counter_random import stream
from dflowd.models.likelihood import likelihood
from dflowd.models.packing import micro_batches
from dflowd.models.parameters import HOST, Vector
from dflowd.models.policy import Policy
from dflowd.models.sampling import Completions, Sampler, sample, seats_of
from dflowd.training.accumulate import Memory, Tree
from dflowd.training.device_memory import DeviceMemory, memory_on
from dflowd.training.leaf import LeafData, Objective, add_gradient

TOKENIZER = Path(__file__).parents[2] / "examples" / "spell_tokenizer"
SIZES: Mapping[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "eos_token_id": 1,
    "initializer_range": 0.1,
}
MIXED = {"sliding_window": 16, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "gemma3_text": {**MIXED, "query_pre_attn_scalar": 16},
    "mistral": {"sliding_window": 16},
}
BUDGET = 1 << 14  # tokens of a micro-batch
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "B200": 2250e12}
"""Operations a second in bfloat16, dense, by a part of the device's name: makers' data sheets."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where passes are computed, and in what."""

    device: torch.device
    dtype: torch.dtype

    @property
    def word(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def opened(kind: str, more: Mapping[str, Any], seed: int = 5) -> Policy:
    """Of random weights, on the host."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.json").write_text(json.dumps({"model_type": kind, **SIZES, **more}))
        place = {"init": {"config": "model.json", "tokenizer": str(TOKENIZER)}, "dtype": "float32"}
        return Policy("policy", place, Path(folder), seed)


def texts(vocabulary: int, count: int, length: int) -> LeafData:
    """Groups of two completions of many lengths behind prompts of a quarter of `length`."""
    drawn = (np.abs(stream(b"check.py", count * length)) * vocabulary).astype(np.int32).reshape(count, length)
    prompts = [row[: length // 4] for row in drawn[::2]]
    said = [row[length // 4 : length - 3 * at % (length // 2)] for at, row in enumerate(drawn)]
    return LeafData(prompts=prompts, owners=[at // 2 for at in range(count)], completions=said)


def gradient(
    policy: Policy,
    data: LeafData,
    place: Place,
    in_line: bool = True,
    recompute: bool = False,
    budget: int = BUDGET,
    memory: Memory[Any] | None = None,
) -> Vector:
    """[parameters], on the host. `memory`: where its parts are summed; the device's own without one."""
    policy.compute_in(place.dtype, place.device)
    policy.lay_out(in_line)
    policy.recompute(recompute)
    memory = memory or memory_on(place.device, policy.parameters.size, lambda: None)
    tree = Tree(memory)
    add_gradient(policy, data, Objective("cross_entropy", {}, "tokens", budget), lambda: None, tree)
    total = np.empty(policy.parameters.size, np.float32)
    memory.write(tree.root(), total)
    return total


def correctness(tell: Tell, device: torch.device, kinds: Mapping[str, Mapping[str, Any]] = KINDS) -> Iterator[Figure]:
    """Each way of the device against the processor's float32 in padded rows; and against itself."""
    for kind, more in kinds.items():
        data = texts(SIZES["vocab_size"], 16, 96)
        exact = gradient(opened(kind, more), data, Place(HOST, torch.float32), in_line=False)
        policy = opened(kind, more)
        for dtype, most in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
            place = Place(device, dtype)
            ours = gradient(policy, data, place)
            gap = float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
            others = sum(int((gradient(policy, data, place, recompute=again) != ours).sum()) for again in (False, True))
            name = f"{kind}, {place.word}"
            tell({"model": name, "gap": gap, "elements that differ from another pass": others})
            yield Figure(f"gradient's distance: {name}", "of its norm", gap, goal=Goal(most))
            yield Figure(f"unequal in three passes: {name}", "elements", others, goal=Goal(0))


def sums(tell: Tell, device: torch.device) -> Iterator[Figure]:
    """Micro-batches summed where there is room for all of them, and where there is none: the same bits."""
    policy, data, place = opened("llama", {}), texts(SIZES["vocab_size"], 16, 96), Place(device, torch.bfloat16)
    ours = gradient(policy, data, place, budget=128)
    refused: list[int] = []
    crowded = DeviceMemory(policy.parameters.size, device, lambda nbytes: bool(refused.append(nbytes)))  # type: ignore[func-returns-value]
    beside = gradient(policy, data, place, budget=128, memory=crowded)
    tell({"sums": "on the device and beside it", "had to wait beside it": bool(refused)})
    yield Figure("unequal: sums on the device, and beside it", "elements", int((ours != beside).sum()), goal=Goal(0))


def sampling(tell: Tell, device: torch.device) -> Iterator[Figure]:
    """Log-probabilities of what the device samples, against the processor's float32 of the same tokens."""
    exact = opened("llama", {})
    prompts = [row.tolist() for row in texts(SIZES["vocab_size"], 8, 64).prompts]
    for dtype, most in ((torch.float32, 1e-3), (torch.bfloat16, 0.1)):
        policy, place = opened("llama", {}), Place(device, dtype)
        policy.compute_in(dtype, device)
        made = sample(policy, prompts, seats_of(0, len(prompts), 2, 16), Sampler(key=b"check.py"), lambda: None)
        off = np.abs(differences(exact, prompts, made))
        tell({"sampled": place.word, "mean |d log p|": float(off.mean()), "most": float(off.max())})
        yield Figure(f"sampled: distance of a log-probability, {place.word}", "nats, mean", off.mean(), goal=Goal(most))


@torch.inference_mode()
def differences(policy: Policy, prompts: list[list[int]], made: Completions) -> Any:
    """Of each sampled token: its log-probability by `policy`, less the one that it came with."""
    said = [row[:length] for row, length in zip(made.tokens, made.lengths, strict=True)]
    width = len(said) // len(prompts)
    given = [np.array(prompt, np.int32) for prompt in prompts]
    found = []
    for batch in micro_batches(given, [at // width for at in range(len(said))], said, 1 << 12, policy.in_line):
        logp, _ = likelihood(policy, batch, 1.0)
        found.append(logp.cpu().numpy() - made.logprobs[batch.samples, batch.offsets])
    return np.concatenate(found)


def phases(tell: Tell, device: torch.device) -> Iterator[Figure]:
    """A reference that leaves the device and comes back, and parameters that are loaded through pinned memory."""
    reference, data = opened("llama", {"hidden_size": 512, "intermediate_size": 2048}), texts(256, 4, 64)
    reference.compute_in(torch.bfloat16, device, is_trained=False)
    reference.lay_out(in_line=True)
    before, held = scores(reference, data), allocated(device)
    reference.leave()
    left = allocated(device)
    reference.come_back()
    unequal = int((scores(reference, data) != before).sum())
    tell({"reference": "left and came back", "bytes with it": held, "bytes without": left})
    yield Figure("a reference that came back: unequal log-probabilities", "tokens", unequal, goal=Goal(0))
    if device.type == "cuda":
        yield Figure("a reference that left: bytes that are still there", "of its own", left / held, goal=Goal(0.05))
    trained = opened("llama", {"hidden_size": 512, "intermediate_size": 2048})
    trained.compute_in(torch.bfloat16, device)
    values = np.empty(trained.parameters.size, np.float32)
    opened("llama", {"hidden_size": 512, "intermediate_size": 2048}, seed=6).parameters.write(values)
    began = time.perf_counter()
    for turn in range(3):
        trained.parameters.load((str(turn),), memoryview(values.tobytes()))
    synchronize(device)
    yield Figure("parameters loaded", "GB/s of float32", 3 * values.nbytes / (time.perf_counter() - began) / 1e9)


@torch.inference_mode()
def scores(policy: Policy, data: LeafData) -> Any:
    batches = micro_batches(data.prompts, data.owners, data.completions, BUDGET, policy.in_line)
    return np.concatenate([likelihood(policy, batch, 1.0)[0].cpu().numpy() for batch in batches])


def speed(
    tell: Tell, device: torch.device, more: Mapping[str, Any], count: int, length: int, budget: int
) -> Iterator[Figure]:
    """Forward and backward passes of a leaf, after one that warms the device up."""
    policy = opened("llama", more)
    data = texts(int(more["vocab_size"]), count, length)
    tokens = sum(
        len(data.prompts[owner]) + len(text) - 1 for owner, text in zip(data.owners, data.completions, strict=True)
    )
    for dtype, recompute in ((torch.float32, True), (torch.bfloat16, False), (torch.bfloat16, True)):
        place = Place(device, dtype)
        gradient(policy, data, place, recompute=recompute, budget=budget)
        synchronize(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        gradient(policy, data, place, recompute=recompute, budget=budget)
        rate = tokens / (time.perf_counter() - began)
        name = f"{place.word}{', layers recomputed' if recompute else ''}"
        flops = 6 * policy.parameters.size * rate
        tell({"way": name, "parameters": policy.parameters.size, "teraflops": flops / 1e12, "tokens": tokens})
        yield Figure(f"trained: {name}", "tokens/s", rate)
        if device.type == "cuda":
            yield Figure(f"memory at most: {name}", "GB", torch.cuda.max_memory_allocated(device) / 1e9)
            peak = next((value for part, value in PEAKS.items() if part in torch.cuda.get_device_name(device)), None)
            if peak is not None and dtype == torch.bfloat16:
                yield Figure(f"use of the device (6 P operations a token): {name}", "of its peak", flops / peak)


def allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
