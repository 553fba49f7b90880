"""Batched sampling with a key-value cache: prompts are read once, however many completions each gets.

A completion's random numbers are counted by (group, sample, token), so they do not depend on the batch, and a
completion that is sampled in several pieces gets those that it would have had in one. The batch's composition still
decides rounding; where bits matter, the caller fixes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dflowd.jobs.counter_random import uniforms

from .attention import Sight
from .policy import Policy
from .stop_texts import StopTexts

COMPACT_SHARE = 0.75  # rows that ended leave the batch once so few of it go on


@dataclass(frozen=True, slots=True)
class Sampler:
    """How tokens are chosen. `key`: 8 bytes for the random numbers; unused when greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    greedy: bool = False
    stop: tuple[str, ...] = ()
    key: bytes = bytes(8)


@dataclass(frozen=True, slots=True)
class Seats:
    """Which completions the rows of a batch are; all [rows]. `groups`, `samples`: theirs, uint64; `first`: the number
    of the first token that is sampled now, uint64; `most`: tokens that may be sampled now, int64."""

    groups: np.ndarray[Any, np.dtype[np.uint64]]
    samples: np.ndarray[Any, np.dtype[np.uint64]]
    first: np.ndarray[Any, np.dtype[np.uint64]]
    most: np.ndarray[Any, np.dtype[np.int64]]


def seats_of(first_group: int, groups: int, samples: int, most: int) -> Seats:
    """Whole completions of `most` tokens at most, rows in (group, sample) order; groups count from `first_group`."""
    return Seats(
        np.repeat(np.arange(first_group, first_group + groups, dtype=np.uint64), samples),
        np.tile(np.arange(samples, dtype=np.uint64), groups),
        np.zeros(groups * samples, np.uint64),
        np.full(groups * samples, most, np.int64),
    )


@dataclass(frozen=True, slots=True)
class Completions:
    """`tokens`, `logprobs`: [rows, tokens], of which the first `lengths` [rows] count. `truncated`: [rows] bool: those
    that had said all that they may before they ended.

    Log-probabilities are of the full vocabulary at the sampler's temperature.
    """

    tokens: np.ndarray[Any, np.dtype[np.int32]]
    logprobs: np.ndarray[Any, np.dtype[np.float32]]
    lengths: np.ndarray[Any, np.dtype[np.int32]]
    truncated: np.ndarray[Any, np.dtype[np.bool_]]
    nucleus: np.ndarray[Any, np.dtype[np.float32]] | None = None  # log-probabilities within `top_p`'s set; None if all


@torch.inference_mode()
def sample(
    policy: Policy, prompts: Sequence[Sequence[int]], seats: Seats, sampler: Sampler, progress: Callable[[], None]
) -> Completions:
    """Completions of each prompt, as many of each: rows are in the order of `seats`, those of one prompt neighbours."""
    rows, width = len(seats.most), int(seats.most.max(initial=0))
    batch = _Batch(policy, prompts, seats.most, sampler)
    drawn = None
    if not sampler.greedy:
        places = seats.first[:, None] + np.arange(width, dtype=np.uint64)
        drawn = uniforms(sampler.key, seats.groups[:, None], seats.samples[:, None], places)
    tokens = np.zeros((rows, width), np.int32)
    logprobs = np.zeros((rows, width), np.float32)
    nucleus = None if sampler.greedy or sampler.top_p >= 1 else np.zeros_like(logprobs)
    lengths = np.zeros(rows, np.int32)
    truncated = np.zeros(rows, np.bool_)
    active = np.arange(rows)  # rows of the batch
    alive = np.ones(rows, np.bool_)  # those of them that have not ended
    stop = StopTexts(policy.tokenizer, sampler.stop)
    for turn in range(width):
        luck = None if drawn is None else drawn[active, turn]
        chosen, logp, within = _choose(batch.logits(), luck, policy.never_sampled, sampler)
        tokens[active, turn], logprobs[active, turn] = chosen.cpu().numpy(), logp.cpu().numpy()
        if nucleus is not None and within is not None:
            nucleus[active, turn] = within.cpu().numpy()
        lengths[active[alive]] = turn + 1
        progress()
        alive = alive & ~np.isin(tokens[active, turn], policy.stops)
        if sampler.stop:
            alive &= ~stop.ended(active, tokens[active, : turn + 1])
        is_full = alive & (turn + 1 >= seats.most[active])
        truncated[active[is_full]] = True
        alive &= ~is_full
        if not alive.any():
            break
        if alive.sum() <= COMPACT_SHARE * len(active):
            chosen = batch.keep(alive, chosen)
            active = active[alive]
            alive = np.ones(len(active), np.bool_)
        batch.advance(chosen)
    return Completions(tokens, logprobs, lengths, truncated, nucleus)


