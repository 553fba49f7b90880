"""Micro-batches of a leaf, as a function of lengths alone: rows that share a prompt, then rows of like length.

Completions of one prompt lie behind it in one row, each looking at the prompt and itself: the prompt is computed once
for all of them. Where a kernel takes texts of any lengths one behind the other, each completion has its prompt for
itself, and nothing is padded. The last token of a completion predicts nothing, so it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
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
    """Tensors of one forward pass.

    tokens, positions, segments: [rows, length] int64, padded on the right; segments are 0 in a prompt, k in its k-th
    completion of the row, -1 in padding. If `bounds` is there, it is one row of texts one behind the other, and says
    where each begins and the last one ends; segments are None then. For the trained tokens, in row order: `places`
    [tokens] int64 (where in rows * length the state lies that predicts it), `targets` [tokens] int64, `samples`
    [tokens] int64 (which completion it belongs to), `offsets` [tokens] int64 (which of its tokens it is).
    """

    tokens: Any
    positions: Any
    segments: Any
    places: Any
    targets: Any
    samples: Any
    offsets: Any
    bounds: tuple[int, ...] | None = None


def micro_batches(
    prompts: Sequence[Any],
    owners: Sequence[int],
    completions: Sequence[Any],
    budget: int,
    in_line: bool,
    together: bool = False,
) -> Iterator[MicroBatch]:
    """What is to be computed, in its order. `prompts`, `completions`: token arrays, not empty if a prompt; `owners`:
    each completion's prompt, ascending; `budget`: tokens of a micro-batch, padding included, unless it has one row;
    `in_line`: texts lie one behind the other, or in rows that share prompts; `together`: all completions of a prompt
    are in one micro-batch, however many tokens they have."""
    layout, assembled = (pack_in_line, assemble_line) if in_line else (pack, assemble)
    lengths = [len(prompt) for prompt in prompts], owners, [len(said) for said in completions]
    for rows in layout(*lengths, budget, together):
        yield assembled(rows, prompts, completions)


def pack(
    prompt_lengths: Sequence[int], owners: Sequence[int], lengths: Sequence[int], budget: int, together: bool = False
) -> list[list[Row]]:
    """Rows by micro-batch. `owners`: each sample's prompt, ascending; `lengths`: its tokens; `budget`: padded tokens
    of a micro-batch (one row may have more, and so may those of one prompt where they stay `together`)."""
    rows: list[Row] = []
    for sample, (prompt, length) in enumerate(zip(owners, lengths, strict=True)):
        added = max(0, length - 1)
        last = rows[-1] if rows and rows[-1].prompt == prompt else None
        if last is not None and last.length + added <= ROW_TOKENS:
            rows[-1] = Row(prompt, (*last.samples, sample), last.length + added)
        else:
            rows.append(Row(prompt, (sample,), prompt_lengths[prompt] + added))
    batches: list[list[Row]] = []
    for unit in sorted(_units(rows, together), key=_longest, reverse=True):  # a micro-batch's first has its longest row
        if batches and _longest(batches[-1]) * (len(batches[-1]) + len(unit)) <= budget:
            batches[-1] += unit
        else:
            batches.append(unit)
    return batches


def _units(rows: Sequence[Row], together: bool) -> list[list[Row]]:
    """Rows that stay in one micro-batch."""
    if not together:
        return [[row] for row in rows]
    return [list(own) for _, own in groupby(rows, key=lambda row: row.prompt)]


def _longest(rows: Sequence[Row]) -> int:
    return max(row.length for row in rows)


def pack_in_line(
    prompt_lengths: Sequence[int], owners: Sequence[int], lengths: Sequence[int], budget: int, together: bool = False
) -> list[list[Row]]:
    """Texts by micro-batch, in the samples' order; arguments as of `pack`. One text may have more than the budget."""
    rows = [
        Row(prompt, (sample,), prompt_lengths[prompt] + max(0, length - 1))
        for sample, (prompt, length) in enumerate(zip(owners, lengths, strict=True))
    ]
    batches: list[list[Row]] = []
    filled = budget
    for unit in _units(rows, together):
        size = sum(row.length for row in unit)
        if filled + size > budget:
            batches.append([])
            filled = 0
        batches[-1] += unit
        filled += size
    return batches


def assemble_line(rows: Sequence[Row], prompts: Sequence[Any], completions: Sequence[Any]) -> MicroBatch:
    """Texts one behind the other; arguments as of `assemble`."""
    each = [assemble([row], prompts, completions) for row in rows]
    bounds = (0, *accumulate(row.length for row in rows))
    return MicroBatch(
        np.concatenate([batch.tokens for batch in each], 1),
        np.concatenate([batch.positions for batch in each], 1),
        None,
        np.concatenate([batch.places + first for batch, first in zip(each, bounds, strict=False)]),
        np.concatenate([batch.targets for batch in each]),
        np.concatenate([batch.samples for batch in each]),
        np.concatenate([batch.offsets for batch in each]),
        bounds,
    )


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
    joined = [np.concatenate(part or [np.zeros(0)]).astype(np.int64) for part in (places, targets, samples, offsets)]
    return MicroBatch(tokens, positions, segments, joined[0], joined[1], joined[2], joined[3])
