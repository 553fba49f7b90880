"""Low-rank adapters (LoRA, arXiv 2106.09685): what is trained of a model whose own weights stay as they are.

A layer y = W x becomes y = W x + (alpha / rank) B A x. The layer itself is left alone: a hook adds to what it gives, so
the base keeps its names, its bytes and its memory, and a pass without the hooks is a pass of the base. On disk they are
a folder of the library `peft`, by its names; none of its code computes here, so no bit depends on its release.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dflowd.jobs.counter_random import digest, stream
from dflowd.jobs.failures import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of names in peft's files


@dataclass(frozen=True, slots=True)
class Adapter:
    """Of one layer. a: [rank, inputs], b: [outputs, rank], float32."""

    layer: nn.Module
    a: nn.Parameter
    b: nn.Parameter

    @property
    def is_turned(self) -> bool:
        """Whether the layer keeps its weight as [inputs, outputs], as transformers' Conv1D does."""
        return not isinstance(self.layer, nn.Linear)


class Adapters:
    """Of a model's layers, by their names. `settings`: the spec's `lora`. A is drawn from `seed`, B is 0: the model is
    its base at first. Raises UserError, beginning with `place`, for targets that the model has not."""

    def __init__(self, model: Any, settings: Mapping[str, Any], seed: int, place: str) -> None:
        self._settings = settings
        self._place = place
        self.scale = float(settings["alpha"]) / int(settings["rank"])
        self._layers: dict[str, Adapter] = {}
        self._is_on = True
        hooks = []
        for name, layer in _targets(model, settings["targets"], place):
            inputs, outputs = _shape(layer)
            drawn = stream(digest("lora", seed, name), int(settings["rank"]) * inputs).reshape(-1, inputs)
            a = nn.Parameter(torch.from_numpy(drawn) / math.sqrt(inputs), requires_grad=False)
            b = nn.Parameter(torch.zeros(outputs, len(a)), requires_grad=False)
            self._layers[name] = Adapter(layer, a, b)
            hooks.append(layer.register_forward_hook(partial(self._add, name)))
        self._hooks = hooks
        self._untouched = set(self._layers)

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """By the names of peft's files, less PREFIX."""
        for name, adapter in self._layers.items():
            yield f"{name}.lora_A.weight", adapter.a
            yield f"{name}.lora_B.weight", adapter.b

    def remove(self) -> None:
        """The model is its base again."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Passes are the base's."""
        before, self._is_on = self._is_on, False
        try:
            yield
        finally:
            self._is_on = before

    @property
    def untouched(self) -> Sequence[str]:
        """Layers that no pass has called so far: where a model reads a weight past its layer, an adapter is in vain."""
        return sorted(self._untouched)

    def merged(self, named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The base's parameters, one at a time, each together with its adapter, in float32; itself where it has none.
        Raises UserError where an adapter is left over in the end."""
        left = set(self._layers)
        for name, weight in named:
            layer = name.removesuffix(".weight")
            left.discard(layer)
            yield name, self._changed(self._layers[layer], weight) if layer in self._layers else weight
        for layer in sorted(left):
            raise UserError(
                f"{self._place}: layer `{layer}` has no weight of its own, so its adapter cannot be merged into it; "
                "name others in `targets`"
            )

    def _changed(self, adapter: Adapter, weight: Tensor) -> Tensor:
        change = self.scale * (adapter.b.detach() @ adapter.a.detach())
        return weight.float() + (change.T if adapter.is_turned else change)

    def save(self, folder: Path, base: str) -> None:
        """Write what `PeftModel.from_pretrained` opens. `base`: where the base lies, as far as it is known."""
        from safetensors.torch import save_file

        tensors = {f"{PREFIX}{name}": each.detach().cpu().clone() for name, each in self.named()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        alpha = float(self._settings["alpha"])
        told = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": int(self._settings["rank"]),
            "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
            "target_modules": sorted({name.rpartition(".")[2] for name in self._layers})
            if self._settings["targets"] is None
            else sorted(self._settings["targets"]),
            "fan_in_fan_out": all(adapter.is_turned for adapter in self._layers.values()),
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
        }
        (folder / CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

    def _add(self, name: str, layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        """Called behind the layer's own forward; None: its output stays."""
        self._untouched.discard(name)
        if not self._is_on:
            return None
        adapter = self._layers[name]
        low = functional.linear(given[0].to(adapter.a.dtype), adapter.a)
        return (out + functional.linear(low, adapter.b) * self.scale).to(out.dtype)


def _targets(model: Any, targets: Sequence[str] | None, place: str) -> list[tuple[str, nn.Module]]:
    """The layers that get adapters, sorted by their names; the head, whose weight may be the embedding's, is none."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    linear = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head
    }
    found = set(linear) if targets is None else set()
    for target in targets or ():
        hit = {name for name in linear if name == target or name.endswith(f".{target}")}
        if not hit:
            ends = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise UserError(f"{place}.targets: the model has no linear layer `{target}` below its head; it has {ends}")
        found |= hit
    if not found:
        raise UserError(f"{place}: the model has no linear layer below its head")
    return sorted((name, linear[name]) for name in found)


def _shape(layer: Any) -> tuple[int, int]:
    """(inputs, outputs)"""
    first, second = layer.weight.shape
    return (second, first) if isinstance(layer, nn.Linear) else (first, second)
