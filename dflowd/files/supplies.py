"""The files of runs: found under the run's own path on this host, or in its cache, or brought from members.

A look never trusts a name: a file counts by what it holds. Models are large, so they come only when they are pushed.
All methods are for the loop's thread; what reads disks does so in one other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dflow_protocols.events import Fetch, FetchAdvanced, Fetched, FetchFailed, FilesFound, FindFiles
from dflow_protocols.names import NodeId, RunId, ShardId, ShardRef, chunk_count
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.files import is_code, is_model, named_files, with_own_code
from dflow_protocols.wire.listing import FileRef

from ..process.host import Host
from ..shards.exchange import Exchange
from ..shards.store import Store
from .cache import FileCache, NoRoomError
from .contents import Contents

T = TypeVar("T")

FILES = RunId("files")  # in whose name files are fetched; no run is called so
AT_ONCE = 4  # files that come at the same time
MOST_RELAYED = 64  # lists of files that are fetched for members at the same time
RETRY_S = 1.0  # after a round in which nothing came; twice as long after each further one
LONGEST_RETRY_S = 15.0
WORDS = 200  # characters


class KnownRun(Protocol):
    @property
    def is_active(self) -> bool: ...
    @property
    def state(self) -> Any: ...


Holders = Callable[[Sequence[ShardRef], int], Awaitable[Mapping[ShardId, tuple[NodeId, ...]]]]
"""Living members that have each of these files and serve it to this node; none yet for one that is on its way to a
relay. The number: members that asked one another for it before."""


@dataclass(frozen=True, slots=True)
class Located:
    """How a run's files stand on this host. `own`: those that lie under the run's own path; `here`: these and those of
    the cache."""

    own: Mapping[FileRef, Path]
    here: Mapping[FileRef, Path]

    def lacking(self, files: Iterable[FileRef]) -> list[FileRef]:
        return [file for file in files if file not in self.here]


@dataclass(slots=True)
class _Supply:
    """One run's. `base`: the folder that its engines are given, once all is here. `own_code`: where functions of this
    host's own disk are loaded from, once that was asked. `nowhere`: files that no member had when it was last asked."""

    asked: FindFiles
    base: Path | None = None
    own_code: str | None = None
    nowhere: frozenset[ShardId] = frozenset()
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Supplies:
    """One daemon's."""

    def __init__(
        self,
        host: Host,
        cache: FileCache,
        contents: Contents,
        store: Store,
        exchange: Exchange,
        holders: Holders,
        runs: Mapping[RunId, KnownRun],
        runs_code: bool,
    ) -> None:
        """`runs_code`: whether code that came by wire may run here."""
        self._host, self._cache, self._contents, self._store, self._exchange = host, cache, contents, store, exchange
        self._holders, self._runs, self.runs_code = holders, runs, runs_code
        self._worker = ThreadPoolExecutor(1, "files")
        self._supplies: dict[RunId, _Supply] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._coming: dict[ShardId, asyncio.Task[bool]] = {}
        self._fetches: dict[ShardId, asyncio.Future[bool]] = {}
        self._refused: dict[ShardId, str] = {}  # files for which there is no room, and why
        self._turns = asyncio.Semaphore(AT_ONCE)
        exchange.listen(FILES, self._on_fetch)

    # Runs -----------------------------------------------------------------------------------------------------------

    def find(self, asked: FindFiles) -> None:
        """Look for a run's files, and bring what is missing, until all is here. The node is told how it stands."""
        for run in [run for run in self._supplies if run == asked.run or self._is_cleared(run)]:
            self._end(self._supplies.pop(run))
        self._worker.submit(self._cache.tidy, {*self._supplies, asked.run})
        supply = self._supplies[asked.run] = _Supply(asked)
        supply.task = self._host.loop.create_task(self._supply(supply))

    def base_of(self, run: RunId, base: str) -> str:
        """The folder in which a run's engines open its files; `base`: its own."""
        supply = self._supplies.get(run)
        return base if supply is None or supply.base is None else str(supply.base)

    def code_of(self, run: RunId, base: str, pipeline: Pipeline) -> str:
        """The folder from which its users' functions are loaded. Where no code that came by wire runs it is the run's
        own, whatever a client calls its files; and nowhere if that, or a function, leads into the cache. Each start of
        a work asks this, so where links lead is looked at once for each time that the run comes up."""
        if self.runs_code:
            return self.base_of(run, base)
        supply = self._supplies.get(run)
        if supply is None or supply.asked.base != base:
            return self._own_code(base, pipeline)
        if supply.own_code is None:
            supply.own_code = self._own_code(base, pipeline)
        return supply.own_code

    def _own_code(self, base: str, pipeline: Pipeline) -> str:
        functions = [named.name.partition(":")[0] for named in named_files(pipeline) if is_code(named.path)]
        leads_in = any(self._cache.holds(Path(base) / name) for name in ("", *functions))
        return str(self._cache.nowhere) if leads_in else base

    async def close(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._tasks, *self._coming.values()]
        tasks += [supply.task for supply in self._supplies.values() if supply.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._worker.shutdown(wait=True)

    def _end(self, supply: _Supply) -> None:
        if supply.task is not None:
            supply.task.cancel()

    def _is_active(self, run: RunId) -> bool:
        known = self._runs.get(run)
        return known is not None and known.is_active

    def _is_cleared(self, run: RunId) -> bool:
        """Whether nothing of it opens files any more: one that was stopped saves its newest version first."""
        known = self._runs.get(run)
        return known is None or known.state.is_cleared

    async def _supply(self, supply: _Supply) -> None:
        asked, told, wait_s = supply.asked, None, RETRY_S
        while self._is_active(asked.run):
            has_moved = False
            try:
                found, lacking = await self._stand(supply)
                if found != told:
                    self._host.post(found)
                    told = found
                if not found.lacking:
                    return
                refs = [file.ref for file in lacking if not is_model(file.key)]
                has_moved, supply.nowhere = await self.bring(refs)
            except Exception as error:  # such as a disk that fails: others go on, and this host tries again
                told = FilesFound(asked.run, f"{type(error).__name__}: {error}"[:WORDS])
                self._host.post(told)
            wait_s = RETRY_S if has_moved else min(2 * wait_s, LONGEST_RETRY_S)
            await asyncio.sleep(0.0 if has_moved else wait_s / 2)

    async def _stand(self, supply: _Supply) -> tuple[FilesFound, list[FileRef]]:
        """What to tell the node, and what is missing. Raises OSError, and ValueError for names that are none."""
        asked = supply.asked
        located = await self._in_thread(self.locate, asked.base, asked.files)
        lacking = located.lacking(asked.files)
        if not lacking:
            supply.base = await self._in_thread(self._lay, asked, located)
        return FilesFound(asked.run, self._words(lacking, supply.nowhere), self._refuses(asked, located)), lacking

    def locate(self, base: str, files: Sequence[FileRef]) -> Located:
        """How files stand here. In the other thread: it reads them."""
        own: dict[FileRef, Path] = {}
        here: dict[FileRef, Path] = {}
        for file in files:
            content = self._contents.of(Path(base) / file.name, file.ref.nbytes) if base else None
            if content is not None and content.ref == file.ref:
                own[file] = here[file] = content.path
            elif (content := self._cache.find(file.ref)) is not None:
                here[file] = content.path
        return Located(own, here)

    def _lay(self, asked: FindFiles, located: Located) -> Path:
        if len(located.own) == len(asked.files):
            return Path(asked.base)
        return self._cache.lay(asked.run, {file.name: path for file, path in located.here.items()})

    def _refuses(self, asked: FindFiles, located: Located) -> tuple[str, ...]:
        """Stages whose code would be that of the wire."""
        by_wire = any(is_code(file.key) and file not in located.own for file in asked.files)
        if self.runs_code or not by_wire:
            return ()
        pipeline: Pipeline = self._runs[asked.run].state.pipeline
        return with_own_code(pipeline)

    def _words(self, lacking: Sequence[FileRef], nowhere: Collection[ShardId]) -> str:
        if not lacking:
            return ""
        models = [file for file in lacking if is_model(file.key)]
        first = (models or [file for file in lacking if file.ref.id in nowhere] or lacking)[0]
        refused = next((why for file in lacking if (why := self._refused.get(file.ref.id))), "")
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        rest = "no host has it, submit the spec again" if first.ref.id in nowhere else "on the way"
        rest = "push the model: `dflow push FOLDER`" if models else rest
        name = first.name if len(first.name) <= WORDS // 3 else f"...{first.name[-WORDS // 3 :]}"
        return f"`{name}`{more}: {refused or rest}"[:WORDS]

    # Bringing -------------------------------------------------------------------------------------------------------

    async def bring(self, refs: Sequence[ShardRef], hops: int = 0) -> tuple[bool, frozenset[ShardId]]:
        """Fetch files from members into the cache: whether any came, and those that no member has. Those that are here
        already count for none. `hops`: members that asked one another for them before this one."""
        wanted = {ref.id: ref for ref in refs if not await self._in_thread(self._cache.find, ref)}
        if not wanted:
            return False, frozenset()
        holders = await self._holders(list(wanted.values()), hops)
        tasks = [self._come(ref, holders[ref.id]) for ref in wanted.values() if holders.get(ref.id)]
        have_come = await asyncio.gather(*(asyncio.shield(task) for task in tasks))
        return any(have_come), frozenset(shard for shard in wanted if shard not in holders)

    def start_bringing(self, base: str, files: Sequence[FileRef]) -> None:
        """Fetch those that lie neither under `base` nor in the cache, and tell nobody."""
        self._start(self._bring_lacking(base, files))

    def start_relaying(self, refs: Sequence[ShardRef], hops: int) -> None:
        """Fetch files for a member that can get them from nobody else, unless this is done for as many already as it
        may be: who asks will ask again."""
        if len(self._tasks) < MOST_RELAYED:
            self._start(self.bring(refs, hops))

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._host.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring_lacking(self, base: str, files: Sequence[FileRef]) -> None:
        located = await self.located(base, files)
        await self.bring([file.ref for file in located.lacking(files)])

    async def located(self, base: str, files: Sequence[FileRef]) -> Located:
        """How files stand here that no run may have named yet."""
        return await self._in_thread(self.locate, base, files)

    async def has(self, refs: Sequence[ShardRef]) -> list[ShardId]:
        """Those that this host can serve."""
        return await self._in_thread(
            lambda: [ref.id for ref in refs if self._contents.find(ref.id) or self._cache.find(ref)]
        )

    async def put(self, ref: ShardRef, offset: int, data: bytes) -> int:
        """The next bytes of a file that a client sends; how many have come. Raises NoRoomError, ValueError, OSError."""
        return await self._in_thread(self._put, ref, offset, data, self._used())

    def _put(self, ref: ShardRef, offset: int, data: bytes, used: frozenset[ShardId]) -> int:
        if self._cache.find(ref) is not None:
            return ref.nbytes
        if offset != self._cache.drafted(ref):  # said again, or another client was faster
            return self._cache.drafted(ref)
        self._cache.append(ref, (data,), used)
        if offset + len(data) >= ref.nbytes:
            self._cache.settle(ref)
        return offset + len(data)

    def _come(self, ref: ShardRef, holders: tuple[NodeId, ...]) -> asyncio.Task[bool]:
        if ref.id not in self._coming:
            task = self._coming[ref.id] = self._host.loop.create_task(self._fetch(ref, holders))
            task.add_done_callback(lambda _: self._coming.pop(ref.id, None))
        return self._coming[ref.id]

    async def _fetch(self, ref: ShardRef, holders: tuple[NodeId, ...]) -> bool:
        async with self._turns:
            try:
                if ref.nbytes and not await self._fetched(ref, holders):
                    return False
                await self._in_thread(self._take, ref, self._used())
                self._refused.pop(ref.id, None)
            except (NoRoomError, OSError) as error:
                self._refused[ref.id] = str(error)
                return False
            except (KeyError, ValueError):  # given up by the store before it was copied
                return False
            finally:
                self._exchange.drop(FILES, (ref.id,))
        return True

    async def _fetched(self, ref: ShardRef, holders: tuple[NodeId, ...]) -> bool:
        future: asyncio.Future[bool] = self._host.loop.create_future()
        self._fetches[ref.id] = future
        try:
            self._exchange.fetch(Fetch(FILES, ref, 0, chunk_count(ref.nbytes), holders))
            return await future
        finally:
            del self._fetches[ref.id]

    def _on_fetch(self, event: Fetched | FetchFailed | FetchAdvanced) -> None:
        future = self._fetches.get(event.shard)
        if future is not None and not future.done() and not isinstance(event, FetchAdvanced):
            future.set_result(isinstance(event, Fetched))

    def _take(self, ref: ShardRef, used: frozenset[ShardId]) -> None:
        """Copy a file from the store into the cache."""
        self._cache.abandon(ref)  # a client may be sending it as well
        if ref.nbytes:
            self._store.pin(ref.id)
        try:
            self._cache.append(ref, self._chunks(ref), used)
        finally:
            if ref.nbytes:
                self._store.unpin(ref.id)
        self._cache.settle(ref)

    def _chunks(self, ref: ShardRef) -> Iterator[memoryview]:
        for index in range(chunk_count(ref.nbytes)):
            yield self._store.view(ref.id, index, index + 1)

    def _used(self) -> frozenset[ShardId]:
        """Files that have to stay in the cache."""
        active = [supply for run, supply in self._supplies.items() if self._is_active(run)]
        return frozenset(file.ref.id for supply in active for file in supply.asked.files)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._host.loop.run_in_executor(self._worker, lambda: function(*arguments))
