"""An environment makes a completion a conversation; a spec without one is what it was."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError
from dflow_protocols.pipeline.files import named_files, with_own_code
from dflow_protocols.pipeline.grammar.scoring import BY_ENVIRONMENT
from tests.unit.protocols.written_specs import example, problem_of, stage

GAME = {"class": "guess.py:Guess", "turns": 3}


def played(**more: Any) -> dict[str, Any]:
    """The example as a game whose own points are the reward."""
    spec = example()
    stage(spec, "roll")["config"]["environment"] = GAME | more
    stage(spec, "score")["config"]["function"] = BY_ENVIRONMENT
    return spec


def test_an_evaluation_plays_what_training_plays() -> None:
    """Unless it says otherwise: it measures what is learnt."""
    pipeline = Pipeline.from_dict(played())
    expected = {**GAME, "args": {}}
    assert pipeline.stage("roll").config["environment"] == expected
    assert pipeline.stage("heldout").config["environment"] == expected
    assert pipeline.stage("heldout").config["function"] == BY_ENVIRONMENT
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_a_spec_without_one_has_no_word_of_it() -> None:
    """Its id is that of before there were environments, and with it its weights."""
    spec = example()
    stage(spec, "roll")["config"]["environment"] = None
    assert Pipeline.from_dict(spec) == Pipeline.from_dict(example())
    assert b"environment" not in Pipeline.from_dict(spec).canonical()


def test_its_code_goes_with_the_run() -> None:
    """As a reward function's does: by digest, to every host, where code may run."""
    pipeline = Pipeline.from_dict(played())
    (named,) = (each for each in named_files(pipeline) if each.name == GAME["class"])
    assert (named.path, named.kind) == ("stages[1].config.environment.class", "function")
    digested = Pipeline.from_dict(played() | {"digests": {named.path: "0" * 64}})
    assert with_own_code(digested) == ("roll", "heldout")


@pytest.mark.parametrize(
    ("game", "path", "what"),
    [
        ({"class": "Guess"}, "environment.class", "stage `roll`: `class` is `Guess`"),
        ({"turns": 0}, "environment.turns", "stage `roll`: `turns` is 0"),
        ({"turns": None}, "environment.turns", "stage `roll`: `turns` is missing"),
        ({"turn": 1}, "environment.turn", "stage `roll`: `turn` is no key of `environment`"),
        ({"on_error": "skip"}, "environment.on_error", "stage `roll`: `on_error` is `skip`"),
    ],
)
def test_a_mistake_is_told_with_its_place(game: dict[str, Any], path: str, what: str) -> None:
    """Before the run is submitted."""
    found = problem_of(played(**game))
    assert found[:2] == (f"stages[1].config.{path}", what)


def test_points_of_an_environment_that_is_not_there_are_refused() -> None:
    """Else every completion would earn nothing, all night."""
    spec = example()
    stage(spec, "score")["config"]["function"] = BY_ENVIRONMENT
    stage(spec, "heldout")["config"]["function"] = "dflowd.operators.reward:exact_match"
    path, what, hint = problem_of(spec)
    assert path == "stages[2].config.function"
    assert what == f"stage `score`: `{BY_ENVIRONMENT}` is what an environment gives, and there is none"
    assert hint.startswith("write `environment`")


def test_advantages_of_turns_ask_for_an_environment() -> None:
    """A rollout in one turn has no rewards of turns."""
    spec = example()
    stage(spec, "adv")["config"] = {"method": "turns"}
    with pytest.raises(SpecError, match="`turns` goes by what an environment gives for each turn") as caught:
        Pipeline.from_dict(spec)
    assert caught.value.problems[0].hint == "write `environment` in the stage that samples"
