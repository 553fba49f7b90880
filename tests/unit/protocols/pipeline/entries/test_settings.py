"""Keys of a data set that do not go together, and those that need no word."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError
from tests.unit.protocols.written_specs import example, stage


def made(**data: Any) -> Pipeline:
    spec = example()
    spec["data"]["words"] = {"jsonl": "words.jsonl", "held_out": {"share": 0.1, "count": 1000}, **data}
    return Pipeline.from_dict(spec)


def test_a_conversation_needs_neither_prompt_nor_answer() -> None:
    """Their defaults do not stand beside it, and the canonical form reads back as itself."""
    pipeline = made(messages="chat")
    assert (pipeline.data["words"]["prompt"], pipeline.data["words"]["answer"]) == (None, None)
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    assert made(messages="chat", answer="answer").data["words"]["answer"] == "answer"


def test_a_data_set_without_the_keys_of_conversations_keeps_its_id() -> None:
    """As does one that writes their defaults."""
    plain = made()
    assert made(messages=None, system=None, template_args={}, answer_prefix=None, long_prompts="refuse") == plain
    assert not any(
        word in plain.canonical()
        for word in (b"messages", b"system", b"template_args", b"answer_prefix", b"long_prompts")
    )


@pytest.mark.parametrize(
    ("data", "path", "what"),
    [
        ({"messages": "chat", "prompt": "q"}, "data.words.prompt", "`prompt` stands beside `messages`"),
        ({"messages": "chat", "template": "{prompt}!"}, "data.words.template", "`template` stands beside `messages`"),
        ({"messages": "answer"}, "data.words.messages", "a column of conversations cannot be called `answer` here"),
        ({"messages": "chat", "chat": False}, "data.words.messages", "`messages` is for the chat template"),
        ({"system": "x", "chat": False}, "data.words.system", "`system` is for the chat template, and `chat` is false"),
        ({"long_prompts": "drop"}, "data.words.long_prompts", "`long_prompts` is `drop`, and no prompt is too long"),
        ({"template_args": {"tools": []}}, "data.words.template_args.tools", "`tools` is told to every chat template"),
    ],
)
def test_keys_that_do_not_go_together_are_told(data: dict[str, Any], path: str, what: str) -> None:
    with pytest.raises(SpecError) as caught:
        made(**data)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert what in problem.what


def test_data_that_drops_prompts_is_read_by_one_tokenizer() -> None:
    """Else two stages would have two orders of it."""
    spec = example()
    spec["data"]["words"] |= {"max_prompt_tokens": 9, "long_prompts": "drop"}
    assert Pipeline.from_dict(spec).data["words"]["long_prompts"] == "drop"
    spec["models"]["other"] = {"path": "other/"}
    stage(spec, "heldout")["model"] = "other"
    stage(spec, "heldout")["config"]["max_tokens"] = 6
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    (problem,) = caught.value.problems
    assert problem.path == "stages[5].config.data"
    assert "`heldout` and `warm` read `words`, which drops prompts, by different tokenizers" in problem.what
