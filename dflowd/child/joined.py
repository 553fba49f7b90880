"""Several files as one run of memory: what is too long for one shard stays one vector to who computes with it.

Owns the mapping of files one behind the other, which the mmap module does not offer: addresses are reserved for all of
them, then each file is mapped over its part. Nothing is copied; the kernel's page table does the joining.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence

PROT_NONE = 0
MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000
FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def map_joined(files: Sequence[tuple[str, int]], protection: int) -> memoryview:
    """The first `nbytes` of each file of (path, nbytes), shared with whoever else maps it. `protection`: mmap.PROT_*.

    The mapping lasts as long as a view of it. Raises ValueError where a file but the last is no whole number of pages,
    OSError where one is shorter than that or cannot be mapped.
    """
    if any(nbytes % mmap.PAGESIZE for _, nbytes in files[:-1]):
        raise ValueError("only the last of joined files may end within a page")
    total = sum(nbytes for _, nbytes in files)
    base = _map(None, total, PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, -1)
    memory = (ctypes.c_ubyte * total).from_address(base)
    weakref.finalize(memory, _libc.munmap, base, total).atexit = False
    at = base
    for path, nbytes in files:
        handle = os.open(path, os.O_RDWR if protection & mmap.PROT_WRITE else os.O_RDONLY)
        try:
            if os.fstat(handle).st_size < nbytes:
                raise OSError(f"{path} is shorter than {nbytes} bytes")
            _map(at, nbytes, protection, mmap.MAP_SHARED | MAP_FIXED, handle)
        finally:
            os.close(handle)
        at += nbytes
    return memoryview(memory).cast("B")


def _map(address: int | None, nbytes: int, protection: int, flags: int, handle: int) -> int:
    found: int | None = _libc.mmap(address, nbytes, protection, flags, handle, 0)
    if found is None or found == FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found
