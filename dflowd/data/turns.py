"""What stands between two turns of the assistant, as tokens: a conversation is one list of them that grows.

What the model said is never made into tokens again, so the text of its turns is not looked at here: in its place stands
a mark, and what the chat template writes behind the last one is what the model is given next. Templates that word
earlier turns otherwise (some leave their thinking out) change nothing of what was said: the model goes on from that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from dflow_protocols.pipeline.entries.conversation import ASSISTANT, Message

from .prompts import MARK, Wording, encode, render, template_at_fault


def between(
    tokenizer: Any, wording: Wording, messages: Sequence[Message], last: int | None, stops: Collection[int]
) -> list[int]:
    """Tokens behind the assistant's last turn in `messages` up to where its next one begins: the end of that turn, as
    far as it has not been said, and the messages behind it. `last`: the last token that was said; `stops`: tokens that
    end a turn. Without a chat template each message is a line. Raises UserError.
    """
    at = max(index for index, message in enumerate(messages) if message["role"] == ASSISTANT)
    prefix = wording.answer_prefix or ""
    as_tokens = partial(encode, tokenizer, add_special_tokens=False)
    if not wording.is_chat(tokenizer):
        end = [] if last in stops else [int(tokenizer.eos_token_id)]
        return end + as_tokens("".join(f"{message['content']}\n" for message in messages[at + 1 :]) + prefix)
    marked = [{**each, "content": MARK} if each["role"] == ASSISTANT else each for each in messages]
    whole = _behind_last(tokenizer, marked, wording, asks=True)
    alone = _behind_last(tokenizer, marked[: at + 1], wording, asks=False)
    closing = whole[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(alone, whole, strict=False)))]
    end = as_tokens(closing)
    if last in stops:
        ends = [place for place, token in enumerate(end) if token in stops]
        end = end[ends[-1] + 1 :] if ends else end
    return end + as_tokens(whole[len(closing) :] + prefix)


def _behind_last(tokenizer: Any, marked: Sequence[Message], wording: Wording, *, asks: bool) -> str:
    """What the template writes behind the assistant's last turn."""
    _, mark, rest = render(tokenizer, marked, wording, asks=asks).rpartition(MARK)
    if not mark:
        what = "it does not write what the assistant said before the last message, so no conversation can go on"
        raise template_at_fault(tokenizer, ValueError(what))
    return rest
