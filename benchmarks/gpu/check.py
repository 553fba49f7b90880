"""Is what a trainer computes on a GPU right, the same each time, and worth the device?

Tiny models of random weights, with shared heads, windows and chunks, against float32 on the processor in padded rows;
then a larger one for tokens a second and memory. `--device cpu` takes every way but the kernel's, to try the script
where there is no GPU.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch

from benchmarks.figure import Figure, Goal, Skipped, Tell
from dflowd.engines.exactness import numerics_class, settle
from dflowd.jobs.counter_random import stream
from dflowd.models.parameters import HOST, Vector
from dflowd.models.policy import Policy
from dflowd.training.accumulate import Tree
from dflowd.training.device_memory import memory_on
from dflowd.training.leaf import LeafData, Objective, add_gradient

QUICK = {"device": "cpu", "width": 64, "layers": 2, "length": 64, "texts": 8}
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where passes are computed, and in what."""

    device: torch.device
    dtype: torch.dtype


def opened(kind: str, more: Mapping[str, Any]) -> Policy:
    """Of random weights, on the host."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.json").write_text(json.dumps({"model_type": kind, **SIZES, **more}))
        place = {"init": {"config": "model.json", "tokenizer": str(TOKENIZER)}}
        return Policy("policy", place, Path(folder), 5)


def texts(vocabulary: int, count: int, length: int) -> LeafData:
    """Groups of two completions of many lengths behind prompts of a quarter of `length`."""
    drawn = (np.abs(stream(b"check.py", count * length)) * vocabulary).astype(np.int32).reshape(count, length)
    prompts = [row[: length // 4] for row in drawn[::2]]
    said = [row[length // 4 : length - 3 * at % (length // 2)] for at, row in enumerate(drawn)]
    return LeafData(prompts=prompts, owners=[at // 2 for at in range(count)], completions=said)


def gradient(
    policy: Policy, data: LeafData, place: Place, in_line: bool = True, recompute: bool = False, budget: int = 1 << 14
) -> Vector:
    """[parameters], on the host."""
    policy.compute_in(place.dtype, place.device)
    policy.lay_out(in_line)
    policy.recompute(recompute)
    memory = memory_on(place.device, policy.parameters.size, lambda: None)
    tree = Tree(memory)
    add_gradient(policy, data, Objective("cross_entropy", {}, "tokens", budget), lambda: None, tree)
    total = np.empty(policy.parameters.size, np.float32)
    memory.write(tree.root(), total)
    return total


def correctness(tell: Tell, device: torch.device) -> list[Figure]:
    """Each way of the device against the processor's float32 in padded rows; and against itself."""
    found = []
    for kind, more in KINDS.items():
        data = texts(SIZES["vocab_size"], 16, 96)
        exact = gradient(opened(kind, more), data, Place(HOST, torch.float32), in_line=False)
        policy = opened(kind, more)
        for dtype, most in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
            ours = gradient(policy, data, Place(device, dtype))
            gap = float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
            others = sum(
                int((gradient(policy, data, Place(device, dtype), recompute=again) != ours).sum())
                for again in (False, True)
            )
            name = f"{kind}, {str(dtype).removeprefix('torch.')}"
            tell({"model": name, "gap": gap, "elements that differ from another pass": others})
            found.append(Figure(f"gradient's distance: {name}", "of its norm", gap, goal=Goal(most)))
            found.append(Figure(f"unequal in three passes: {name}", "elements", others, goal=Goal(0)))
    return found


def speed(tell: Tell, device: torch.device, more: Mapping[str, Any], count: int, length: int) -> list[Figure]:
    """Forward and backward passes of a leaf, after one that warms the device up."""
    found, policy = [], opened("llama", more)
    data = texts(int(more["vocab_size"]), count, length)
    tokens = sum(
        len(data.prompts[owner]) + len(text) - 1 for owner, text in zip(data.owners, data.completions, strict=True)
    )
    for dtype, recompute in ((torch.float32, True), (torch.bfloat16, False), (torch.bfloat16, True)):
        gradient(policy, data, Place(device, dtype), recompute=recompute)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.perf_counter()
        gradient(policy, data, Place(device, dtype), recompute=recompute)
        rate = tokens / (time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
        name = f"{str(dtype).removeprefix('torch.')}{', layers recomputed' if recompute else ''}"
        flops = 6 * policy.parameters.size * rate
        tell({"way": name, "parameters": policy.parameters.size, "teraflops": flops / 1e12, "tokens": tokens})
        found.append(Figure(f"trained: {name}", "tokens/s", rate))
        if device.type == "cuda":
            found.append(Figure(f"memory at most: {name}", "GB", peak))
    return found


def measure(
    tell: Tell,
    *,
    device: Annotated[Literal["cuda", "cpu"], "what is checked"] = "cuda",
    width: Annotated[int, "of the larger model"] = 2048,
    layers: Annotated[int, "of it"] = 16,
    length: Annotated[int, "tokens of its longest text"] = 2048,
    texts: Annotated[int, "texts of a leaf"] = 32,
) -> list[Figure]:
    if device == "cuda" and not torch.cuda.is_available():
        raise Skipped("torch finds no CUDA device here")
    place = torch.device(device)
    settle(place)
    tell({"numerics": numerics_class(place)})
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "vocab_size": 32000}
    heads = {"num_attention_heads": max(1, width // 64), "num_key_value_heads": max(1, width // 256)}
    return [*correctness(tell, place), *speed(tell, place, {**sizes, **heads}, texts, length)]
