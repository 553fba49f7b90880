"""One process of a group that sums a gradient by PyTorch's all-reduce over gloo, for `micro/exchange`.

    python -m benchmarks.micro.gloo FOLDER NAME RANK SIZE PARAMETERS ROUNDS

The group meets in FOLDER/NAME. A line of JSON before each all-reduce, and one after it; the last one if it failed. Its
parameters are read from FOLDER/state, if they are there, as by a process that is restarted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def say(**row: Any) -> None:
    print(json.dumps({**row, "time_s": time.time()}), flush=True)


def main(folder: str, name: str, rank: str, size: str, parameters: str, rounds: str) -> None:
    torch.set_num_threads(1)
    state = Path(folder) / "state"
    if state.exists():
        np.fromfile(state, np.float32)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{name}", rank=int(rank), world_size=int(size))
    gradient = torch.from_numpy(np.random.default_rng(int(rank)).standard_normal(int(parameters), np.float32))
    for number in range(int(rounds)):
        dist.barrier()
        began = time.perf_counter(), time.process_time()
        say(event="began", round=number)
        try:
            dist.all_reduce(gradient)
        except RuntimeError as error:
            say(event="failed", error=str(error).splitlines()[0])
            return
        gradient /= int(size)
        seconds, cpu_s = time.perf_counter() - began[0], time.process_time() - began[1]
        say(event="ended", round=number, seconds=seconds, cpu_s=cpu_s)
    dist.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
