"""A leaf's gradient is that of the plain loss, however its samples are laid out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dflowd.models.policy import Policy
from dflowd.training.leaf import LeafData, Objective, add_gradient
from tests.support.repository import EXAMPLES


@pytest.fixture(scope="module")
def policy() -> Policy:
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    return Policy("policy", config, EXAMPLES, 7)


def leaf_data(policy: Policy) -> LeafData:
    rng = np.random.default_rng(3)
    data = LeafData()
    for group in range(5):
        data.prompts.append(rng.integers(4, 30, 3 + group % 3).astype(np.int32))
        for _ in range(4):
            length = int(rng.integers(1, 7))
            data.owners.append(group)
            data.completions.append(rng.integers(1, 30, length).astype(np.int32))
            data.give("sampled_logprob", [(-3 * rng.random(length)).astype(np.float32)])
            data.give("logprob", [(-3 * rng.random(length)).astype(np.float32)])
            data.give("advantage", [float(rng.normal())])
    return data


def grpo(mean: str = "token", kl: float = 0.0, budget: int = 8192, temperature: float = 1.0) -> Objective:
    settings = {"clip": (0.2, 0.28), "mean": mean, "kl": kl}
    return Objective("grpo", settings, "samples" if mean == "sequence" else "tokens", budget, temperature)


def plain_logp(policy: Policy, data: LeafData, temperature: float = 1.0) -> Iterator[torch.Tensor]:
    """Of one sequence at a time, by the model's own forward."""
    for sample, said in enumerate(data.completions):
        prompt = data.prompts[data.owners[sample]]
        tokens = torch.from_numpy(np.concatenate((prompt, said)).astype(np.int64))[None]
        logits = policy.model(tokens).logits[0, len(prompt) - 1 : -1] / temperature
        yield torch.log_softmax(logits, -1).gather(-1, tokens[0, len(prompt) :, None])[:, 0]


def plain_loss(policy: Policy, data: LeafData, mean: str, beta: float, temperature: float) -> torch.Tensor:
    """As the paper writes it."""
    total = torch.zeros(())
    olds, references, advantages = (data.columns[name] for name in ("sampled_logprob", "logprob", "advantage"))
    for sample, logp in enumerate(plain_logp(policy, data, temperature)):
        ratio = torch.exp(logp - torch.from_numpy(olds[sample]))
        gain = torch.minimum(ratio * advantages[sample], ratio.clamp(0.8, 1.28) * advantages[sample])
        gap = torch.from_numpy(references[sample]) - logp
        each = gain - beta * (torch.exp(gap) - gap - 1)
        total = total - (each.mean() if mean == "sequence" else each.sum())
    return total


@pytest.mark.parametrize(("mean", "budget"), [("token", 8192), ("token", 64), ("sequence", 8192)])
def test_sharing_a_prompt_and_a_batch_does_not_change_the_gradient(policy: Policy, mean: str, budget: int) -> None:
    """Completions of one prompt share its states: masks and positions must keep them apart as separate rows would."""
    data = leaf_data(policy)
    expected, found = np.zeros((2, policy.parameters.size), np.float32)
    policy.parameters.begin_gradient(expected)
    plain_loss(policy, data, mean, 0.1, 0.7).backward()  # type: ignore[no-untyped-call]
    policy.parameters.begin_gradient(found)
    sums = add_gradient(policy, data, grpo(mean, 0.1, budget, 0.7), lambda: None)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert sums["trained_samples"] == 20
    assert sums["trained_tokens"] == sum(map(len, data.completions)) == sums["ratio_count"]
    assert sums["loss_count"] == (20 if mean == "sequence" else sums["trained_tokens"])


@pytest.mark.parametrize("budget", [8192, 64])
def test_each_token_is_moved_by_its_own_advantage(policy: Policy, budget: int) -> None:
    """Credit by token: the gradient is that of the sum over tokens, each by its number, whatever lies beside it."""
    data, rng = leaf_data(policy), np.random.default_rng(5)
    data.columns["advantage"] = [rng.normal(size=len(said)).astype(np.float32) for said in data.completions]
    olds = [logp.detach().numpy() for logp in plain_logp(policy, data)]
    data.columns["sampled_logprob"] = olds  # all ratios are 1, so a token's gain has the slope of its advantage
    expected, found = np.zeros((2, policy.parameters.size), np.float32)
    policy.parameters.begin_gradient(expected)
    total = torch.zeros(())
    for logp, advantage in zip(plain_logp(policy, data), data.columns["advantage"], strict=True):
        total = total - (logp * torch.from_numpy(advantage)).sum()
    total.backward()  # type: ignore[no-untyped-call]
    policy.parameters.begin_gradient(found)
    add_gradient(policy, data, grpo(budget=budget), lambda: None)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("budget", [8192, 64])
