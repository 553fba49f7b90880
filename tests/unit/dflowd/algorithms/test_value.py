"""A critic's loss by hand (PPO's `baselines`): half a square, and no gain beyond the clip."""

from __future__ import annotations

import pytest
import torch

from dflow_protocols.metrics import finish
from dflowd.algorithms.losses.value_heads.value import value
from dflowd.algorithms.terms.tokens import Sums, Tokens

OLD, CAME = [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, -1.0, 1.0]


def loss_of(values: torch.Tensor, value_clip: float | None) -> tuple[torch.Tensor, Sums]:
    columns = {"value": torch.tensor(OLD), "return": torch.tensor(CAME)}
    return value(Tokens(values, torch.full((4,), 4.0), columns, torch.zeros(4).long()), {"value_clip": value_clip})


def test_a_value_is_drawn_to_what_came_by_its_distance() -> None:
    """The gradient of half the square is the distance itself."""
    values = torch.tensor([0.5, 2.0, -1.0, 1.0], requires_grad=True)
    loss, _ = loss_of(values, None)
    (slope,) = torch.autograd.grad(loss, values)
    assert float(loss.detach()) == 0.5 * (0.25 + 1.0)
    assert slope.tolist() == [-0.5, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("clip", [0.1, 0.2, 5.0])
def test_the_clipped_loss_is_the_larger_of_two(clip: float) -> None:
    """As `baselines` has it: max((v - R)^2, (clip(v) - R)^2), with its gradient by autograd."""
    values = torch.tensor([0.5, 0.05, 0.5, 1.15], requires_grad=True)
    old, came = torch.tensor(OLD), torch.tensor(CAME)
    clipped = torch.clamp(values, old - clip, old + clip)
    plain = 0.5 * torch.max((values - came) ** 2, (clipped - came) ** 2).sum()
    loss, figures = loss_of(values, clip)
    assert torch.allclose(loss, plain)
    (ours,), (theirs,) = torch.autograd.grad(loss, values), torch.autograd.grad(plain, values)
    assert torch.allclose(ours, theirs)
    assert float(torch.as_tensor(figures["value_clipped"])) == (1 if clip < 5 else 0)  # the first has gone past it


def test_what_the_critic_had_foreseen_is_a_share_of_the_returns_spread() -> None:
    """1 where it was right, 0 where it knew the mean alone, below 0 where it was worse than that."""

    def explained(old: torch.Tensor, came: torch.Tensor) -> float:
        columns = {"value": old, "return": came}
        tokens = Tokens(old.clone(), torch.full((4,), 4.0), columns, torch.zeros(4).long())
        sums = value(tokens, {"value_clip": None})[1]
        return finish({name: float(each) for name, each in sums.items()})["explained_variance"]

    came = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained(came, came) == 1.0
    assert explained(torch.full((4,), 1.5), came) == 0.0
    assert explained(-came, came) == 1 - 4.0
