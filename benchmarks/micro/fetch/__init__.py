"""How fast does a shard come from another process on this host, beside TLS, TCP, ZeroMQ and Ray?

Every way has two ends over loopback, processes of their own, and takes its turns in one run: pieces of each length are
fetched one at a time (latency), and several at once (throughput, and processor seconds of both ends for each GB). Ours
is both lanes and the store of a node, ids verified: sealed, and as on a trusted fabric (`clear`). A TLS or TCP stream
verifies no ids, and neither does ZeroMQ, which drops what came; Ray's raylets encrypt nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, TypeAlias

from benchmarks.figure import Figure, Goal, Tell
from benchmarks.micro.fetch.way import Ends, Sample

WAYS = {
    "sealed": ("ours", "encrypted"),
    "clear": ("ours", "trusted"),
    "TLS": ("streams", "tls"),
    "TCP": ("streams", "tcp"),
    "ZeroMQ": ("zeromq",),
    "Ray": ("ray_objects",),
}
GOALS = {("sealed", "TLS"): 1.5, ("sealed", "Ray"): 8.0, ("clear", "ZeroMQ"): 0.7}  # of throughput
WINDOW_BYTES = 16 << 20  # asked for at once, for throughput
AT_ONCE = range(2, 17)  # pieces, least and most
LATENCY_SHARE = 0.3  # of the seconds that throughput is measured for
QUICK = {"rounds": 2, "seconds": 0.4}

Key: TypeAlias = tuple[str, int]
"""A way, and the bytes of a piece."""


def measure(
    tell: Tell,
    *,
    rounds: Annotated[int, "turns of each way"] = 5,
    seconds: Annotated[float, "of throughput, a length and turn"] = 1.0,
    kib: Annotated[tuple[int, ...], "lengths of pieces, KiB"] = (64, 1024, 65536),
    ways: Annotated[tuple[str, ...], f"which of {', '.join(WAYS)}"] = tuple(WAYS),
) -> list[Figure]:
    chosen = [way for way in WAYS if way in ways]
    if "Ray" in chosen and find_spec("ray") is None:
        tell({"way": "Ray", "skipped": "`ray` is not installed: pip install -e '.[bench]'"})
        chosen.remove("Ray")
    ends = {way: Ends(WAYS[way]) for way in chosen}
    single: dict[Key, list[Sample]] = {}
    several: dict[Key, list[Sample]] = {}
    try:
        for each in ends.values():
            each.wait_until_up()
        for nbytes in (1024 * each for each in kib):
            at_once = min(max(WINDOW_BYTES // nbytes, AT_ONCE[0]), AT_ONCE[-1])
            for _ in range(rounds):
                for way, process in ends.items():
                    single.setdefault((way, nbytes), []).append(process.fetch(nbytes, 1, LATENCY_SHARE * seconds))
                    several.setdefault((way, nbytes), []).append(process.fetch(nbytes, at_once, seconds))
    finally:
        for each in ends.values():
            each.close()
    for way, nbytes in several:
        tell(row(way, nbytes, single[way, nbytes], several[way, nbytes]))
    return figures(chosen, [1024 * each for each in kib], single, several)


def row(way: str, nbytes: int, single: Sequence[Sample], several: Sequence[Sample]) -> dict[str, object]:
    """Medians of the turns, each with the least and the most of them."""
    times = sorted(ms for each in single for ms in each.times_ms)
    return {
        "way": way,
        "piece": size_text(nbytes),
        "GB_s": spread([each.gb_s for each in several]),
        "ms_p50": spread([statistics.median(each.times_ms) for each in single]),
        "ms_p99": f"{times[int(0.99 * len(times))]:.3g}",
        "cpu_s_GB": spread([each.cpu_s_gb for each in several]),
    }


def figures(
    ways: Sequence[str],
    sizes: Sequence[int],
    single: Mapping[Key, Sequence[Sample]],
    several: Mapping[Key, Sequence[Sample]],
) -> list[Figure]:
    """Ours beside each anchor: throughput, then latency, then processor seconds."""
    found = []
    for ours in [way for way in ways if WAYS[way][0] == "ours"]:
        for nbytes in sizes:
            for anchor in [way for way in ways if WAYS[way][0] != "ours"]:
                name = f"{ours}, {size_text(nbytes)}"
                goal = Goal(GOALS[ours, anchor], is_least=True) if (ours, anchor) in GOALS else None
                gb_s, ms, cpu = (
                    [statistics.median(read(samples[way, nbytes])) for way in (ours, anchor)]
                    for samples, read in ((several, throughputs), (single, latencies), (several, costs))
                )
                found += [
                    Figure(f"{name}: throughput", "GB a second", gb_s[0], anchor, gb_s[1], goal),
                    Figure(f"{name}: latency, median", "ms", ms[0], anchor, ms[1]),
                    Figure(f"{name}: both ends", "processor seconds a GB", cpu[0], anchor, cpu[1]),
                ]
    return found


def throughputs(samples: Sequence[Sample]) -> list[float]:
    return [each.gb_s for each in samples]


def latencies(samples: Sequence[Sample]) -> list[float]:
    return [statistics.median(each.times_ms) for each in samples]


def costs(samples: Sequence[Sample]) -> list[float]:
    return [each.cpu_s_gb for each in samples]


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def size_text(nbytes: int) -> str:
    return f"{nbytes >> 20} MiB" if nbytes >= 1 << 20 else f"{nbytes >> 10} KiB"
