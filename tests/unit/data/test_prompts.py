"""From an entry to a prompt: the template around it, and the tokenizer's own chat around that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from dflowd.data.prompts import Wording, prompt_text, prompt_tokens
from dflowd.engines.contract import UserError

ENTRY = {"question": "1 + {n}", "answer": "2"}


@dataclass
class Tokenizer:
    """As much of one as a prompt needs."""

    chat_template: str | None = None

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        assert add_generation_prompt
        return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"

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
