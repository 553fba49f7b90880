"""Rewards of several stages: added up by their weights, told apart wherever they are shown or handed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dflow_protocols.pipeline import Stage
from dflowd.data import columns
from dflowd.engines.samples import samples_of
from dflowd.jobs.failures import UserError
from dflowd.operators.advantage import advantage

from .partitions import known, partition, pipeline


def test_weighed_rewards_are_added_up_before_they_are_compared(tmp_path: Path) -> None:
    """The second thing that every user does."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.5}, scale="none")
    made = advantage(partition(tmp_path, spec, "adv", known()))
    assert columns.values(made.columns["advantage"]).tolist() == [0.25, -0.25, 0.75, -0.75]
    assert (made.metrics["reward_sum"], made.metrics["rewarded"]) == (3.0, 4)


def test_a_weight_of_0_measures_and_does_not_train(tmp_path: Path) -> None:
    spec = pipeline(rewards={"right": 1.0, "short": 0.0}, drop_flat_groups=True)
    made = advantage(partition(tmp_path, spec, "adv", known(right=[1, 1, 1, 0])))
    assert made.metrics["groups_zero_std"] == 1
    assert made.groups == ((0, 0), (4, 2))


def test_rewards_that_cancel_are_flat_within_the_rounding_of_their_parts(tmp_path: Path) -> None:
    """100.1 less 100.1 leaves the rounding of 100.1, which is large beside 0 and nothing beside its parts."""
    spec = pipeline(rewards={"right": 1.0, "short": -1.0}, drop_flat_groups=True)
    inputs = known(right=[100.1, 100.2, 1, 0], short=[100.1, 100.20001, 0, 0])
    made = advantage(partition(tmp_path, spec, "adv", inputs))
    assert made.groups == ((0, 0), (4, 2))


@pytest.mark.parametrize(
    ("rewards", "right", "error"),
    [
        ({"right": 1e3, "short": 1.0}, [3e38, 0, 0, 0], "the rewards of `right` and `short`, weighed, come to 3e.41"),
        ({"right": 1.0, "short": 0.0}, [1e38, -1e38, 0, 0], "an advantage of 1e.38, whose sums are more than float32"),
    ],
)
def test_sums_beyond_float32_are_laid_to_the_stage(
    tmp_path: Path, rewards: dict[str, float], right: list[float], error: str
) -> None:
    """Each reward is a number, and what they come to is none."""
    spec = pipeline(rewards=rewards, scale="none")
    with pytest.raises(UserError, match=error) as caught:
        advantage(partition(tmp_path, spec, "adv", known(right=right)))
    assert caught.value.stage == "adv"


def test_a_step_is_whitened_by_the_tokens_that_are_trained_on(tmp_path: Path) -> None:
    """Each advantage counts as often as it has tokens; those of dropped groups and of no score count nothing."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.0}, scale="none", drop_flat_groups=True, whiten=True)
    made = advantage(partition(tmp_path, spec, "adv", known(right=[1, 1, 1, 0])))
    tokens = sum(count for count, _ in made.groups)
    assert made.groups[0] == (0, 0)
    assert made.metrics["whitened_count"] == tokens == 4
    assert made.metrics["whitened_sum"] == pytest.approx(0.0)
    assert made.metrics["whitened_sq_sum"] == pytest.approx(tokens / 4)


def test_what_was_cut_off_is_compared_with_and_not_trained_on(tmp_path: Path) -> None:
    """Its reward is of half an answer; that of the others is above or below it all the same."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.0}, scale="none", mask_truncated=True)
    made = advantage(partition(tmp_path, spec, "adv", known()))
    given = columns.values(made.columns["advantage"])
    assert given[:3].tolist() == [0.5, -0.5, 0.5]
    assert np.isnan(given[3])
    assert made.groups == ((4, 2), (2, 1))


