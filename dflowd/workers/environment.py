"""Environments in a worker: who answers a model in a conversation of several turns.

    class Environment:
        def __init__(self, **args): ...
        def reset(self, entry: dict) -> list[dict] | None: ...
        def step(self, messages: list[dict]) -> tuple[list[dict], float, bool]: ...

Each conversation has an instance of its own. `reset` gives the messages that it begins with, or None: then it begins as
the data words the entry. `step` gets the conversation so far, the assistant's turn at its end, and gives the messages
that answer it (a text is one of the user), the turn's reward, and whether the conversation is over. Both may be
`async def`, and `close`, if there is one, is called at the end.

What is kept of a conversation is a cache: where it is not there, as its worker was ended, a fresh instance is told
again what was said so far, and what it answers meanwhile is passed over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from dflow_protocols.pipeline.entries.conversation import ASSISTANT, USER, Message, read_message
from dflow_protocols.pipeline.entries.problem import EntryError
from dflowd.jobs.failures import UserError

from .float32 import float32_of, shown
from .outcome import MOST_KEPT

METHODS = ("reset", "step", "close")


class Environments:
    """Those of the conversations that a worker remembers."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, int]] = {}  # with the number of turns that each was told of

    def play(
        self,
        make: Callable[..., Any],
        name: str,
        key: str,
        args: Mapping[str, Any],
        entry: Mapping[str, Any],
        messages: Sequence[Message],
        begins: int,
        is_last: bool,
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """What the environment answers, to be awaited: {messages, reward, done}; messages are None where `reset` gave
        none. An instance is made at once, in the caller's thread: libraries set signal handlers, which only the main
        thread may. `key`: of the conversation, of which the first `begins` messages were there before the model spoke.
        `is_last`: the model says no more, whatever is answered. Raises UserError, when awaited, too."""
        turns = [at + 1 for at in range(begins, len(messages)) if messages[at]["role"] == ASSISTANT]
        told = [messages[:end] for end in turns]
        environment, count = self._kept.pop(key, (None, 0))
        if environment is not None and count == len(told) - 1:
            return _closed_if_broken(environment, self._step(environment, name, key, told, is_last))
        environment = make(**args)
        return _closed_if_broken(environment, self._begin(environment, name, key, entry, told, is_last))

    async def _begin(
        self,
        environment: Any,
        name: str,
        key: str,
        entry: Mapping[str, Any],
        told: Sequence[Sequence[Message]],
        is_last: bool,
    ) -> dict[str, Any]:
        """Up to where the conversation is. `told`: what it was at each turn so far."""
        given = _given_by(environment)
        opening = await given(environment.reset(dict(entry)))
        if not told:
            self._keep(key, environment, 0)
            return {"messages": _messages(opening, f"{name}.reset"), "reward": 0.0, "done": False}
        for messages in told[:-1]:
            await given(environment.step(_copied(messages)))
        return await self._step(environment, name, key, told, is_last)

    async def _step(
        self, environment: Any, name: str, key: str, told: Sequence[Sequence[Message]], is_last: bool
    ) -> dict[str, Any]:
        given = _given_by(environment)
        said = _answer(await given(environment.step(_copied(told[-1]))), f"{name}.step")
        if said["done"] or is_last:
            await _close(environment)
        else:
            self._keep(key, environment, len(told))
        return said

    def _keep(self, key: str, environment: Any, told: int) -> None:
        self._kept[key] = environment, told
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]


def is_async(function: Any) -> bool:
    """Whether calls of a function, or turns of an environment, wait beside each other."""
    return any(inspect.iscoroutinefunction(each) for each in (function, *(getattr(function, n, None) for n in METHODS)))


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What an environment of plain methods answers: nothing in it waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


async def _closed_if_broken(environment: Any, turn: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """A turn that raises is the conversation's last: whatever its instance holds is given back."""
    try:
        return await turn
    except Exception:
        with suppress(Exception):  # what went wrong first is what people have to mend
            await _close(environment)
        raise


async def _close(environment: Any) -> None:
    if hasattr(environment, "close"):
        await _given_by(environment)(environment.close())


def _given_by(environment: Any) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    return _waiting if is_async(environment) else _plain


async def _waiting(said: Any) -> Any:
    return await said if inspect.isawaitable(said) else said


async def _plain(said: Any) -> Any:
    if inspect.iscoroutine(said):
        said.close()
    if inspect.isawaitable(said):
        raise UserError("an environment of plain methods gave something to wait for; write `async def`")
    return said


def _copied(messages: Sequence[Message]) -> list[Message]:
    """The environment's own, whatever it does with them."""
    return [dict(message) for message in messages]


def _answer(said: Any, maker: str) -> dict[str, Any]:
    if not isinstance(said, tuple | list) or len(said) != 3:
        raise UserError(f"{maker} gave {shown(said)} where (messages, reward, done) are due")
    given, reward, done = said
    messages = _messages(given, maker) or []
    if not messages and not done:
        raise UserError(f"{maker} gave no message and is not done: there is nothing that the model could answer")
    return {"messages": messages, "reward": float32_of(reward, maker), "done": bool(done)}


def _messages(given: Any, maker: str) -> list[Message] | None:
    """As JSON can say them."""
    if given is None:
        return None
    if isinstance(given, str):
        given = [{"role": USER, "content": given}] if given else []
    if not isinstance(given, list | tuple):
        raise UserError(f"{maker} gave {shown(given)} where a list of messages is due")
    try:
        return [read_message(each, f"messages[{at}]") for at, each in enumerate(given)]
    except EntryError as error:
        raise UserError(f"{maker}: {error.what}; {error.hint}") from error
