"""Files of runs: found here, or brought from members over the real bulk lane."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dflow_protocols.events import FilesFound, FindFiles
from dflow_protocols.names import CHUNK_BYTES, NodeId, RunId, ShardId, ShardRef, hash_shard
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.wire.listing import FileRef
from dflowd.data.folder import at
from dflowd.files.cache import FileCache
from dflowd.files.supplies import Supplies
from tests.support.toy import toy_pipeline
from tests.unit.dflowd.shards.peers import RUN, Neighbours, Peer
from tests.unit.dflowd.transport.lanes import until

FILES = {
    "data/words.jsonl": ("data.words.jsonl", os.urandom(3 * CHUNK_BYTES + 5)),
    "judge.py": ("stages[1].config.function", b"def score(): ..."),
    "empty.json": ("models.policy.init.config", b""),
}


@dataclass
class Known:
    """A run, as far as supplies ask."""

    is_active: bool = True
    is_cleared: bool = False
    pipeline: Pipeline = field(default_factory=toy_pipeline)

    @property
    def state(self) -> Any:
        return self


@dataclass
class Site:
    """A peer with supplies, and the folder that is its own disk."""

    peer: Peer
    supplies: Supplies
    folder: Path
    runs: dict[RunId, Known]

    def write(self, *names: str) -> None:
        for name in names or FILES:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(FILES[name][1])

    def find(self, files: Sequence[FileRef]) -> None:
        self.supplies.find(FindFiles(RUN, tuple(files), str(self.folder)))

    def told(self) -> list[FilesFound]:
        return [event for event in self.peer.events if isinstance(event, FilesFound)]

    async def has_all(self) -> Path:
        await until(lambda: self.told() and not self.told()[-1].lacking, "all files")
        return Path(self.supplies.base_of(RUN, str(self.folder)))


Opens = Callable[..., Site]


@pytest.fixture
async def site(neighbours: Neighbours, tmp_path: Path) -> AsyncIterator[Opens]:
    sites: list[Site] = []

    async def holders(me: NodeId, refs: Sequence[ShardRef], _: int) -> dict[ShardId, tuple[NodeId, ...]]:
        found: dict[ShardId, tuple[NodeId, ...]] = {}
        for other in sites:
            for shard in await other.supplies.has(refs) if other.peer.id != me else ():
                found[shard] = (*found.get(shard, ()), other.peer.id)
        return found

    def open(limit: int = 1 << 30, runs_code: bool = True) -> Site:
        peer = neighbours.open()
        place = tmp_path / f"{len(sites)}"
        cache = FileCache(place / "files", limit, peer.contents)
        runs = {RUN: Known()}
        made = Supplies(
            peer.host,
            cache,
            peer.contents,
            peer.store,
            peer.exchange,
            lambda refs, hops: holders(peer.id, refs, hops),
            runs,
            runs_code,
        )
        sites.append(Site(peer, made, place / "own", runs))
        return sites[-1]

    yield open
    for each in sites:
        await each.supplies.close()


def listing(*names: str) -> list[FileRef]:
    named = [(name, *FILES[name]) for name in names or FILES]
    return [FileRef(key, name, ShardRef(hash_shard(data)[0], len(data))) for name, key, data in named]


async def test_files_under_the_runs_own_path_are_used_where_they_lie(site: Opens) -> None:
    """Nothing is copied on hosts that have them all, as they always had to."""
    here = site()
    here.write()
    here.find(listing())
    assert await here.has_all() == here.folder
    assert here.told() == [FilesFound(RUN)]


async def test_what_a_host_lacks_comes_from_who_has_it(site: Opens) -> None:
    """Whole, or the rest of it; from then on it is served by both."""
    full, part, bare = site(), site(), site()
    full.write()
    part.write("judge.py")
    full.find(listing())
    await full.has_all()
    for other in (part, bare):
        other.find(listing())
        base = await other.has_all()
        assert base != other.folder
        assert {name: (base / name).read_bytes() for name in FILES} == {name: data for name, (_, data) in FILES.items()}
    assert (Path(part.supplies.base_of(RUN, "")) / "judge.py").resolve() == part.folder / "judge.py"
    assert bare.told()[0].lacking == "`data/words.jsonl` and 2 more: on the way"
    late = site()
    for name in FILES:
        (full.folder / name).unlink()  # and it still believes that it has them
    late.find(listing())
    await late.has_all()


async def test_nothing_of_a_fetch_stays_in_the_store(site: Opens) -> None:
    """Files take no room of shards once they are on disk."""
    full, bare = site(), site()
    full.write()
    full.find(listing())
    bare.find(listing())
    await bare.has_all()
    await until(lambda: not bare.peer.store.listing())


async def test_files_that_nobody_has_are_waited_for(site: Opens) -> None:
    """Who has them may be away; it is told what is missing meanwhile."""
    bare, late = site(), site()
    bare.find(listing("judge.py"))
    await until(lambda: bare.told())
    assert bare.told()[0] == FilesFound(RUN, "`judge.py`: on the way")
    await until(lambda: bare.told()[-1] == FilesFound(RUN, "`judge.py`: no host has it, submit the spec again"))
    late.write("judge.py")
    late.find(listing("judge.py"))
    await bare.has_all()


async def test_a_model_comes_only_when_it_is_pushed(site: Opens) -> None:
    """A mistyped path must not fill the disks of all hosts."""
    full, bare = site(), site()
    full.write("judge.py")
    model = [FileRef("models.policy.path", "judge.py", listing("judge.py")[0].ref)]
    full.find(model)
    await full.has_all()
    bare.find(model)
    await until(lambda: bare.told())
    assert bare.told()[-1].lacking == "`judge.py`: push the model: `dflow push FOLDER`"
    assert await bare.supplies.has([model[0].ref]) == []
    bare.supplies.start_bringing(str(bare.folder), model)
    await bare.has_all()


async def test_a_host_that_has_a_model_fetches_no_second_one(site: Opens) -> None:
    """It may be as large as half of its disk."""
    full, bare = site(), site()
    full.write()
    for each in (full, bare):
        each.supplies.start_bringing(str(each.folder), listing())
        await asyncio.gather(*each.supplies._tasks)
    assert [len(os.listdir(each.folder.parent / "files/blobs")) for each in (full, bare)] == [0, len(FILES)]


async def test_a_host_without_leave_names_the_stages_that_it_refuses(site: Opens) -> None:
    """Code by wire does not run there; code of its own disk does, and so does all that is no code."""
    full, bare, own = site(), site(runs_code=False), site(runs_code=False)
    full.write()
    own.write()
    for each in (full, bare, own):
        each.runs[RUN].pipeline = with_code()
        each.find(listing())
    for each in (full, bare, own):
        await each.has_all()
    assert [each.told()[-1].refused for each in (full, bare, own)] == [(), ("score",), ()]


async def test_a_host_without_leave_loads_functions_from_its_own_disk_only(site: Opens) -> None:
    """A client says itself which of its files are code, which have a digest, and where the run's own folder lies."""
    full, bare = site(), site(runs_code=False)
    full.write()
    pipeline = with_code()
    disguised = [FileRef("data.words.jsonl", file.name, file.ref) for file in listing()]
    for each in (full, bare):
        each.runs[RUN].pipeline = pipeline
        each.find(disguised)
    assert await full.has_all() == Path(full.supplies.code_of(RUN, str(full.folder), pipeline))
    tree = await bare.has_all()
    assert (tree / "judge.py").exists()
    assert bare.supplies.code_of(RUN, str(bare.folder), pipeline) == str(bare.folder)

    other = RunId("cd" * 16)  # whose own folder is said to be what stands for the first one's
    for base in (str(tree), "\0"):
        assert not at(Path(bare.supplies.code_of(other, base, pipeline)), "judge.py").exists()
    for name in (f"{tree}/judge.py", f"{'../' * 40}{tree}/judge.py"):
        spec = with_code(f"{name}:score")
        assert not at(Path(bare.supplies.code_of(other, str(bare.folder), spec)), name).exists()


