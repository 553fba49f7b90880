"""The three streams of a command, as shells leave them: closed, full, read no further, or of another encoding.

A command does its work whatever becomes of its output, and never ends in a traceback over it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


def fill() -> None:
    """Where a stream is closed, /dev/null takes its place and its descriptor, which a socket would be given else.
    Characters that a stream's encoding lacks are told by their numbers."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Hand over what was printed. Raises OSError, also BrokenPipeError, where nobody takes it; it is dropped then."""
    try:
        sys.stdout.flush()
    except OSError:
        drop(sys.stdout)
        raise


def drop(stream: TextIO) -> None:
    """Nothing more is to come of it, also at the end of the process."""
    with contextlib.suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)


def say(text: str) -> None:
    """A line on stderr, if that takes it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        drop(sys.stderr)
