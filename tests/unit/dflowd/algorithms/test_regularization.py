"""What is taken off a gain and added to it: divergences and entropy, by hand and by enumeration."""

from __future__ import annotations

import pytest
import torch

from dflow_protocols.pipeline.grammar import algorithms
from dflow_protocols.pipeline.grammar.shape import Reader, Section
from dflowd.algorithms.losses.gpg import gpg
from dflowd.algorithms.registry import LOSSES
from dflowd.algorithms.terms.kl import divergence
from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Tokens

KINDS = ("k1", "k2", "k3", "k3_unbiased")


def distributions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logits of a policy, log-probabilities of a reference, those of the policy that sampled): of five tokens."""
    drawn = torch.Generator().manual_seed(0)
    reference, sampled = (torch.randn(5, generator=drawn).log_softmax(-1) for _ in range(2))
    return torch.randn(5, generator=drawn, requires_grad=True), reference, sampled


@pytest.mark.parametrize("kind", KINDS)
def test_an_estimator_is_zero_where_both_agree(kind: str) -> None:
    """No divergence, nothing taken off."""
    logp = torch.linspace(-3, -1, 5)
    assert divergence(kind, logp, logp, logp - 1).tolist() == [0.0] * 5


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_estimators_have_the_divergence_as_their_mean_over_the_policys_samples(kind: str) -> None:
    """Schulman's first and third have no bias."""
    logits, reference, _ = distributions()
    logp = logits.detach().log_softmax(-1)
    mean = (logp.exp() * divergence(kind, logp, reference, logp)).sum()
    assert mean.item() == pytest.approx(float((logp.exp() * (logp - reference)).sum()), rel=1e-5)


@pytest.mark.parametrize(("kind", "has_bias"), [("k1", True), ("k2", False), ("k3", True), ("k3_unbiased", False)])
def test_which_estimators_gradient_is_the_divergences(kind: str, has_bias: bool) -> None:
    """What is sampled by the policy itself is averaged exactly, with its probabilities held, as autograd holds them."""
    logits, reference, _ = distributions()
    logp = logits.log_softmax(-1)
    (meant,) = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), logits, retain_graph=True)
    held = logp.detach()
    (found,) = torch.autograd.grad((held.exp() * divergence(kind, logp, reference, held)).sum(), logits)
    assert torch.allclose(found, meant, atol=1e-6) != has_bias


def test_the_unbiased_one_stays_so_when_another_policy_sampled() -> None:
    """As behind the first of several updates; k3 by itself would estimate something else."""
    logits, reference, sampled = distributions()
    logp = logits.log_softmax(-1)
    estimate = (sampled.exp() * divergence("k3_unbiased", logp, reference, sampled)).sum()
    exact = (logp.exp() * (logp - reference)).sum()
    assert estimate.item() == pytest.approx(exact.item(), rel=1e-5)
    (found,) = torch.autograd.grad(estimate, logits, retain_graph=True)
    (meant,) = torch.autograd.grad(exact, logits)
    assert torch.allclose(found, meant, atol=1e-6)


def test_a_gain_is_less_its_divergence_and_more_by_its_entropy() -> None:
    """Each by its own weight; the figure of the divergence is k3's whichever is trained by."""
    logp, reference, entropy = torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -2.0]), torch.tensor([0.5, 1.5])
    given = {"logprob": reference, "sampled_logprob": logp}
    tokens = Tokens(logp, torch.ones(2), given, entropy=entropy)
    gain, figures = regularized(torch.zeros(2), tokens, {"kl": 0.1, "kl_kind": "k1", "entropy": 0.01})
    assert gain.tolist() == pytest.approx([-0.1 + 0.005, 0.015])
    assert figures["kl_sum"] == pytest.approx(float(torch.tensor(-1.0).exp()))


@pytest.mark.parametrize("kind", [kind for kind, row in algorithms.LOSSES.items() if "entropy" in row.config])
def test_every_policy_loss_rewards_entropy_by_its_tokens_shares(kind: str) -> None:
    """One meaning of `entropy` in all of them: a token's share of the loss has its entropy's."""
    logp, entropy = torch.tensor([-1.0, -2.0]), torch.tensor([2.0, 3.0], requires_grad=True)
    given = {"advantage": torch.zeros(2), "sampled_logprob": logp}
    settings = Reader({}).read(Section("", algorithms.LOSSES[kind].config), {"entropy": 0.5}, "")
    loss, _ = LOSSES[kind](Tokens(logp, torch.full((2,), 2.0), given, torch.zeros(2).long(), entropy), settings)
    (slope,) = torch.autograd.grad(loss, entropy)
    share = 0.5 if algorithms.LOSSES[kind].divisor(settings) == "samples" else 1.0
    assert slope.tolist() == pytest.approx([-0.5 * share] * 2)


def test_a_loss_without_weights_is_what_it_was_before_there_were_any() -> None:
    """Settings that are not written change no bit."""
    logp = torch.tensor([-1.0, -2.0])
    given = {"advantage": torch.tensor([0.5, -3.0]), "logprob": torch.zeros(2)}
    found, _ = gpg(Tokens(logp, torch.ones(2), given), {"kl": 0.0})
    assert found.item() == -(0.5 * -1.0 + -3.0 * -2.0)
