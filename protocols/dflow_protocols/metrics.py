"""Metrics: sums that records carry, and the names that people know made from them.

A record's metrics are additive: the sums of two shares of a step added up are the sums of both, so no node needs to
see all samples. `merge` adds them, `finish` divides. A name ending in `_max` merges by maximum, one in `_min` by
minimum; those of UPDATE_GAUGES are facts of an update that every trainer finds alike, and merge by maximum too.
`NAME/STAGE` is NAME of one stage alone, where several are of a kind (shares.py).

Stages that follow each other describe the same samples, so each kind of stage has sums of its own: none is counted
twice when all records of a step are merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

# generate: over all sampled completions
SAMPLES = "samples"  # completions
COMPLETION_TOKENS = "completion_tokens"  # tokens in them, the final eos included
COMPLETION_LENGTH_MAX = "completion_length_max"  # tokens of the longest
NUCLEUS_MASS_SUM = "nucleus_mass_sum"  # probability of the set that each token was drawn from, if `top_p` is below 1
PROMPTS_DROPPED = "prompts_dropped"  # entries of the data that are too long to be asked, where they are left out
TRUNCATED = "truncated"  # completions that met max_tokens before they ended

# reward: over all completions that got one
REWARDED = "rewarded"  # completions
REWARD_SUM = "reward_sum"
REWARD_SQ_SUM = "reward_sq_sum"  # of squares
REWARD_MAX = "reward_max"
REWARD_MIN = "reward_min"
UNSCORED = "unscored"  # completions that got none, if any: nothing is learnt from them
REWARD_ERRORS = "reward_errors"  # completions whose function failed, if any
REWARD_TIMEOUTS = "reward_timeouts"  # of these: a limit of time or memory ended it, or its process ended

# reward and evaluate, where dflowd.rewards.judge scores: over all requests of tasks that count
JUDGE_REQUESTS = "judge_requests"  # sent, those that were sent again included
JUDGE_RETRIES = "judge_retries"  # of these: sent again, as the judge was busy or out of reach
JUDGE_PROMPT_TOKENS = "judge_prompt_tokens"  # as its answers say
JUDGE_COMPLETION_TOKENS = "judge_completion_tokens"
JUDGE_COST = "judge_cost"  # of these tokens, where the stage says a price; in its currency

JUDGE = (JUDGE_REQUESTS, JUDGE_RETRIES, JUDGE_PROMPT_TOKENS, JUDGE_COMPLETION_TOKENS, JUDGE_COST)

# filter: over all groups
FILTERED_GROUPS = "filtered_groups"
KEPT_GROUPS = "kept_groups"  # of these: trained on, as far as it says

# advantage: over all groups
GROUPS = "groups"
GROUPS_ZERO_STD = "groups_zero_std"  # groups whose rewards are all alike
ADVANTAGE_MAX = "advantage_max"
ADVANTAGE_MIN = "advantage_min"

# advantage with `whiten`: over the tokens that are trained on
WHITENED_COUNT = "whitened_count"  # tokens
WHITENED_SUM = "whitened_sum"  # of their advantages, before they are whitened
WHITENED_SQ_SUM = "whitened_sq_sum"  # of squares

# logprob, where a weight of the divergence follows it: over all completion tokens
REFERENCE_KL_SUM = "reference_kl_sum"  # k1 estimate of the divergence of who sampled from the stage's model, nats
REFERENCE_KL_COUNT = "reference_kl_count"
REFERENCE_KL_SAMPLES = "reference_kl_samples"  # completions

# advantage with `kl`: over all completion tokens
REWARD_KL_SUM = "reward_kl_sum"  # estimate of the divergence from the reference that the reward pays for, nats
REWARD_KL_COUNT = "reward_kl_count"

# train and sft, emitted by blocks of leaves: over what was trained on, and only that
TRAINED_SAMPLES = "trained_samples"
TRAINED_TOKENS = "trained_tokens"  # completion tokens with a loss
LOSS_SUM = "loss_sum"  # summed as the gradient is, before the division at the root of the tree
LOSS_COUNT = "loss_count"  # what the loss is divided by: trained tokens, or samples for a sequence mean
ENTROPY_SUM = "entropy_sum"  # nats, of the full distribution at each trained token
RATIO_SUM = "ratio_sum"  # new over old probability of each trained token (train only, as are those below)
RATIO_COUNT = "ratio_count"  # trained tokens that have a ratio
RATIO_MAX = "ratio_max"
RATIO_MIN = "ratio_min"
CLIPPED_LOW = "clipped_low"  # trained tokens whose gain was cut at 1 - clip low
CLIPPED_HIGH = "clipped_high"  # trained tokens whose gain was cut at 1 + clip high
MISMATCH_SUM = "mismatch_sum"  # |log-probability as training computes it - as the sampler had it|, nats
MISMATCH_MAX = "mismatch_max"
MISMATCH_KL_SUM = "mismatch_kl_sum"  # k3 estimate of the divergence of the sampler's distribution from training's, nats
MISMATCH_COUNT = "mismatch_count"  # trained tokens of which both are known
CORRECTED = "corrected"  # those whose ratio was out of the bounds of `correction`
KL_SUM = "kl_sum"  # k3 estimate to the reference, nats; only where the loss has a `kl` weight

# train by preferences: over its pairs
PREFERENCES = "preferences"  # pairs
PREFERRED = "preferred"  # of these: the better completion has become likelier than the worse one, by the reference
PREFERENCE_MARGIN_SUM = "preference_margin_sum"  # by how much, times the loss's `beta`; nats
CHOSEN_LOGPROB_SUM = "chosen_logprob_sum"  # of a pair's better completion whole, by the policy before this update
REJECTED_LOGPROB_SUM = "rejected_logprob_sum"  # of its worse one
CHOSEN_REWARD_SUM = "chosen_reward_sum"  # how much likelier it has become than by the reference, times `beta`
REJECTED_REWARD_SUM = "rejected_reward_sum"

# train of a critic: over its trained tokens
VALUE_LOSS_SUM = "value_loss_sum"  # in place of LOSS_SUM, as a step may train a policy beside it
VALUE_LOSS_COUNT = "value_loss_count"
VALUE_COUNT = "value_count"  # tokens
VALUE_CLIPPED = "value_clipped"  # of these: the value has moved further from the old one than `value_clip`
PAIRS = "pairs"  # of completions of a prompt, one of which is preferred
PAIRS_RIGHT = "pairs_right"  # of these: the reward model found the same, before this update
PAIR_MARGIN_SUM = "pair_margin_sum"  # how much more it gave the preferred one
RETURN_SUM = "return_sum"  # what came
RETURN_SQ_SUM = "return_sq_sum"
VALUE_ERROR_SUM = "value_error_sum"  # what came less the value that the advantages went by
VALUE_ERROR_SQ_SUM = "value_error_sq_sum"

OWN = "own_"  # begins what a loss of the user's own tells: sums over trained tokens, told as their mean; or extremes

NONFINITE_LEAVES = "nonfinite_leaves"  # leaves whose loss or gradient was no number, if that skips an update
NONFINITE_LEAF_MIN = "nonfinite_leaf_min"  # the first of them

# evaluate: over all evaluated prompts
EVALUATED = "evaluated"
CORRECT = "correct"  # sum of the scores: with exact match the number of right answers
EVALUATED_TOKENS = "evaluated_tokens"  # tokens generated for it
EVALUATED_TRUNCATED = "evaluated_truncated"
EVALUATED_UNSCORED = "evaluated_unscored"  # answers without a score, if any; they count as wrong

# apply: facts of an update, not of samples
GRAD_NORM = "grad_norm"  # global norm before clipping
LEARNING_RATE = "learning_rate"

# a step whose rollouts are behind: how many steps before it the version was made that sampled them
VERSION_GAP_MAX = "version_gap_max"
VERSION_GAP_MIN = "version_gap_min"
# the same of each trained token, where rollouts may be of any of several versions
VERSION_GAP_SUM = "version_gap_sum"
VERSION_GAP_COUNT = "version_gap_count"

# a step that samples in rounds
ROUNDS = "rounds"  # how many it took
GROUPS_KEPT = "groups_kept"  # groups of these that were not left out
GROUPS_SURPLUS = "groups_surplus"  # of these: beyond what was enough, and so not trained on

KL_COEFFICIENT = "kl_coefficient"  # a weight that follows its divergence, as a step has it

UPDATE_SKIPPED = "update_skipped"  # 1 where it left all as it was, in place of a norm that is no number

UPDATE_GAUGES = (GRAD_NORM, LEARNING_RATE, UPDATE_SKIPPED, ROUNDS, GROUPS_KEPT, GROUPS_SURPLUS, KL_COEFFICIENT)

Sums = tuple[tuple[str, float], ...]

_QUOTIENTS = (
    ("completion_length_mean", COMPLETION_TOKENS, SAMPLES),
    ("truncated_frac", TRUNCATED, SAMPLES),
    ("nucleus_mass_mean", NUCLEUS_MASS_SUM, COMPLETION_TOKENS),
    ("reward_mean", REWARD_SUM, REWARDED),
    ("kept_frac", KEPT_GROUPS, FILTERED_GROUPS),
    ("frac_groups_zero_std", GROUPS_ZERO_STD, GROUPS),
    ("loss", LOSS_SUM, LOSS_COUNT),
    ("reference_kl", REFERENCE_KL_SUM, REFERENCE_KL_COUNT),
    ("reward_kl", REWARD_KL_SUM, REWARD_KL_COUNT),
    ("preferred_frac", PREFERRED, PREFERENCES),
    ("preference_margin", PREFERENCE_MARGIN_SUM, PREFERENCES),
    ("chosen_logprob", CHOSEN_LOGPROB_SUM, PREFERENCES),
    ("rejected_logprob", REJECTED_LOGPROB_SUM, PREFERENCES),
    ("chosen_reward", CHOSEN_REWARD_SUM, PREFERENCES),
    ("rejected_reward", REJECTED_REWARD_SUM, PREFERENCES),
    ("value_loss", VALUE_LOSS_SUM, VALUE_LOSS_COUNT),
    ("value_clip_frac", VALUE_CLIPPED, VALUE_COUNT),
    ("pair_accuracy", PAIRS_RIGHT, PAIRS),
    ("pair_margin_mean", PAIR_MARGIN_SUM, PAIRS),
    ("return_mean", RETURN_SUM, VALUE_COUNT),
    ("entropy", ENTROPY_SUM, TRAINED_TOKENS),
    ("ratio_mean", RATIO_SUM, RATIO_COUNT),
    ("clip_frac_low", CLIPPED_LOW, RATIO_COUNT),
    ("clip_frac_high", CLIPPED_HIGH, RATIO_COUNT),
    ("mismatch_mean", MISMATCH_SUM, MISMATCH_COUNT),
    ("mismatch_kl", MISMATCH_KL_SUM, MISMATCH_COUNT),
    ("corrected_frac", CORRECTED, MISMATCH_COUNT),
    ("kl", KL_SUM, RATIO_COUNT),
    ("version_gap_mean", VERSION_GAP_SUM, VERSION_GAP_COUNT),
    ("accuracy", CORRECT, EVALUATED),
    ("eval_truncated_frac", EVALUATED_TRUNCATED, EVALUATED),
)
_COUNTS = (
    SAMPLES,
    PROMPTS_DROPPED,
    TRAINED_SAMPLES,
    TRAINED_TOKENS,
    NONFINITE_LEAVES,
    EVALUATED,
    UNSCORED,
    REWARD_ERRORS,
    REWARD_TIMEOUTS,
    EVALUATED_UNSCORED,
    *JUDGE,
)


Whitening = tuple[float, float]
"""(mean, standard deviation) of a step's advantages over its trained tokens"""

