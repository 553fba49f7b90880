"""Several threads for what is cut into pieces: arithmetic on arrays, hashes and copies, all of which let go of the
interpreter while they run.

Who calls decides nothing by the number of threads: pieces are the same, and so are their results and their order.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # pieces that wait for each thread, so that none waits for its next one


@dataclass(slots=True)
class Threads:
    """At most `count` at once. They are started when first needed, and kept."""

    count: int = 1
    _pool: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    def map(self, work: Callable[[T], R], pieces: Iterable[T], progress: Callable[[], None]) -> list[R]:
        """What `work` gives for each piece, in their order. `progress` is called after each, in the caller's thread.

        Raises what `work` or `progress` raises, once no thread works on a piece any more.
        """
        return list(self._ended(work, pieces, progress))

    def _ended(self, work: Callable[[T], R], pieces: Iterable[T], progress: Callable[[], None]) -> Iterator[R]:
        if self.count < 2:
            for piece in pieces:
                result = work(piece)
                progress()
                yield result
            return
        self._pool = self._pool or ThreadPoolExecutor(self.count, "host")
        waiting = iter(pieces)
        under_way: deque[Future[R]] = deque()
        try:
            for piece in itertools.islice(waiting, AHEAD * self.count):
                under_way.append(self._pool.submit(work, piece))
            while under_way:
                result = under_way[0].result()
                under_way.popleft()
                progress()
                for piece in itertools.islice(waiting, 1):
                    under_way.append(self._pool.submit(work, piece))
                yield result
        finally:
            for future in under_way:
                future.cancel()
            for future in under_way:
                if not future.cancelled():
                    future.exception()
