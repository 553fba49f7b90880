"""Replies: what a model reads of another one is no part of what it is trained on, and all of it is as it was put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.asking.said import ENVIRONMENT
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.data.prompts import Wording, put_between
from dflowd.jobs.failures import UserError
from dflowd.models.policy import Policy
from dflowd.operators.generate import generate
from dflowd.operators.partition import Columns, Partition, read_rollout
from dflowd.operators.reading import logprob
from dflowd.operators.reply import reply
from tests.support.partition import first_partition
from tests.support.repository import EXAMPLES

WIDTH = 3


@pytest.fixture(scope="module")
def policy() -> Policy:
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    return Policy("policy", config, EXAMPLES, 5)


class Talk:
    """Two prompts, what one model says to them, and what another one replies."""

    def __init__(self, folder: Path, policy: Policy, **config: Any) -> None:
        roll = {"data": "words", "prompts": 2, "group": WIDTH, "max_tokens": 5}
        self.pipeline = Pipeline(
            name="mine",
            steps=1,
            models={"policy": {"path": "model/"}, "other": {"path": "model/"}},
            data={"words": {"jsonl": "words.jsonl"}},
            stages=[
                Stage("roll", "generate", "policy", config=roll),
                Stage("answer", "reply", "other", config={"max_tokens": 4, **config}),
                Stage("ref", "logprob", "other"),
                Stage("score", "reward"),
                Stage("adv", "advantage"),
                Stage("learn", "train", "other", config={"leaves": 1, "optimizer": {"adamw": {"lr": 1e-3}}}),
            ],
        )
        (folder / "words.jsonl").write_text('{"prompt": "qa", "answer": "a"}\n{"prompt": "qb", "answer": "b"}\n')
        self.data = DataSet("words", self.pipeline.data["words"], folder, 0)
        self.folder, self.policy, self.known = folder, policy, dict[str, Columns]()
        for stage, operator in (("roll", generate), ("answer", reply), ("ref", logprob)):
            output = operator(self.partition(stage))
            self.known[f"{stage}.{output.name}"] = output.columns

    def partition(self, stage: str) -> Partition:
        return first_partition(self.pipeline, self.folder, stage, 2, self.data, known=self.known, policy=self.policy)


def test_a_reply_is_trained_on_its_own_tokens_behind_what_was_said(tmp_path: Path, policy: Policy) -> None:
    """The prompt is what the group has in common; the other model's words are read as the template has them."""
    talk = Talk(tmp_path, policy, template="q{prompt}\n{completion}b\n")
    first, second = (read_rollout(talk.partition(stage)) for stage in ("answer", "ref"))
    turns = columns.rows(talk.known["answer.rollout"]["turn"])
    for row, said in enumerate(first.completions):
        entry, own = first.entries[row // WIDTH], turns[row] != ENVIRONMENT
        put = policy.tokenizer.encode(f"{said}b\n", add_special_tokens=False)
        before = policy.tokenizer.encode(f"q{entry['question']}\n", add_special_tokens=False)
        assert second.prompts[row // WIDTH].tolist() == before
        assert second.tokens[row][~own].tolist() == put
        assert second.spoken[row] == own.sum() == len(second.tokens[row]) - len(put)
        asked = f"q{entry['question']}\n{said}b\n"
        assert [each["content"] for each in second.said_then(row)] == [said, asked, second.completions[row]]
    assert second.earned is None
    assert second.messages == first.messages


def test_what_training_reads_is_what_the_sampler_saw(tmp_path: Path, policy: Policy) -> None:
    """One pass over the whole text gives the log-probabilities that the reply was sampled with."""
    talk = Talk(tmp_path, policy)
    sampled, turns = (columns.values(talk.known["answer.rollout"][name]) for name in ("logprobs", "turn"))
    scored, own = columns.values(talk.known["ref.logprob"]["logprob"]), turns != ENVIRONMENT
    assert own.any()
    assert not sampled[~own].any()
    np.testing.assert_allclose(scored[own], sampled[own], atol=1e-5)


def test_what_was_said_is_no_template(tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may well say what stands for something in a template."""
    read: list[str] = []

    def encode(tokenizer: Any, text: str, *, add_special_tokens: bool) -> list[int]:
        read.append(text)
        return [4]

    monkeypatch.setattr("dflowd.asking.say.completion_text", lambda tokenizer, tokens: "{prompt}")
    monkeypatch.setattr("dflowd.asking.replies.encode", encode)
    talk = Talk(tmp_path, policy, template="q{prompt}\n{completion} or {completion}")
    question = talk.data.training(0)["question"]
    assert read[:2] == [f"q{question}\n", "{prompt} or {prompt}"]


def test_what_is_too_long_to_be_replied_to_is_named_by_its_entry(tmp_path: Path, policy: Policy) -> None:
    """As a prompt is that is too long for the model."""
    with pytest.raises(UserError, match=r"words\.jsonl:\d: a prompt of \d+ tokens and `max_tokens` of 60 are longer"):
        Talk(tmp_path, policy, max_tokens=60)


def test_a_chat_template_has_it_in_a_users_message(policy: Policy) -> None:
    """What stands in front of the other model's words, and behind them, is as the template writes it."""
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / "spell_tokenizer")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    wording = Wording(system="be short", answer_prefix="so ", messages="messages")
    ends = put_between(tokenizer, {"question": "q"}, "q said ", " - right?", wording)
    assert ends == ("<system>be short</><user>q said ", " - right?</><assistant>so ")
