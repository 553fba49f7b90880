"""A second model replies to what the first one said: one chain, two rollouts, each trained by a stage of its own."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dflow_protocols.names import MANIFEST
from dflow_protocols.pipeline import Pipeline, plan
from dflow_protocols.pipeline.doubts import doubts
from tests.support.repository import EXAMPLES
from tests.unit.protocols.written_specs import problem_of, stage


def talk() -> dict[str, Any]:
    """The example with two policies, as written."""
    raw: dict[str, Any] = yaml.safe_load((EXAMPLES / "two_policies.yaml").read_text())
    return raw


def test_both_policies_are_trained_on_one_chain() -> None:
    """What the first one says and what the second one replies are of the same partitions; a step updates both."""
    pipeline = Pipeline.from_dict(talk())
    first = pipeline.schedule.first(30)
    (chain,) = plan(pipeline, first).chains
    assert chain.stages == ("send", "read", "found", "adv_reader", "adv_sender")
    assert (chain.models, chain.sealed_in) == (("reader", "sender"), MANIFEST)
    assert chain.call(0) == ("send",), "what was said gets its second copy while the other one replies"
    trained = [plan(pipeline, first + update).trainings[0] for update in range(2)]
    assert [(each.model, each.reads[0]) for each in trained] == [("reader", "read.rollout"), ("sender", "send.rollout")]
    assert trained[0].most_tokens == 96 * 8 * 6, "as many completions as were replied to"
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_a_reply_may_be_replied_to() -> None:
    """By the first model again, or by a third one."""
    spec = talk()
    again = {"id": "again", "op": "reply", "model": "sender", "config": {"max_tokens": 6}}
    spec["stages"].insert(4, again)
    pipeline = Pipeline.from_dict(spec)
    assert pipeline.stage("again").reads == ["read.rollout"]
    assert pipeline.beginning_of("again").id == pipeline.beginning_of("found").id == "send"


def test_advantages_of_one_rollout_train_on_no_other() -> None:
    """A number a completion fits any of them, and would teach the wrong tokens without a word."""
    spec = talk()
    stage(spec, "learn_sender")["reads"] = ["send.rollout", "adv_reader.advantage"]
    assert problem_of(spec) == (
        "stages[8].reads",
        "stage `learn_sender` reads `send.rollout`, and `adv_reader.advantage` is of `read.rollout`",
        "name what belongs together in its `reads`, such as `read.rollout` with `adv_reader.advantage`",
    )


def test_who_trains_a_policy_on_what_another_one_said_is_told() -> None:
    """The nearest rollout is the last reply, which is seldom what the first policy should learn from."""
    spec = talk()
    del stage(spec, "learn_sender")["reads"]
    stage(spec, "adv_sender")["reads"] = ["read.rollout", "found.reward"]
    (doubt,) = doubts(Pipeline.from_dict(spec))
    assert doubt.path == "stages[8].reads"
    assert doubt.what == "stage `learn_sender` trains model `sender` on `read.rollout`, which another model said"
    assert doubt.hint == "name what it said itself: `reads: [send.rollout, ...]` with its advantage"
    assert not list(doubts(Pipeline.from_dict(talk())))


@pytest.mark.parametrize("template", ["{prompt}", "{completion}", " \n{completion}"])
def test_a_template_has_something_in_front_of_what_is_replied_to(template: str) -> None:
    """That is the prompt, which the completions of a group have in common."""
    spec = talk()
    stage(spec, "read")["config"]["template"] = template
    path, what, hint = problem_of(spec)
    assert path == "stages[3].config.template"
    assert what == f"stage `read`: `template` is `{template}`"
    assert hint == "it has to be a text with `{completion}` in it, and something in front of that"


def test_no_environment_rewards_a_reply() -> None:
    """What the first one's environment gave is not the second one's."""
    spec = talk()
    stage(spec, "send")["config"]["environment"] = {"class": "guess.py:Guess", "turns": 3}
    stage(spec, "found")["config"]["function"] = "dflowd.operators.reward:environment"
    assert problem_of(spec)[0] == "stages[4].config.function"
