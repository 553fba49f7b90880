"""Log-probabilities in chunks are log-probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dflowd.algorithms.losses.cross_entropy import cross_entropy
from dflowd.algorithms.terms.tokens import Tokens
from dflowd.models import likelihood
from dflowd.models.likelihood import token_likelihood


def test_chunks_change_neither_values_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded memory must not cost exactness of what is learned; biased heads included."""
    torch.manual_seed(0)
    head = nn.Linear(8, 50)
    hidden = torch.randn(30, 8, requires_grad=True)
    targets = torch.randint(0, 50, (30,))
    results = []
    for limit in (likelihood.CHUNK_ELEMENTS, 200):
        monkeypatch.setattr(likelihood, "CHUNK_ELEMENTS", limit)
        logp, entropy = token_likelihood(hidden, head, 50, targets, 0.7)
        loss, _ = cross_entropy(Tokens(logp, torch.ones(30)), {})
        results.append((logp, entropy, *torch.autograd.grad(loss, [hidden, *head.parameters()])))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    plain = torch.log_softmax(head(hidden) / 0.7, -1)
    assert torch.allclose(results[1][0], plain[range(30), targets], atol=1e-5)
    assert torch.allclose(results[1][1], torch.distributions.Categorical(logits=plain).entropy(), atol=1e-5)  # type: ignore[no-untyped-call]
    assert not results[1][1].requires_grad


def test_an_entropy_has_a_gradient_where_it_is_asked_for() -> None:
    """Chunked or not, it is the gradient of the plain formula."""
    torch.manual_seed(0)
    head = nn.Linear(8, 50)
    hidden, targets = torch.randn(30, 8, requires_grad=True), torch.randint(0, 50, (30,))
    logp, entropy = token_likelihood(hidden, head, 50, targets, 0.7, entropy_gradient=True)
    plain = torch.distributions.Categorical(logits=head(hidden) / 0.7).entropy()  # type: ignore[no-untyped-call]
    found, meant = (torch.autograd.grad(each.square().sum(), hidden)[0] for each in (entropy, plain))
    assert torch.allclose(found, meant, atol=1e-5)
    assert logp.requires_grad
