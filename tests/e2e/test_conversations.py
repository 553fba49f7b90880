"""Conversations of a table, with real engines: trained on, asked beside other data, and judged."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from tests.support.dflow import answer, dflow
from tests.support.repository import EXAMPLES

SPEC = """
name: talks
steps: 2
models: {policy: {init: {config: spell_llama.json, tokenizer: spell_tokenizer/}}}
data:
  talks: {parquet: talks/train-*, messages: talk, system: brief, answer_prefix: z, held_out: {share: 0.2, count: 4}}
  words: {csv: words.csv, max_prompt_tokens: 12, long_prompts: drop}
  both: {mix: {talks: 2, words: 1}}
stages:
  - id: warm
    op: sft
    model: policy
    when: step < 1
    config: {data: talks, demos: 16, batch: 8, leaves: 2, optimizer: {adamw: {lr: 1e-3}}}
  - {id: roll, op: generate, model: policy, when: step >= 1, config: {data: both, prompts: 8, group: 4, max_tokens: 4}}
  - {id: score, op: reward, config: {function: "judge.py:score"}}
  - {id: adv, op: advantage}
  - {id: learn, op: train, model: policy, config: {leaves: 2, optimizer: {adamw: {lr: 1e-3}}}}
  - {id: heldout, op: evaluate, model: policy, config: {data: talks.held_out}}
"""
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}\n{{ m['content'] }}{% if m['role'] == 'assistant' %}<eos>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}a\n{% endif %}"
)
JUDGE = """
def score(completion, messages, answer):
    roles = [each["role"] for each in messages]
    assert roles in (["user"], ["system", "user", "assistant", "user"]), messages
    assert len(messages) > 1 or len(messages[0]["content"]) < 4, messages
    return float(len(completion) == len(answer)) + len(completion) / 10
"""


def test_conversations_of_a_table_are_learnt_and_asked(tmp_path: Path) -> None:
    """Of each conversation both answers are trained on, with their ends, and the last one is left for the model."""
    shutil.copytree(EXAMPLES / "spell_tokenizer", tmp_path / "spell_tokenizer")
    shutil.copy(EXAMPLES / "spell_llama.json", tmp_path)
    (tmp_path / "spell_tokenizer" / "chat_template.jinja").write_text(TEMPLATE)
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "talks").mkdir()
    letters = [chr(ord("a") + at) for at in range(24)]
    talks = [
        [{"role": role, "content": content} for role, content in zip(("user", "assistant") * 2, said, strict=True)]
        for said in ((a + b, b + a, b, "zz") for a in letters for b in letters[:2])
    ]
    parquet.write_table(pa.table({"talk": talks}), tmp_path / "talks" / "train-00000-of-00001.parquet")
    words = [f"{letter * length},b\n" for letter in letters for length in (2, 30)]
    (tmp_path / "words.csv").write_text("prompt,answer\n" + "".join(words))
    assert "24 of 48 prompts of words.csv" in dflow("validate", tmp_path / "spec.yaml", of="stderr")
    told = answer("run", tmp_path / "spec.yaml", "--nodes", "2", "--dir", tmp_path / "mesh")
    assert told["state"] == "done"
    table = dflow("metrics", told["run"], "--format", "csv", "--dir", tmp_path / "mesh")
    rows = {row["step"]: row for row in csv.DictReader(io.StringIO(table))}
    assert float(rows["1"]["trained_tokens"]) == 8 * (3 + 3)  # two letters and the end, twice
    assert float(rows["2"]["reward_mean"]) > 0
    assert float(rows["2"]["prompts_dropped"]) == 24
