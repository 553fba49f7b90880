"""What a model cannot read is the user's to mend, and is named by file and line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.jobs.failures import UserError
from dflowd.models.policy import Policy
from dflowd.operators.answers import sft
from dflowd.operators.evaluate import evaluate
from dflowd.operators.generate import generate
from dflowd.operators.partition import Partition
from tests.support.partition import first_partition
from tests.support.repository import EXAMPLES
from tests.unit.protocols.written_specs import example, stage

LONG = {"prompt": "ab" * 30, "answer": "ba" * 3}


@pytest.fixture(scope="module")
def policy() -> Policy:
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    return Policy("policy", config, EXAMPLES, 5)  # 64 positions


def partition(policy: Policy, folder: Path, entry: dict[str, Any], name: str, **more: Any) -> Partition:
    """A stage's only partition, over a file whose second line is this entry. `more`: keys of the data set."""
    (folder / "words.jsonl").write_text("\n" + json.dumps(entry) + "\n")
    spec = example()
    spec["data"]["words"] = {"jsonl": "words.jsonl", **more}
    stage(spec, "heldout")["config"] |= {"data": "words", "count": 1, "max_tokens": 8}
    stage(spec, "roll")["config"]["max_tokens"] = 8
    pipeline = Pipeline.from_dict(spec)
    measure = (lambda entry: len(entry["question"])) if more.get("long_prompts") == "drop" else None
    data = DataSet("words", pipeline.data["words"], folder, 0, measure)
    return first_partition(pipeline, folder, name, 1, data, policy=policy, step=50)


@pytest.mark.parametrize(
    ("operator", "name", "said"),
    [
        (generate, "roll", "`max_tokens` of 8"),
        (evaluate, "heldout", "`max_tokens` of 8"),
        (sft, "warm", "an answer of 7"),
    ],
)
def test_a_text_longer_than_the_models_context_is_named_by_its_line(
    policy: Policy, tmp_path: Path, operator: Any, name: str, said: str
) -> None:
    """Learnt positions end in an index out of range, rotary ones go on silently where the model was never trained."""
    told = rf"words\.jsonl:2: a prompt of 61 tokens and {said} are longer than the context of 64 of model `policy`"
    with pytest.raises(UserError, match=told):
        operator(partition(policy, tmp_path, LONG, name))


def test_a_prompt_of_more_tokens_than_the_data_allows_is_named_by_its_line(policy: Policy, tmp_path: Path) -> None:
    """It ends the run, unless the data says what else becomes of it."""
    told = r"words\.jsonl:2: a prompt of 61 tokens is longer than `max_prompt_tokens`, 40; .* `long_prompts: drop`"
    with pytest.raises(UserError, match=told):
        generate(partition(policy, tmp_path, LONG, "roll", max_prompt_tokens=40))
    made = generate(partition(policy, tmp_path, LONG, "roll", max_prompt_tokens=40, long_prompts="cut_left"))
    assert columns.lengths(made.columns["prompt"]).tolist() == [40]


def test_a_rollout_counts_what_the_data_drops_once(policy: Policy, tmp_path: Path) -> None:
    """Its partitions' sums are added up."""
    work = partition(
        policy, tmp_path, {"prompt": "ab", "answer": "ba"}, "roll", max_prompt_tokens=40, long_prompts="drop"
    )
    assert generate(work).metrics["prompts_dropped"] == 0
    assert "prompts_dropped" not in generate(replace(work, first=1, end=2)).metrics


@pytest.mark.parametrize(("operator", "name"), [(generate, "roll"), (evaluate, "heldout"), (sft, "warm")])
def test_a_prompt_that_cannot_be_read_is_named_by_its_line(
    policy: Policy, tmp_path: Path, operator: Any, name: str
) -> None:
    """Among thousands its text alone is hard to find."""
    with pytest.raises(UserError, match=r"^words\.jsonl:2: the tokenizer cannot read '12"):
        operator(partition(policy, tmp_path, {"prompt": "12", "answer": "b"}, name))


def test_a_text_that_just_fits_is_read(policy: Policy, tmp_path: Path) -> None:
    made = generate(partition(policy, tmp_path, LONG | {"prompt": "a" * 55}, "roll"))
    assert made.metrics["samples"] == 8


def test_a_prompt_beyond_the_vocabulary_is_named(policy: Policy, tmp_path: Path, monkeypatch: Any) -> None:
    """A tokenizer of another model makes tokens that this one has no row for."""
    monkeypatch.setattr(policy.tokenizer, "encode", lambda text, add_special_tokens: [5, 999])
    with pytest.raises(UserError, match=r"words\.jsonl:2: token 999 of its prompt is beyond the vocabulary of 30"):
        generate(partition(policy, tmp_path, {"prompt": "a", "answer": "b"}, "roll"))


def test_a_prompt_of_no_token_is_named(policy: Policy, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(policy.tokenizer, "encode", lambda text, add_special_tokens: [])
    with pytest.raises(UserError, match=r"words\.jsonl:2: its prompt has no token"):
        generate(partition(policy, tmp_path, {"prompt": "a", "answer": "b"}, "roll"))
