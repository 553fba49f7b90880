"""From an entry to a model's prompt, and from tokens back to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, NoReturn, Self

from jinja2.exceptions import TemplateError

from dflow_protocols.pipeline.entries.conversation import Message, put_to_model
from dflow_protocols.pipeline.entries.settings import CUT_LEFT, OF_CHAT
from dflow_protocols.pipeline.models import TEMPLATE_DAY
from dflowd.jobs.failures import UserError, one_line

from .sources import Entry

MARK = "\ue000"  # for private use: no text of a conversation has a meaning for it


@dataclass(frozen=True, slots=True)
class Wording:
    """How a data set's entries are put to a model; fields are the keys of a spec's `data` section. `chat`: in the
    tokenizer's chat template; None: if it has one."""

    template: str | None = None
    chat: bool | None = None
    messages: str | None = None
    system: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    answer_prefix: str | None = None
    max_prompt_tokens: int | None = None
    long_prompts: str = "refuse"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """As a data set's section says."""
        return cls(**{each.name: config[each.name] for each in fields(cls) if each.name in config})

    def conversation(self, entry: Entry) -> list[Message]:
        """What a model is to go on with."""
        return put_to_model(entry, self.messages, self.template, self.system)

    def cut(self, tokens: list[int]) -> list[int]:
        """A prompt's tokens without the first ones, where it has too many and the data says so."""
        most = self.max_prompt_tokens
        return tokens[-most:] if most is not None and self.long_prompts == CUT_LEFT else tokens

    def is_chat(self, tokenizer: Any) -> bool:
        """Whether it goes through the tokenizer's chat template. Raises UserError where it has none."""
        needs = next((key for key in OF_CHAT if getattr(self, key)), "chat" if self.chat else None)
        if needs is not None and not tokenizer.chat_template:
            what = f"the tokenizer has no chat template; leave `{needs}` out of the data, or take another tokenizer"
            raise UserError(what)
        return bool(tokenizer.chat_template) if self.chat is None else self.chat


def prompt_text(tokenizer: Any, entry: Entry, wording: Wording = Wording()) -> str:
    """What the model is given: the conversation in the chat template, or the prompt in the data's own, and how the
    answer begins. Raises UserError."""
    if wording.is_chat(tokenizer):
        text = render(tokenizer, wording.conversation(entry), wording)
    else:
        text = (wording.template or "{prompt}\n").replace("{prompt}", entry["question"])
    return text + (wording.answer_prefix or "")


def render(tokenizer: Any, messages: Sequence[Message], wording: Wording, *, asks: bool = True) -> str:
    """A conversation as the chat template has it. `asks`: an answer is to come. Raises UserError."""
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=asks, **dict(wording.template_args)
            )
        )
    except MemoryError:
        raise
    except Exception as error:  # whatever a template does wrong, such as to want a system's message
        raise template_at_fault(tokenizer, error) from error


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
        raise template_at_fault(tokenizer, error) from error
    compiled.globals["strftime_now"] = datetime.fromisoformat(TEMPLATE_DAY).strftime
    compiled.globals["lipsum"] = compiled.environment.filters["random"] = _refuse_chance


def _refuse_chance(*_: Any, **__: Any) -> NoReturn:
    raise TemplateError("it draws at random, so the same pipeline would ask otherwise each time")


def template_at_fault(tokenizer: Any, error: Exception) -> UserError:
    """What to tell of a chat template that raised an error."""
    what = f"the chat template of the tokenizer in {tokenizer.name_or_path}: {one_line(error)}"
    return UserError(f"{what}; correct it there, or write `chat: false` in the data to do without")


def prompt_tokens(tokenizer: Any, entry: Entry, wording: Wording = Wording()) -> list[int]:
    """A prompt's tokens. A chat template writes its own special tokens; without one the tokenizer adds them."""
    text = prompt_text(tokenizer, entry, wording)
    return wording.cut(encode(tokenizer, text, add_special_tokens=not wording.is_chat(tokenizer)))


def put_between(tokenizer: Any, entry: Entry, before: str, behind: str, wording: Wording) -> tuple[str, str]:
    """What stands in front of a text and behind it, up to where an answer begins, where the text is put to a model
    between `before` and `behind` in place of the entry's prompt. Raises UserError."""
    if wording.is_chat(tokenizer):
        asked = replace(wording, messages=None, template=None)
        whole = render(tokenizer, asked.conversation({**entry, "question": before + MARK + behind}), wording)
        before, mark, behind = whole.partition(MARK)
        if not mark:
            raise template_at_fault(tokenizer, ValueError("it does not write what the user said"))
    return before, behind + (wording.answer_prefix or "")


def opening_tokens(tokenizer: Any, messages: Sequence[Message], wording: Wording = Wording()) -> list[int]:
    """The tokens of messages that a conversation begins with in place of the data's; without a chat template each one
    is a line. Raises UserError."""
    is_chat = wording.is_chat(tokenizer)
    text = render(tokenizer, messages, wording) if is_chat else "".join(f"{each['content']}\n" for each in messages)
    return wording.cut(encode(tokenizer, text + (wording.answer_prefix or ""), add_special_tokens=not is_chat))


def answer_tokens(tokenizer: Any, entry: Entry) -> list[int]:
    """The right answer as the model should write it, its end included."""
    return [*encode(tokenizer, entry["answer"], add_special_tokens=False), int(tokenizer.eos_token_id)]


def completion_text(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def encode(tokenizer: Any, text: str, *, add_special_tokens: bool) -> list[int]:
    """A text's tokens. Raises UserError for one that the tokenizer cannot read."""
    try:
        tokens = list(tokenizer.encode(text, add_special_tokens=add_special_tokens))
    except Exception as error:  # such as a character that the vocabulary lacks
        raise UserError(f"the tokenizer cannot read {text[:80]!r}: {one_line(error)}") from error
    return tokens
