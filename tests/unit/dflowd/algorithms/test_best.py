"""Rejection sampling: which of a group's completions are learnt from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dflowd.algorithms.advantages.best import best
from dflowd.algorithms.losses.cross_entropy import cross_entropy
from dflowd.algorithms.losses.gpg import gpg
from dflowd.algorithms.terms.tokens import Tokens

REWARDS = np.array([[0.5, 1.0, 0.0, 1.0], [-1.0, -2.0, -1.0, -3.0]])


@pytest.mark.parametrize(
    ("keep", "above", "kept"),
    [
        (1, None, [[1], [0]]),  # of like ones the first
        (3, None, [[0, 1, 3], [0, 1, 2]]),
        (None, 0.0, [[0, 1, 3], []]),
        (2, 0.5, [[1, 3], []]),
        (9, None, [[0, 1, 2, 3], [0, 1, 2, 3]]),
    ],
)
def test_the_best_are_kept_and_the_others_are_out_of_training(
    keep: int | None, above: float | None, kept: list[list[int]]
) -> None:
    """Not pushed away: they are no part of what is learnt, as in fine-tuning on a filtered data set."""
    found = best(REWARDS, keep, above)
    assert [np.flatnonzero(row == 1).tolist() for row in found] == kept
    assert np.isnan(found).sum() == found.size - sum(map(len, kept))


def test_what_is_kept_is_learnt_as_a_demonstration_is() -> None:
    """The loss of the recipe, with an advantage of 1, is the cross-entropy of `sft`."""
    logp = torch.tensor([-1.0, -0.5, -3.0])
    own = Tokens(logp, torch.full((3,), 3.0), {"advantage": torch.ones(3)})
    assert gpg(own, {"kl": 0.0})[0] == cross_entropy(Tokens(logp, torch.full((3,), 3.0)), {})[0]
