"""What stands between two turns: the model goes on from its own tokens, in the words of its chat template."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from dflow_protocols.pipeline.entries.conversation import Message
from dflowd.data.prompts import Wording, opening_tokens, render, settle_template
from dflowd.data.turns import between
from dflowd.jobs.failures import UserError
from tests.support.repository import EXAMPLES
from tests.unit.dflowd.data.test_demonstrations import ASKS, EACH, FORGETS

EOS = 1
THOUGHTLESS = EACH.replace("m['content']", "m['content'] if loop.last else m['content'].split('q')[-1]")
PLAIN = Wording()
OPENING: list[Message] = [{"role": "system", "content": "x"}, {"role": "user", "content": "ab"}]
TALK: list[Message] = [
    *OPENING,
    {"role": "assistant", "content": "ba"},
    {"role": "user", "content": "cd"},
    {"role": "assistant", "content": "dc"},
    {"role": "tool", "content": "e"},
]


def opened(template: str | None) -> Any:
    """A tokenizer with this chat template, one token a letter."""
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / "spell_tokenizer")
    tokenizer.chat_template = template
    settle_template(tokenizer)
    return tokenizer


def grown(tokenizer: Any, said: list[list[int]], wording: Wording = PLAIN) -> list[int]:
    """The token list of TALK, in which the assistant says just these tokens."""
    tokens = opening_tokens(tokenizer, OPENING, wording)
    for turn, end in zip(said, (4, 6), strict=True):
        tokens += [*turn, *between(tokenizer, wording, TALK[:end], turn[-1], {EOS})]
    return tokens


def letters(tokenizer: Any, *texts: str, ends: bool = True) -> list[list[int]]:
    return [tokenizer.encode(text) + [EOS] * ends for text in texts]


def test_a_conversation_that_grows_is_the_one_that_the_template_renders() -> None:
    """Turn by turn, the model reads what it would read if all had been there from the beginning."""
    tokenizer = opened(EACH + ASKS)
    whole = tokenizer.encode(render(tokenizer, TALK, Wording()))
    assert grown(tokenizer, letters(tokenizer, "ba", "dc")) == whole


def test_a_turn_that_no_end_token_ended_is_closed_by_the_template() -> None:
    """A stop text ends a turn; the next one must not begin within it."""
    tokenizer = opened(EACH + ASKS)
    whole = tokenizer.encode(render(tokenizer, TALK, Wording()))
    assert grown(tokenizer, letters(tokenizer, "ba", "dc", ends=False)) == whole


def test_what_was_said_stays_though_the_template_would_word_it_otherwise() -> None:
    """Some templates leave out the thinking of earlier turns; what is trained on is what was sampled."""
    tokenizer = opened(THOUGHTLESS + ASKS)
    text = tokenizer.decode(grown(tokenizer, letters(tokenizer, "zzqba", "zqdc")))
    assert text == "s\nx<eos>\nu\nab<eos>\na\nzzqba<eos>\nu\ncd<eos>\na\nzqdc<eos>\nt\ne<eos>\na\n"
    assert "zq" not in render(tokenizer, [*TALK[:2], {"role": "assistant", "content": "zzqba"}, *TALK[3:]], Wording())


def test_a_template_that_forgets_what_was_said_is_told() -> None:
    """There would be no place to go on from."""
    with pytest.raises(UserError, match="does not write what the assistant said"):
        grown(opened(FORGETS + ASKS), [[5, EOS], [5, EOS]])


@pytest.mark.parametrize("ends", [True, False])
def test_without_a_template_each_message_is_a_line(ends: bool) -> None:
    """As a prompt without one is; a turn that was not ended is ended."""
    tokenizer = opened(None)
    text = tokenizer.decode(grown(tokenizer, letters(tokenizer, "ba", "dc", ends=ends)))
    assert text == "x\nab\nba<eos>cd\ndc<eos>e\n"


def test_every_answer_begins_with_the_prefix_that_the_data_asks_for() -> None:
    """It is no part of what the model says, in the second turn as in the first."""
    tokenizer = opened(EACH + ASKS)
    text = tokenizer.decode(grown(tokenizer, letters(tokenizer, "ba", "dc"), Wording(answer_prefix="q")))
    assert text.count("a\nq") == 3
