"""Texts one behind the other get the numbers that they get in rows of their own, in layers of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dflowd.jobs.counter_random import stream
from dflowd.models.packing import micro_batches
from dflowd.models.policy import Policy
from dflowd.models.proof import can_read_in_line
from dflowd.training.leaf import LeafData, Objective, add_gradient
from tests.support import zoo

WITH_ROWS = ("Falcon",)  # computes its attention by itself
KINDS = (
    "Llama",
    "Gemma 3, windows in half of its layers",  # two heads share keys and values
    "Llama 4, chunks",
    "Qwen2, tied",
    "DeepSeek V3",  # values narrower than keys
)


def opened(name: str, folder: Path) -> Policy:
    zoo.write(zoo.ARCHITECTURES[name], folder / "model")
    return Policy("policy", {"path": "model"}, folder, 0)


def texts(policy: Policy) -> tuple[list[Any], list[int], list[Any]]:
    """Prompts and completions, all but one of them longer than windows and chunks; one is empty."""
    drawn = (np.abs(stream(b"in line!", 200)) * policy.vocabulary).astype(np.int32)
    prompts = [drawn[:19], drawn[19:22], drawn[22:40]]
    lengths = (11, 1, 7, 0, 14)
    return prompts, [0, 0, 1, 1, 2], np.split(drawn[60 : 60 + sum(lengths)], np.cumsum(lengths)[:-1])


def gradient(policy: Policy, in_line: bool, budget: int = 40) -> Any:
    prompts, owners, said = texts(policy)
    policy.lay_out(in_line)
    total = np.zeros(policy.parameters.size, np.float32)
    policy.parameters.begin_gradient(total)
    data = LeafData(prompts=prompts, owners=owners, completions=said)
    sums = add_gradient(policy, data, Objective("cross_entropy", {}, "tokens", budget), lambda: None)
    policy.parameters.end_gradient()
    assert sums["trained_tokens"] == 33
    return sums["loss_sum"], total


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_models_that_ask_for_attention_need_no_masks(name: str, tmp_path: Path) -> None:
    """What has an attention of its own keeps its rows, and its numbers."""
    policy = opened(name, tmp_path)
    assert can_read_in_line(policy) == (name not in WITH_ROWS)
    assert not policy.in_line


@pytest.mark.parametrize("name", KINDS)
def test_layouts_differ_by_rounding_only(name: str, tmp_path: Path) -> None:
    """A window or a chunk that ends elsewhere, or a neighbour that is seen, is a hundred times as much."""
    policy = opened(name, tmp_path)
    (loss, rows), (same, line) = gradient(policy, in_line=False), gradient(policy, in_line=True)
    assert same == pytest.approx(loss, rel=1e-5)
    assert np.abs(rows - line).max() < 1e-5 * np.abs(rows).max()
    assert np.array_equal(line, gradient(policy, in_line=True)[1])


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_in_line_stays_near_float32_in_padded_rows(name: str, tmp_path: Path) -> None:
    """The way of a GPU against the way of a processor."""
    policy = opened(name, tmp_path)
    loss, rows = gradient(policy, in_line=False)
    policy.compute_in(torch.bfloat16)
    near, line = gradient(policy, in_line=True)
    assert near == pytest.approx(loss, rel=2e-3)
    assert np.linalg.norm(line - rows) < 0.05 * np.linalg.norm(rows)


def test_nothing_is_padded_and_no_text_is_cut(tmp_path: Path) -> None:
    """A micro-batch has as many tokens as its texts; one that is longer than the budget is one by itself."""
    policy = opened("Llama", tmp_path)
    prompts, owners, said = texts(policy)
    batches = list(micro_batches(prompts, owners, said, 25, in_line=True))
    lengths = [len(prompts[owner]) + max(0, len(text) - 1) for owner, text in zip(owners, said, strict=True)]
    assert lengths == [29, 19, 9, 3, 31]
    assert [batch.bounds for batch in batches] == [(0, 29), (0, 19), (0, 9, 12), (0, 31)]
    assert [batch.tokens.shape for batch in batches] == [(1, 29), (1, 19), (1, 12), (1, 31)]
    assert sorted(sample for batch in batches for sample in set(batch.samples)) == [0, 1, 2, 4]
