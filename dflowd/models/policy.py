"""A model in an engine: its parameters, its passes, and its tokenizer."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dflow_protocols.pipeline.models import rotation_limit, scale_of_logits
from dflowd.data.folder import at
from dflowd.jobs.failures import UserError

from .adapters import Adapters
from .attention import Line, Sight, looking
from .description import Description
from .parameters import HOST, Parameters, hash_of
from .recompute import Recompute

BASE = "base"  # folder of a drawn base, in that of its adapters
VALUE_HEAD = "score.weight"  # [1, width], as transformers calls a reward model's


class Policy(Description):
    """A described model with its parameters, float32 and on the host until `compute_in` says otherwise. Raises
    UserError for one that cannot be opened."""

    def __init__(self, name: str, config: Mapping[str, Any], base: Path, seed: int) -> None:
        super().__init__(name, config, base)
        self.device = HOST
        self.model: Any = self._build(seed)
        self.config = self.model.config
        self._adapters = self._adapt(seed)
        self._is_base = False
        self.base_id = b"" if self._adapters is None else hash_of(self.model.named_parameters())
        """Of the weights that adapters belong to, which no version holds; empty without adapters."""
        self.in_line = False
        """Whether texts that are scored and trained on lie one behind the other, or in rows that share prompts."""
        self.model.eval()  # no dropout, in training neither: a gradient is a function of its leaf
        self.model.requires_grad_(False)  # until a gradient is asked for
        whole = self.model.base_model is self.model  # some name a part that they lack
        self.body: nn.Module = self.model.model if whole else self.model.base_model
        self._recompute = Recompute(self.body)
        self._head: Any = self.model.score if self.has_values else self.model.get_output_embeddings()
        self.vocabulary = 0 if self.has_values else int(self._head.weight.shape[0])
        """Tokens that it can say."""
        self.rows = int(self.model.get_input_embeddings().num_embeddings)
        self._scale = scale_of_logits(self.model.config.to_dict())
        self._rotation_limit = rotation_limit(self.model.config.to_dict())
        trained = self.model.named_parameters() if self._adapters is None else self._adapters.named()
        self.parameters = Parameters(name, trained)
        self._home: dict[str, Tensor] = {}  # on the host, what no shard has of a model that is on a device

    def lay_out(self, in_line: bool) -> None:
        """Set `in_line`."""
        self.in_line = in_line

    def recompute(self, wanted: bool | None) -> None:
        """Have each layer's activations made again in backward passes from now on, or kept; None: as the device needs.

        Raises UserError where that is wanted and no layer of the architecture can.
        """
        if wanted and not self._recompute.is_possible:
            raise UserError(
                f"models.{self.name}: a model of type `{self.model.config.model_type}` has no layers that can be "
                "computed again: leave `gradient_checkpointing` out, or lower `micro_batch_tokens`"
            )
        self._recompute.turn(self.device != HOST if wanted is None else wanted)

    def compute_in(self, dtype: torch.dtype, device: torch.device | None = None, is_trained: bool = True) -> None:
        """Pass in `dtype` from now on, rounded to nearest on the host, and on `device`, where one is named. Adapters
        stay float32: they are small, and what a step changes of them smaller.

        `is_trained`: versions have its parameters; else what it has now is kept on the host, too, to come back from.
        """
        device = self.device if device is None else device
        if self._adapters is not None or not (is_trained or device == HOST):
            self._bring_frozen(dtype, device)
        self.parameters.compute_in(torch.float32 if self._adapters is not None else dtype, device)
        self.model.to(device)  # buffers, such as the frequencies of rotary positions, in the dtype that they have
        self.device = device

    def leave(self) -> None:
        """Give the device's memory back. Parameters of versions have to be loaded again, others come back."""
        frozen = dict(self._frozen())
        for name, each in frozen.items():
            each.data = self._home[name]
        if not frozen or self._adapters is not None:
            self.parameters.drop()

    def come_back(self) -> None:
        """Be on the device again, if need be."""
        for name, each in self._frozen():
            if each.device != self.device:
                each.data = self._home[name].to(self.device)

    def _frozen(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters that have a place on the host to come back from."""
        return ((name, each) for name, each in self.model.named_parameters() if name in self._home)

    def _bring_frozen(self, dtype: torch.dtype, device: torch.device) -> None:
        """The model's own parameters. A folder is read once more, so that what lies there in `dtype` is mapped."""
        is_read = "path" in self.source and dtype != torch.float32
        named = dict((self._build(0, dtype) if is_read else self.model).named_parameters())
        for name, each in self.model.named_parameters():
            there = named[name].data.to(dtype)
            if device != HOST:
                self._home[name] = there
            each.data = there.to(device)

    def without_adapters(self, name: str) -> Policy:
        """The base as a model of its own, in the same memory. It is never loaded: its weights are those it has."""
        assert self._adapters is not None
        base = copy.copy(self)
        base.name, base._is_base, base.parameters = name, True, Parameters(name, ())
        return base

    def hidden(self, tokens: Tensor, sight: Sight | Line, cache: Any = None) -> Tensor:
        """Last hidden states [rows, length, width] of `tokens` [rows, length], the last ones of those that `sight`
        tells of. `cache` holds the tokens before them and grows by them."""
        rows, length = tokens.shape
        keys = sight.positions.shape[1]
        off = self._adapters.off() if self._adapters is not None and self._is_base else contextlib.nullcontext()
        with looking(sight), off:
            out = self.body(
                input_ids=tokens,
                position_ids=sight.positions[:, keys - length :],
                attention_mask=tokens.new_ones((rows, keys)),  # or rows would be taken apart where positions restart
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return out.last_hidden_state  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., vocabulary] float32, scaled as the model does it, of last hidden states [..., width]."""
        logits: Tensor = self._head(hidden).float()
        return logits if self._scale == 1 else logits * self._scale

    def values(self, hidden: Tensor) -> Tensor:
        """[...] float32, whatever it passes in, of last hidden states [..., width]. A critic's alone."""
        return functional.linear(hidden.float(), self._head.weight.float())[..., 0]

    def require_length(self, tokens: int) -> None:
        """Raises UserError where a row of so many tokens would change the numbers of the rows beside it."""
        if self._rotation_limit is not None and tokens > self._rotation_limit:
            raise UserError(
                f"models.{self.name}: {tokens} tokens in a text; beyond {self._rotation_limit} the rotary scaling "
                "of this model changes what shorter rows of a batch compute: shorten prompts or max_tokens"
            )

    def require_adapters_reached(self) -> None:
        """After a few passes: raises UserError for an adapter that no pass has come by."""
        for layer in self._adapters.untouched if self._adapters is not None else ():
            raise UserError(
                f"models.{self.name}.lora: this model computes past its layer `{layer}`, so an adapter there would do "
                "nothing: name others in `targets`"
            )

    def save(self, folder: Path) -> None:
        """Write the folder that `from_pretrained` opens; of adapters the one that `PeftModel.from_pretrained` does,
        with a base that was drawn in the folder BASE, as it lies nowhere else."""
        if self._adapters is None:
            self._save_whole(folder)
            return
        self._adapters.save(folder, str(at(self.base, self.source["path"])) if "path" in self.source else BASE)
        self.tokenizer.save_pretrained(folder)
        if "path" not in self.source:
            self._save_whole(folder / BASE)

    def merge(self) -> None:
        """Make the adapters part of the model's own weights: `save` writes a whole model then. For good."""
        assert self._adapters is not None
        own = dict(self.model.named_parameters())
        for name, whole in self._adapters.merged((name, each.detach()) for name, each in own.items()):
            own[name].data = whole.to(own[name].dtype)
        self._adapters.remove()
        self._adapters = None

    def _adapt(self, seed: int) -> Adapters | None:
        """The model's adapters, where the spec asks for some."""
        settings = self.source.get("lora")
        return None if settings is None else Adapters(self.model, settings, seed, f"models.{self.name}.lora")

    def _save_whole(self, folder: Path) -> None:
        generation = getattr(self.model, "generation_config", None)  # a critic generates nothing
        if generation is not None and not generation.do_sample:
            try:  # a temperature without `do_sample` can be opened everywhere, and not be saved by every release
                generation.validate(strict=True)
            except ValueError:
                generation.do_sample = True
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _build(self, seed: int, dtype: torch.dtype = torch.float32) -> Any:
        torch.manual_seed(seed)
        options = {"config": copy.deepcopy(self.config), "dtype": dtype, "attn_implementation": "sdpa"}
        with self.opening(self.place):
            if "path" in self.source:
                opened: Any = self.opener.from_pretrained(
                    at(self.base, self.place), local_files_only=True, output_loading_info=True, **options
                )
            else:
                opened = self.opener.from_config(**options), {}
        model, told = opened
        kinds = ("missing", "mismatched", "unexpected")
        wrong = {kind: sorted(map(str, told.get(f"{kind}_keys", ()))) for kind in kinds}
        if self.has_values:
            wrong = self._begin_values(model, wrong)
        for kind, names in wrong.items():
            if names:
                raise UserError(
                    f"models.{self.name}: {self.place}: {len(names)} {kind} weights, such as {names[0]}: its "
                    "config.json describes another model than its weights; make the two agree"
                )
        return model

    def _begin_values(self, model: Any, wrong: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Give a critic that begins as a language model a head of zeros: it expects nothing until it has learnt, and
        what it says first is no chance's. Returns what is wrong with its weights even so, as `wrong`: by kind."""
        if dict(model.named_parameters()).keys().isdisjoint({VALUE_HEAD}):
            kind = model.config.model_type
            raise UserError(f"models.{self.name}: a model of type `{kind}` has no `{VALUE_HEAD}`: leave `head` out")
        if "path" in self.source and VALUE_HEAD not in wrong["missing"]:
            return dict(wrong)
        nn.init.zeros_(model.score.weight)
        body = f"{model.base_model_prefix}."
        return {
            "missing": [name for name in wrong["missing"] if name != VALUE_HEAD],
            "mismatched": wrong["mismatched"],
            "unexpected": [name for name in wrong["unexpected"] if name.startswith(body)],  # the others are its head
        }
