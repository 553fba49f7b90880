"""The contract of every engine: a Work in, a Done out; from shards to shards.

An engine knows no peer and no socket. It may keep what it loaded (a model by its shard's id, a data set by its spec),
and must be right without it.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dflow_protocols.names import ShardId, ShardRef
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    Failed,
    InitWork,
    LoadWork,
    SaveWork,
    SliceWork,
    SumWork,
    Work,
)
from dflowd.slots.doing import NOTHING, Board, Doing


class UserError(Exception):
    """The run's own code, data or model cannot be worked with; another node would fail alike."""

    def __init__(self, error: str, stage: str = "") -> None:
        super().__init__(error)
        self.stage = stage


class HostError(Exception):
    """This host cannot work for the run, such as for a file of other contents; another one may."""


class Lost(Exception):
    """An input is not where the daemon said."""

    def __init__(self, shard: ShardId) -> None:
        super().__init__(f"shard {shard[:12]} is gone")
        self.shard = shard


class Full(Exception):
    """The store has no room for an output."""


class TooLarge(Exception):
    """The store would have no room for an output even if it held nothing else."""


class Damaged(Exception):
    """A checkpoint does not hold what it says."""


class GivenUp(Exception):
    """Nobody waits for this call any more."""


class Shards(Protocol):
    """The shards of one call: inputs mapped from the daemon's store, outputs written into it."""

    def read(self, *refs: ShardRef) -> memoryview:
        """Whole inputs one behind the other, read-only bytes, without a copy. Raises Lost."""

    def read_chunks(self, ref: ShardRef, first: int, end: int) -> memoryview:
        """Chunks [first, end) of an input that may lack others. Raises Lost."""

    def allocate(self, sizes: Sequence[int]) -> list[memoryview]:
        """Room for outputs of these lengths in bytes, holding anything. Raises Full, or TooLarge."""

    def joined(self, rooms: Sequence[memoryview]) -> memoryview:
        """The same memory as one view, one room behind the other. All but the last must be whole chunks."""

    def seal(self, rooms: Sequence[memoryview]) -> tuple[ShardRef, ...]:
        """The rooms are written, and become shards. Raises GivenUp."""


def put(shards: Shards, blobs: Sequence[bytes]) -> tuple[ShardRef, ...]:
    """Store small outputs. Raises Full."""
    rooms = shards.allocate([len(blob) for blob in blobs])
    for room, blob in zip(rooms, blobs, strict=True):
        room[:] = blob
    return shards.seal(rooms)


@dataclass(frozen=True, slots=True)
class Job:
    """What surrounds one work."""

    pipeline: Pipeline
    base: Path  # folder that relative paths of the spec start from
    folder: Path  # where checkpoints of the run go
    shards: Shards
    progress: Callable[[], None]  # to be called every few seconds: after each pass, sample, chunk; raises GivenUp
    leaf: Callable[[int], bool] = lambda leaf: True  # to be called before each leaf of a block; False: end before it
    board: Board = field(default_factory=Board)  # what is being done, for who finds the engine dead or hung
    opaque: Callable[[], AbstractContextManager[None]] = nullcontext  # around a library's call that tells no progress


class Engine(Protocol):
    """Whatever computes. Each method's result is described with its work; `seconds` is always set."""

    capabilities: tuple[str, ...]
    numerics: str  # engines with the same text make the same bytes of the same work

    def init(self, job: Job, work: InitWork) -> Done: ...
    def chain(self, job: Job, work: ChainWork) -> Done: ...
    def block(self, job: Job, work: BlockWork) -> Done: ...
    def sum_(self, job: Job, work: SumWork) -> Done: ...
    def slice_(self, job: Job, work: SliceWork) -> Done: ...
    def apply(self, job: Job, work: ApplyWork) -> Done: ...
    def save(self, job: Job, work: SaveWork) -> Done: ...
    def load(self, job: Job, work: LoadWork) -> Done: ...

    def release(self) -> None:
        """The call is over: let go of its shards, whose memory the daemon will use again."""


DOES: dict[type[Work], str] = {
    InitWork: "it made the first weights",
    ChainWork: "it worked on a partition",
    BlockWork: "it computed gradients",
    SumWork: "it summed gradients of its blocks",
    SliceWork: "it summed gradients",
    ApplyWork: "it applied the update",
    SaveWork: "it saved a checkpoint",
    LoadWork: "it loaded a checkpoint",
}


def perform(engine: Engine, job: Job, work: Work) -> Done | Failed:
    """Do a work; what goes wrong comes back as Failed of the kind that says who must act."""
    job.board.write(Doing(getattr(work, "stage", ""), DOES[type(work)]))
    try:
        return _perform(engine, job, work)
    except UserError as error:
        return Failed("user", str(error), error.stage or job.board.read().stage)
    except Lost as error:
        return Failed("lost", str(error), error.shard)
    except Full as error:
        return Failed("full", str(error))
    except TooLarge as error:
        return Failed("large", str(error))
    except Damaged as error:
        return Failed("damaged", str(error))
    except GivenUp:
        return Failed("stopped", "the call was given up")
    except HostError as error:
        return Failed("host", str(error))
    except Exception as error:
        is_disk = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = "disk" if is_disk and isinstance(work, SaveWork) else "engine"
        return Failed(kind, one_line(error), job.board.read().stage)
    finally:
        engine.release()
        job.board.write(NOTHING)


def _perform(engine: Engine, job: Job, work: Work) -> Done:
    match work:
        case InitWork():
            return engine.init(job, work)
        case ChainWork():
            return engine.chain(job, work)
        case BlockWork():
            return engine.block(job, work)
        case SumWork():
            return engine.sum_(job, work)
        case SliceWork():
            return engine.slice_(job, work)
        case ApplyWork():
            return engine.apply(job, work)
        case SaveWork():
            return engine.save(job, work)
        case LoadWork():
            return engine.load(job, work)


def one_line(error: BaseException) -> str:
    """`TYPE: text (FILE:LINE)` of where it was raised, at most 500 characters."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"[:500]
