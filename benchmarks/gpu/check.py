"""Is what a trainer computes on a GPU right, the same each time, and worth the device?

Tiny models of random weights, with shared heads, windows and chunks, against float32 on the processor in padded rows:
gradients, sums that wait on the device or beside it, samples, a reference that leaves and comes back, vLLM's weights in
place. Then a larger one for tokens a second, memory, and samples a second of GRPO beside TRL. What cannot be asked here
is told as `skipped`, with the reason. `--device cpu` takes every way but the kernels', to try the script where there is
no GPU.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch

from benchmarks.figure import Figure, Skipped, Tell
from dflowd.engines.exactness import numerics_class, settle

from . import grpo, served, trainer

QUICK = {"device": "cpu", "width": 64, "layers": 2, "length": 64, "texts": 8, "prompts": 2, "tokens": 8, "steps": 1}
STAND_IN = torch.device("cpu:0")  # which is not where shards lie: what goes there is a copy


def measure(
    tell: Tell,
    *,
    device: Annotated[Literal["cuda", "cpu"], "what is checked"] = "cuda",
    width: Annotated[int, "of the larger model; 2048 and 28 layers are 1.5 billion parameters"] = 2048,
    layers: Annotated[int, "of it"] = 28,
    length: Annotated[int, "tokens of its longest text"] = 2048,
    texts: Annotated[int, "texts of a leaf"] = 32,
    budget: Annotated[int, "tokens of a micro-batch"] = 1 << 14,
    prompts: Annotated[int, "of a step of GRPO, 8 completions each"] = 16,
    tokens: Annotated[int, "of a completion"] = 256,
    steps: Annotated[int, "of GRPO that are counted"] = 3,
) -> list[Figure]:
    if device == "cuda" and not torch.cuda.is_available():
        raise Skipped("torch finds no CUDA device here")
    place = torch.device("cuda") if device == "cuda" else STAND_IN
    settle(place)
    tell({"numerics": numerics_class(place)})
    if device != "cuda":
        tell({"skipped": "kernels, memory and use of a GPU", "why": "the processor stands in for one"})
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "vocab_size": 32000}
    heads = {"num_attention_heads": max(1, width // 64), "num_key_value_heads": max(1, width // 256)}
    larger = {**sizes, **heads}
    return [
        *trainer.correctness(tell, place),
        *trainer.sums(tell, place),
        *trainer.sampling(tell, place),
        *trainer.phases(tell, place),
        *served.weights_in_place(tell, place),
        *trainer.speed(tell, place, larger, texts, length, budget),
        *grpo.against_trl(tell, place, larger, prompts, tokens, steps),
    ]
