"""What happened in a world: a story for people, a digest for machines.

A line is formatted only when somebody reads it; the digest, where asked for, covers every line, so that two runs of
one seed that differ anywhere differ in it. A frame is covered where it is sent; where it arrives, that it does.
"""

from __future__ import annotations

import hashlib
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from ..events import Dial, Received, Report, Send, SendThrough, Tick
from ..names import ShardRef, TaskKey, is_what, is_who
from ..wire.frame import Frame
from ..wire.gossip import GOSSIP_MESSAGES, Sync
from ..wire.packing import pack
from ..wire.steps import Head, Record, Seal
from ..work import Made

TAIL_LINES = 4000  # kept for the story; older ones are only in the digest
SYNC_WHOLE = 32  # claims of a push-pull that are all in the digest; of more, as many at least
SHORT = 6  # digits of an id that are shown
LINE_CHARACTERS = 260  # of a line of the story
UNTOLD = (
    "run",
    "seconds",
    "metrics",
    "samples",
    "detail",
    "fields",
    "roster",
    "state",
    "files",
)  # says little, takes much room


class Trace:
    def __init__(self, digest: bool = False) -> None:
        self.lines: deque[tuple[float, str, str, Any, int | None]] = deque(maxlen=TAIL_LINES)
        self._hash = hashlib.blake2b(digest_size=16) if digest else None
        self._turn: tuple[float, str] | None = None  # of the last line that the digest covers

    def add(self, now: float, who: str, what: str, thing: Any, cause: int | None = None) -> None:
        """`what`: an arrow or a verb; `thing`: an event, action or fault; `cause`: the number of its turn there."""
        self.lines.append((now, who, what, thing, cause))
        if self._hash is not None:
            if self._turn != (now, who):  # of the many lines of a turn the first says whose it is, and when
                self._turn = now, who
                self._hash.update(f"{now!r} {who}\n".encode())
            self._hash.update(what.encode() + _content(thing))

    def keep_all(self) -> None:
        """Older lines, too, from now on."""
        self.lines = deque(self.lines)

    @property
    def digest(self) -> str:
        assert self._hash is not None, "this trace was made without a digest"
        return self._hash.hexdigest()

    def story(self, last: int, words: dict[str, str]) -> Iterator[str]:
        """The last lines about runs; membership's talk is left out. `words`: what ids are called."""
        shown = [line for line in self.lines if not _is_gossip(line[3])]
        for now, who, what, thing, cause in shown[-last:]:
            yield f"{now:9.4f} {who:>4} {cause or '':>6} {what:<5} {brief(thing, words)}"[:LINE_CHARACTERS]


def _content(thing: Any) -> bytes:
    """What a digest covers of an event, action or fault."""
    match thing:
        case Received(source, Frame(_, messages), None):
            return f" {source} {len(messages)}\n".encode()
        case Send(to, Frame(delta, messages)):
            return pack((to, delta, [(type(message).__name__, _sample(message)) for message in messages]))
        case Dial():  # a thousand members dial a thousand each
            return f" {thing.node} {thing.control} {thing.bulk}\n".encode()
        case Report():
            return f" {thing.name} {thing.fields}\n".encode()
        case Tick():
            return b"\n"
    return f" {thing!r}\n".encode()


def _sample(message: Any) -> Any:
    """A push-pull of a large mesh: some of its claims, and how many they are. Of any other message all."""
    if isinstance(message, Sync) and len(message.updates) > SYNC_WHOLE:
        every = len(message.updates) // SYNC_WHOLE
        return message.wants_answer, message.meta, len(message.updates), message.updates[::every]
    return message


def _is_gossip(thing: Any) -> bool:
    match thing:
        case Tick():
            return True
        case Received(_, Frame(delta, messages), _) if not messages:
            return delta is None or not delta.heartbeats
        case (
            Received(_, Frame(_, messages), _)
            | Send(_, Frame(_, messages), _)
            | SendThrough(_, _, _, Frame(_, messages))
        ):
            return bool(messages) and all(isinstance(message, GOSSIP_MESSAGES) for message in messages)
    return False


def brief(thing: Any, words: dict[str, str]) -> str:
    """Anything in one short line: ids by their first digits or their names, big things by what tells them apart."""
    match thing:
        case str():
            return words.get(thing) or (thing[:SHORT] if is_who(thing) or is_what(thing) else thing)
        case bytes():
            return f"<{len(thing)} bytes>"
        case float():
            return f"{thing:.4g}"
        case tuple() | list():
            return f"({' '.join(brief(item, words) for item in thing)})"
        case dict():
            return "{" + ", ".join(f"{key}: {brief(value, words)}" for key, value in thing.items()) + "}"
        case TaskKey():
            return str(thing)
        case ShardRef():
            return thing.id[:SHORT]
        case Record():
            return f"{thing.task}={thing.id[:SHORT]}"
        case Seal():
            return f"{thing.kind}/{thing.step}/{thing.generation}={thing.id[:SHORT]} of {len(thing.entries)}"
        case Head():
            return f"{thing.step}:{thing.version[:SHORT]}"
        case Frame():
            return brief(thing.messages, words)
        case Made():
            return f"{thing.stage}{brief(thing.outputs, words)}"
    if is_dataclass(thing) and not isinstance(thing, type):
        inner = ", ".join(
            f"{f.name}={brief(getattr(thing, f.name), words)}" for f in fields(thing) if f.name not in UNTOLD
        )
        return f"{type(thing).__name__}({inner})"
    return str(thing)


def told_error(error: Exception) -> str:
    """What was raised, and where."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({at.filename.rpartition('/')[2]}:{at.lineno}, {at.line})"
