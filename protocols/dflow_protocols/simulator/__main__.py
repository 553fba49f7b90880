"""Live through the worlds of some seeds: `python -m dflow_protocols.simulator FIRST [COUNT] [--digest]`.

Each seed that breaks a promise is told with the end of its story, and the exit status is 1. With --digest each
world's digest is printed, which must not depend on the process that lived it.
"""

from __future__ import annotations

import argparse
import sys

from .invariants import Violation
from .swarm import live_through


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dflow_protocols.simulator", description=__doc__)
    parser.add_argument("first", type=int, help="a seed")
    parser.add_argument("count", type=int, nargs="?", default=1, help="how many seeds from there on")
    parser.add_argument("--digest", action="store_true", help="print each world's digest")
    asked = parser.parse_args()
    broken = 0
    for seed in range(asked.first, asked.first + asked.count):
        try:
            world = live_through(seed, asked.digest)
        except Violation as violation:
            broken += 1
            print(f"seed {seed}\n{violation}", file=sys.stderr)
        else:
            print(f"seed {seed}: {world.events} events, {world.now:.1f} s {world.trace.digest if asked.digest else ''}")
    return 1 if broken else 0


sys.exit(main())
