"""What a system did with a profile's work on so many nodes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.scaling.hosts import Host

DERIVED = ("samples_s", "waiting", "cores")  # of a row
TICKS = 100.0  # of a processor a second, in /proc


@dataclass(frozen=True, slots=True)
class Measured:
    """Of a step, the first one left out: in it nobody knows yet how long things take.

    `step_s`: median seconds. `samples`: all nodes'. `bytes`: that crossed between nodes, by lane, where the system
    tells. `cpu_s`: processor seconds of all processes, all nodes together, `daemon_cpu_s` those of daemons alone; nan
    where they are on other machines. `memory_bytes`: of all processes at the end. `stage_s`: seconds of slots by stage,
    all nodes together; `waits_s`: seconds in which they waited, by cause (waits.py). `ideal_s`: a step, if only its
    devices took time. `weights`: where the system has some. `settings`: of another system.
    """

    system: str
    profile: str
    nodes: int
    steps: int
    step_s: float
    samples: int
    cpu_s: float
    bytes: Mapping[str, float] = field(default_factory=dict)
    stage_s: Mapping[str, float] = field(default_factory=dict)
    weights: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    daemon_cpu_s: float = float("nan")
    memory_bytes: int = 0
    waits_s: Mapping[str, float] = field(default_factory=dict)
    ideal_s: float = float("nan")
    host: Mapping[str, float] = field(default_factory=dict)
    throttled_s: Mapping[str, float] = field(default_factory=dict)

    def on(self, host: Host, throttled_s: Mapping[str, float]) -> Measured:
        """As it is in the own time of hosts such as this one, in which they were throttled for so long."""
        times = host.slower
        return replace(
            self,
            step_s=self.step_s / times,
            ideal_s=self.ideal_s / times,
            stage_s={name: seconds / times for name, seconds in self.stage_s.items()},
            waits_s={name: seconds / times for name, seconds in self.waits_s.items()},
            host=asdict(host),
            throttled_s={name: seconds / self.steps for name, seconds in throttled_s.items()},
        )

    @property
    def cores(self) -> float:
        """Processors of this machine that were busy with it, in the mean."""
        return self.cpu_s / (self.step_s * self.host.get("slower", 1.0))

    @property
    def samples_s(self) -> float:
        return self.samples / self.step_s

    @property
    def waiting(self) -> float:
        """The share of the slots' time in which they computed nothing; nan where the system does not tell."""
        return 1 - sum(self.stage_s.values()) / (self.nodes * self.step_s) if self.stage_s else float("nan")

    def row(self) -> dict[str, Any]:
        told = asdict(self) | {"samples_s": self.samples_s, "waiting": self.waiting, "cores": self.cores}
        return {name: _short(value) for name, value in told.items() if value not in ("", {}, 0) and value == value}


def from_row(line: str) -> Measured:
    """Of another process, which printed its row as JSON."""
    told = json.loads(line)
    return Measured(**{"cpu_s": float("nan")} | {name: value for name, value in told.items() if name not in DERIVED})


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _short(each) for name, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def settled(seconds: Sequence[float]) -> float:
    """The median of all but the first."""
    return statistics.median(seconds[1:] or seconds)


def cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds that these processes took so far, user's and system's; those that are gone count nothing."""
    total = 0.0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            continue
        total += sum(map(int, stat.rpartition(")")[2].split()[11:13])) / TICKS
    return total
