"""Who reads which reward: several are added up by their weights, and none is passed over in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dflow_protocols.metrics import finish, merge
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.doubts import doubts
from dflow_protocols.pipeline.grammar.rows import row_names
from dflow_protocols.pipeline.weighing import reward_weights
from dflow_protocols.versions.shares import shares
from tests.unit.protocols.written_specs import example, problem_of, stage

SHORT = {"id": "short", "op": "reward", "config": {"function": "judge.py:short"}}
WEIGHTS = {"score": 1.0, "short": 0.5}


def two_rewards(**adv: Any) -> dict[str, Any]:
    """The example with a second reward; `adv`: of the advantage's config."""
    spec = example()
    spec["stages"].insert(3, dict(SHORT))
    stage(spec, "heldout")["config"]["function"] = "dflowd.operators.reward:exact_match"
    stage(spec, "adv")["config"].update(adv)
    return spec


def test_rewards_are_weighed_by_stage() -> None:
    pipeline = Pipeline.from_dict(two_rewards(rewards=WEIGHTS))
    assert pipeline.stage("adv").reads == ["roll.rollout", "score.reward", "short.reward"]
    assert reward_weights(pipeline.stage("adv")) == {"score.reward": 1.0, "short.reward": 0.5}
    assert list(doubts(pipeline)) == []
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_the_order_in_which_weights_are_written_is_none_of_the_pipelines() -> None:
    """Sums of floats depend on their order, so it is by name, and the id one."""
    turned = {name: WEIGHTS[name] for name in reversed(WEIGHTS)}
    spec = two_rewards(rewards=turned)
    stage(spec, "adv")["reads"] = ["short.reward", "score.reward"]
    assert Pipeline.from_dict(spec).id == Pipeline.from_dict(two_rewards(rewards=WEIGHTS)).id


def test_one_reward_is_read_and_weighs_1_as_before() -> None:
    pipeline = Pipeline.from_dict(example())
    assert reward_weights(pipeline.stage("adv")) == {"score.reward": 1.0}
    assert {"rewards", "ddof"}.isdisjoint(pipeline.stage("adv").config)


def test_a_reward_that_nobody_reads_is_told() -> None:
    """Two rewards and no weights: the nearest one is trained on, and the other is for show."""
    (doubt,) = doubts(Pipeline.from_dict(two_rewards()))
    assert doubt.path == "stages[2]"
    assert doubt.what == "nothing reads the reward of `score`: it is measured, and not trained on"
    assert "`rewards: {score: 1.0, short: 1.0}`" in doubt.hint


@pytest.mark.parametrize(
    ("change", "path", "what", "hint"),
    [
        (
            lambda s: stage(s, "adv").update(reads=["score.reward", "short.reward"]),
            "stages[4].reads",
            "stage `adv` reads `score.reward` and `short.reward`, and uses one `reward`",
            "weigh them in its config, `rewards: {score: 1.0, short: 1.0}`",
        ),
        (
            lambda s: stage(s, "adv").update(reads=["score.reward"], config={"rewards": {"short": 1.0}}),
            "stages[4].reads",
            "stage `adv` reads `score.reward`, which `rewards` gives no weight",
            "give it one; 0 if it is only to be measured",
        ),
        (
            lambda s: stage(s, "adv")["config"].update(rewards={"score": 1.0, "shrot": 1.0}),
            "stages[4].config.rewards.shrot",
            "stage `adv` reads `shrot.reward`, but there is no stage `shrot`",
            "did you mean `short`?",
        ),
        (
            lambda s: stage(s, "adv")["config"].update(rewards={"roll": 1.0}),
            "stages[4].config.rewards.roll",
            "stage `adv` reads `roll.reward`, but `roll` writes no `reward`",
            "known outputs: rollout",
        ),
        (
            lambda s: stage(s, "adv")["config"].update(rewards={}),
            "stages[4].config.rewards",
            "stage `adv`: `rewards` names none",
            "give weights by stage, such as `rewards: {score: 1.0}`",
        ),
        (
            lambda s: stage(s, "heldout")["config"].pop("function"),
            "stages[6].config.function",
            "stage `heldout`: `score` and `short` are rewards, and `function` says not which one it measures",
            "such as `function: dflowd.operators.reward:exact_match`",
        ),
    ],
)
def test_what_would_lose_a_reward_is_refused(
    change: Callable[[dict[str, Any]], Any], path: str, what: str, hint: str
) -> None:
    """Where several could be meant, none is taken by its place."""
    spec = two_rewards()
    change(spec)
    assert problem_of(spec) == (path, what, hint)


def scored(spec: dict[str, Any], name: str, model: str) -> None:
    spec["models"][model] = spec["models"]["policy"]
    spec["stages"].insert(4, {"id": name, "op": "logprob", "model": model})


