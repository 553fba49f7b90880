"""The script for a first GPU does on a processor what it can: it must not be broken when there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch

from benchmarks.figure import Figure, Tell
from benchmarks.gpu import check, grpo, trainer

Asked = Callable[[Tell, torch.device], Iterator[Figure]]
LARGER = {"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 300}


def windows(tell: Tell, device: torch.device) -> Iterator[Figure]:
    return trainer.correctness(tell, device, {"mistral": trainer.KINDS["mistral"]})


def speed(tell: Tell, device: torch.device) -> Iterator[Figure]:
    return trainer.speed(tell, device, LARGER, 4, 32, 64)


@pytest.mark.parametrize("asked", [windows, trainer.sums, trainer.sampling, trainer.phases, speed])
def test_each_question_is_answered_on_the_stand_in(asked: Asked) -> None:
    """And kept: what is wrong there is wrong in the code that a GPU runs, too."""
    rows: list[Mapping[str, Any]] = []
    figures = list(asked(rows.append, check.STAND_IN))
    assert figures
    assert rows
    assert all(figure.holds for figure in figures), [figure.row() for figure in figures]


@pytest.mark.slow
def test_a_step_of_grpo_is_measured_and_told_to_be_alone_where_the_other_trainer_is_absent() -> None:
    """Half of a comparison must not look like a whole one."""
    rows: list[Mapping[str, Any]] = []
    (figure,) = grpo.against_trl(rows.append, check.STAND_IN, LARGER, prompts=2, tokens=4, steps=1)
    assert figure.ours > 0
    is_skipped = any(row.get("skipped") == "GRPO by TRL" for row in rows)
    assert is_skipped == (figure.anchor is None)
