"""What `sft` trains on: an answer behind its prompt, or what the assistant says in a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from dflowd.data.demonstrations import Demonstration, demonstrate
from dflowd.data.order import DataSet
from dflowd.data.prompts import prompt_tokens, settle_template
from dflowd.jobs.failures import UserError
from tests.support.repository import EXAMPLES

EACH = "{% for m in messages %}{{ m['role'][0] }}\n{{ m['content'] }}<eos>\n{% endfor %}"
ASKS = "{% if add_generation_prompt %}a\n{% endif %}"
SAID = "{{ m['content'] }}<eos>"
MARKED = (
    "{% for m in messages %}{{ m['role'][0] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    f"{SAID}{{% endgeneration %}}{{% else %}}{SAID}{{% endif %}}"
    "{{ '\n' }}{% endfor %}"
)
FORGETS = EACH.replace("m['content']", "m['content'] if loop.last else 'z'")
EOS = 1
TALK = [("system", "x"), ("user", "ab"), ("assistant", "ba"), ("user", "cd"), ("assistant", "dc"), ("user", "e")]


def opened(folder: Path, template: str, talk: list[tuple[str, str]], **more: Any) -> tuple[Any, DataSet]:
    """A tokenizer with this chat template, one token a letter, and a data set of one conversation."""
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / "spell_tokenizer")
    tokenizer.chat_template = template
    settle_template(tokenizer)
    messages = [{"role": role, "content": content} for role, content in talk]
    (folder / "talks.jsonl").write_text(json.dumps({"talk": messages}) + "\n")
    config = {"jsonl": "talks.jsonl", "prompt": None, "answer": None, "messages": "talk", **more}
    return tokenizer, DataSet("talks", config, folder, 0)


def made(folder: Path, template: str, talk: list[tuple[str, str]] = TALK, **more: Any) -> tuple[Any, Demonstration]:
    tokenizer, data = opened(folder, template, talk, **more)
    return tokenizer, demonstrate(tokenizer, data, data.source.entry(0), {EOS})


@pytest.mark.parametrize("template", [EACH + ASKS, MARKED + ASKS])
def test_all_turns_of_the_assistant_are_trained_on_and_nothing_else(tmp_path: Path, template: str) -> None:
    """Each with its end, which the model has to say as well, and without the line break that the template adds."""
    tokenizer, found = made(tmp_path, template)
    assert tokenizer.decode(found.prompt) == "s\nx<eos>\nu\nab<eos>\na\n"
    assert tokenizer.decode(found.said) == "ba<eos>\nu\ncd<eos>\na\ndc<eos>"
    trained = [token for token, is_trained in zip(found.said, found.mask, strict=True) if is_trained]
    assert tokenizer.decode(trained) == "ba<eos>dc<eos>"


def test_the_prompt_of_a_demonstration_is_that_of_a_rollout(tmp_path: Path) -> None:
    """The model learns to go on from just what it will be given."""
    talk = TALK[:3]
    tokenizer, data = opened(tmp_path, EACH + ASKS, talk, system="be brief")
    entry = data.source.entry(0)
    assert demonstrate(tokenizer, data, entry, {EOS}).prompt == prompt_tokens(tokenizer, entry, data.wording_of(entry))


def test_a_prompt_and_its_answer_are_as_they_were(tmp_path: Path) -> None:
    """The whole answer and the end are trained on."""
    tokenizer, _ = opened(tmp_path, EACH + ASKS, TALK)
    (tmp_path / "words.jsonl").write_text('{"prompt": "ab", "answer": "ba"}\n')
    data = DataSet("words", {"jsonl": "words.jsonl", "prompt": "prompt", "answer": "answer"}, tmp_path, 0)
    found = demonstrate(tokenizer, data, data.source.entry(0), {EOS})
    assert (tokenizer.decode(found.said), found.mask) == ("ba<eos>", [True] * 3)


@pytest.mark.parametrize(
    ("template", "talk", "told"),
    [
        (FORGETS + ASKS, TALK, r"^talks\.jsonl:1: the chat template words turn 3 of 6 otherwise"),
        (EACH + ASKS, TALK[:2], r"^talks\.jsonl:1: no turn of the assistant"),
        (MARKED.replace("'assistant'", "'agent'"), TALK, "marks nothing by `{% generation %}`"),
    ],
)
def test_a_conversation_of_which_nothing_can_be_learnt_is_named(
    tmp_path: Path, template: str, talk: list[tuple[str, str]], told: str
) -> None:
    """Half of it trained on, or what users say, would be worse than an error."""
    with pytest.raises(UserError, match=told):
        made(tmp_path, template, talk)
