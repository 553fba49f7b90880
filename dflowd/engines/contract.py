"""The contract of every engine: a Work in, a Done out; from shards to shards.

An engine knows no peer and no socket. It may keep what it loaded (a model by its shard's id, a data set by its spec),
and must be right without it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dflow_protocols.pipeline.grammar.engines import GRADIENTS, ROLLOUTS, STATES
from dflow_protocols.work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    Failed,
    FailureKind,
    InitWork,
    LoadWork,
    SaveWork,
    SliceWork,
    SumWork,
    Work,
)
from dflowd.jobs.failures import GIVEN_UP, Damaged, GivenUp, HostError, Lost, NoRoom, TooLarge, UserError, one_line
from dflowd.jobs.job import Job
from dflowd.slots.doing import NOTHING, Doing

Role = TypeVar("Role")


class Rollouts(Protocol):
    """Samples and scores: stages of one partition, by the parameters that come with the work."""

    def chain(self, job: Job, work: ChainWork) -> Done: ...


class Gradients(Protocol):
    """Forward and backward passes: the summed gradient of a block of leaves, not divided yet."""

    def block(self, job: Job, work: BlockWork) -> Done: ...


class States(Protocol):
    """Keeps versions: reduces gradients, steps the optimizer, writes and reads checkpoints. Functions of shards."""

    def init(self, job: Job, work: InitWork) -> Done: ...
    def sum_(self, job: Job, work: SumWork) -> Done: ...
    def slice_(self, job: Job, work: SliceWork) -> Done: ...
    def apply(self, job: Job, work: ApplyWork) -> Done: ...
    def save(self, job: Job, work: SaveWork) -> Done: ...
    def load(self, job: Job, work: LoadWork) -> Done: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """Whatever computes, by what it does; None: it does not. Each result is described with its work; `seconds` is
    always set."""

    capabilities: tuple[str, ...]
    numerics: str  # engines with the same text make the same bytes of the same work
    rollouts: Rollouts | None = None
    gradients: Gradients | None = None
    states: States | None = None
    release: Callable[[], None] = lambda: None
    """The call is over: let go of its shards, whose memory the daemon will use again."""
    rest: Callable[[], None] = lambda: None
    """Another engine of the process is to have the device: give its memory back until the next call."""

    @property
    def does(self) -> frozenset[str]:
        """In the words of the format's table of engines (pipeline/grammar/engines.py)."""
        roles = {ROLLOUTS: self.rollouts, GRADIENTS: self.gradients, STATES: self.states}
        return frozenset(name for name, role in roles.items() if role is not None)


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
    except NoRoom as error:
        return Failed("full", str(error))
    except TooLarge as error:
        return Failed("large", str(error))
    except Damaged as error:
        return Failed("damaged", str(error))
    except GivenUp:
        return Failed("stopped", GIVEN_UP)
    except HostError as error:
        return Failed("host", str(error))
    except Exception as error:
        is_disk = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind: FailureKind = "disk" if is_disk and isinstance(work, SaveWork) else "engine"
        return Failed(kind, one_line(error), job.board.read().stage)
    finally:
        engine.release()
        job.board.write(NOTHING)


def _perform(engine: Engine, job: Job, work: Work) -> Done:
    match work:
        case ChainWork():
            return _role(engine.rollouts, work).chain(job, work)
        case BlockWork():
            return _role(engine.gradients, work).block(job, work)
    states = _role(engine.states, work)
    match work:
        case InitWork():
            return states.init(job, work)
        case SumWork():
            return states.sum_(job, work)
        case SliceWork():
            return states.slice_(job, work)
        case ApplyWork():
            return states.apply(job, work)
        case SaveWork():
            return states.save(job, work)
        case LoadWork():
            return states.load(job, work)


def _role(role: Role | None, work: Work) -> Role:
    if role is None:
        raise NotImplementedError(f"this engine does no {type(work).__name__}")
    return role