def test_a_completions_correction_does_not_depend_on_its_micro_batch(policy: Policy, budget: int) -> None:
    """Its ratio is over all of its tokens, whatever they lie beside."""
    data = leaf_data(policy)
    data.columns["sampled_logprob"] = [rows - 2.5 for rows in data.columns["sampled_logprob"]]  # some less likely
    expected, found = np.zeros((2, policy.parameters.size), np.float32)
    policy.parameters.begin_gradient(expected)
    total = torch.zeros(())
    for sample, logp in enumerate(plain_logp(policy, data)):
        apart = logp.detach() - torch.from_numpy(data.columns["sampled_logprob"][sample])
        total = total - apart.mean().exp().clamp(max=2.0) * data.columns["advantage"][sample] * logp.sum()
    total.backward()  # type: ignore[no-untyped-call]
    policy.parameters.begin_gradient(found)
    corrected = replace(grpo(budget=budget), correction={"kind": "truncate", "level": "sequence", "high": 2.0})
    sums = add_gradient(policy, data, corrected, lambda: None)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert 0 < sums["corrected"] < sums["mismatch_count"] == sums["trained_tokens"]


def test_the_same_leaf_gives_the_same_bits_twice(policy: Policy) -> None:
    """Weights are a function of the spec only if a leaf's gradient is one of its data."""
    gradients: list[Any] = []
    for _ in range(2):
        gradient = np.zeros(policy.parameters.size, np.float32)
        policy.parameters.begin_gradient(gradient)
        add_gradient(policy, leaf_data(policy), grpo(), lambda: None)
        gradients.append(gradient.tobytes())
    assert gradients[0] == gradients[1]


def test_cross_entropy_counts_the_answers_tokens_only(policy: Policy) -> None:
    """A demonstration's prompt is given, not learned."""
    data = leaf_data(policy)
    policy.parameters.begin_gradient(np.zeros(policy.parameters.size, np.float32))
    sums = add_gradient(policy, data, Objective("cross_entropy", {}, "tokens", 8192), lambda: None)
    assert sums["loss_count"] == sums["trained_tokens"] == sum(map(len, data.completions))
    assert "ratio_sum" not in sums


@pytest.mark.parametrize("in_line", [False, True])
def test_a_masked_completion_has_the_gradient_of_its_answers_one_by_one(policy: Policy, in_line: bool) -> None:
    """A conversation teaches what each of its answers teaches behind all that was said before it, and no more."""
    rng = np.random.default_rng(5)
    prompt, first, between, second = (rng.integers(4, 30, count).astype(np.int32) for count in (5, 3, 4, 2))
    whole = LeafData([prompt], [0], [np.concatenate([first, between, second])])
    whole.give("mask", [np.array([1, 1, 1, 0, 0, 0, 0, 1, 1], np.float32)])
    parts = LeafData([prompt, np.concatenate([prompt, first, between])], [0, 1], [first, second])
    objective = Objective("cross_entropy", {}, "tokens", 8192)
    gradients, sums = np.zeros((2, policy.parameters.size), np.float32), []
    policy.lay_out(in_line=in_line)
    try:
        for data, gradient in zip((whole, parts), gradients, strict=True):
            policy.parameters.begin_gradient(gradient)
            sums.append(add_gradient(policy, data, objective, lambda: None))
            policy.parameters.end_gradient()
    finally:
        policy.lay_out(in_line=False)
    assert np.abs(gradients[0] - gradients[1]).max() < 1e-5 * np.abs(gradients[1]).max()
    assert sums[0]["trained_tokens"] == sums[1]["trained_tokens"] == 5
    assert sums[0]["loss_sum"] == pytest.approx(sums[1]["loss_sum"], rel=1e-6)


