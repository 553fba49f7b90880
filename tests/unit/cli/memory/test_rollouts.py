"""What rollouts take of shards follows from how long, how many and how far ahead they may be."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_cli.memory.rollouts import COLUMN, FEW, PROMPT, TOKEN, longest, sampled_groups, step_bytes, steps_held
from dflow_protocols.pipeline import Pipeline
from tests.unit.protocols.written_specs import example, stage

COMPLETIONS, TOKENS = 96 * 8, 6
PROMPTS = COLUMN * PROMPT * 96
LOOSE: dict[str, Any] = {"async": {"max_staleness": 2}, "reproducibility": "replay"}
READ = {"id": "read", "op": "reply", "model": "policy", "config": {"max_tokens": 10}}


def made(*added: dict[str, Any], roll: dict[str, Any] | None = None, **top: Any) -> Pipeline:
    """The example, with these stages behind its `roll`, and keys of that."""
    spec = example() | top
    stage(spec, "roll")["config"] |= roll or {}
    spec["stages"][2:2] = added
    return Pipeline.from_dict(spec)


def test_a_step_is_as_large_as_its_completions_may_be() -> None:
    """Tokens with their log-probabilities and texts, and what compares them."""
    assert step_bytes(made()) == PROMPTS + COMPLETIONS * TOKENS * (TOKEN + COLUMN)
    assert step_bytes(made(roll={"max_tokens": 600})) == PROMPTS + COMPLETIONS * 600 * (TOKEN + COLUMN)
    assert step_bytes(made(roll={"top_p": 0.9})) == PROMPTS + COMPLETIONS * TOKENS * (TOKEN + 2 * COLUMN)


def test_pairs_of_rows_are_as_large_as_their_answers_may_be() -> None:
    """Nobody sampled them, so no word is said of how."""
    spec = example()
    spec["models"]["reference"] = dict(spec["models"]["policy"])
    spec["data"]["rows"] = {"jsonl": "rows.jsonl", "rejected": "worse"}
    config = {"data": "rows", "prompts": 32, "max_tokens": TOKENS}
    spec["stages"] = [
        {"id": "pairs", "op": "preferences", "model": "policy", "config": config},
        {"id": "ref", "op": "logprob", "model": "reference"},
        stage(spec, "learn") | {"config": {"loss": {"kind": "dpo"}, "optimizer": {"adamw": {"lr": 1e-3}}}},
    ]
    pairs = Pipeline.from_dict(spec)
    columns = sum(output not in FEW for output in (*pairs.stage("pairs").writes, "logprob")) - 1  # beside the rollout
    assert step_bytes(pairs) == COLUMN * PROMPT * 32 + 64 * TOKENS * (TOKEN + columns * COLUMN)


def test_further_rounds_lie_beside_the_first() -> None:
    """All of them may be needed, and are kept until the step is trained."""
    spec = example()
    stage(spec, "adv")["rounds"] = {"until": 48, "max": 3}
    rounds = Pipeline.from_dict(spec)
    assert sampled_groups(rounds, rounds.stage("roll")) == 3 * 96
    assert step_bytes(rounds) == 3 * step_bytes(made())


def test_a_reply_stands_behind_what_it_replies_to() -> None:
    """All of that is read again, so it lies there twice."""
    pipeline = made(READ, models={**example()["models"]})
    assert longest(pipeline, pipeline.stage("read")) == TOKENS + 10
    alone = PROMPTS + COMPLETIONS * TOKENS * TOKEN
    reply = PROMPTS + COMPLETIONS * (TOKENS + 10) * (TOKEN + 2 * COLUMN)
    assert step_bytes(pipeline) == alone + reply + COMPLETIONS * (TOKENS + 10) * COLUMN  # which is compared
    twice = {**READ, "config": {"max_tokens": 10, "template": "{prompt}\n{completion}\nAgain:\n{completion}"}}
    often = made(twice)
    assert longest(often, often.stage("read")) == 2 * TOKENS + 10


@pytest.mark.parametrize(("top", "held"), [({}, 1), ({"lag": 3}, 4), (LOOSE, 3)])
def test_what_is_sampled_ahead_waits_beside_the_step_that_trains(top: dict[str, Any], held: int) -> None:
    """Each step ahead has all that a step has."""
    assert steps_held(made(**top)) == held


def test_each_segment_has_what_was_said_before_it() -> None:
    """A record's outputs are whole, and stay until the step is trained."""
    loose = made(**{**LOOSE, "async": {"max_staleness": 2, "partial": True}})
    assert [longest(loose, loose.stage(name)) for name in ("roll", "roll_2", "roll_3")] == [2, 4, 6]
    segments = 3 * PROMPTS + COMPLETIONS * (2 + 4 + 6) * (TOKEN + COLUMN)  # each token with its version
    assert step_bytes(loose) == segments + COMPLETIONS * TOKENS * COLUMN
