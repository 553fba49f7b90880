"""Conversations with an environment: what is trained on is what was sampled, and what goes wrong costs one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dflow_protocols.metrics import EVALUATED_UNSCORED, REWARD_ERRORS, REWARD_TIMEOUTS
from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.jobs.failures import UserError
from dflowd.jobs.limits import Limits
from dflowd.models.policy import Policy
from dflowd.operators.advantage import advantage
from dflowd.operators.evaluate import evaluate
from dflowd.operators.generate import generate
from dflowd.operators.partition import Columns, Output, Partition, read_rollout
from dflowd.operators.reward import reward
from dflowd.shards.layout import read_texts
from dflowd.workers.outcome import Arguments
from dflowd.workers.pool import Pool
from tests.support.partition import first_partition
from tests.support.repository import EXAMPLES

CODE = """
import time

class Echo:
    def __init__(self, most=9, fails=()):
        self.most, self.fails = most, fails
    def reset(self, entry):
        self.turns, self.entry = 0, entry
    def step(self, messages):
        self.turns += 1
        if self.entry["answer"] in self.fails and self.turns == 2:
            raise ValueError("odd")
        return self.entry["answer"] * 2, 0.25 * self.turns, self.turns == self.most

class Hangs(Echo):
    def step(self, messages):
        time.sleep(1000 if self.entry["answer"] == "b" else 0)
        return super().step(messages)

class Words(Echo):
    def reset(self, entry):
        super().reset(entry)
        return [{"role": "user", "content": entry["answer"] * 3}]

class Moods(Echo):
    made = 0
    def reset(self, entry):
        super().reset(entry)
        Moods.made += 1
        return "abc"[Moods.made % 3]

class Foreign(Echo):
    def step(self, messages): return "5 + 5", 0.0, False
