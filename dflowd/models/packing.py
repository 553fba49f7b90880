"""Micro-batches of a leaf, as a function of lengths alone: rows that share a prompt, then rows of like length.

Completions of one prompt lie behind it in one row, each looking at the prompt and itself: the prompt is computed once
for all of them. The last token of a completion predicts nothing, so it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROW_TOKENS = 256  # completions share a row while it stays this short: attention costs grow with its square


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: a prompt and some of its completions, by their indices."""

    prompt: int
    samples: tuple[int, ...]
    length: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tensors of one forward pass, padded on the right.

    tokens, positions, segments: [rows, length] int64; segments are 0 in a prompt, k in its k-th completion of the row,
    -1 in padding. For the trained tokens, in row order: `places` [tokens] int64 (where in rows * length the state lies
    that predicts it), `targets` [tokens] int64, `samples` [tokens] int64 (which completion it belongs to), `offsets`
    [tokens] int64 (which of its tokens it is).
    """

    tokens: Any
    positions: Any
    segments: Any
    places: Any
    targets: Any
    samples: Any
    offsets: Any


def pack(prompt_lengths: Sequence[int], owners: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[Row]]:
    """Rows by micro-batch. `owners`: each sample's prompt, ascending; `lengths`: its tokens; `budget`: padded tokens
    of a micro-batch (one row may have more)."""
    rows: list[Row] = []
    for sample, (prompt, length) in enumerate(zip(owners, lengths, strict=True)):
        added = max(0, length - 1)
        last = rows[-1] if rows and rows[-1].prompt == prompt else None
        if last is not None and last.length + added <= ROW_TOKENS:
            rows[-1] = Row(prompt, (*last.samples, sample), last.length + added)
        else:
            rows.append(Row(prompt, (sample,), prompt_lengths[prompt] + added))
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -row.length):  # the first row of a micro-batch is its longest
        if batches and batches[-1][0].length * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def assemble(rows: Sequence[Row], prompts: Sequence[Any], completions: Sequence[Any]) -> MicroBatch:
    """`prompts`, `completions`: token arrays by index. Every prompt has a token at least."""
    width = max(row.length for row in rows)
    tokens = np.zeros((len(rows), width), np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    segments = np.full((len(rows), width), -1, np.int64)
    places, targets, samples, offsets = [], [], [], []
    for index, row in enumerate(rows):
        prompt = prompts[row.prompt]
        at = len(prompt)
        tokens[index, :at], positions[index, :at], segments[index, :at] = prompt, np.arange(at), 0
        for segment, sample in enumerate(row.samples, 1):
            said = completions[sample]
            end = at + max(0, len(said) - 1)
            tokens[index, at:end] = said[:-1]
            positions[index, at:end] = np.arange(len(prompt), len(prompt) + end - at)
            segments[index, at:end] = segment
            if len(said):
                places.append(np.r_[len(prompt) - 1, at:end] + index * width)
                targets.append(said)
                samples.append(np.full(len(said), sample))
                offsets.append(np.arange(len(said)))
            at = end
    joined = (np.concatenate(part or [np.zeros(0)]).astype(np.int64) for part in (places, targets, samples, offsets))
    return MicroBatch(tokens, positions, segments, *joined)
