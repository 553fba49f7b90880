"""From an entry to a prompt: the template around it, and the tokenizer's own chat around that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from transformers import AutoTokenizer

from dflowd.data.prompts import Wording, prompt_text, prompt_tokens, settle_template
from dflowd.jobs.failures import UserError
from tests.support.repository import EXAMPLES

SAID = [("user", "1"), ("assistant", "one"), ("user", "2"), ("assistant", "two")]
ENTRY = {
    "question": "1 + {n}",
    "answer": "2",
    "said": [{"role": role, "content": content} for role, content in SAID],
}


@dataclass
class Tokenizer:
    """As much of one as a prompt needs."""

    chat_template: str | None = None

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool, **told: object
    ) -> str:
        assert not tokenize
        assert add_generation_prompt
        args = "".join(f"<{key}={value}>" for key, value in told.items())
        return args + "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [*([0] if add_special_tokens else []), *map(ord, text)]


@pytest.mark.parametrize(
    ("template", "wording", "text"),
    [
        (None, Wording(), "1 + {n}\n"),
        (None, Wording("Q: {prompt}\nA:"), "Q: 1 + {n}\nA:"),
        ("chat", Wording(), "<user>1 + {n}<assistant>"),
        ("chat", Wording("Solve {prompt}."), "<user>Solve 1 + {n}.<assistant>"),
        ("chat", Wording(chat=False), "1 + {n}\n"),
        (None, Wording(chat=False), "1 + {n}\n"),
        ("chat", Wording(system="Be brief."), "<system>Be brief.<user>1 + {n}<assistant>"),
        ("chat", Wording(template_args={"think": False}), "<think=False><user>1 + {n}<assistant>"),
        ("chat", Wording(answer_prefix="It is"), "<user>1 + {n}<assistant>It is"),
        (None, Wording(answer_prefix="= "), "1 + {n}\n= "),
        ("chat", Wording(messages="said"), "<user>1<assistant>one<user>2<assistant>"),
    ],
)
def test_a_prompt_is_worded_as_the_data_and_the_tokenizer_say(template: Any, wording: Wording, text: str) -> None:
    """Braces of the prompt itself are text."""
    tokenizer = Tokenizer(template)
    assert prompt_text(tokenizer, ENTRY, wording) == text
    is_chat = template is not None and wording.chat is not False
    assert prompt_tokens(tokenizer, ENTRY, wording) == [*([] if is_chat else [0]), *map(ord, text)]


def test_a_chat_without_a_template_is_an_error() -> None:
    """Else the model would be asked in a way that its maker never meant."""
    with pytest.raises(UserError, match="no chat template"):
        prompt_text(Tokenizer(), ENTRY, Wording(chat=True))


def test_a_long_prompt_loses_its_first_tokens_where_the_data_says_so() -> None:
    """What stands last is what is asked."""
    whole = prompt_tokens(Tokenizer(), ENTRY)
    assert prompt_tokens(Tokenizer(), ENTRY, Wording(max_prompt_tokens=3, long_prompts="cut_left")) == whole[-3:]
    assert prompt_tokens(Tokenizer(), ENTRY, Wording(max_prompt_tokens=3)) == whole


@pytest.mark.parametrize("key", ["messages", "system"])
def test_what_only_a_chat_template_can_follow_is_not_passed_over(key: str) -> None:
    with pytest.raises(UserError, match=f"no chat template; leave `{key}` out of the data"):
        prompt_text(Tokenizer(), ENTRY, Wording.of({key: "said"}))


def chatting(template: str) -> Any:
    """A tokenizer with this chat template, settled as engines do."""
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / "spell_tokenizer")
    tokenizer.chat_template = template
    settle_template(tokenizer)
    return tokenizer


def test_a_template_that_asks_for_the_day_is_told_the_same_one_always() -> None:
    """Several published templates do; the same pipeline would ask otherwise tomorrow, and have other weights."""
    asks = chatting("{{ strftime_now('%d %b %Y %H:%M') }} {{ messages[0]['content'] }}")
    assert prompt_text(asks, ENTRY) == "26 Jul 2024 00:00 1 + {n}"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('a system message has to come first') }}", "a system message has to come first"),
        ("{{ messages[0].content.no_such() }}", "no_such"),
        ("{{ [1, 2, 3] | random }}", "draws at random"),
        ("{{ lipsum() }}", "draws at random"),
    ],
)
def test_what_a_chat_template_does_wrong_is_the_users_with_its_folder(template: str, told: str) -> None:
    """It was taken for the engine's failure: five tries in fresh engines, and a line of a library."""
    with pytest.raises(UserError, match=rf"chat template of the tokenizer in .*spell_tokenizer: .*{told}"):
        prompt_text(chatting(template), ENTRY)


def test_a_chat_template_that_is_none_is_told_when_it_is_opened() -> None:
    with pytest.raises(UserError, match=r"chat template of the tokenizer in .*spell_tokenizer: TemplateSyntaxError"):
        chatting("{% for %}")
