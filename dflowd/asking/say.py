"""Completions of a partition's prompts, as the stage's config asks: each at once, or in conversation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dflowd.data.contract import Data
from dflowd.data.prompts import completion_text
from dflowd.data.sources import Entry
from dflowd.models.sampling import Sampler, seats_of

from .context import check_context, prompts_of
from .contract import Asked
from .conversations import converse
from .said import Said


def say(asked: Asked, data: Data, entries: Sequence[Entry], width: int, sampler: Sampler) -> Said:
    """`width` completions of each entry's prompt. Raises UserError."""
    config = asked.stage.config
    if config.get("environment") is not None:
        return converse(asked, data, entries, width, sampler)
    prompts = prompts_of(asked, data, entries)
    check_context(asked, data, entries, prompts, [config["max_tokens"]] * len(prompts), "`max_tokens`")
    most = min(config["max_tokens"], config.get("segment_tokens") or config["max_tokens"])
    made = asked.sample(prompts, seats_of(asked.first, len(prompts), width, most), sampler)
    counted = np.arange(made.tokens.shape[1]) < made.lengths[:, None]
    tokenizer = asked.description().tokenizer
    said = [row[:length].tolist() for row, length in zip(made.tokens, made.lengths, strict=True)]
    return Said(
        prompts,
        made.tokens[counted],
        made.logprobs[counted],
        made.lengths,
        made.truncated,
        [completion_text(tokenizer, tokens) for tokens in said],
        None if made.nucleus is None else made.nucleus[counted],
        [data.wording_of(entry).conversation(entry) for entry in entries],
    )
