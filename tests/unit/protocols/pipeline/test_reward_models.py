"""A reward model is a model with a value head that is trained by preferences and asked at the last token."""

from __future__ import annotations

from typing import Any

import yaml

from dflow_protocols.names import MANIFEST
from dflow_protocols.pipeline import Pipeline, plan
from dflow_protocols.pipeline.doubts import doubts
from tests.support.repository import EXAMPLES
from tests.unit.protocols.written_specs import problem_of, stage


def judged() -> dict[str, Any]:
    """The example with a reward model, as written."""
    raw: dict[str, Any] = yaml.safe_load((EXAMPLES / "reward_model.yaml").read_text())
    return raw


def test_it_is_trained_first_and_asked_later() -> None:
    """In the same run: a version holds both models, and a stage asks the step's version of each."""
    pipeline = Pipeline.from_dict(judged())
    assert not list(doubts(pipeline))
    assert pipeline.schedule.place(40).updates == 1
    first = pipeline.schedule.first(70)
    learnt = plan(pipeline, first)
    trained = [plan(pipeline, number).trainings[0] for number in (40, first, first + 1)]
    fit = ("judge", "samples")
    assert [(each.model, each.divisor) for each in trained] == [fit, fit, ("policy", "tokens")]
    assert learnt.chains[0].stages == ("roll", "likes", "prefer", "judged", "adv")
    assert (learnt.chains[0].models, learnt.chains[0].sealed_in) == (("judge", "policy"), MANIFEST)
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_an_evaluation_measures_by_a_function() -> None:
    """Whoever is trained to please a model is not measured by it unless somebody says so."""
    spec = judged()
    assert Pipeline.from_dict(spec).stage("heldout").config["function"] == "reward_model.py:vowels"
    for name in ("likes", "prefer", "fit"):
        spec["stages"].remove(stage(spec, name))
    config = Pipeline.from_dict(spec).stage("heldout").config
    assert config["function"] == "dflowd.operators.reward:exact_match"


def test_a_language_model_prefers_nothing() -> None:
    """Both, what fits it and what asks it, need the head."""
    for name in ("fit", "judged"):
        spec = judged()
        stage(spec, name)["model"] = "policy"
        path, what, hint = problem_of(spec)
        assert path == f"stages[{[each['id'] for each in spec['stages']].index(name)}].model"
        assert (
            what
            == f"stage `{name}`: it needs a model with `head: value`, and model `policy` says which token comes next"
        )
        assert hint == "add `head: value` to `models.policy`, or name another model"
