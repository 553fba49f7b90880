"""What a model is asked has to be something that it can read: found before tokens go in, so that the user's data is
named, and not the layer in which an index was out of range."""

from __future__ import annotations

from collections.abc import Sequence

from dflowd.data.contract import Data
from dflowd.data.prompts import prompt_tokens
from dflowd.data.sources import Entry
from dflowd.jobs.failures import UserError
from dflowd.models.description import Description

from .contract import Asked


def prompts_of(asked: Asked, data: Data, entries: Sequence[Entry]) -> list[list[int]]:
    """Each entry's prompt as tokens. Raises UserError, naming the entry, for one that cannot be put to the model."""
    tokenizer = asked.description().tokenizer
    found = []
    for entry in entries:
        try:
            found.append(prompt_tokens(tokenizer, entry, data.wording_of(entry)))
        except UserError as error:
            raise UserError(f"{data.place(entry)}: {error}", asked.stage.id) from error
    return found


def check_context(
    asked: Asked,
    data: Data,
    entries: Sequence[Entry],
    prompts: Sequence[Sequence[int]],
    said: Sequence[int],
    what_is_said: str,
) -> None:
    """Raises UserError, naming the entry, where a prompt has no token or one that the model has no row for, or where it
    and the `said` tokens beside it (`what_is_said`, in words) have more than the data allows or the model has positions
    for."""
    model: Description = asked.description()
    for entry, prompt, more in zip(entries, prompts, said, strict=True):
        most = data.wording_of(entry).max_prompt_tokens
        found = misfit(model, prompt, more, what_is_said)
        if prompt and most is not None and len(prompt) > most:
            found = (
                f"a prompt of {len(prompt)} tokens is longer than `max_prompt_tokens`, {most}; shorten it or take it "
                "out, or write `long_prompts: drop` or `cut_left`"
            )
        if found:
            raise UserError(f"{data.place(entry)}: {found}", asked.stage.id)


def misfit(model: Description, prompt: Sequence[int], more: int, what_is_said: str) -> str:
    """Why the model cannot read a prompt and go on with `more` tokens, and what mends it; empty: it can."""
    if not prompt:
        return "its prompt has no token; look at the data's `template` and at the tokenizer's"
    if max(prompt) >= model.rows:
        told = f"token {max(prompt)} of its prompt is beyond the vocabulary of {model.rows} of model `{model.name}`"
        return f"{told}; take the tokenizer that belongs to the model"
    if model.context is not None and len(prompt) + more > model.context:
        return (
            f"a prompt of {len(prompt)} tokens and {what_is_said} of {more} are longer than the context of "
            f"{model.context} of model `{model.name}`; shorten it or take it out, let less be said, or take a model "
            "with more positions"
        )
    return ""