def test_samples_show_each_reward_and_what_is_trained_on(tmp_path: Path) -> None:
    """Whoever reads them asks first which of the two went wrong."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.5})
    first, second = samples_of(spec, known(), partition(tmp_path, spec, "adv", {}).data)
    assert (first["reward"], first["rewards"]) == (1.0, {"right": 1.0, "short": 0.0})
    assert (second["reward"], second["rewards"]) == (1.5, {"right": 1.0, "short": 1.0})


def test_a_completion_without_a_score_is_neither_compared_nor_trained_on(tmp_path: Path) -> None:
    """What a judge could not score must not count as bad, nor move the mean that others are held against."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.0}, scale="none")
    made = advantage(partition(tmp_path, spec, "adv", known(right=[1.0, np.nan, 1.0, 0.0])))
    assert columns.values(made.columns["advantage"]).tolist() == pytest.approx([0.0, np.nan, 0.5, -0.5], nan_ok=True)
    assert made.groups == ((2, 1), (4, 2))
    none = advantage(partition(tmp_path, spec, "adv", known(right=[np.nan, np.nan, 1.0, 0.0])))
    assert none.groups == ((0, 0), (4, 2))


@pytest.mark.parametrize("method", [{"method": "grpo", "scale": "none"}, {"method": "rloo"}])
def test_a_completion_pays_for_its_distance_from_the_reference(tmp_path: Path, method: dict[str, str]) -> None:
    """As a whole, before it is compared: it is the reward of all of its tokens that leads away from the reference."""
    spec = pipeline(Stage("ref", "logprob", "base"), rewards={"right": 1.0, "short": 0.0}, kl=0.5, **method)
    made = advantage(partition(tmp_path, spec, "adv", known()))
    apart = -0.5 + np.arange(8)  # as likely as e^-0.5 to the sampler, as e^-0, e^-1, ... to the reference
    earned = np.array([1, 0, 1, 0]) - 0.5 * apart.reshape(4, 2).sum(1)
    other = earned.reshape(2, 2)[:, ::-1].reshape(-1)
    divisor = 2.0 if method["method"] == "grpo" else 1.0
    assert columns.values(made.columns["advantage"]).tolist() == pytest.approx(((earned - other) / divisor).tolist())
    assert (made.metrics["reward_kl_sum"], made.metrics["reward_kl_count"]) == (apart.sum(), 8)
    assert made.metrics["reward_sum"] == 2.0  # what was earned is told by itself


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("method", [{"method": "grpo", "scale": "none"}, {"method": "rloo"}])
def test_a_group_is_flat_by_what_it_earned_whatever_it_pays(tmp_path: Path, method: dict[str, str], drop: bool) -> None:
    """No two completions pay alike, so that none would ever be left out, and no further round be sampled for one."""
    spec = pipeline(
        Stage("ref", "logprob", "base"),
        rewards={"right": 1.0, "short": 0.0},
        kl=0.5,
        drop_flat_groups=drop,
        **method,
    )
    made = advantage(partition(tmp_path, spec, "adv", known(right=[1, 1, 1, 0])))
    assert made.metrics["groups_zero_std"] == 1
    assert made.groups[0] == ((0, 0) if drop else (4, 2))
    assert np.abs(columns.values(made.columns["advantage"])[:2]).min() > 0  # which is trained on, if it is not dropped


def test_what_an_environment_said_is_no_distance_of_the_policys(tmp_path: Path) -> None:
    """Its tokens were not sampled, so their log-probabilities say nothing of the policy."""
    spec = pipeline(Stage("ref", "logprob", "base"), rewards={"right": 1.0, "short": 0.0}, kl=0.5, method="rloo")
    given = known(right=[0, 0, 0, 0])
    mask = columns.pack(np.array([1, 0, 1, 1, 0, 1, 1, 1], np.uint8), np.full(4, 2))
    given["roll.rollout"] = {**given["roll.rollout"], "mask": mask}
    found = columns.values(advantage(partition(tmp_path, spec, "adv", given)).columns["advantage"])
    first, second = (-0.5) / 2, (1.5 + 2.5) / 2
    assert found[:2].tolist() == [second - first, first - second]


def test_the_best_are_chosen_among_those_that_may_be_trained_on(tmp_path: Path) -> None:
    """One that was cut off must not take the place of the best that was not."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.0}, method="best", keep=1, mask_truncated=True)
    made = advantage(partition(tmp_path, spec, "adv", known(right=[0.5, np.nan, 0.25, 1.0])))
    found = columns.values(made.columns["advantage"])
    assert found.tolist() == pytest.approx([1.0, np.nan, 1.0, np.nan], nan_ok=True)
    assert made.groups == ((2, 1), (2, 1))
