"""From an entry to a model's prompt, and from tokens back to text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from jinja2.exceptions import TemplateError

from dflow_protocols.pipeline.models import TEMPLATE_DAY
from dflowd.jobs.failures import UserError, one_line

from .sources import Entry


@dataclass(frozen=True, slots=True)
class Wording:
    """How a data set's entries are put to a model. `chat`: in the tokenizer's chat template; None: if it has one."""

    template: str | None = None
    chat: bool | None = None


def prompt_text(tokenizer: Any, entry: Entry, wording: Wording = Wording()) -> str:
    """The prompt in the template's text, and that in the chat template. Raises UserError where there is none."""
    is_chat = bool(tokenizer.chat_template) if wording.chat is None else wording.chat
    template = wording.template or ("{prompt}" if is_chat else "{prompt}\n")
    text = template.replace("{prompt}", entry["question"])
    if not is_chat:
        return text
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template; leave `chat` out of the data, or take another tokenizer")
    messages = [{"role": "user", "content": text}]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except MemoryError:
        raise
    except Exception as error:  # whatever a template does wrong, such as to want a system's message
        raise _template_at_fault(tokenizer, error) from error


def settle_template(tokenizer: Any) -> None:
    """Make a tokenizer's chat template a function of its messages: it is told one day whenever it asks for today, and
    may not draw at random. Raises UserError for a template that is none.
    """
    from transformers.utils import chat_template_utils

    if not tokenizer.chat_template:
        return
    try:
        compiled = chat_template_utils._compile_jinja_template(tokenizer.get_chat_template())
    except (TemplateError, ValueError) as error:
        raise _template_at_fault(tokenizer, error) from error
    compiled.globals["strftime_now"] = datetime.fromisoformat(TEMPLATE_DAY).strftime
    compiled.globals["lipsum"] = compiled.environment.filters["random"] = _refuse_chance


def _refuse_chance(*_: Any, **__: Any) -> NoReturn:
    raise TemplateError("it draws at random, so the same pipeline would ask otherwise each time")


def _template_at_fault(tokenizer: Any, error: Exception) -> UserError:
    what = f"the chat template of the tokenizer in {tokenizer.name_or_path}: {one_line(error)}"
    return UserError(f"{what}; correct it there, or write `chat: false` in the data to do without")


def prompt_tokens(tokenizer: Any, entry: Entry, wording: Wording = Wording()) -> list[int]:
    """A prompt's tokens. A chat template writes its own special tokens; without one the tokenizer adds them."""
    is_chat = bool(tokenizer.chat_template) if wording.chat is None else wording.chat
    return _encode(tokenizer, prompt_text(tokenizer, entry, wording), add_special_tokens=not is_chat)


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