def test_a_training_reads_its_own_view_and_a_reference_beside_each_other() -> None:
    spec = example()
    scored(spec, "ref", "start")
    scored(spec, "own", "policy")
    stage(spec, "learn").update(reads=["own.logprob", "ref.logprob"])
    stage(spec, "learn")["config"]["loss"]["kl"] = 0.1
    assert Pipeline.from_dict(spec).stage("learn").reads[-2:] == ["own.logprob", "ref.logprob"]


@pytest.mark.parametrize(
    ("models", "path", "what"),
    [
        (
            ("policy",),
            "stages[5].config.loss.kl",
            "stage `learn`: `kl` is the distance from another model, and `s0` scores by the trained one",
        ),
        (
            ("start", "start"),
            "stages[6].reads",
            "stage `learn` reads `s0.logprob` and `s1.logprob`, both of a reference",
        ),
        (
            ("policy", "policy", "start"),
            "stages[7].reads",
            "stage `learn` reads `s0.logprob` and `s1.logprob`, both of the trained model",
        ),
    ],
)
def test_log_probabilities_that_would_be_passed_over_are_refused(models: tuple[str, ...], path: str, what: str) -> None:
    """`kl: 0.1` against the trained model itself was a weight on nothing."""
    spec = example()
    for index, model in enumerate(models):
        scored(spec, f"s{index}", model)
    stage(spec, "learn").update(reads=[f"s{index}.logprob" for index in range(len(models))])
    stage(spec, "learn")["config"]["loss"]["kl"] = 0.1
    assert problem_of(spec)[:2] == (path, what)


@pytest.mark.parametrize(
    ("writes", "position", "what"),
    [
        (["x", "x"], 1, "it writes `x` twice"),
        (["prompt"], 0, "`prompt` is what every row has already"),
        (["logprob"], 0, "`logprob` is what a built-in operator writes, and more than a number"),
    ],
)
def test_outputs_of_ones_own_have_names_of_their_own(writes: list[str], position: int, what: str) -> None:
    """Else a number would stand where the next stage looks for a text."""
    spec = example()
    spec["stages"].append({"id": "own", "op": "mine:f", "writes": writes})
    path, said, _ = problem_of(spec)
    assert (path, said) == (f"stages[6].writes[{position}]", f"stage `own`: {what}")


def test_a_row_has_the_short_name_only_where_it_says_which_one() -> None:
    assert row_names(["roll.rollout", "a.reward", "b.reward", "c.length"]) == {
        "roll.rollout": ("roll.rollout", "rollout"),
        "a.reward": ("a.reward",),
        "b.reward": ("b.reward",),
        "c.length": ("c.length", "length"),
    }


def test_each_reward_has_figures_of_its_own_and_the_plain_ones_are_of_the_sum() -> None:
    """A mean of the two together would be the mean of nothing."""
    pipeline = Pipeline.from_dict(two_rewards(rewards=WEIGHTS))
    records = {
        "score": (("reward_sum", 3.0), ("rewarded", 4.0), ("reward_max", 1.0), ("judge_requests", 4.0)),
        "short": (("reward_sum", 2.0), ("rewarded", 4.0), ("reward_max", 1.0), ("judge_requests", 5.0)),
        "adv": (("reward_sum", 4.0), ("rewarded", 4.0), ("reward_max", 1.5), ("groups", 2.0)),
    }
    figures = finish(dict(merge(shares(pipeline, name, sums) for name, sums in records.items())))
    assert figures["reward_mean"] == 1.0
    assert (figures["reward_mean/score"], figures["reward_mean/short"]) == (0.75, 0.5)
    assert (figures["reward_max"], figures["reward_max/score"]) == (1.5, 1.0)
    assert (figures["judge_requests"], figures["judge_requests/short"]) == (9.0, 5.0)  # all are on the bill


def test_two_partitions_extremes_of_one_stage_stay_extremes() -> None:
    merged = merge([[("reward_max/a", 1.0), ("reward_min/a", 0.5)], [("reward_max/a", 3.0), ("reward_min/a", 0.0)]])
    assert merged == (("reward_max/a", 3.0), ("reward_min/a", 0.0))


def test_two_evaluations_are_told_apart_in_a_step() -> None:
    spec = example()
    spec["stages"].append(dict(stage(spec, "heldout")) | {"id": "easy"})
    pipeline = Pipeline.from_dict(spec)
    found = [(("correct", 1.0), ("evaluated", 4.0)), (("correct", 4.0), ("evaluated", 4.0))]
    parts = [shares(pipeline, name, sums) for name, sums in zip(("heldout", "easy"), found, strict=True)]
    figures = finish(dict(merge(parts)))
    assert (figures["accuracy/heldout"], figures["accuracy/easy"], figures["accuracy"]) == (0.25, 1.0, 0.625)


def test_one_stage_of_a_kind_has_the_plain_figures_alone() -> None:
    sums = (("reward_sum", 3.0), ("rewarded", 4.0))
    assert shares(Pipeline.from_dict(example()), "score", sums) == sums
