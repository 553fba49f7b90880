"""What libzmq frees is kept for what it needs next.

It takes memory for each chunk that comes and gives it back once the chunk is read. The allocator would return that to
the system at once, and take it again by page faults: a third of what it costs to receive.
"""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_BYTES = 32 << 20  # free at the end of each thread's heap: twice the credit of a holder
LONGEST_BYTES = 4 << 20  # of what lies in heaps: above the longest message of either lane


def keep_what_is_freed() -> None:
    """In all of the process, from now on. Where the C library knows no such thing: nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LONGEST_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
