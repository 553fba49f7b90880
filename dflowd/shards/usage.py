"""What a store tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from dflow_protocols.names import RunId


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of memory, and counts. `by_run` counts a shard of several runs for each of them."""

    limit_bytes: int
    used_bytes: int  # shards and grants in memory
    disk_bytes: int  # and on disk
    recycled_bytes: int  # kept for reuse; given up before anything is refused
    shards_count: int
    pinned_count: int
    grants_count: int
    by_run: dict[RunId, int]
