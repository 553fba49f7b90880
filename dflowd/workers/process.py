"""A worker's process: `python -m dflowd.workers.process --line FD --lifeline FD`.

Imports functions of one spec's folder and calls them, one message a line of work:

    engine  ["load", NAME, FOLDER]                     worker  ["loaded", [[parameter, kind, required], ...], is_async]
    engine  ["call", NUMBER, NAME, arguments, ...]     worker  ["said", NUMBER, value, counts]
                                                       worker  ["raised", NUMBER, error, counts]   0: the load
                                                       worker  ["spent", NUMBER, error, counts]    too much memory
                                                       worker  ["late", NUMBER, seconds, counts]   a coroutine

Messages are JSON: what a user's function gives is data to its engine, never code. Coroutines run beside each other, as
many as the engine hands over at once; each has its time limit here, and the whole process one there.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import signal
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dflow_protocols.pipeline.grammar.scoring import MisfitError, Parameter
from dflowd.jobs.failures import UserError
from dflowd.jobs.limits import Limits
from dflowd.jobs.ties import tie_group

from .counts import begin
from .environment import Environments, at_once, is_async
from .float32 import float32_of, shown
from .outcome import Due
from .user_code import call_user, load_function, user_line

NICENESS = 2  # beside its engine's own: sampling goes before scoring

KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "position",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "name",
    inspect.Parameter.KEYWORD_ONLY: "name",
    inspect.Parameter.VAR_KEYWORD: "rest",
}


class Functions:
    """Those of one folder, called as the engine asks over `line`."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._folder = Path()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._environments = Environments()

    def serve(self) -> None:
        """Until the engine closes the line."""
        while True:
            try:
                what, *rest = json.loads(self._line.recv_bytes())
            except (EOFError, OSError):
                return
            if what == "load":
                self._load(*rest)
            else:
                self._call(*rest)

    def _load(self, name: str, folder: str) -> None:
        self._folder = Path(folder)
        try:
            function = load_function(name, self._folder)
            told = [[each.name, each.kind, each.required] for each in parameters_of(function)]
        except (UserError, MemoryError) as error:
            self._say("raised", 0, str(error) or "MemoryError", {})
        except MisfitError as error:
            self._say("raised", 0, f"{name} {error}", {})
        else:
            self._say("loaded", told, is_async(function))

    def _call(
        self, number: int, name: str, placed: list[Any], named: dict[str, Any], due: dict[str, Any], limit_s: float
    ) -> None:
        function = load_function(name, self._folder)
        names, blank, per_token, lengths = (tuple(due[key]) for key in ("names", "blank", "per_token", "lengths"))
        wanted = Due(due["count"], names, blank, per_token, lengths, due["is_turn"])
        call = partial(self._environments.play, function, name) if wanted.is_turn else function
        if is_async(function):
            try:
                begun = call_user(call, *placed, **named)
            except (UserError, MemoryError) as error:
                self._say("raised" if isinstance(error, UserError) else "spent", number, str(error), {})
                return
            coroutine = self._await(number, name, begun, wanted, limit_s)
            asyncio.run_coroutine_threadsafe(coroutine, self._own_loop())
            return

        def work() -> Any:
            said = call(*placed, **named)
            if wanted.is_turn:
                return at_once(said)
            if inspect.isawaitable(said):  # of what only looks like a plain function
                said = asyncio.run_coroutine_threadsafe(_awaited(said), self._own_loop()).result()
            return checked(said, wanted, name)

        counts = begin()
        try:
            self._say("said", number, call_user(work), counts)
        except UserError as error:
            self._say("raised", number, str(error), counts)
        except MemoryError as error:
            self._say("spent", number, str(error), counts)

    async def _await(self, number: int, name: str, coroutine: Any, due: Due, limit_s: float) -> None:
        counts = begin()
        try:
            what, told = await asyncio.wait_for(_outcome(name, coroutine, due), limit_s)
        except TimeoutError:
            what, told = "late", limit_s
        self._say(what, number, told, counts)

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="coroutines", daemon=True).start()
        return self._loop

    def _say(self, *message: Any) -> None:
        with self._lock:
            self._line.send_bytes(json.dumps(message).encode())


async def _awaited(said: Any) -> Any:
    return await said


async def _outcome(name: str, coroutine: Any, due: Due) -> tuple[str, Any]:
    """How it ended, as messages say it. A time limit of its own is its own, and no exit ends the loop."""
    try:
        return "said", checked(await coroutine, due, name)
    except asyncio.CancelledError:
        raise
    except UserError as error:
        return "raised", str(error)
    except MemoryError as error:
        return "spent", user_line(error)
    except BaseException as error:  # as in call_user
        return "raised", user_line(error)


def parameters_of(function: Any) -> list[Parameter]:
    """What a function takes. Raises MisfitError where it does not say."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise MisfitError("does not say what it takes") from error
    empty = inspect.Parameter.empty
    return [Parameter(p.name, KINDS[p.kind], p.default is empty) for p in found if p.kind in KINDS]


def checked(said: Any, due: Due, maker: str) -> Any:
    """What the function `maker` gave, as numbers that float32 holds and JSON can say. Raises UserError."""
    if due.is_turn:  # environments are checked where they answer
        return said
    if due.count is None:
        return None if said is None else float32_of(said, maker)
    if not due.names:
        return _numbers(said, due.count, maker, may_be_none=True)
    if len(due.names) > 1 and not isinstance(said, dict):
        raise UserError(f"{maker} gave {shown(said)} where a dict of lists is due, by {', '.join(due.names)}")
    named = said if isinstance(said, dict) else {due.names[0]: said}
    return {name: _named(named.get(name), name, due, f"{maker}: `{name}`") for name in due.names}


def _named(said: Any, name: str, due: Due, maker: str) -> list[Any]:
    assert due.count is not None
    may_be_none = name in due.blank
    if name not in due.per_token:
        return _numbers(said, due.count, maker, may_be_none)
    rows = zip(_items(said, due.count, "lists", maker), due.lengths, strict=True)
    return [
        None if row is None and may_be_none else _numbers(row, length, f"{maker} of row {index}", may_be_none=False)
        for index, (row, length) in enumerate(rows)
    ]


def _numbers(said: Any, count: int, maker: str, may_be_none: bool) -> list[float | None]:
    values = _items(said, count, "numbers", maker)
    return [None if value is None and may_be_none else float32_of(value, maker) for value in values]


def _items(said: Any, count: int, what: str, maker: str) -> list[Any]:
    is_list = hasattr(said, "__len__") and hasattr(said, "__getitem__") and not isinstance(said, str | bytes | dict)
    values = list(said) if is_list else []
    if not is_list or len(values) != count:
        given = f"{len(values)} values" if is_list else shown(said)
        raise UserError(f"{maker} gave {given} where a list of {count} {what} is due")
    return values


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dflowd.workers.process")
    parser.add_argument("--line", type=int, required=True, help="descriptor of the socket to the engine")
    parser.add_argument("--lifeline", type=int, required=True, help="descriptor that closes when the engine is gone")
    parser.add_argument("--memory", type=int, required=True, help="bytes of its own that it may take")
    options = parser.parse_args(arguments)
    tie_group(options.lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the daemon's to handle
    os.nice(NICENESS)
    Limits(memory_bytes=options.memory).hold()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what users print shows while it runs
    Functions(Connection(options.line)).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