"""
WIDTH, MOST = 4, 24


@pytest.fixture(scope="module")
def policy() -> Policy:
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    made = Policy("policy", config, EXAMPLES, 5)
    for parameter in made.model.parameters():
        parameter.mul_(2)  # so that some turns end soon and others do not
    made.model.lm_head.weight[1] *= 3
    return made


class Played:
    """A partition of two entries, `a` and `b`, and what its stages make of it."""

    def __init__(self, folder: Path, policy: Policy, environment: dict[str, Any], score: str) -> None:
        config = {"data": "words", "prompts": 2, "group": WIDTH, "max_tokens": MOST, "environment": environment}
        self.pipeline = Pipeline(
            name="mine",
            steps=1,
            models={"policy": {"path": "model/"}},
            data={"words": {"jsonl": "words.jsonl"}},
            stages=[
                Stage("roll", "generate", "policy", config=config),
                Stage("score", "reward", config={"function": score}),
                Stage("adv", "advantage", config={"scale": "none"}),
                Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": {"adamw": {"lr": 1e-3}}}),
                Stage("check", "evaluate", "policy", config={"data": "words", "count": 2}),
            ],
        )
        (folder / "talk.py").write_text(CODE)
        (folder / "words.jsonl").write_text('{"prompt": "qa", "answer": "a"}\n{"prompt": "qb", "answer": "b"}\n')
        self.folder, self.policy, self.known = folder, policy, dict[str, Columns]()
        self.data = DataSet("words", self.pipeline.data["words"], folder, 0)
        self.pool = Pool(folder, Limits(memory_bytes=512 << 20))

    def partition(self, stage: str) -> Partition:
        return first_partition(
            self.pipeline, self.folder, stage, 2, self.data, known=self.known, policy=self.policy, pool=self.pool
        )

    @property
    def letters(self) -> list[str]:
        """The answer of each conversation's entry."""
        return [self.data.training(row // WIDTH)["answer"] for row in range(2 * WIDTH)]

    def roll(self) -> Output:
        made = generate(self.partition("roll"))
        self.known["roll.rollout"] = made.columns
        return made

    def rewards(self) -> list[float]:
        made = reward(self.partition("score"))
        self.known["score.reward"] = made.columns
        return [float(value) for value in columns.values(made.columns["reward"])]


@pytest.fixture
def play(tmp_path: Path, policy: Policy) -> Iterator[Any]:
    played: list[Played] = []

    def begun(name: str = "Echo", score: str = "dflowd.operators.reward:environment", **more: Any) -> Played:
        played.append(Played(tmp_path, policy, {"class": f"talk.py:{name}", "turns": 3, **more}, score))
        return played[-1]

    yield begun
    for each in played:
        each.pool.close()


def rows(made: Output, name: str) -> list[Any]:
    return columns.rows(made.columns[name])


def test_what_is_trained_on_is_what_was_sampled_to_the_last_token(play: Any, policy: Policy) -> None:
    """Log-probabilities are those of one forward pass over the whole conversation, the environment's words included."""
    played = play()
    made = played.roll()
    prompts = rows(made, "prompt")
    turns = 0
    for row, (tokens, logprobs, turn) in enumerate(
        zip(rows(made, "tokens"), rows(made, "logprobs"), rows(made, "turn"), strict=True)
    ):
        prompt = prompts[row // WIDTH].tolist()
        with torch.inference_mode():
            logits = policy.model(torch.tensor([prompt + tokens.tolist()])).logits[0, len(prompt) - 1 : -1]
        found = torch.log_softmax(logits, -1)[range(len(tokens)), tokens.tolist()].numpy()
        own = turn >= 0
        assert np.abs(found - logprobs)[own].max() < 1e-4
        assert (logprobs[~own] == 0).all()
        added = policy.tokenizer.decode(tokens[~own])
        assert added == f"{played.letters[row] * 2}\n" * int(turn.max())
        assert len(tokens) <= MOST
        turns = max(turns, int(turn.max()) + 1)
    assert turns == 3


def test_a_conversation_is_the_same_whatever_else_the_run_does(play: Any) -> None:
    """Its random numbers are counted by its own tokens; done again after a crash, it says the same."""
    first, second = play().roll(), play().roll()
    assert [each.tolist() for each in rows(first, "tokens")] == [each.tolist() for each in rows(second, "tokens")]
    assert first.columns["turns"] == second.columns["turns"]


def test_what_is_remembered_of_a_partition_has_no_part_in_sampling_it_again(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first sampling was given up half-way, and a worker that nobody asks may remember it: where samplers are not
    exact the second one says otherwise, and that worker's environments heard something else."""
    played, asked = play(), list[set[str]]()
    ask = played.pool.map

    def noting(name: str, calls: list[Arguments], *more: Any) -> Any:
        asked[-1] |= {call.of for call in calls}
        return ask(name, calls, *more)

    monkeypatch.setattr(played.pool, "map", noting)
    for _ in range(2):
        asked.append(set())
        played.roll()
    assert len(asked[0]) == 2 * WIDTH
    assert asked[0].isdisjoint(asked[1])


def test_the_sum_of_its_turns_is_what_a_conversation_earns(play: Any) -> None:
    """What each turn earned is there beside it, for methods that look at turns."""
    played = play(args={"most": 2})
    made = played.roll()
    earned = [each.tolist() for each in rows(made, "turn_reward")]
    truncated = columns.values(made.columns["truncated"]).astype(bool)
    assert [0.25, 0.5] in earned
    assert all(each == [0.25, 0.5] for each, cut in zip(earned, truncated, strict=True) if not cut)
    assert played.rewards() == [sum(each) for each in earned]


def test_a_group_counts_the_tokens_that_are_trained_on(play: Any) -> None:
    """What a loss is divided by is counted from these; an environment's words are in none of them."""
    played = play()
    made = played.roll()
    played.rewards()
    counted = advantage(played.partition("adv")).groups
    own = [int((turn >= 0).sum()) for turn in rows(made, "turn")]
    assert counted == ((sum(own[:WIDTH]), WIDTH), (sum(own[WIDTH:]), WIDTH))
    assert dict(made.metrics)["completion_tokens"] == sum(own) < sum(map(len, rows(made, "tokens")))


def test_a_function_of_ones_own_sees_the_whole_conversation(play: Any, tmp_path: Path) -> None:
    """The completion is what was said last; `turns` is all that was said."""
    (tmp_path / "judge.py").write_text(
        "def score(completion, turns, tokens):\n"
        "    said = [each['content'] for each in turns if each['role'] == 'assistant']\n"
        "    assert said[-1] == completion\n"
        "    return 10 * len(said) + sum(each['role'] == 'user' for each in turns)\n"
    )
    played = play(score="judge.py:score")
    made = played.roll()
    rollout = read_rollout(played.partition("score"))
    assert played.rewards() == [
        10 * (int(turn.max()) + 1) + sum(each["role"] == "user" for each in talk)
        for turn, talk in zip(rows(made, "turn"), rollout.turns or (), strict=True)
    ]


@pytest.mark.parametrize(("on_error", "reward_of_b"), [("zero", 0.0), ("leave_out", np.nan)])
def test_an_environment_that_hangs_costs_its_own_conversations(play: Any, on_error: str, reward_of_b: float) -> None:
    """The others go on; the run says that a clock had a part in it."""
    played = play("Hangs", timeout_s=0.5, on_error=on_error)
    made = played.roll()
    for letter, value in zip(played.letters, played.rewards(), strict=True):
        assert value > 0 if letter == "a" else np.array_equal(value, reward_of_b, equal_nan=True)
    assert (made.metrics[REWARD_ERRORS], made.metrics[REWARD_TIMEOUTS]) == (WIDTH, WIDTH)
    assert "took longer than 0.5 s" in made.note


def test_an_evaluation_counts_such_a_conversation_as_wrong(play: Any) -> None:
    """Weights have no part in it, so the run is as reproducible as before."""
    made = evaluate(play("Hangs", timeout_s=0.5, on_error="zero").partition("check"))
    assert made.metrics[EVALUATED_UNSCORED] == 1
    assert REWARD_TIMEOUTS not in made.metrics
    assert sorted(columns.values(made.columns["score"]))[0] == 0
    assert len(read_texts(made.columns["turns"])) == 2


def test_an_environment_that_raises_ends_the_run_unless_it_is_told_not_to(play: Any) -> None:
    """With the line of the user's file; or what was earned until then is forgotten."""
    with pytest.raises(UserError, match=r"ValueError: odd \(talk\.py:\d+\)"):
        play(args={"fails": ["b"]}).roll()
    lenient = play(args={"fails": ["b"]}, on_error="zero")
    made = lenient.roll()
    assert REWARD_TIMEOUTS not in made.metrics
    assert min(lenient.rewards()) == 0.0


def test_reset_may_word_the_beginning_itself(play: Any, policy: Policy) -> None:
    """In place of the data's prompt, alike for all conversations that are compared."""
    played = play("Words")
    prompts = [policy.tokenizer.decode(prompt) for prompt in rows(played.roll(), "prompt")]
    assert prompts == [f"{letter * 3}\n" for letter in played.letters[::WIDTH]]
    told = read_rollout(played.partition("score")).messages
    assert [each[0]["content"] for each in told] == [letter * 3 for letter in played.letters[::WIDTH]]
    with pytest.raises(UserError, match="different beginnings"):
        play("Moods").roll()


def test_words_that_the_model_cannot_read_are_told_with_who_said_them(play: Any) -> None:
    """Not as an index that is out of range in some layer."""
    with pytest.raises(UserError, match=r"what `talk\.py:Foreign` said: the tokenizer cannot read '5"):
        play("Foreign").roll()


def test_a_conversation_has_room_for_max_tokens_behind_its_prompt(play: Any) -> None:
    """The environment's words count: what a step may take of memory and of the model's positions follows from it."""
    made = play(turns=64).roll()
    cut = columns.values(made.columns["truncated"]).astype(bool)
    assert cut.all()
    assert max(map(len, rows(made, "tokens"))) <= MOST
    assert all(turn[-1] >= 0 for turn in rows(made, "turn"))
    assert len(read_texts(made.columns["turns"])) == 2 * WIDTH
