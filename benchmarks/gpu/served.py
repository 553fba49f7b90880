"""What gpu/check asks of vLLM: weights that change where they lie, also under captured graphs, and while it sleeps."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.figure import Figure, Goal, Tell
from dflowd.models.sampling import Sampler, seats_of

from .trainer import SIZES, differences, opened, texts

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}


def weights_in_place(tell: Tell, device: torch.device) -> Iterator[Figure]:
    """Log-probabilities that vLLM samples with, against the trainer's float32 of the weights that it was given last.
    Those of the weights before are far from them, so one that stayed would show."""
    if importlib.util.find_spec("vllm") is None:
        tell({"skipped": "weights in place with graphs", "why": "vLLM is not installed here"})
        return
    from dflowd.models.served.vllm_server import Server

    first, second = (opened("llama", WIDE, seed) for seed in (5, 6))
    prompts = [row.tolist() for row in texts(SIZES["vocab_size"], 8, 64).prompts]
    server = Server(first)
    off: dict[str, Any] = {}
    for turn, policy in enumerate((first, second, first)):
        server.serve((str(turn),), policy.model.named_parameters)
        spoken = server.begin(prompts, seats_of(0, len(prompts), 2, 16), Sampler(key=b"check.py"))
        while not spoken.is_over:
            server.step()
        made = spoken.completions()
        other = second if policy is first else first
        off[f"after change {turn}"] = float(np.abs(differences(policy, prompts, made)).max())
        off["by the weights before"] = float(np.abs(differences(other, prompts, made)).mean())
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            server.sleep()
            off["GB that its sleep gave back"] = (torch.cuda.mem_get_info(device)[0] - free) / 1e9
    if device.type != "cuda":
        tell({"skipped": "sleep and wake", "why": "vLLM sleeps on a GPU alone"})
    server.close()
    tell({"vLLM": "weights in place", **off})
    most = max(value for name, value in off.items() if name.startswith("after"))
    yield Figure("vLLM: distance of a log-probability after a change", "nats, at most", most, goal=Goal(1e-3))
    if device.type == "cuda":
        yield Figure("vLLM: what its sleep gave back", "GB", off["GB that its sleep gave back"], goal=Goal(1, True))
    before = off["by the weights before"]
    yield Figure("vLLM: distance by the weights before", "nats, mean", before, goal=Goal(0.1, is_least=True))
