"""Sampling: what the sampler says of its tokens is what the model says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dflowd.models import sampling
from dflowd.models.policy import Policy
from dflowd.models.sampling import Completions, Sampler, sample, seats_of
from tests.support.repository import EXAMPLES

PROMPTS = [[2, 5, 6, 3], [2, 9, 8, 7, 6, 3], [2, 4, 3]]


@pytest.fixture(scope="module")
def policy() -> Policy:
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    made = Policy("policy", config, EXAMPLES, 5)
    for parameter in made.model.parameters():
        parameter.mul_(3)  # far from uniform, so that a wrong state would show
    return made


def draw(
    policy: Policy, prompts: list[list[int]], first: int, samples: int, max_tokens: int = 8, **more: Any
) -> Completions:
    seats = seats_of(first, len(prompts), samples, max_tokens)
    return sample(policy, prompts, seats, Sampler(**more), lambda: None)


def said(made: Completions, row: int) -> list[int]:
    return [int(token) for token in made.tokens[row, : made.lengths[row]]]


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_log_probabilities_are_those_of_a_plain_forward_pass(policy: Policy, temperature: float) -> None:
    """Training divides new by old probabilities: cache, padding and shared prompts must leave no trace in the old."""
    made = draw(policy, PROMPTS, 0, 4, temperature=temperature)
    for row in range(len(PROMPTS) * 4):
        prompt, tokens = PROMPTS[row // 4], said(made, row)
        with torch.inference_mode():
            logits = policy.model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        logp = torch.log_softmax(logits / temperature, -1)[range(len(tokens)), tokens]
        assert np.abs(logp.numpy() - made.logprobs[row, : len(tokens)]).max() < 1e-4


def test_a_completion_does_not_depend_on_the_groups_beside_it(policy: Policy) -> None:
    """Its random numbers are counted by its own place in the step, so a smaller batch draws the same text."""
    together = draw(policy, PROMPTS, 10, 4)
    alone = draw(policy, PROMPTS[1:2], 11, 4)
    assert [said(together, 4 + row) for row in range(4)] == [said(alone, row) for row in range(4)]


def test_a_text_that_is_sampled_in_pieces_is_the_one_that_is_sampled_at_once(policy: Policy) -> None:
    """A conversation's tokens are a function of their numbers in it, however many turns they come in."""
    whole = draw(policy, PROMPTS[:1], 3, 1, max_tokens=8)
    begun = draw(policy, PROMPTS[:1], 3, 1, max_tokens=3)
    assert begun.truncated.all()
    rest = replace(seats_of(3, 1, 1, 5), first=np.array([3], np.uint64))
    after = sample(policy, [PROMPTS[0] + said(begun, 0)], rest, Sampler(), lambda: None)
    assert said(begun, 0) + said(after, 0) == said(whole, 0)


def test_each_row_may_say_as_much_as_its_own_seat_says(policy: Policy) -> None:
    """Conversations of a batch have room left for different lengths."""
    seats = replace(seats_of(0, 3, 1, 8), most=np.array([2, 8, 1]))
    made = sample(policy, PROMPTS, seats, Sampler(), lambda: None)
    assert (made.lengths <= [2, 8, 1]).all()
    assert [said(made, row) for row in range(3)] == [
        said(draw(policy, PROMPTS, 0, 1), row)[:most] for row, most in enumerate((2, 8, 1))
    ]


def test_a_completion_ends_with_its_first_end_of_sequence(policy: Policy) -> None:
    """Nothing after the end is trained on, and only what never ended counts as truncated."""
    made = draw(policy, PROMPTS * 8, 0, 8, max_tokens=20, temperature=2.0)
    (end,) = policy.stops
    for row in range(len(made.lengths)):
        tokens = said(made, row)
        assert end not in tokens[:-1]
        assert made.truncated[row] == (tokens[-1] != end)
        assert len(tokens) == 20 or not made.truncated[row]
    assert 0 < made.truncated.sum() < len(made.lengths)


def test_padding_is_never_sampled(policy: Policy) -> None:
    """A model cannot be told to stop by a token that it was never shown."""
    made = draw(policy, PROMPTS * 20, 0, 8, temperature=5.0)
    assert not any(policy.never_sampled in said(made, row) for row in range(len(made.lengths)))


def test_greedy_takes_the_likeliest_token(policy: Policy) -> None:
    """Accuracy is reported of it, so it must not depend on luck."""
    made = draw(policy, PROMPTS, 0, 1, greedy=True)
    assert [said(made, row) for row in range(3)] == [
        said(draw(policy, [prompt], 5, 1, greedy=True, key=b"other..."), 0) for prompt in PROMPTS
    ]
    almost = draw(policy, PROMPTS, 0, 1, temperature=0.001)
    assert [said(made, row) for row in range(3)] == [said(almost, row) for row in range(3)]


def test_top_p_leaves_the_unlikely_out(policy: Policy) -> None:
    """With a small share only the likeliest token is left."""
    nucleus = draw(policy, PROMPTS, 0, 1, top_p=0.0001)
    greedy = draw(policy, PROMPTS, 0, 1, greedy=True)
    assert [said(nucleus, row) for row in range(3)] == [said(greedy, row) for row in range(3)]


def test_top_p_has_what_was_drawn_from_beside_the_full_vocabulary(policy: Policy) -> None:
    """Else nobody can tell afterwards how far the sampler was from the policy that is trained."""
    whole, nucleus = draw(policy, PROMPTS, 0, 4), draw(policy, PROMPTS, 0, 4, top_p=0.5)
    assert whole.nucleus is None
    assert nucleus.nucleus is not None
    counted = np.arange(nucleus.tokens.shape[1]) < nucleus.lengths[:, None]
    mass = np.exp(nucleus.logprobs[counted] - nucleus.nucleus[counted])
    assert (mass <= 1 + 1e-5).all()
    assert (mass < 1).any()
    assert draw(policy, PROMPTS, 0, 1, top_p=1e-4).nucleus == pytest.approx(0)  # one token is left, and sure


def test_a_stop_text_ends_a_completion(policy: Policy) -> None:
    """The text is looked for in what was said so far, whatever tokens it came in."""
    made = draw(policy, PROMPTS * 8, 0, 4, stop=("a",), max_tokens=12)
    a = policy.tokenizer.encode("a")[0]
    for row in range(len(made.lengths)):
        assert a not in said(made, row)[:-1]
    assert any(said(made, row)[-1] == a for row in range(len(made.lengths)))


def test_nothing_is_asked_of_an_empty_partition(policy: Policy) -> None:
    """A partition past the end of the held-out data has no prompts."""
    assert len(draw(policy, [], 0, 4).tokens) == 0


def test_sums_of_whole_numbers_are_those_of_fractions() -> None:
    """A GPU adds them up in any order to the same; what is drawn by them is what a processor draws."""
    weights = torch.softmax(3 * torch.randn(20, 500, generator=torch.Generator().manual_seed(1)), -1).double()
    whole, plain = sampling._whole_sums(weights), weights.cumsum(-1)
    assert torch.allclose(whole, plain, rtol=0, atol=1e-12)
    assert (whole.diff(dim=-1) >= 0).all()
    level = torch.rand(20, 1, generator=torch.Generator().manual_seed(2)).double()
    assert torch.equal((whole < level * whole[:, -1:]).sum(-1), (plain < level * plain[:, -1:]).sum(-1))
