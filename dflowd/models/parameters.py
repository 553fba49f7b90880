"""A model's parameters as one flat vector: what a shard of them means, and where their gradients are summed.

A shard's layout is float32, names sorted, tied parameters once. A model that computes in float32 on the CPU has every
parameter as a view into the mapped shard, and every gradient as a view into the vector that is summed, so neither
loading nor summing copies anything. In bfloat16, and on a GPU, it has a copy of its own to compute with, made anew in
the same memory at each load, on a GPU through pinned buffers; what is summed stays float32. Of a model with adapters
these are the parameters, and the model's own weights, its base, never change.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

from .transfer import up

_ALIGNMENT = 64  # bytes: a mapping's pages have it; bits may depend on it, so what has not is copied

Vector = np.ndarray[Any, np.dtype[np.float32]]

HOST = torch.device("cpu")
"""Where shards lie. A device is any other."""

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""By the words of a spec."""


class Parameters:
    """What is trained of an opened model, float32 on the host until `compute_in` says otherwise."""

    def __init__(self, name: str, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        self._name = name
        self._device = HOST
        self._dtype = torch.float32
        ordered = sorted(named, key=lambda item: item[0])
        self._parameters: list[tuple[nn.Parameter, torch.Size]] = [(each, each.shape) for _, each in ordered]
        self.size = sum(shape.numel() for _, shape in self._parameters)
        self._loaded: tuple[str, ...] = ()  # ids of the shards that they came from
        self._own: Tensor | None = None  # [P], what they are views of where the shard's memory does not do
        self._hooks: list[Any] = []

    def compute_in(self, dtype: torch.dtype, device: torch.device) -> None:
        """Have all parameters in `dtype` on `device` from now on, rounded to nearest before they go there."""
        if (dtype, device) == (self._dtype, self._device):
            return
        self._dtype, self._device, self._loaded, self._own = dtype, device, (), None
        for parameter, _ in self._parameters:
            parameter.data = parameter.data.to(dtype).to(device)

    def load(self, shards: tuple[str, ...], vector: memoryview) -> None:
        """Take the values that lie in these shards. Where they can be views into `vector`, they are until `unload`.

        Raises ValueError where they are not as many as the model has.
        """
        if self._loaded == shards:
            return
        values = np.frombuffer(vector, np.float32)
        if len(values) != self.size:
            raise ValueError(f"{len(values)} values for the {self.size} parameters of {self._name}")
        flat = _tensor(values)
        if self._is_copied or values.ctypes.data % _ALIGNMENT:
            if self._own is None:
                self._own = torch.empty(self.size, dtype=self._dtype, device=self._device)
            if self._device == HOST:
                self._own.copy_(flat)
            else:
                up(flat, self._own)
            flat = self._own
        for parameter, piece in zip(self._parameters, self._pieces(flat), strict=True):
            parameter[0].data = piece
        self._loaded = shards

    def unload(self) -> None:
        """Let go of a mapped shard, whose memory is its store's to use again. Load before any further use."""
        if self._loaded and not self._is_copied:
            self.drop()

    def drop(self) -> None:
        """Give back all memory, also that of a device. Load before any further use."""
        for parameter, _ in self._parameters:
            parameter.data = torch.empty(0, dtype=self._dtype, device=self._device)
        self._loaded, self._own = (), None

    def write(self, vector: Vector, progress: Callable[[], None] = lambda: None) -> None:
        """Write the values into `vector`, [P]; `progress` is called after each."""
        for (parameter, _), piece in zip(self._parameters, self._pieces(torch.from_numpy(vector)), strict=True):
            piece.copy_(parameter.detach())
            progress()

    def begin_gradient(self, total: Vector | Tensor) -> None:
        """Backward passes add to `total`, [P] float32 on the device that it computes on, until `end_gradient`; each
        makes one addition an element.

        A pass in bfloat16 gives each parameter's gradient rounded to it; passes are added up in float32.
        """
        flat = total if isinstance(total, Tensor) else torch.from_numpy(total)
        for (parameter, _), piece in zip(self._parameters, self._pieces(flat), strict=True):
            parameter.requires_grad_(True)
            if self._dtype == torch.float32:
                parameter.grad = piece
            else:
                adding: Any = parameter.register_post_accumulate_grad_hook  # without types in torch 2.13
                self._hooks.append(adding(_adding_to(piece)))

    def end_gradient(self) -> None:
        """What was given to `begin_gradient` is let go of."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for parameter, _ in self._parameters:
            parameter.grad = None
            parameter.requires_grad_(False)

    @property
    def _is_copied(self) -> bool:
        return self._device != HOST or self._dtype != torch.float32

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat vector [P] in the parameters' shapes and order."""
        parts = torch.split(flat, [shape.numel() for _, shape in self._parameters])
        return [part.view(shape) for part, (_, shape) in zip(parts, self._parameters, strict=True)]


def hash_of(named: Iterable[tuple[str, Tensor]]) -> bytes:
    """BLAKE3 of parameters on the CPU as float32: names, shapes, bytes, in the order of their names."""
    hasher = blake3(max_threads=blake3.AUTO)
    for name, each in sorted(named, key=lambda item: item[0]):
        hasher.update(f"{name} {torch.float32} {tuple(each.shape)}\n".encode())
        values: Any = each.detach().float().contiguous().reshape(-1).view(torch.uint8).numpy()
        hasher.update(values)
    return hasher.digest()


def by_names(shapes: Mapping[str, torch.Size], vector: memoryview) -> Iterator[tuple[str, Tensor]]:
    """Views of a shard's vector, [P] float32, by the names of parameters whose `shapes` are in a shard's order. Raises
    ValueError where they are not as many as there are values."""
    flat = _tensor(np.frombuffer(vector, np.float32))
    parts = torch.split(flat, [shape.numel() for shape in shapes.values()])
    return ((name, part.view(shape)) for (name, shape), part in zip(shapes.items(), parts, strict=True))


def _adding_to(piece: Tensor) -> Callable[[Tensor], None]:
    """Takes a parameter's gradient of one pass away from it and adds it to `piece`."""

    def take(parameter: Tensor) -> None:
        assert parameter.grad is not None
        piece.add_(parameter.grad)
        parameter.grad = None

    return take


def _tensor(values: Vector) -> Tensor:
    """A view of memory that may be read-only; nothing ever writes to a parameter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)
