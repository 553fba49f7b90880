"""Names are hashes of content: what is called alike is alike, whoever says so."""

from __future__ import annotations

from dataclasses import replace

from ...events import Send
from ...wire.steps import BucketPut, Header, HeaderPut, Record, RecordPut, Seal, SealPut
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady


class Naming(Checker):
    """`one_name`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._known: dict[str, Record | Seal | Header] = {}

    @property
    def sees(self) -> Seen:
        return {Send: self._sent}

    def _sent(self, host: Host, send: Send) -> None:
        for message in send.message.messages:
            match message:
                case RecordPut(records=records):
                    for record in records:
                        self._named(host, record)
                case BucketPut(records=held):
                    for each in held:
                        self._named(host, each.record)
                case SealPut(seal=seal):
                    self._named(host, seal)
                case HeaderPut(header=header):
                    self._named(host, header)

    def _named(self, host: Host, thing: Record | Seal | Header) -> None:
        known = self._known.setdefault(thing.id, thing)
        if known is not thing and _content(known) != _content(thing):
            raise self.broken(f"{host.name} tells of two things called {thing.id[:6]}: {known} and {thing}", "one_name")


def _content(thing: Record | Seal | Header) -> Record | Seal | Header:
    """Without what lies beside its name: where a partition failed that a seal leaves out, and in what words."""
    if not isinstance(thing, Seal):
        return thing
    return replace(thing, skipped=tuple(replace(skip, error="", nodes=()) for skip in thing.skipped))
