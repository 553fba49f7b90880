"""Rounds of a step: which groups each has, how many there are to be, and how many groups are trained on."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, partition_groups, plan
from dflow_protocols.pipeline.doubts import doubts
from dflow_protocols.pipeline.plan import Rounds
from tests.unit.protocols.written_specs import example, problem_of, stage


def with_rounds(until: float, most: int, **adv: Any) -> Pipeline:
    """The newcomer's pipeline, of 96 prompts a round in 12 partitions."""
    spec = example()
    stage(spec, "adv").update(rounds={"until": until, "max": most}, **adv)
    return Pipeline.from_dict(spec)


@pytest.mark.parametrize(
    ("kept", "due"),
    [
        ([None, None, None], 1),
        ([10, None, None], 1),
        ([9, None, None], 2),
        ([9, 0, None], 3),
        ([9, 1, 0], 2),
        ([0, 0, 0], 3),
    ],
)
def test_a_round_is_due_as_long_as_those_before_it_are_over_and_gave_too_little(
    kept: list[int | None], due: int
) -> None:
    assert Rounds(until=10, most=3, counted="adv").due(kept) == due


def test_a_stage_without_rounds_has_one() -> None:
    assert Rounds().due([0]) == 1
    assert Rounds().due([None]) == 1


def test_a_round_has_the_partitions_of_the_first_one_and_groups_of_its_own() -> None:
    """So the first round is what a step without rounds samples."""
    (chain,) = plan(with_rounds(48, 3), 60).chains
    (plain,) = plan(Pipeline.from_dict(example()), 60).chains
    assert [chain.round(index) for index in range(3)] == [range(12), range(12, 24), range(24, 36)]
    for partition in range(12):
        first, end = partition_groups(plain, partition)
        for index in range(3):
            assert partition_groups(chain, 12 * index + partition) == (96 * index + first, 96 * index + end)
            assert chain.round_of(12 * index + partition) == index


@pytest.mark.parametrize(("until", "groups"), [(48, 48), (0.5, 48), (1, 96), (0.001, 1), ("96 + 1", 97)])
def test_a_share_is_of_the_prompts_of_a_round(until: Any, groups: int) -> None:
    (training,) = plan(with_rounds(until, 2), 60).trainings
    assert training.most_groups == groups


def test_a_constant_divisor_counts_the_groups_that_may_be_trained_on() -> None:
    (training,) = plan(with_rounds(48, 3), 60).trainings
    assert training.most_tokens == 48 * 8 * 6


def test_steps_in_which_the_stage_does_not_run_have_no_rounds() -> None:
    (chain,) = plan(with_rounds(48, 3), 49).chains
    assert (chain.stages, chain.rounds) == (("warm",), Rounds())


def test_what_a_pipeline_says_of_rounds_is_part_of_what_it_is() -> None:
    pipeline = with_rounds(48, 3)
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    assert pipeline.id not in (with_rounds(49, 3).id, with_rounds(48, 4).id, Pipeline.from_dict(example()).id)


def test_rounds_of_what_drops_nothing_are_doubted() -> None:
    """The first one always has enough, which is found after a night."""
    assert not [*doubts(with_rounds(1, 2))]
    spec = example()
    stage(spec, "adv").update(rounds={"until": 1, "max": 2}, config={"method": "grpo"})
    (doubt,) = doubts(Pipeline.from_dict(spec))
    assert doubt.what == "stage `adv` drops no groups, so its rounds are always as many"


KEEP = {"id": "keep", "op": "filter", "rounds": {"until": 1, "max": 2}, "config": {"function": "mine:keep"}}
MISTAKES: dict[str, tuple[str, dict[str, Any], tuple[str, str, str]]] = {
    "of what leaves nothing out": (
        "roll",
        {"until": 48, "max": 3},
        (
            "stages[1].rounds",
            "stage `roll`: `generate` leaves no groups out, so none are to be made up for",
            "write `rounds` in the `filter` stage, or in the `advantage` stage that drops groups",
        ),
    ),
    "until half a group": (
        "adv",
        {"until": 47.5, "max": 3},
        (
            "stages[3].rounds.until",
            "stage `adv`: `until` is 47.5, and groups are whole",
            "give a number of groups, or a share of at most 1",
        ),
    ),
    "until a condition": (
        "adv",
        {"until": True, "max": 3},
        ("stages[3].rounds.until", "`until` is true", "it has to be a number above 0"),
    ),
    "that can never give enough": (
        "adv",
        {"until": 193, "max": 2},
        (
            "stages[3].rounds.until",
            "stage `adv`: 193 groups are asked for, and 2 rounds of 96 prompts have fewer",
            "lower `until`, or raise `max` or the stage's `prompts`",
        ),
    ),
    "of more partitions than a manifest names": (
        "adv",
        {"until": 1, "max": 171},
        (
            "stages[3].rounds.max",
            "stage `adv`: 171 rounds of 12 partitions",
            "lower `max` or `partitions`: a step has at most 2048 partitions",
        ),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_rounds_that_cannot_be_are_refused_with_a_remedy(name: str) -> None:
    where, rounds, problem = MISTAKES[name]
    spec = example()
    stage(spec, where).update(rounds=rounds)
    assert problem_of(spec) == problem


def test_a_chain_has_rounds_by_one_stage() -> None:
    spec = example()
    stage(spec, "adv").update(rounds={"until": 1, "max": 2})
    spec["stages"].insert(3, KEEP)
    place, what, _ = problem_of(spec)
    assert (place, what) == ("stages[4].rounds", "stages `keep` and `adv` have rounds of the same chain")


def test_rounds_go_by_one_stage_that_says_what_is_trained_on() -> None:
    """Of two a group may be one's and not the other's: then nobody could say how many there are."""
    spec = example()
    stage(spec, "adv").update(rounds={"until": 1, "max": 2})
    spec["models"]["other"] = dict(spec["models"]["policy"])
    spec["stages"].append({"id": "more", "op": "advantage"})
    spec["stages"].append({**stage(spec, "learn"), "id": "again", "model": "other", "reads": ["more.advantage"]})
    place, what, _ = problem_of(spec)
    assert place == "stages[3].rounds"
    assert what == "stage `adv`: `adv` and `more` of its chain says which groups are trained on"