SPREAD_FLOOR = 1e-6  # times the root of the mean square: where all are alike, what rounding leaves stays small


def whitening(parts: Iterable[Iterable[tuple[str, float]]]) -> Whitening:
    """Of the records that have the sums for it; (0, 1), which changes nothing, where there is nothing to whiten."""
    sums = dict(merge(parts))
    count, total, squares = (sums.get(name, 0.0) for name in (WHITENED_COUNT, WHITENED_SUM, WHITENED_SQ_SUM))
    if not (count > 0 and 0 < squares < math.inf and math.isfinite(total)):
        return 0.0, 1.0
    mean = total / count
    spread = squares / count - mean * mean  # rounding may leave it just below 0
    return mean, math.sqrt(max(spread, 0.0)) + SPREAD_FLOOR * math.sqrt(squares / count)


def merge(parts: Iterable[Iterable[tuple[str, float]]]) -> Sums:
    """Sums of all parts together, names sorted. The order of the parts does not matter, to the last bit."""
    gathered: dict[str, list[float]] = {}
    for part in parts:
        for name, value in part:
            gathered.setdefault(name, []).append(value)
    return tuple((name, _merged(name, gathered[name])) for name in sorted(gathered))


def _merged(name: str, values: list[float]) -> float:
    if any(math.isnan(value) for value in values):
        return math.nan
    plain = name.partition("/")[0]
    if plain.endswith("_max") or plain in UPDATE_GAUGES:
        return float(max(values))
    if plain.endswith("_min"):
        return float(min(values))
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond float64, or both infinities
        return math.nan


