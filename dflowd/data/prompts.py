"""From an entry to a model's prompt, and from tokens back to text."""

from __future__ import annotations

from typing import Any

from dflowd.engines.contract import UserError, one_line

from .sources import Entry


def prompt_text(tokenizer: Any, entry: Entry) -> str:
    """By the tokenizer's chat template if it has one; else the question and a line break."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": entry["question"]}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return f"{entry['question']}\n"


def prompt_tokens(tokenizer: Any, entry: Entry) -> list[int]:
    """A prompt's tokens. A chat template writes its own special tokens; without one the tokenizer adds them."""
    return _encode(tokenizer, prompt_text(tokenizer, entry), add_special_tokens=not tokenizer.chat_template)


def answer_tokens(tokenizer: Any, entry: Entry) -> list[int]:
    """The right answer as the model should write it, its end included."""
    return [*_encode(tokenizer, entry["answer"], add_special_tokens=False), int(tokenizer.eos_token_id)]


def completion_text(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def _encode(tokenizer: Any, text: str, *, add_special_tokens: bool) -> list[int]:
    try:
        tokens = list(tokenizer.encode(text, add_special_tokens=add_special_tokens))
    except Exception as error:  # such as a character that the vocabulary lacks
        raise UserError(f"the tokenizer cannot read {text[:80]!r}: {one_line(error)}") from error
    return tokens
