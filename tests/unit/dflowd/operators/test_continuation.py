"""Going on with completions: what is done stays, the rest goes on from its last token, whoever said that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data import columns
from dflowd.models.policy import Policy
from dflowd.models.sampling import Completions, Sampler, Seats
from dflowd.operators.generate import generate, go_on
from dflowd.operators.partition import Columns
from dflowd.shards import layout
from dflowd.shards.layout import read_texts
from tests.support.repository import EXAMPLES

from .partitions import known, partition

LAST = 9  # the token that ends a completion


class Spelling:
    """A tokenizer whose tokens are spelt as their numbers."""

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, tokens))


@dataclass
class Model:
    """Says the token 7 once more and then LAST, or as many of these as it may. `asked`: what was put to it."""

    asked: list[tuple[Sequence[Sequence[int]], Seats]] = field(default_factory=list)
    tokenizer: Spelling = field(default_factory=Spelling)

    def __call__(self, prompts: Sequence[Sequence[int]], seats: Seats, sampler: Sampler) -> Completions:
        self.asked.append((prompts, seats))
        lengths = np.minimum(seats.most, 2).astype(np.int32)
        tokens = np.array([[7, LAST]] * len(prompts), np.int32)
        return Completions(tokens, np.full(tokens.shape, -0.25, np.float32), lengths, lengths < 2)


def in_segments(longest: int, **more: Any) -> Pipeline:
    """Completions of so many tokens at most, two a segment. `more`: of the config of what samples."""
    roll = {"data": "words", "prompts": 2, "group": 2, "max_tokens": longest, **more}
    return Pipeline(
        name="mine",
        steps=1,
        models={"policy": {"path": "model/"}},
        data={"words": {"jsonl": "words.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config=roll),
            Stage("score", "reward"),
            Stage("adv", "advantage"),
            Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": {"adamw": {"lr": 1e-3}}}),
        ],
        asynchrony={"max_staleness": 1, "partial": True, "segment_tokens": 2},
    )


def begun() -> dict[str, Any]:
    """Of four completions the last one is not done after its first segment, which version 5 said."""
    rollout = dict(known()["roll.rollout"])
    return {"roll.rollout": {**rollout, "version": columns.pack(np.full(8, 5, np.int32), np.full(4, 2))}}


def test_who_is_not_done_goes_on_where_it_was(tmp_path: Path) -> None:
    """It is put to the model with all that it said, at the place of its next token, and says no more than it may."""
    model, spec = Model(), in_segments(3)
    given = replace(
        partition(tmp_path, spec, "roll_2", begun()), sampling=model, version=6, described=lambda _: cast(Any, model)
    )
    made = go_on(given)
    ((prompts, seats),) = model.asked
    assert prompts == [[2, 6, 7]]
    assert [each.tolist() for each in (seats.groups, seats.samples, seats.first, seats.most)] == [[1], [1], [2], [1]]
    found = {name: [row.tolist() for row in columns.rows(made.columns[name])] for name in ("tokens", "version")}
    assert found == {"tokens": [[0, 1], [2, 3], [4, 5], [6, 7, 7]], "version": [[5, 5], [5, 5], [5, 5], [5, 5, 6]]}
    assert columns.rows(made.columns["logprobs"])[3].tolist() == [-0.5, -0.5, -0.25]
    assert columns.values(made.columns["truncated"]).tolist() == [0, 0, 0, 1]
    assert read_texts(made.columns["text"]) == ["a", "b", "c", "6 7 7"]
    assert made.metrics == {"completion_tokens": 1, "completion_length_max": 3, "truncated": 1}


def test_a_completion_that_ends_in_a_later_segment_is_not_cut_off(tmp_path: Path) -> None:
    """It was only as far as its segment let it."""
    model = Model()
    given = replace(
        partition(tmp_path, in_segments(8), "roll_2", begun()),
        sampling=model,
        version=6,
        described=lambda _: cast(Any, model),
    )
    made = go_on(given)
    assert columns.rows(made.columns["tokens"])[3].tolist() == [6, 7, 7, LAST]
    assert columns.values(made.columns["truncated"]).tolist() == [0, 0, 0, 0]
    assert made.metrics["truncated"] == 0


def test_where_all_is_done_the_same_bytes_come_out(tmp_path: Path) -> None:
    """A further segment of them costs nothing: no model, and no shard."""
    given = begun()
    given["roll.rollout"]["truncated"] = columns.pack(np.zeros(4, np.uint8))
    made = go_on(replace(partition(tmp_path, in_segments(8), "roll_2", given), version=6))
    assert layout.encode(made.columns) == layout.encode(given["roll.rollout"])
    assert "completion_tokens" not in made.metrics


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_segments_under_the_same_weights_say_what_one_piece_says(tmp_path: Path, top_p: float) -> None:
    """Cutting is a matter of who samples what, when: where no newer weights come between, nobody can tell."""
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    policy = Policy("policy", config, EXAMPLES, 5)
    spec = in_segments(6, top_p=top_p)
    roll = spec.stage("roll")

    def made_by(stage: Stage, inputs: dict[str, Columns]) -> Columns:
        work = replace(partition(tmp_path, spec, "roll", inputs), stage=stage, version=3, policy=lambda _: policy)
        return (generate if stage.id == "roll" else go_on)(work).columns

    uncut = {name: value for name, value in roll.config.items() if name != "segment_tokens"}
    whole = made_by(replace(roll, config=uncut), {})
    cut = made_by(roll, {})
    assert columns.lengths(cut["tokens"]).max() == 2 < columns.lengths(whole["tokens"]).max()
    for before, name in (("roll", "roll_2"), ("roll_2", "roll_3")):
        cut = made_by(spec.stage(name), {f"{before}.rollout": cut})
    assert cut.keys() == whole.keys()
    for name in cut.keys() - {"text", "logprobs", "nucleus_logprobs"}:
        assert columns.values(cut[name]).tolist() == columns.values(whole[name]).tolist(), name
    assert read_texts(cut["text"]) == read_texts(whole["text"])
    for name in cut.keys() & {"logprobs", "nucleus_logprobs"}:
        np.testing.assert_allclose(columns.values(cut[name]), columns.values(whole[name]), rtol=0, atol=1e-4)
