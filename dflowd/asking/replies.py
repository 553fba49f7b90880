"""Replies: a model goes on from what another one said, each completion with one of its own.

What it replies to is read and not trained on. The completions of a group share their prompt, which is the tokens in
front of what was said; that, and what stands behind it, lies in front of the reply's own tokens, as what an environment
says does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dflow_protocols.pipeline.entries.conversation import ASSISTANT, USER, Message
from dflow_protocols.pipeline.grammar.signatures import HEARD
from dflowd.data import columns
from dflowd.data.contract import Data
from dflowd.data.prompts import completion_text, encode, put_between
from dflowd.data.sources import Entry
from dflowd.jobs.failures import UserError
from dflowd.models.sampling import Sampler, seats_of

from .context import misfit
from .contract import Asked
from .said import ENVIRONMENT, Said


@dataclass(frozen=True, slots=True)
class Heard:
    """What is replied to: of each group its entry and the messages that it began with, of each row, in (group, sample)
    order, what was said last, and all messages behind the first ones."""

    entries: Sequence[Entry]
    openings: Sequence[list[Message]]
    texts: Sequence[str]
    turns: Sequence[list[Message]]


def reply(asked: Asked, data: Data, heard: Heard, sampler: Sampler) -> Said:
    """One reply to each completion. Raises UserError."""
    model, most = asked.description(), int(asked.stage.config["max_tokens"])
    width = len(heard.texts) // len(heard.entries)
    prompts, read = _read(asked, data, heard, width)
    texts = [prompts[row // width] + tokens for row, tokens in enumerate(read)]
    for row, text in enumerate(texts):
        if found := misfit(model, text, most, "`max_tokens`"):
            raise UserError(f"{data.place(heard.entries[row // width])}: {found}", asked.stage.id)
    made = asked.sample(texts, seats_of(asked.first, len(prompts), width, most), sampler)
    counts = [len(tokens) for tokens in read]
    blank = [np.zeros(count, np.float32) for count in counts]
    said = [row[:length].tolist() for row, length in zip(made.tokens, made.lengths, strict=True)]
    spoken = [completion_text(model.tokenizer, tokens) for tokens in said]
    own = np.zeros(made.tokens.shape, np.int32)
    return Said(
        prompts,
        _joined([np.array(tokens, np.int32) for tokens in read], made.tokens, made.lengths),
        _joined(blank, made.logprobs, made.lengths),
        np.array(counts, np.int32) + made.lengths,
        made.truncated,
        spoken,
        None if made.nucleus is None else _joined(blank, made.nucleus, made.lengths),
        heard.openings,
        _joined([np.full(count, ENVIRONMENT, np.int32) for count in counts], own, made.lengths),
        _turns(asked.stage.config["template"], heard, width, spoken),
    )


def _read(asked: Asked, data: Data, heard: Heard, width: int) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens in front of what was said, by group, and the others that are read, by row."""
    tokenizer = asked.description().tokenizer
    before, behind = asked.stage.config["template"].split(HEARD, 1)
    prompts: list[list[int]] = []
    read: list[list[int]] = []
    for group, entry in enumerate(heard.entries):
        wording = data.wording_of(entry)
        try:
            for text in heard.texts[group * width : (group + 1) * width]:
                first, rest = put_between(
                    tokenizer, entry, _filled(before, entry, text), _filled(behind, entry, text), wording
                )
                if len(prompts) == group:
                    prompts.append(encode(tokenizer, first, add_special_tokens=not wording.is_chat(tokenizer)))
                read.append(encode(tokenizer, text + rest, add_special_tokens=False))
        except UserError as error:
            raise UserError(f"{data.place(entry)}: {error}", asked.stage.id) from error
    return prompts, read


def _turns(template: str, heard: Heard, width: int, spoken: Sequence[str]) -> list[list[Message]]:
    """Of each row all messages behind the opening."""
    put = [_filled(template, heard.entries[row // width], text) for row, text in enumerate(heard.texts)]
    return [
        [*before, {"role": USER, "content": asked}, {"role": ASSISTANT, "content": said}]
        for before, asked, said in zip(heard.turns, put, spoken, strict=True)
    ]


def _filled(template: str, entry: Entry, text: str) -> str:
    """In one pass: what was said may itself look like a template."""
    given = {"{prompt}": str(entry["question"]), HEARD: text}
    return re.sub("|".join(map(re.escape, given)), lambda found: given[found[0]], template)


def _joined(read: Sequence[columns.Array], said: columns.Array, lengths: columns.Array) -> columns.Array:
    """Rows one behind the other: of each what was read, then what was said, of which `lengths` count."""
    parts = [part for before, row, count in zip(read, said, lengths, strict=True) for part in (before, row[:count])]
    return np.concatenate(parts) if parts else said.reshape(-1)
