"""One way to bring bytes from another process, measured by a process of its own: two ends, and lines on stdin.

Each line is `[bytes of a piece, how many are asked for at once, seconds]`, and is answered by a `Sample` as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from benchmarks.scaling.measured import cpu_s

BUFFER_BYTES = 64 << 20  # of what ends send that keep no pieces: the longest one


@dataclass(frozen=True, slots=True)
class Sample:
    """Of some seconds of fetching. `times_ms`: of each piece, in the order in which they came; `cpu_s`: processor
    seconds of both ends."""

    nbytes: int
    seconds: float
    times_ms: list[float]
    cpu_s: float

    @property
    def gb_s(self) -> float:
        return self.nbytes / 1e9 / self.seconds

    @property
    def cpu_s_gb(self) -> float:
        return self.cpu_s / (self.nbytes / 1e9)


class Way(Protocol):
    def fetch(self, nbytes: int, at_once: int, seconds: float) -> Sample: ...


def answer_lines(way: Way) -> None:
    """Measure what stdin asks for, until it ends. The first line out says that both ends are up."""
    print("ready", flush=True)
    for line in sys.stdin:
        nbytes, at_once, seconds = json.loads(line)
        print(json.dumps(asdict(way.fetch(nbytes, at_once, seconds))), flush=True)


def fetch_in_order(
    ask: Callable[[int], object],
    receive: Callable[[int], None],
    ends: Sequence[int],
    nbytes: int,
    at_once: int,
    seconds: float,
) -> Sample:
    """Pieces by a way that answers in the order of the asks; at least one. `ends`: the processes of both."""
    times, asked = list[float](), deque[float]()
    before, began = cpu_s(ends), time.perf_counter()
    while True:
        while len(asked) < at_once and (time.perf_counter() < began + seconds or not (times or asked)):
            asked.append(time.perf_counter())
            ask(nbytes)
        if not asked:
            break
        receive(nbytes)
        times.append(1e3 * (time.perf_counter() - asked.popleft()))
    took = time.perf_counter() - began
    return Sample(nbytes * len(times), took, times, cpu_s(ends) - before)


class Ends:
    """The process of a way, as the benchmark drives it. Raises RuntimeError if it ends early."""

    def __init__(self, words: Sequence[str]) -> None:
        """`words`: a module of this folder, and what it wants to be told."""
        module, *rest = words
        command = [sys.executable, "-m", f"benchmarks.micro.fetch.{module}", *rest]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._name = " ".join(words)

    def wait_until_up(self) -> None:
        self._line()

    def fetch(self, nbytes: int, at_once: int, seconds: float) -> Sample:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([nbytes, at_once, seconds]) + "\n")
        self._process.stdin.flush()
        return Sample(**json.loads(self._line()))

    def close(self) -> None:
        self._process.communicate("")

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with exit code {self._process.wait()}")
        return line