class _Batch:
    """The rows still being continued: their cache, and the hidden state that predicts each one's next token."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]], most: Any, sampler: Sampler) -> None:
        """`most`: [rows], tokens that follow; as many rows of each prompt."""
        from transformers import DynamicCache

        self._policy = policy
        self._temperature = 1.0 if sampler.greedy else sampler.temperature
        width = max(map(len, prompts), default=0)
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        for row, prompt in enumerate(prompts):  # padded on the left, so that all rows go on at one place
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
        samples = len(most) // max(1, len(prompts))
        longest = lengths.repeat_interleave(samples) + torch.from_numpy(most)
        policy.require_length(int(longest.max()) if len(most) else 0)
        self._seen = (torch.arange(width) >= width - lengths[:, None]).to(policy.device)
        self._positions = (torch.arange(width) - (width - lengths[:, None])).clamp(min=0).to(policy.device)
        self._cache = DynamicCache(config=policy.model.config)
        if not len(prompts):
            return
        causal = torch.ones((width, width), dtype=torch.bool, device=policy.device).tril()
        itself = torch.eye(width, dtype=torch.bool, device=policy.device)
        mask = (causal & self._seen[:, None, :]) | itself
        hidden = policy.hidden(ids.to(policy.device), Sight(self._positions, mask), self._cache)
        self._hidden = hidden[:, -1].repeat_interleave(samples, 0)
        self._cache.batch_repeat_interleave(samples)
        self._seen = self._seen.repeat_interleave(samples, 0)
        self._positions = self._positions.repeat_interleave(samples, 0)

    def logits(self) -> Tensor:
        """[rows, vocabulary] float32, at the temperature."""
        return self._policy.logits(self._hidden) / self._temperature

    def keep(self, alive: Any, chosen: Tensor) -> Tensor:
        """Leave only these rows in the batch; returns what was chosen for them."""
        kept = torch.from_numpy(np.flatnonzero(alive)).to(self._policy.device)
        self._cache.batch_select_indices(kept)
        self._seen, self._positions = self._seen[kept], self._positions[kept]
        return chosen[kept]

    def advance(self, chosen: Tensor) -> None:
        """Feed the chosen tokens, [rows]."""
        self._seen = torch.cat((self._seen, self._seen.new_ones((len(self._seen), 1))), 1)
        self._positions = torch.cat((self._positions, self._positions[:, -1:] + 1), 1)
        sight = Sight(self._positions, self._seen[:, None, :])
        self._hidden = self._policy.hidden(chosen[:, None], sight, self._cache)[:, -1]


def _choose(logits: Tensor, luck: Any, pad: int | None, sampler: Sampler) -> tuple[Tensor, Tensor, Tensor | None]:
    """The next token of each row, its full-vocabulary log-probability, and that under which it was drawn where `top_p`
    left others out; `luck`: [rows] in (0, 1), None if greedy."""
    within = None
    logp = torch.log_softmax(logits, -1)
    allowed = logp.clone()
    if pad is not None:
        allowed[:, pad] = -torch.inf
    if luck is None:
        chosen = allowed.argmax(-1)
    else:
        weights = torch.softmax(allowed, -1).double()
        if sampler.top_p < 1:
            weights = _nucleus(weights, sampler.top_p)
        sums = _running_sums(weights)
        level = torch.from_numpy(luck).to(logits.device)[:, None] * sums[:, -1:]
        chosen = (sums < level).sum(-1)  # the first place that reaches the level has a weight above 0
        if sampler.top_p < 1:
            within = (weights.gather(-1, chosen[:, None]) / sums[:, -1:]).log()[:, 0].float()
    return chosen, logp.gather(-1, chosen[:, None])[:, 0], within


def _running_sums(weights: Tensor) -> Tensor:
    """[rows, vocabulary] float64, of weights whose sum is 1. A GPU adds up in an order that changes from time to time,
    which whole numbers do not mind: there each weight is a multiple of 2^-52."""
    if weights.device.type == "cpu":
        return weights.cumsum(-1)
    return _whole_sums(weights)


def _whole_sums(weights: Tensor) -> Tensor:
    return (weights * 2.0**52).long().cumsum(-1).double() * 2.0**-52


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Weights outside the smallest likeliest set that reaches `top_p` set to 0 (arXiv 1904.09751)."""
    ranked, order = weights.sort(stable=True, dim=-1, descending=True)
    before = _running_sums(ranked) - ranked
    return weights.masked_fill(torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, before >= top_p), 0)
