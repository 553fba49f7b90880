"""The functions of algorithms beside the grammar's tables of what they read and may be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dflow_protocols.pipeline.grammar import algorithms
from dflow_protocols.pipeline.grammar.columns import COLUMNS
from dflow_protocols.pipeline.grammar.shape import Reader, Section
from dflowd.algorithms.registry import ADVANTAGES, LOSSES, TOKEN_ADVANTAGES, TURN_ADVANTAGES
from dflowd.algorithms.terms.correction import correct
from dflowd.algorithms.terms.tokens import Tokens


def test_every_algorithm_that_a_spec_may_name_has_a_function_and_no_other_has() -> None:
    """What validation lets pass must not end in an engine that knows nothing of it."""
    assert sorted([*ADVANTAGES, *TOKEN_ADVANTAGES, *TURN_ADVANTAGES]) == sorted(algorithms.ADVANTAGES)
    assert set(LOSSES) == set(algorithms.LOSSES)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_runs_by_its_defaults_on_the_columns_that_it_reads_and_no_others(kind: str) -> None:
    """Its row says all that it needs: whoever validates a spec by the row has promised the function that much."""
    row, length = algorithms.LOSSES[kind], 3
    settings = Reader({}).read(Section("", row.config), {}, "")
    given = {name: torch.rand(length) for name in {*row.columns(settings), "sampled_logprob"}}
    logp = torch.rand(length, requires_grad=True)
    whose = torch.zeros(length).long()
    loss, _ = LOSSES[kind](Tokens(logp, torch.full((length,), 3.0), given, whose, groups=whose), settings)
    assert loss.shape == ()
    (slope,) = torch.autograd.grad(loss, logp)
    assert slope.isfinite().all()
    assert row.divisor(settings) in algorithms.DIVISORS


@pytest.mark.parametrize("method", [name for name in ADVANTAGES if not algorithms.ADVANTAGES[name].selects])
def test_an_advantage_runs_by_its_defaults(method: str) -> None:
    """From rewards [groups, samples] to as many numbers, none of them for a flat group."""
    settings = Reader({}).read(Section("", algorithms.ADVANTAGES[method].config), {}, "")
    found = ADVANTAGES[method](np.array([[1, 0.0], [2, 2]]), np.array([1.0, 2.0]), settings)
    assert found.shape == (2, 2)
    assert found[0, 0] > 0 > found[0, 1]
    assert not found[1].any()


@pytest.mark.parametrize("method", TOKEN_ADVANTAGES)
def test_an_advantage_of_tokens_runs_by_its_defaults(method: str) -> None:
    """From the tokens' rewards and values to as many numbers: no token of a completion has more than its last one."""
    settings = Reader({}).read(Section("", algorithms.ADVANTAGES[method].config), {}, "")
    found = TOKEN_ADVANTAGES[method](np.array([0, 0, 1.0]), np.zeros(3), np.array([1, 2], np.int32), settings)
    assert found.shape == (3,)
    assert found[0] == 0.0 <= found[1] <= found[2] == 1.0


def test_a_column_that_nobody_gave_has_its_declared_default() -> None:
    """Losses ask for columns, not for the stages that a pipeline happens to have."""
    sampled, advantage = torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.5])
    tokens = Tokens(torch.zeros(2), torch.ones(2), {"sampled_logprob": sampled, "advantage": advantage})
    assert tokens["old_logprob"] is sampled
    assert tokens["mask"].tolist() == tokens["weight"].tolist() == [1, 1]
    assert tokens["version_gap"].tolist() == [0, 0]
    assert tokens.find("logprob") is None
    with pytest.raises(KeyError, match="no column `value`"):
        tokens["value"]


def test_a_default_is_a_number_or_another_column() -> None:
    """No column leads to itself."""
    for name, column in COLUMNS.items():
        seen = [name]
        while isinstance(column.default, str):
            seen.append(column.default)
            column = COLUMNS[column.default]
        assert len(seen) == len(set(seen))


def test_a_token_that_is_masked_out_gives_no_gradient() -> None:
    """In whichever loss of tokens; its share is multiplied away."""
    for kind, function in LOSSES.items():
        if algorithms.LOSSES[kind].head and algorithms.LOSSES[kind].is_of_pairs:  # of completions, at their last tokens
            continue
        logp = torch.tensor([-1.0, -2.0], requires_grad=True)
        given = {"advantage": torch.ones(2), "sampled_logprob": torch.tensor([-1.0, -2.0])}
        given |= {"value": torch.ones(2), "return": torch.ones(2), "logprob": torch.tensor([-1.0, -2.0])}
        settings = Reader({}).read(Section("", algorithms.LOSSES[kind].config), {}, "")
        given["mask"] = torch.tensor([1.0, 0])
        whose = torch.zeros(2).long()
        loss, _ = function(Tokens(logp, torch.full((2,), 2.0), given, whose, groups=whose), settings)
        (slope,) = torch.autograd.grad(loss, logp)
        assert (slope != 0).tolist() == [True, False]


@pytest.mark.parametrize("kind", [kind for kind, row in algorithms.LOSSES.items() if "kl" in row.config])
@pytest.mark.parametrize("moved", [-200.0, 200.0])
def test_a_token_that_is_far_from_what_sampled_it_leaves_a_step_finite(kind: str, moved: float) -> None:
    """A clip bounds the ratio on one side only; on the other float32 ends at e^88. So does a divergence."""
    logp = torch.tensor([-1.0, -201.0, -1.0, -2.0], requires_grad=True)
    given = {"advantage": torch.tensor([1.0, -1.0, -1.0, 1.0]), "sampled_logprob": logp.detach() - moved}
    given |= {"logprob": logp.detach() + moved}
    settings = Reader({}).read(Section("", algorithms.LOSSES[kind].config), {"kl": 0.1}, "")
    corrected, apart = correct(
        Tokens(logp, torch.full((4,), 2.0), given, torch.tensor([0, 0, 1, 1])),
        {"kind": "band", "level": "token", "low": 0.5, "high": 2.0},
    )
    for tokens in (corrected, replace(corrected, given=given)):
        loss, figures = LOSSES[kind](tokens, settings)
        (slope,) = torch.autograd.grad(loss, logp, retain_graph=True)
        assert slope.isfinite().all()
        assert all(torch.as_tensor(value).isfinite() for value in (loss, *figures.values(), *apart.values()))
