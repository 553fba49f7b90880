"""How a work may fail, by who must act: each becomes a kind of `Failed` (dflowd/engines/contract.py:perform)."""

from __future__ import annotations

import os
import traceback

from dflow_protocols.names import ShardId

GIVEN_UP = "the call was given up"


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


class NoRoom(Exception):
    """The store has no room for an output."""


class TooLarge(Exception):
    """The store would have no room for an output even if it held nothing else."""


class Damaged(Exception):
    """A checkpoint does not hold what it says."""


class GivenUp(Exception):
    """Nobody waits for this call any more."""


def one_line(error: BaseException) -> str:
    """`TYPE: text (FILE:LINE)` of where it was raised, at most 500 characters."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"[:500]
