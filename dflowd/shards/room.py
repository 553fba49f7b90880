"""Space, asked for and granted in order: the oldest step of the first run first.

Owns the queue of those who wait while memory is put behind somebody's segments, which takes about a millisecond a MiB
and so happens in a thread; what is small or recycled is granted at once. Knows nothing of what the space is for. All
methods are for the loop's thread, and so are all callbacks.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from dflow_protocols.events import RoomMade, Shed
from dflow_protocols.names import RunId, ShardId, ShardRef, chunk_count
from dflow_protocols.shards.space import Priority

from ..process.host import Host
from .segment import Full, Segment
from .store import Store

QUICK_BYTES = 1 << 20  # fresh memory that is granted on the loop: about a millisecond

Granted: TypeAlias = list[Segment] | Full


@dataclass(slots=True)
class _Request:
    """`run`: what takes the space, in whichever thread; then `tell`, on the loop."""

    priority: Priority
    sizes: tuple[tuple[int, int, int], ...]  # (bytes, first chunk, end chunk) of each segment
    shard: ShardId | None
    run: Callable[[], Callable[[], None]]
    refuse: Callable[[Full], None]
    is_dropped: bool = False


class Room:
    """The queue before one store. The node is told that room was made, or a shard given up."""

    def __init__(self, host: Host, store: Store, on_refused: Callable[[RunId, Full], None]) -> None:
        """`on_refused` hears of each run that found no room, and why."""
        self._store, self._loop, self._on_refused = store, host.loop, on_refused
        self._waiting: list[tuple[Priority, int, _Request]] = []  # bounded by slots and by the fetches of open steps
        self._numbers = itertools.count()
        self._current: _Request | None = None  # what the worker is at
        self._worker = ThreadPoolExecutor(1, "room")
        store.watch(
            on_room=lambda: self._call(lambda: host.post(RoomMade())),
            on_shed=lambda run, shard: self._call(lambda: host.post(Shed(run, shard))),
            on_surplus=self._let_go,
        )

    def grant(self, priority: Priority, sizes: Sequence[int], then: Callable[[Granted], None]) -> None:
        """Room for outputs of these lengths, all or none. `then` gets the segments, to be sealed or released."""

        def take() -> Callable[[], None]:
            segments = self._take(priority, sizes)
            return lambda: then(segments)

        spans = tuple((nbytes, 0, chunk_count(nbytes)) for nbytes in sizes)
        self._ask(_Request(priority, spans, None, take, lambda why: self._refuse(priority.run, why, then)))

    def grant_now(self, priority: Priority, sizes: Sequence[int]) -> list[Segment]:
        """The same if it can be had at once and nobody waits for any; else none."""
        spans = tuple((nbytes, 0, chunk_count(nbytes)) for nbytes in sizes)
        if not self._is_at_once(spans):
            return []
        with contextlib.suppress(Full):
            return self._take(priority, sizes)
        return []

    def fetch(
        self,
        priority: Priority,
        ref: ShardRef,
        first: int,
        end: int,
        then: Callable[[int | Full], None],
    ) -> None:
        """Room for chunks of a shard to be fetched. `then` gets the bitmap of those that are here already. Nothing is
        told if the run drops the shard meanwhile."""

        def take() -> Callable[[], None]:
            present = self._store.partial(priority, ref, first, end)
            return lambda: then(present)

        span = (ref.nbytes, first, end)
        self._ask(_Request(priority, (span,), ref.id, take, lambda why: self._refuse(priority.run, why, then)))

    def drop(self, run: RunId, shards: Sequence[ShardId]) -> None:
        """The run no longer refers to these, nor waits for room for them."""
        gone = set(shards)
        for request in (self._current, *(request for _, _, request in self._waiting)):
            if request is not None and request.priority.run == run and request.shard in gone:
                request.is_dropped = True
        self._store.drop(run, shards)

    def close(self) -> None:
        self._waiting.clear()
        self._worker.shutdown(wait=True)

    def _take(self, priority: Priority, sizes: Sequence[int]) -> list[Segment]:
        """All of them. Raises Full."""
        segments: list[Segment] = []
        try:
            for nbytes in sizes:
                segments.append(self._store.grant(priority, nbytes))
        except BaseException:
            for segment in segments:
                self._store.release(segment)
            raise
        return segments

    def _refuse(self, run: RunId, why: Full, then: Callable[[Full], None]) -> None:
        self._on_refused(run, why)
        then(why)

    def _is_at_once(self, sizes: tuple[tuple[int, int, int], ...]) -> bool:
        """Whether nobody waits, and these can be had without waiting."""
        return not self._waiting and self._current is None and self._store.is_quick(sizes, QUICK_BYTES)

    def _ask(self, request: _Request) -> None:
        if self._is_at_once(request.sizes):
            self._attempt(request)()
            return
        heapq.heappush(self._waiting, (request.priority, next(self._numbers), request))
        self._go_on()

    def _go_on(self) -> None:
        """Grant what can be granted at once; then let the worker take the next one, if it is free."""
        while self._waiting and self._current is None:
            _, _, request = heapq.heappop(self._waiting)
            if request.is_dropped:
                continue
            if self._store.is_quick(request.sizes, QUICK_BYTES):
                self._attempt(request)()
            else:
                self._current = request
                self._worker.submit(self._work, request)

    def _work(self, request: _Request) -> None:
        tell = self._attempt(request)
        self._call(lambda: self._done(request, tell))

    def _attempt(self, request: _Request) -> Callable[[], None]:
        """Whatever it raises is a refusal: who asked must not wait for ever, nor everybody else behind."""
        try:
            return request.run()
        except Full as full:
            return partial(request.refuse, full)
        except Exception as error:
            return partial(self._fail, request, error)

    def _fail(self, request: _Request, error: Exception) -> None:
        request.refuse(Full(0, 0, 0, f"{type(error).__name__}: {error}"))
        raise error

    def _done(self, request: _Request, tell: Callable[[], None]) -> None:
        self._current = None
        try:
            if request.is_dropped and request.shard is not None:
                self._store.drop(request.priority.run, [request.shard])
            else:
                tell()
        finally:
            self._go_on()

    def _let_go(self) -> None:
        with contextlib.suppress(RuntimeError):  # closed: the store closes all itself
            self._worker.submit(self._store.let_go)

    def _call(self, then: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before a thread
            self._loop.call_soon_threadsafe(then)
