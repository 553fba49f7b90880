"""A model in an engine: its parameters, its passes, and its tokenizer."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor, nn

from dflow_protocols.pipeline.models import (
    Facts,
    context_of,
    end_tokens,
    rotation_limit,
    rules_of_sampling,
    scale_of_logits,
    unsupported,
)
from dflowd.data.prompts import settle_template
from dflowd.jobs.failures import HostError, UserError, one_line

from .adapters import Adapters
from .attention import Line, Sight, looking
from .parameters import Parameters
from .recompute import Recompute

BASE = "base"  # folder of a drawn base, in that of its adapters


class Policy:
    """A causal language model of the spec's `models` section. Raises UserError for one that cannot be opened."""

    def __init__(self, name: str, config: Mapping[str, Any], base: Path, seed: int, device: torch.device) -> None:
        self.name = name
        self.device = device
        self._source = config
        self._base = base
        self._generation = self._generation_facts()
        self.model: Any = self._build(seed)
        self.tokenizer: Any = self._open_tokenizer()
        self.context = context_of(self.model.config.to_dict())
        """Tokens that a prompt and its completion may have together; None: no bound is known."""
        self._adapters = self._adapt(seed)
        self._is_base = False
        self.base_id = b"" if self._adapters is None else _hash_of(self.model)
        """Of the weights that adapters belong to, which no version holds; empty without adapters."""
        self.in_line = False
        """Whether texts that are scored and trained on lie one behind the other, or in rows that share prompts."""
        self.model.to(device)
        self.model.eval()  # no dropout, in training neither: a gradient is a function of its leaf
        self.model.requires_grad_(False)  # until a gradient is asked for
        whole = self.model.base_model is self.model  # some name a part that they lack
        self.body: nn.Module = self.model.model if whole else self.model.base_model
        self._recompute = Recompute(self.body)
        self._head: Any = self.model.get_output_embeddings()
        self.vocabulary = int(self._head.weight.shape[0])
        self._scale = scale_of_logits(self.model.config.to_dict())
        self._rotation_limit = rotation_limit(self.model.config.to_dict())
        trained = self.model.named_parameters() if self._adapters is None else self._adapters.on(device)
        self.parameters = Parameters(name, trained, device)

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
        self._recompute.turn(self.device.type != "cpu" if wanted is None else wanted)

    @property
    def stops(self) -> tuple[int, ...]:
        """Tokens that end a completion: those that config, generation config and tokenizer name, together."""
        named: Facts = {"eos_token_id": self.model.config.eos_token_id}
        return end_tokens(named, self._generation, {"eos_token_id": self.tokenizer.eos_token_id})

    @property
    def never_sampled(self) -> int | None:
        """The padding token, unless completions end with it."""
        pad = self.tokenizer.pad_token_id
        return None if pad is None or pad in self.stops else int(pad)

    def compute_in(self, dtype: torch.dtype) -> None:
        """Pass in `dtype` from now on, rounded to nearest. Adapters stay float32: they are small, and what a step
        changes of them smaller."""
        if self._adapters is None:
            self.parameters.compute_in(dtype)
            return
        is_read = "path" in self._source  # once more, so that what lies there in this dtype is mapped, not copied
        named = dict((self._build(0, dtype) if is_read else self.model).named_parameters())
        for name, each in self.model.named_parameters():
            each.data = named[name].data.to(self.device, dtype)

    def without_adapters(self, name: str) -> Policy:
        """The base as a model of its own, in the same memory. It is never loaded: its weights are those it has."""
        assert self._adapters is not None
        base = copy.copy(self)
        base.name, base._is_base, base.parameters = name, True, Parameters(name, (), self.device)
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
        self._adapters.save(folder, str(self._base / self._source["path"]) if "path" in self._source else BASE)
        self.tokenizer.save_pretrained(folder)
        if "path" not in self._source:
            self._save_whole(folder / BASE)

    def merge(self) -> None:
        """Make the adapters part of the model's own weights: `save` writes a whole model then. For good."""
        assert self._adapters is not None
        own = dict(self.model.named_parameters())
        for name, whole in self._adapters.merged():
            own[name].data = whole
        self._adapters.remove()
        self._adapters = None

    def _adapt(self, seed: int) -> Adapters | None:
        """The model's adapters, where the spec asks for some."""
        settings = self._source.get("lora")
        return None if settings is None else Adapters(self.model, settings, seed, f"models.{self.name}.lora")

    def _save_whole(self, folder: Path) -> None:
        generation = self.model.generation_config
        if generation is not None and not generation.do_sample:
            try:  # a temperature without `do_sample` can be opened everywhere, and not be saved by every release
                generation.validate(strict=True)
            except ValueError:
                generation.do_sample = True
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _build(self, seed: int, dtype: torch.dtype = torch.float32) -> Any:
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

        torch.manual_seed(seed)
        options = {"dtype": dtype, "attn_implementation": "sdpa"}
        place = self._source["path"] if "path" in self._source else self._source["init"]["config"]
        with self._opening(place):
            config = AutoConfig.from_pretrained(self._base / place, local_files_only=True)
        for unfit in (*unsupported(config.to_dict()), *rules_of_sampling(self._generation)):
            raise UserError(f"models.{self.name}: {place}: {unfit.what}; {unfit.hint}")
        if not getattr(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), "_supports_sdpa", False):
            raise UserError(
                f"models.{self.name}: {place}: a model of type `{config.model_type}` has no attention by scaled dot "
                "products in transformers: not supported; take another architecture"
            )
        with self._opening(place):
            if "path" in self._source:
                opened: Any = AutoModelForCausalLM.from_pretrained(
                    self._base / place, config=config, local_files_only=True, output_loading_info=True, **options
                )
            else:
                opened = AutoModelForCausalLM.from_config(config, **options), {}  # type: ignore[no-untyped-call]
        model, told = opened
        for what in ("missing", "mismatched", "unexpected"):
            if names := sorted(map(str, told.get(f"{what}_keys", ()))):
                raise UserError(
                    f"models.{self.name}: {place}: {len(names)} {what} weights, such as {names[0]}: its config.json "
                    "describes another model than its weights; make the two agree"
                )
        return model

    def _generation_facts(self) -> Facts:
        """What `generation_config.json` of a model's folder says; transformers takes a broken one for none."""
        file = self._base / self._source.get("path", "") / "generation_config.json"
        if "path" not in self._source or not file.is_file():
            return {}
        with self._opening(f"{self._source['path']}/{file.name}"):
            facts: Facts = json.loads(file.read_text(encoding="utf-8"))
        return facts

    def _open_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        folder = self._source["path"] if "path" in self._source else self._source["init"]["tokenizer"]
        with self._opening(folder):
            tokenizer = AutoTokenizer.from_pretrained(self._base / folder, local_files_only=True)
        if tokenizer.eos_token_id is None:
            raise UserError(f"models.{self.name}: {folder}: the tokenizer has no eos token; set `eos_token` there")
        settle_template(tokenizer)
        return tokenizer

    @contextlib.contextmanager
    def _opening(self, place: str) -> Iterator[None]:
        """What a library says of a file that the spec names is told with its place, as the user's to mend; what is
        no matter of the file's contents is the host's."""
        try:
            yield
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            told = f"models.{self.name}: {place} cannot be opened: {one_line(error)}"
            if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is not None):
                raise HostError(told) from error
            raise UserError(f"{told}; look at the file, or take the model's folder anew") from error


def _hash_of(model: Any) -> bytes:
    """BLAKE3 of all parameters: names, shapes, dtypes, bytes."""
    hasher = blake3(max_threads=blake3.AUTO)
    for name, each in sorted(model.named_parameters(), key=lambda item: item[0]):
        hasher.update(f"{name} {each.dtype} {tuple(each.shape)}\n".encode())
        hasher.update(each.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hasher.digest()
