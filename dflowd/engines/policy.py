"""A model in an engine: its parameters as one flat vector, loaded by shard, and its tokenizer.

The flat layout is the shard's: float32, names sorted, tied parameters once. Every parameter is a view into it, and
every gradient a view into a second one, so loading and reading gradients are single copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .contract import UserError, one_line

_BETWEEN_HEAD_AND_LOSS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_NEUTRAL = (None, 0, 0.0, 1, 1.0)


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
        self.body: nn.Module = self.model.base_model
        self.head: nn.Module = self.model.get_output_embeddings()
        self.loaded = ""  # id of the shard that the parameters came from
        self._flatten()

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
        """Take the parameters of a shard, unless they are here already."""
        if self.loaded == shard:
            return
        values = np.frombuffer(vector, np.float32)
        if len(values) != self.parameters.numel():
            raise ValueError(f"{len(values)} values for the {self.parameters.numel()} parameters of {self.name}")
        self.loaded = ""
        with torch.no_grad():
            if self.device.type == "cpu":
                np.copyto(self.parameters.numpy(), values)
            else:
                self.parameters.copy_(torch.from_numpy(values.copy()))
        self.loaded = shard

    def vector(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The parameters, [P], to be copied before the next load."""
        return np.asarray(self.parameters.detach().cpu().numpy())

    def gradient(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What backward passes summed since `clear_gradient`, [P], to be copied before the next one."""
        return np.asarray(self.gradients.cpu().numpy())

    def clear_gradient(self) -> None:
        self.gradients.zero_()

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

    def _flatten(self) -> None:
        model = self.model.to(self.device)
        model.eval()  # no dropout, in training neither: a gradient is a function of its leaf
        named = sorted(model.named_parameters(), key=lambda item: item[0])
        total = sum(parameter.numel() for _, parameter in named)
        self.parameters = torch.empty(total, dtype=torch.float32, device=self.device)
        self.gradients = torch.zeros(total, dtype=torch.float32, device=self.device)
        at = 0
        for _, parameter in named:
            piece = slice(at, at + parameter.numel())
            self.parameters[piece].copy_(parameter.detach().reshape(-1))
            parameter.data = self.parameters[piece].view(parameter.shape)
            parameter.grad = self.gradients[piece].view(parameter.shape)
            at = piece.stop
