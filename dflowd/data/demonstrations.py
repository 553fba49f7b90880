"""From an entry to the tokens that `sft` trains on, and `preferences`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dflow_protocols.pipeline.entries.conversation import (
    MARKS,
    Message,
    Span,
    answer_span,
    answers_in,
    assistant_spans,
    read_messages,
    with_system,
)
from dflow_protocols.pipeline.entries.problem import EntryError
from dflowd.jobs.failures import UserError

from .contract import Data
from .prompts import Wording, answer_tokens, encode, prompt_tokens, render, template_at_fault
from .sources import Entry


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What is read and what is said, as tokens. `mask`: of what is said, whether it is trained on; a conversation goes
    on behind its first answer, and what others say in it is not."""

    prompt: list[int]
    said: list[int]
    mask: list[bool]


def demonstrate(tokenizer: Any, data: Data, entry: Entry, stops: Collection[int]) -> Demonstration:
    """An entry as a demonstration. `stops`: tokens that end a turn. Raises UserError, naming the entry's place."""
    try:
        return _demonstrate(tokenizer, data.wording_of(entry), entry, stops)
    except EntryError as error:
        raise UserError(f"{data.place(entry)}: {error.what}; {error.hint}") from error
    except UserError as error:
        raise UserError(f"{data.place(entry)}: {error}") from error


def answered(tokenizer: Any, data: Data, entry: Entry, answer: str, stops: Collection[int]) -> list[int]:
    """The tokens of an answer behind an entry's prompt, its end included. `stops`: as in `demonstrate`. Raises
    UserError, naming the entry's place."""
    wording = data.wording_of(entry)
    try:
        if wording.messages is None:
            return answer_tokens(tokenizer, {**entry, "answer": answer})
        text, span = answer_span(
            wording.conversation(entry), answer, lambda said, asks: render(tokenizer, said, wording, asks=asks)
        )
        return _tokens(tokenizer, text, [span], stops).said
    except EntryError as error:
        raise UserError(f"{data.place(entry)}: {error.what}; {error.hint}") from error
    except UserError as error:
        raise UserError(f"{data.place(entry)}: {error}") from error


def _demonstrate(tokenizer: Any, wording: Wording, entry: Entry, stops: Collection[int]) -> Demonstration:
    if wording.messages is None:
        answer = answer_tokens(tokenizer, entry)
        return Demonstration(prompt_tokens(tokenizer, entry, wording), answer, [True] * len(answer))
    wording.is_chat(tokenizer)
    messages = with_system(read_messages(entry[wording.messages], wording.messages), wording.system)
    text, spans = _spoken(tokenizer, messages, wording)
    found = _tokens(tokenizer, text, spans, stops)
    return replace(found, prompt=wording.cut(found.prompt))


def _spoken(tokenizer: Any, messages: list[Message], wording: Wording) -> tuple[str, list[Span]]:
    """The conversation as text, and what of it the assistant says: as the template marks it, where it does."""
    if not answers_in(messages):
        raise EntryError("no turn of the assistant", "give the conversation an answer, or take it out")
    if not MARKS.search(tokenizer.get_chat_template()):
        return assistant_spans(messages, lambda said, asks: render(tokenizer, said, wording, asks=asks))
    text, spans = _marked(tokenizer, messages, wording)
    spans = [(start, end) for start, end in spans if start < end]
    if not spans:
        raise EntryError("the chat template marks nothing by `{% generation %}`", "correct it, or take the marks out")
    return text, spans


def _marked(tokenizer: Any, messages: Sequence[Message], wording: Wording) -> tuple[str, list[Span]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    told = {**tokenizer.special_tokens_map, **wording.template_args}
    try:
        found: Any = render_jinja_template(  # texts, and the spans of each: its annotation says otherwise
            conversations=[list(messages)],
            chat_template=tokenizer.get_chat_template(),
            return_assistant_tokens_mask=True,
            **told,
        )
    except MemoryError:
        raise
    except Exception as error:
        raise template_at_fault(tokenizer, error) from error
    texts, spans = found
    return texts[0], spans[0]


def _tokens(tokenizer: Any, text: str, spans: Sequence[Span], stops: Collection[int]) -> Demonstration:
    """Each part between two changes of speaker is made into tokens by itself, as it is when the model speaks: the text
    before it is given, and what it says begins a token. Of a turn is trained on what goes up to its last end."""
    as_tokens = partial(encode, tokenizer, add_special_tokens=False)
    prompt = as_tokens(text[: spans[0][0]])
    said: list[int] = []
    mask: list[bool] = []
    for (start, end), until in zip(spans, [*(start for start, _ in spans[1:]), None], strict=True):
        turn = as_tokens(text[start:end])
        ends = [at for at, token in enumerate(turn) if token in stops]
        trained = ends[-1] + 1 if ends else len(turn)
        rest = [] if until is None else [*turn[trained:], *as_tokens(text[end:until])]
        said += [*turn[:trained], *rest]
        mask += [True] * trained + [False] * len(rest)
    return Demonstration(prompt, said, mask)