async def test_where_functions_are_loaded_from_is_looked_at_once_for_a_run(
    site: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start of a task asks, in the daemon's one thread; the disk is asked again when the run comes up again."""
    own = site(runs_code=False)
    own.write()
    looked: list[Path] = []
    holds = FileCache.holds

    def noted(cache: FileCache, path: Path) -> bool:
        looked.append(path)
        return holds(cache, path)

    monkeypatch.setattr(FileCache, "holds", noted)
    pipeline = with_code()
    for _ in range(2):
        own.find(listing())
        looked.clear()
        for _ in range(3):
            assert own.supplies.code_of(RUN, str(own.folder), pipeline) == str(own.folder)
        assert looked == [own.folder, own.folder / "judge.py"]


async def test_a_file_that_the_cache_has_no_room_for_is_told(site: Opens) -> None:
    full, small = site(), site(limit=1000)
    full.write()
    full.find(listing())
    await full.has_all()
    small.find(listing())
    await until(lambda: any("files.cache_limit" in found.lacking for found in small.told()))


async def test_a_client_may_send_a_file_in_pieces_and_say_each_twice(site: Opens) -> None:
    """Its daemon may have taken a piece and died before it said so."""
    here = site()
    data = os.urandom(10_000)
    ref = ShardRef(hash_shard(data)[0], len(data))
    assert await here.supplies.put(ref, 0, data[:4000]) == 4000
    assert await here.supplies.put(ref, 0, data[:4000]) == 4000
    assert await here.supplies.put(ref, 9000, data[9000:]) == 4000
    assert await here.supplies.put(ref, 4000, data[4000:]) == 10_000
    assert await here.supplies.put(ref, 0, data) == 10_000
    assert await here.supplies.has([ref]) == [ref.id]


async def test_looking_ends_with_the_run(site: Opens) -> None:
    bare = site()
    bare.find(listing("judge.py"))
    await until(lambda: bare.told())
    bare.runs[RUN].is_active = False
    supply = bare.supplies._supplies[RUN]
    assert supply.task is not None
    await asyncio.wait_for(supply.task, 30)


async def test_a_run_that_was_stopped_keeps_its_folder_until_it_is_saved(site: Opens) -> None:
    """Its checkpoint holds the tokenizer, and the next run may begin at once."""
    full, bare, other = site(), site(), RunId("cd" * 16)
    full.write()
    full.find(listing())
    bare.find(listing())
    tree = await bare.has_all()
    bare.runs |= {RUN: Known(is_active=False), other: Known()}
    for is_cleared in (False, True):
        bare.runs[RUN].is_cleared = is_cleared
        bare.supplies.find(FindFiles(other, tuple(listing()), str(bare.folder)))
        await bare.supplies.has([])  # the other thread did all that came before
        assert (bare.supplies.base_of(RUN, "own") == str(tree), tree.exists()) == (not is_cleared, not is_cleared)


def with_code(function: str = "judge.py:score") -> Pipeline:
    """The toy, if it were of real models and had a reward of its own."""
    raw = toy_pipeline().to_dict() | {"engine": "torch", "emulated": {}}
    raw["stages"][1]["config"]["function"] = function
    raw["digests"] = {"stages[1].config.function": "0" * 64}
    return Pipeline.from_dict(raw)
