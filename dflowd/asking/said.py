"""What was said to a partition's prompts, whether in one turn or in several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dflow_protocols.pipeline.entries.conversation import Message
from dflowd.data import columns
from dflowd.shards.layout import Column, ragged, texts

ENVIRONMENT = -1  # the turn of a token that was not sampled


@dataclass(frozen=True, slots=True)
class Said:
    """Rows in (group, sample) order. Flat arrays are of all tokens, rows one behind the other: `lengths` [rows] int32.

    `texts`: what the model said last. `turn`: of each token the model's turn, from 0, or ENVIRONMENT; None: there was
    one turn. `turns`: of each row the messages behind its opening; `rewards`: what each turn earned, NaN where there is
    no score; None: no environment gave any; `openings`: of each group the messages that were put to the model.
    `errors`: conversations whose environment failed, of these the `timeouts` where a limit decided, and those that were
    `zeroed` for it; `note`: the first failure.
    """

    prompts: list[list[int]]
    tokens: columns.Array
    logprobs: columns.Array
    lengths: columns.Array
    truncated: columns.Array
    texts: list[str]
    nucleus: columns.Array | None
    openings: Sequence[list[Message]]
    turn: columns.Array | None = None
    turns: Sequence[list[Message]] | None = None
    rewards: Sequence[list[float]] | None = None
    errors: int = 0
    timeouts: int = 0
    zeroed: int = 0
    note: str = ""

    @property
    def sampled(self) -> columns.Array:
        """[tokens] bool: which of them the model said."""
        return np.ones(len(self.tokens), np.bool_) if self.turn is None else self.turn != ENVIRONMENT

    @property
    def spoken(self) -> columns.Array:
        """[rows] int64: tokens that the model said."""
        rows = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return np.bincount(rows[self.sampled], minlength=len(self.lengths))

    @property
    def earned(self) -> columns.Array | None:
        """[rows] float32: what each conversation earned, NaN where it has no score; None without an environment."""
        return None if self.rewards is None else np.array([sum(each) for each in self.rewards], np.float32)

    def columns(self) -> dict[str, Column]:
        """What a rollout has of a conversation beside its tokens."""
        if self.turn is None or self.turns is None:
            return {}
        earned = {} if self.rewards is None else {"turn_reward": ragged("f32", self.rewards)}
        return {
            "turn": columns.pack(self.turn, self.lengths),
            **earned,
            "opening": texts([json.dumps(each) for each in self.openings]),
            "turns": texts([json.dumps(each) for each in self.turns]),
        }
