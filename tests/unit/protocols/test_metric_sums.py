"""Metrics: sums that can be added in any order, and the figures made from them."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.metrics import WHITENED_COUNT, WHITENED_SQ_SUM, WHITENED_SUM, finish, merge, whitening

names = st.sampled_from(["samples", "reward_sum", "ratio_max", "ratio_min", "grad_norm"])
parts = st.lists(st.lists(st.tuples(names, st.floats(-1e9, 1e9)), max_size=5), max_size=6)


@given(parts=parts, seed=st.integers())
def test_the_order_in_which_records_arrive_changes_no_bit(parts: list[list[tuple[str, float]]], seed: int) -> None:
    """Nodes gather records in different orders and must print the same figures."""
    mixed = list(parts)
    Random(seed).shuffle(mixed)
    assert merge(mixed) == merge(parts)


def test_sums_add_and_extremes_stay_extremes() -> None:
    merged = merge([[("samples", 2.0), ("ratio_max", 1.5), ("ratio_min", 0.5)], [("samples", 3.0), ("ratio_max", 1.1)]])
    assert merged == (("ratio_max", 1.5), ("ratio_min", 0.5), ("samples", 5.0))


def test_an_update_told_by_every_trainer_counts_once() -> None:
    """All trainers find the same norm; three of them must not triple it."""
    assert merge([[("grad_norm", 0.7)]] * 3) == (("grad_norm", 0.7),)


def test_figures_are_those_of_all_samples_together() -> None:
    """Two partitions' sums give the mean and deviation of their union: rewards 1, 1, 0 and 0, 0, 1, 1, 1."""
    first = [("rewarded", 3.0), ("reward_sum", 2.0), ("reward_sq_sum", 2.0), ("groups", 1.0), ("groups_zero_std", 0.0)]
    second = [("rewarded", 5.0), ("reward_sum", 3.0), ("reward_sq_sum", 3.0), ("groups", 1.0), ("groups_zero_std", 1.0)]
    figures = finish(dict(merge([first, second])))
    assert figures["reward_mean"] == 5 / 8
    assert figures["reward_std"] == pytest.approx(math.sqrt(5 / 8 * 3 / 8))
    assert figures["frac_groups_zero_std"] == 0.5


def test_a_figure_without_samples_is_left_out() -> None:
    """A step in which all groups were dropped has no entropy; 0 would be a lie."""
    assert "entropy" not in finish({"entropy_sum": 0.0, "trained_tokens": 0.0})


def test_every_figure_that_users_know_has_a_source() -> None:
    sums = dict.fromkeys(
        [
            *("samples", "completion_tokens", "completion_length_max", "truncated"),
            *("rewarded", "reward_sum", "reward_sq_sum", "groups", "groups_zero_std"),
            *("trained_tokens", "loss_sum", "loss_count", "entropy_sum", "grad_norm"),
            *("ratio_sum", "ratio_count", "ratio_max", "clipped_low", "clipped_high", "kl_sum"),
            *("evaluated", "correct"),
        ],
        4.0,
    )
    wanted = {
        *("reward_mean", "reward_std", "frac_groups_zero_std", "entropy", "grad_norm", "loss", "kl", "accuracy"),
        *("ratio_mean", "ratio_max", "clip_frac_low", "clip_frac_high", "generated_tokens"),
        *("completion_length_mean", "completion_length_max", "truncated_frac"),
    }
    assert wanted <= set(finish(sums))


def told(*advantages: float) -> list[tuple[str, float]]:
    """What a partition's record tells of advantages of a token each."""
    squares = sum(value * value for value in advantages)
    return [(WHITENED_COUNT, len(advantages)), (WHITENED_SUM, sum(advantages)), (WHITENED_SQ_SUM, squares)]


def test_a_step_is_whitened_by_all_its_tokens_together() -> None:
    """Mean and deviation of the union, however it is cut into partitions."""
    mean, deviation = whitening([told(1.0, 2.0), told(6.0)])
    assert mean == 3.0
    assert deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 3), rel=1e-5)
    assert whitening([told(6.0), told(), told(1.0, 2.0)]) == (mean, deviation)


def test_where_all_is_alike_whitening_leaves_nothing_and_divides_by_no_zero() -> None:
    """What rounding leaves of the mean is not made large."""
    mean, deviation = whitening([told(*[0.1] * 7)])
    assert abs(0.1 - mean) / deviation < 1e-8
    assert whitening([told(0.0, 0.0)]) == whitening([]) == (0.0, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
def test_what_a_liar_says_is_a_number_in_the_end(value: float) -> None:
    """A record that was sealed is believed, and nobody dies of it."""
    for name in (WHITENED_COUNT, WHITENED_SUM, WHITENED_SQ_SUM):
        assert all(math.isfinite(each) or value == 1e308 for each in whitening([told(1.0), [(name, value)]]))


def test_an_extreme_that_a_users_loss_tells_is_no_mean() -> None:
    """Blocks are merged to the largest of all; divided by the tokens it would be the largest of nothing."""
    merged = merge([[("own_gate", 4.0), ("own_gate_max", 0.5)], [("own_gate", 2.0), ("own_gate_max", 0.9)]])
    assert finish({**dict(merged), "trained_tokens": 12.0}) == {
        "own_gate": 0.5,
        "own_gate_max": 0.9,
        "trained_tokens": 12.0,
    }