@pytest.mark.parametrize("budget", [8192, 64])
def test_a_critics_gradient_is_that_of_its_plain_loss(policy: Policy, budget: int) -> None:
    """Of the values of one sequence at a time; the body learns by it as well as the head."""
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}, "head": "value"}
    critic, data, rng = Policy("critic", config, EXAMPLES, 7), leaf_data(policy), np.random.default_rng(6)
    with torch.no_grad():
        critic.model.score.weight.copy_(torch.from_numpy(rng.normal(size=critic.model.score.weight.shape)))
    data.give("value", [rng.normal(size=len(said)).astype(np.float32) for said in data.completions])
    data.give("return", [rng.normal(size=len(said)).astype(np.float32) for said in data.completions])
    expected, found = np.zeros((2, critic.parameters.size), np.float32)
    critic.parameters.begin_gradient(expected)
    total = torch.zeros(())
    for sample, said in enumerate(data.completions):
        prompt = data.prompts[data.owners[sample]]
        tokens = torch.from_numpy(np.concatenate((prompt, said)).astype(np.int64))[None, :-1]
        states = critic.body(input_ids=tokens).last_hidden_state[0, len(prompt) - 1 :]
        gaps = critic.model.score(states)[:, 0] - torch.from_numpy(data.columns["return"][sample])
        total = total + 0.5 * gaps.square().sum()
    total.backward()  # type: ignore[no-untyped-call]
    critic.parameters.begin_gradient(found)
    objective = Objective("value", {"value_clip": None}, "tokens", budget)
    sums = add_gradient(critic, data, objective, lambda: None)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert sums["value_loss_sum"] == pytest.approx(float(total.detach()), rel=1e-4)
    assert sums["value_count"] == sums["value_loss_count"] == sums["trained_tokens"]
    assert "loss_sum" not in sums  # the figure of a policy that is trained in the same step
    assert "entropy_sum" not in sums


def test_how_far_tokens_are_behind_is_told(policy: Policy) -> None:
    """Over what was trained on, token by token: the mean of a step is that of its tokens."""
    data = leaf_data(policy)
    policy.parameters.begin_gradient(np.zeros(policy.parameters.size, np.float32))
    data.give("version_gap", [np.full(len(said), at % 3, np.float32) for at, said in enumerate(data.completions)])
    sums = add_gradient(policy, data, grpo(), lambda: None)
    total = sum(float(row.sum()) for row in data.columns["version_gap"])
    assert (sums["version_gap_sum"], sums["version_gap_count"]) == (total, sums["trained_tokens"])


@pytest.mark.parametrize("in_line", [False, True])
@pytest.mark.parametrize("budget", [16, 64, 8192])
def test_pairs_have_one_gradient_however_a_leaf_is_cut(policy: Policy, budget: int, in_line: bool) -> None:
    """A pair's two completions lie in one micro-batch, also where both have more tokens than it should have."""
    data = leaf_data(policy)
    chosen = [1.0, -1.0] * 5
    kept = [at for group in range(5) for at in (4 * group, 4 * group + 2)]
    given = {name: [rows[at] for at in kept] for name, rows in data.columns.items()} | {"advantage": chosen}
    pairs = LeafData(data.prompts, [data.owners[at] for at in kept], [data.completions[at] for at in kept], given)
    expected, found = np.zeros((2, policy.parameters.size), np.float32)
    policy.parameters.begin_gradient(expected)
    moved = [
        sign * (logp - torch.from_numpy(given["logprob"][at])).sum()
        for at, (sign, logp) in enumerate(zip(chosen, plain_logp(policy, pairs), strict=True))
    ]
    margins = [0.3 * (better + worse) for better, worse in zip(moved[::2], moved[1::2], strict=True)]
    loss: torch.Tensor = -2 * torch.stack([torch.sigmoid(margin).log() for margin in margins]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    policy.parameters.begin_gradient(found)
    objective = Objective("dpo", {"beta": 0.3}, "samples", budget, is_of_pairs=True)
    policy.lay_out(in_line)
    sums = add_gradient(policy, pairs, objective, lambda: None)
    policy.lay_out(False)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert sums["preferences"] == 5
    assert sums["loss_sum"] == pytest.approx(loss.item(), rel=1e-5)
    assert sums["loss_count"] == 10


def test_a_reward_model_compares_whole_groups_whatever_fits_into_a_pass() -> None:
    """Its loss is of all completions of a group together, so `micro_batch_tokens` cuts none."""
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}, "head": "value"}
    judge = Policy("judge", config, EXAMPLES, 7)
    judge.model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    data = leaf_data(judge)
    data.columns = {"advantage": [float(sample % 4) for sample in range(20)]}
    gradients, told = np.zeros((2, judge.parameters.size), np.float32), []
    for gradient, budget in zip(gradients, (8192, 16), strict=True):
        judge.parameters.begin_gradient(gradient)
        objective = Objective("bradley_terry", {}, "samples", budget, is_of_pairs=True)
        told.append(add_gradient(judge, data, objective, lambda: None))
    assert np.abs(gradients[0] - gradients[1]).max() < 1e-4 * np.abs(gradients[0]).max()
    assert [(sums["pairs"], sums["value_loss_count"]) for sums in told] == [(5 * 6, 20)] * 2
    assert told[0]["value_loss_sum"] == pytest.approx(told[1]["value_loss_sum"], rel=1e-4)
