"""Micro-batches of whole groups: a loss that compares completions has all of a prompt's before it."""

from __future__ import annotations

import numpy as np
import pytest

from dflowd.models.packing import micro_batches

RNG = np.random.default_rng(5)
PROMPTS = [RNG.integers(4, 30, 3 + at).astype(np.int32) for at in range(5)]
OWNERS = [at // 4 for at in range(20)]
SAID = [RNG.integers(1, 30, int(RNG.integers(1, 30))).astype(np.int32) for _ in OWNERS]


@pytest.mark.parametrize("in_line", [False, True], ids=["rows", "in line"])
@pytest.mark.parametrize("budget", [1, 150, 300, 8192])
def test_a_group_lies_in_one_micro_batch_however_long_it_is(budget: int, in_line: bool) -> None:
    """And each token once, with the same text before it as ever."""
    batches = list(micro_batches(PROMPTS, OWNERS, SAID, budget, in_line, together=True))
    held = [{OWNERS[sample] for sample in batch.samples} for batch in batches]
    assert sum(map(len, held)) == len(PROMPTS)
    assert len(batches) == {1: 5, 8192: 1}.get(budget, len(batches))
    found = sorted((s, o, t) for b in batches for s, o, t in zip(b.samples, b.offsets, b.targets, strict=True))
    assert found == [(sample, at, token) for sample, said in enumerate(SAID) for at, token in enumerate(said)]
    for batch in batches:
        if len(held) < len(PROMPTS):
            assert batch.tokens.size <= budget


def test_nothing_to_train_on_is_no_micro_batch() -> None:
    """As where groups may be cut."""
    assert not list(micro_batches([], [], [], 64, False, together=True))
