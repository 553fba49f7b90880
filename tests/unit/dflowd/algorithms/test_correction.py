"""Correction of a sampler that computes otherwise, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dflowd.algorithms.losses.grpo import grpo
from dflowd.algorithms.terms.correction import correct
from dflowd.algorithms.terms.tokens import Sums, Tokens

SETTINGS = {"clip": (0.2, 0.28), "mean": "token", "kl": 0.0}
RATIOS = [1.0, 4.0, 0.25, 1.5]  # pi / mu of two completions of two tokens each


def tokens(**given: torch.Tensor) -> Tokens:
    logp = torch.tensor([-1.0, -2.0, -3.0, -4.0], requires_grad=True)
    sampled = logp.detach() - torch.tensor(RATIOS).log()
    columns = {"advantage": torch.ones(4), "sampled_logprob": sampled, **given}
    return Tokens(logp, torch.full((4,), 2.0), columns, torch.tensor([7, 7, 3, 3]))


def slopes(settings: dict[str, Any], of: Tokens | None = None) -> tuple[list[float], Sums]:
    """By how much each token's log-probability is pushed, its advantage being 1, and the figures."""
    given = of or tokens()
    corrected, figures = correct(given, settings)
    loss, _ = grpo(corrected, SETTINGS)
    (slope,) = torch.autograd.grad(-loss, given.logp)
    return slope.tolist(), figures


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"kind": "truncate", "level": "token", "high": 2.0}, [1.0, 2.0, 0.25, 1.5]),
        ({"kind": "mask", "level": "token", "low": 0.5, "high": 2.0}, [1.0, 0.0, 0.0, 1.0]),
        ({"kind": "band", "level": "token", "low": 0.5, "high": 5.0}, [1.0, 4.0, 0.0, 1.5]),
        ({"kind": "truncate", "level": "sequence", "high": 1.5}, [1.5, 1.5, math.sqrt(0.375), math.sqrt(0.375)]),
        ({"kind": "mask", "level": "sequence", "low": 0.9, "high": 2.5}, [1.0, 1.0, 0.0, 0.0]),
    ],
)
def test_a_tokens_share_is_what_the_probabilities_say(settings: dict[str, Any], shares: list[float]) -> None:
    """The gradient of a policy that has not moved is the advantage's, times the corrected share."""
    found, _ = slopes(settings)
    assert found == pytest.approx(shares)


def test_without_correction_the_samplers_word_is_the_old_policys() -> None:
    """As where both are one program: PPO's ratio is to the sampler, and its clip cuts what is too far away."""
    found, figures = slopes({})
    assert found == pytest.approx([1.0, 0.0, 0.25, 0.0])
    assert "corrected" not in figures


def test_the_ratio_that_is_clipped_is_that_of_the_version_that_sampled() -> None:
    """What a `logprob` stage of the trained model found, where there is one: pi is not this pass then."""
    old = torch.tensor([-1.0, -2.0, -3.0, -4.0]) - math.log(2.0)  # the policy has doubled every probability since
    given = tokens(old_logprob=old)
    corrected, _ = correct(given, {"kind": "truncate", "level": "token", "high": 100.0})
    assert corrected["weight"].tolist() == pytest.approx([ratio / 2 for ratio in RATIOS])
    _, figures = grpo(corrected, SETTINGS)
    assert float(figures["ratio_min"]) == pytest.approx(2.0)


def test_how_far_both_are_apart_is_told_whatever_is_done_about_it() -> None:
    """Its mean and greatest distance, the divergence, and the share that was cut."""
    for settings in ({}, {"kind": "band", "level": "token", "low": 0.5, "high": 2.0}):
        _, figures = slopes(settings)
        logs = [math.log(ratio) for ratio in RATIOS]
        assert float(figures["mismatch_sum"]) == pytest.approx(sum(map(abs, logs)), rel=1e-6)
        assert float(figures["mismatch_max"]) == pytest.approx(math.log(4.0), rel=1e-6)
        kl = sum(ratio - log - 1 for ratio, log in zip(RATIOS, logs, strict=True))
        assert float(figures["mismatch_kl_sum"]) == pytest.approx(kl, rel=1e-6)
        assert figures["mismatch_count"] == len(RATIOS)
    assert float(figures["corrected"]) == 2


def test_a_token_that_is_not_trained_on_stays_so() -> None:
    """The mask and the weight that were given are multiplied, not replaced."""
    found, _ = slopes(
        {"kind": "truncate", "level": "token", "high": 9.0},
        tokens(mask=torch.tensor([1.0, 0, 1, 1]), weight=torch.tensor([1.0, 1, 1, 2])),
    )
    assert found == pytest.approx([1.0, 0.0, 0.25, 3.0])
