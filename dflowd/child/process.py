"""An engine's process: `python -m dflowd.child.process --socket ipc://PATH --engine NAME --parent PID`.

Dies with the daemon that started it, and all that it started with it; gives way to it (nice 5), and answers every call.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys

from dflowd.engines.registry import ENGINES, open_engines
from dflowd.jobs.threads import Threads
from dflowd.slots.doing import Board

from .worker import Worker

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",  # spinning threads beside other engines cost steps 3 to 40 times their time
    "OMP_DYNAMIC": "false",
    "MKL_CBWR": "AVX2",  # the same code path, hence the same bits, on every x86 host
    "ATEN_CPU_CAPABILITY": "avx2",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONDONTWRITEBYTECODE": "1",  # in pools of user code: an edited file would be taken for its old bytecode
}
"""Read by libraries when they are loaded, so it is set before any engine is imported."""

NICENESS = 5  # the daemon's control loop stays quick beside busy engines
PR_SET_PDEATHSIG = 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dflowd.child.process")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--engine", choices=tuple(ENGINES), required=True)
    parser.add_argument("--parent", type=int, default=0, help="pid of the daemon; 0: live on without it")
    parser.add_argument("--lifeline", type=int, default=-1, help="descriptor that closes when the daemon is gone")
    parser.add_argument("--board", type=int, default=-1, help="descriptor of the memory to say in what is being done")
    parser.add_argument("--host", action="store_true", help="work on shards alone, without models and device")
    parser.add_argument("--threads", type=int, default=1, help="that work on shards is shared between")
    options = parser.parse_args(arguments)
    if options.parent:
        _die_with(options.parent)
    if options.lifeline >= 0:
        _tie_group(options.lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the daemon's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core of an engine holds the weights, and fills the disk
    os.nice(NICENESS)
    os.environ.update(ENVIRONMENT)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what users print shows while it runs
    board = Board(options.board)
    if options.board >= 0:
        os.close(options.board)
    engines = open_engines(options.engine, options.host)
    Worker(options.socket, engines, board, Threads(options.threads)).serve()
    return 0


def _die_with(parent: int) -> None:
    """SIGKILL when the thread of the daemon that started this process ends. Exits if that was before now."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _tie_group(lifeline: int) -> None:
    """Leave a shell behind that ends this group of processes once nobody holds the other end of `lifeline`.

    A signal for the death of the parent reaches this process alone: neither its children, nor theirs.
    """
    wait = "exec 3<&0; { read _ <&3; kill -KILL 0; } &"
    with contextlib.suppress(OSError):  # without a shell they end when the daemon does so in order
        quiet = subprocess.DEVNULL
        subprocess.run(["/bin/sh", "-c", wait], stdin=lifeline, stdout=quiet, stderr=quiet, check=False)
    os.close(lifeline)


if __name__ == "__main__":
    sys.exit(main())