def finish(sums: Mapping[str, float]) -> dict[str, float]:
    """What people read, from merged sums: means, shares, extremes and counts, in a fixed order of names.

    A figure whose sums are missing, or whose count is 0, is left out. `reward_std` is the population's deviation over
    all completions of the step. `explained_variance` is the share of the returns' variance that a critic had foreseen:
    1 is all, 0 what a constant does. `generated_tokens` are those of rollouts and evaluations. Figures of one stage
    alone have its name behind them, as in `reward_mean/score`, and come last.
    """
    by_stage: dict[str, dict[str, float]] = {"": {}}
    for name in sorted(sums):
        plain, slash, stage = name.partition("/")
        by_stage.setdefault(slash + stage, {})[plain] = sums[name]
    return {f"{name}{stage}": value for stage, part in by_stage.items() for name, value in _finish(part).items()}


def _finish(sums: Mapping[str, float]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, top, bottom in _QUOTIENTS:
        if top in sums and sums.get(bottom, 0.0) > 0:
            figures[name] = sums[top] / sums[bottom]
        if name == "reward_mean" and name in figures and REWARD_SQ_SUM in sums:
            spread = sums[REWARD_SQ_SUM] / sums[REWARDED] - figures[name] ** 2
            figures["reward_std"] = math.sqrt(max(spread, 0.0))  # rounding may leave it just below 0
        if name == "return_mean" and name in figures and (spread := _spread(sums, RETURN_SUM, RETURN_SQ_SUM)) > 0:
            figures["explained_variance"] = 1 - _spread(sums, VALUE_ERROR_SUM, VALUE_ERROR_SQ_SUM) / spread
    for name in sorted(sums):
        if name.endswith(("_max", "_min")) or name in UPDATE_GAUGES or name in _COUNTS:
            figures[name] = sums[name]
        elif name.startswith(OWN) and sums.get(TRAINED_TOKENS, 0.0) > 0:
            figures[name] = sums[name] / sums[TRAINED_TOKENS]
    if COMPLETION_TOKENS in sums or EVALUATED_TOKENS in sums:
        figures["generated_tokens"] = sums.get(COMPLETION_TOKENS, 0.0) + sums.get(EVALUATED_TOKENS, 0.0)
    return figures


def _spread(sums: Mapping[str, float], total: str, squares: str) -> float:
    """Variance of a figure of a critic's tokens; 0 where it is not told, or less than rounding leaves."""
    if not {total, squares} <= sums.keys():
        return 0.0
    mean = sums[total] / sums[VALUE_COUNT]
    return float(max(sums[squares] / sums[VALUE_COUNT] - mean**2, 0.0))
