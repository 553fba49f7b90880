"""What a run took, and what follows from the seconds that kills cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Trial:
    """One run. `kills`: that struck before its end. `work`: by what two runs are known to have done the same."""

    system: str
    seconds: float
    kills: int
    work: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def goodput(rate: float, nodes: int, cost_s: float, hour_s: float) -> float:
    """The share of the time that trained what is in the weights, where `rate` of the nodes fail in an hour of `hour_s`
    seconds and each failure costs `cost_s`. A cost below 0, which is noise, counts as none."""
    return hour_s / (hour_s + rate * nodes * max(0.0, cost_s))
