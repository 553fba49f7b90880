"""A model whose own weights stay as they are, for who needs no pass of it: they are handed on one at a time, each with
its adapter in it.

A base in a folder is read from where it lies: its pages are the kernel's to drop, so that whoever is given the tensors
has the only copy. One that was drawn lies nowhere, and is held as a model; so is one whose files name or cut its
parameters otherwise than the model does, since only the library knows what becomes of those.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dflowd.data.folder import at
from dflowd.models.adapters import Adapters
from dflowd.models.description import Description
from dflowd.models.parameters import Parameters, hash_of
from dflowd.models.policy import Policy

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


class Frozen:
    """`parameters`: its adapters, none where it is not trained. Raises UserError for a model that cannot be opened."""

    def __init__(self, description: Description, seed: int, device: torch.device) -> None:
        self.name = description.name
        self._device = device
        settings = description.source.get("lora")
        self._adapters = (
            None if settings is None else Adapters(description.outline, settings, seed, f"models.{self.name}.lora")
        )
        self.parameters = Parameters(self.name, () if self._adapters is None else self._adapters.named())
        self.parameters.compute_in(torch.float32, device)
        self._lying = _lying(description) or _held(description, seed)

    @cached_property
    def base_id(self) -> bytes:
        """As of a policy (models/policy.py); of one without adapters what it has as the base of others."""
        return hash_of(self._lying.items())

    def whole(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters by their names, tied ones once, each with its adapter in it. Until the last one is taken the
        shard of the adapters has to stay."""
        if self._adapters is None:
            yield from self._lying.items()
        else:
            yield from self._adapters.merged((name, each.to(self._device)) for name, each in self._lying.items())


def _lying(description: Description) -> Mapping[str, Tensor]:
    """A folder's weights by the names of the model's parameters, mapped; {} where its files do not tell them so."""
    from safetensors import SafetensorError, safe_open

    if "path" not in description.source:
        return {}
    folder = at(description.base, description.place)
    found: dict[str, Tensor] = {}
    known = description.outline.state_dict().keys()  # tied ones by each of their names
    with suppress(OSError, ValueError, SafetensorError):  # the library says what is wrong with them
        for file in _files(folder):
            with safe_open(file, framework="pt") as opened:
                if not known >= set(opened.keys()):
                    return {}
                names = description.shapes.keys() & set(opened.keys())
                found |= {name: opened.get_tensor(name) for name in names}
    is_told = all(name in found and found[name].shape == shape for name, shape in description.shapes.items())
    return {name: found[name] for name in description.shapes} if is_told else {}


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return sorted({folder / name for name in index["weight_map"].values()})


def _held(description: Description, seed: int) -> Mapping[str, Tensor]:
    """The weights of a model that is opened or drawn, as every engine does it."""
    source = {key: value for key, value in description.source.items() if key != "lora"}
    policy = Policy(description.name, source, description.base, seed)
    return {name: each.detach() for name, each in policy.model.named_parameters()}
