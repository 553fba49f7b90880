"""Errors for people: what is wrong, where, and what to do about it; and the exit codes that scripts rely on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1  # the run failed or was cancelled
EXIT_WRONG_INPUT = 2
EXIT_NO_DAEMON = 3
EXIT_TIMEOUT = 4  # only of `wait`
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class CliError(Exception):
    """Ends the command with two lines and an exit code, without a traceback."""

    def __init__(self, what: str, *, where: str = "", hint: str = "", exit_code: int = EXIT_WRONG_INPUT) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.exit_code = exit_code


def explain(problem: CliError, level: str = "error") -> str:
    """One line `LEVEL: WHERE: WHAT`, then one line `hint: REMEDY` where there is one."""
    place = f"{problem.where}: " if problem.where else ""
    lines = [f"{level}: {place}{_one_line(problem.what)}"]
    if problem.hint:
        lines.append(f"hint: {_one_line(problem.hint)}")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """What is done within writes to `place`. Raises CliError in place of OSError, which seldom says where: a disk that
    is full names no file, a copy names its source."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = (
            "free some room there, or name a place on another disk" if is_full else "name a place that can be written"
        )
        raise CliError(error.strerror or str(error), where=str(place), hint=hint) from error
