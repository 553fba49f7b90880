"""A model in an engine: its parameters by shard, and its tokenizer.

A shard's layout is flat: float32, names sorted, tied parameters once. On the CPU every parameter is a view into the
mapped shard, and every gradient a view into the vector that is summed, so neither loading nor summing copies anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .contract import UserError, one_line

_BETWEEN_HEAD_AND_LOSS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_NEUTRAL = (None, 0, 0.0, 1, 1.0)
_ALIGNMENT = 64  # bytes: a mapping's pages have it; bits may depend on it, so what has not is copied

Vector = np.ndarray[Any, np.dtype[np.float32]]


class Policy:
    """A causal language model of the spec's `models` section. Raises UserError for one that cannot be opened."""

    def __init__(self, name: str, config: Mapping[str, Any], base: Path, seed: int, device: torch.device) -> None:
        self.name = name
        self.device = device
        self._source = config
        self._base = base
        try:
            self.model: Any = self._build(seed)
            self.tokenizer: Any = self._open_tokenizer()
        except Exception as error:
            raise UserError(f"models.{name}: {one_line(error)}") from error
        for key in _BETWEEN_HEAD_AND_LOSS:
            if getattr(self.model.config, key, None) not in _NEUTRAL:
                raise UserError(f"models.{name}: a config with `{key}` is not supported")
        if self.tokenizer.eos_token_id is None:
            raise UserError(f"models.{name}: the tokenizer has no eos token")
        self.model.to(device)
        self.model.eval()  # no dropout, in training neither: a gradient is a function of its leaf
        self.model.requires_grad_(False)  # until a gradient is asked for
        self.body: nn.Module = self.model.base_model
        self.head: nn.Module = self.model.get_output_embeddings()
        named = sorted(self.model.named_parameters(), key=lambda item: item[0])
        self._parameters: list[tuple[nn.Parameter, torch.Size]] = [(each, each.shape) for _, each in named]
        self.size = sum(shape.numel() for _, shape in self._parameters)
        self._loaded = ""  # id of the shard that the parameters came from
        self._gradient: Tensor | None = None

    @property
    def stops(self) -> tuple[int, ...]:
        """Tokens that end a completion."""
        eos = self.model.config.eos_token_id
        found = eos if isinstance(eos, list | tuple) else [eos]
        return tuple(sorted({int(token) for token in [*found, self.tokenizer.eos_token_id] if token is not None}))

    @property
    def never_sampled(self) -> int | None:
        """The padding token, unless completions end with it."""
        pad = self.tokenizer.pad_token_id
        return None if pad is None or pad in self.stops else int(pad)

    def load(self, shard: str, vector: memoryview) -> None:
        """Take the parameters of a shard. On the CPU they are views into it until `unload`."""
        if self._loaded == shard:
            return
        values = np.frombuffer(vector, np.float32)
        if len(values) != self.size:
            raise ValueError(f"{len(values)} values for the {self.size} parameters of {self.name}")
        if self.device.type != "cpu" or values.ctypes.data % _ALIGNMENT:
            flat = torch.empty(self.size, dtype=torch.float32, device=self.device).copy_(_tensor(values))
        else:
            flat = _tensor(values)
        for parameter, piece in zip(self._parameters, self._pieces(flat), strict=True):
            parameter[0].data = piece
        self._loaded = shard

    def unload(self) -> None:
        """Let go of a mapped shard, whose memory is its store's to use again. Load before any further use."""
        if self._loaded and self.device.type == "cpu":
            nothing = torch.empty(0)
            for parameter, _ in self._parameters:
                parameter.data = nothing
            self._loaded = ""

    def write(self, vector: Vector) -> None:
        """Write the parameters into `vector`, [P]."""
        for (parameter, _), piece in zip(self._parameters, self._pieces(torch.from_numpy(vector)), strict=True):
            piece.copy_(parameter.detach())

    def begin_gradient(self, total: Vector) -> None:
        """Backward passes add to `total`, [P], which holds zeros, until `end_gradient`."""
        on_cpu = self.device.type == "cpu"
        self._gradient = torch.from_numpy(total) if on_cpu else torch.zeros(self.size, device=self.device)
        for (parameter, _), piece in zip(self._parameters, self._pieces(self._gradient), strict=True):
            parameter.requires_grad_(True)
            parameter.grad = piece

    def end_gradient(self, total: Vector) -> None:
        """`total`, that of `begin_gradient`, is complete."""
        assert self._gradient is not None
        if self.device.type != "cpu":
            np.copyto(total, self._gradient.cpu().numpy())
        self._gradient = None
        for parameter, _ in self._parameters:
            parameter.grad = None
            parameter.requires_grad_(False)

    def hidden(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: Any = None) -> Tensor:
        """Last hidden states [rows, length, width] of `tokens` [rows, length] at `positions`, alike.

        `mask`: [rows, 1, length, keys] bool, True where a token may look. `cache` grows by these tokens.
        """
        out = self.body(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        """Write the folder that `from_pretrained` opens."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _build(self, seed: int) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(seed)
        options = {"dtype": torch.float32, "attn_implementation": "sdpa"}
        if "path" in self._source:
            folder = self._base / self._source["path"]
            return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options)
        config = AutoConfig.from_pretrained(self._base / self._source["init"]["config"])
        return AutoModelForCausalLM.from_config(config, **options)  # type: ignore[no-untyped-call]

    def _open_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        folder = self._source["path"] if "path" in self._source else self._source["init"]["tokenizer"]
        return AutoTokenizer.from_pretrained(self._base / folder, local_files_only=True)

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat vector [P] in the parameters' shapes and order."""
        parts = torch.split(flat, [shape.numel() for _, shape in self._parameters])
        return [part.view(shape) for part, (_, shape) in zip(parts, self._parameters, strict=True)]


def _tensor(values: Vector) -> Tensor:
    """A view of memory that may be read-only; nothing ever writes to a parameter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)
