"""An engine's process: `python -m dflowd.child.process --socket ipc://PATH --engine NAME --parent PID`.

Dies with the daemon that started it, and all that it started with it; gives way to it (nice 5), and answers every call.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys

from dflowd.engines.registry import ENGINES, open_engines
from dflowd.jobs.limits import Limits
from dflowd.jobs.threads import Threads
from dflowd.jobs.ties import die_with, tie_group
from dflowd.slots.doing import Board

from .performer import Performer

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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dflowd.child.process")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--engine", choices=tuple(ENGINES), required=True)
    parser.add_argument("--parent", type=int, default=0, help="pid of the daemon; 0: live on without it")
    parser.add_argument("--lifeline", type=int, default=-1, help="descriptor that closes when the daemon is gone")
    parser.add_argument("--board", type=int, default=-1, help="descriptor of the memory to say in what is being done")
    parser.add_argument("--host", action="store_true", help="work on shards alone, without models and device")
    parser.add_argument("--threads", type=int, default=1, help="that work on shards is shared between")
    parser.add_argument("--workers", type=int, default=1, help="processes that user code is shared between")
    parser.add_argument("--worker-memory", type=int, default=8 << 30, help="bytes that each may take")
    parser.add_argument("--worker-silence", type=float, default=300.0, help="seconds that an import may take")
    options = parser.parse_args(arguments)
    if options.parent:
        die_with(options.parent)
    if options.lifeline >= 0:
        tie_group(options.lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the daemon's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core of an engine holds the weights, and fills the disk
    os.nice(NICENESS)
    os.environ.update(ENVIRONMENT)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what users print shows while it runs
    board = Board(options.board)
    if options.board >= 0:
        os.close(options.board)
    limits = Limits(options.workers, options.worker_memory, options.worker_silence)
    engines = open_engines(options.engine, options.host)
    Performer(options.socket, engines, board, Threads(options.threads), limits).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
