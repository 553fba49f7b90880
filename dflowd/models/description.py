"""A model as its files describe it, without its weights: what it reads and writes, and how long its texts may be."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dflow_protocols.pipeline.models import Facts, context_of, end_tokens, rules_of_sampling, unsupported
from dflowd.data.folder import at
from dflowd.data.prompts import settle_template
from dflowd.jobs.failures import HostError, UserError, one_line


class Description:
    """A model of the spec's `models` section: a causal language model, or a critic, which has the body of one and a
    value head. Raises UserError for one that cannot be opened.

    `config`: transformers' own, defaults filled in.
    """

    def __init__(self, name: str, source: Mapping[str, Any], base: Path) -> None:
        self.name = name
        self.source = source
        self.base = base
        self._generation = self._generation_facts()
        self.config: Any = self._open_config()
        self.tokenizer: Any = self._open_tokenizer()
        self.context = context_of(self.config.to_dict())
        """Tokens that a prompt and its completion may have together; None: no bound is known."""

    @property
    def has_values(self) -> bool:
        """Whether it is a critic: it says a value of each token's state, and no token."""
        return self.source.get("head") == "value"

    @property
    def opener(self) -> Any:
        """The class of transformers that opens it. A critic is what a reward model is there: one row over the body."""
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        return AutoModelForSequenceClassification if self.has_values else AutoModelForCausalLM

    @property
    def place(self) -> str:
        """Where its configuration lies, from `base`."""
        return str(self.source["path"] if "path" in self.source else self.source["init"]["config"])

    @property
    def stops(self) -> tuple[int, ...]:
        """Tokens that end a completion: those that config, generation config and tokenizer name, together."""
        named: Facts = {"eos_token_id": self.config.eos_token_id}
        return end_tokens(named, self._generation, {"eos_token_id": self.tokenizer.eos_token_id})

    @property
    def never_sampled(self) -> int | None:
        """The padding token, unless completions end with it."""
        pad = self.tokenizer.pad_token_id
        return None if pad is None or pad in self.stops else int(pad)

    @cached_property
    def shapes(self) -> Mapping[str, torch.Size]:
        """Of its parameters, tied ones once, by their names, sorted: the layout of a shard."""
        return {name: each.shape for name, each in sorted(self.outline.named_parameters())}

    @cached_property
    def rows(self) -> int:
        """Tokens that it can read."""
        return int(self.outline.get_input_embeddings().num_embeddings)

    @cached_property
    def outline(self) -> Any:
        """The model without memory for its parameters."""
        with torch.device("meta"):
            return self.opener.from_config(self.config)

    def _open_config(self) -> Any:
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig

        with self.opening(self.place):
            config = AutoConfig.from_pretrained(at(self.base, self.place), local_files_only=True)
        for unfit in (*unsupported(config.to_dict()), *rules_of_sampling(self._generation)):
            raise UserError(f"models.{self.name}: {self.place}: {unfit.what}; {unfit.hint}")
        if not getattr(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), "_supports_sdpa", False):
            raise UserError(
                f"models.{self.name}: {self.place}: a model of type `{config.model_type}` has no attention by scaled "
                "dot products in transformers: not supported; take another architecture"
            )
        if self.has_values:
            if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
                raise UserError(
                    f"models.{self.name}: {self.place}: transformers puts no other head on a model of type "
                    f"`{config.model_type}`: leave `head` out, or take another architecture"
                )
            config.num_labels = 1
        return config

    def _generation_facts(self) -> Facts:
        """What `generation_config.json` of a model's folder says; transformers takes a broken one for none."""
        file = at(self.base, self.source.get("path", "")) / "generation_config.json"
        if "path" not in self.source or not file.is_file():
            return {}
        with self.opening(f"{self.source['path']}/{file.name}"):
            facts: Facts = json.loads(file.read_text(encoding="utf-8"))
        return facts

    def _open_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        folder = self.source["path"] if "path" in self.source else self.source["init"]["tokenizer"]
        with self.opening(folder):
            tokenizer = AutoTokenizer.from_pretrained(at(self.base, folder), local_files_only=True)
        if tokenizer.eos_token_id is None:
            raise UserError(f"models.{self.name}: {folder}: the tokenizer has no eos token; set `eos_token` there")
        settle_template(tokenizer)
        return tokenizer

    @contextlib.contextmanager
    def opening(self, place: str) -> Iterator[None]:
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
