"""GPUs in a few words, as their daemons last saw them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..output import amount, seconds

OLD_S = 30.0  # daemons look every few seconds: older facts mean that the driver does not answer


def load(gpu: Mapping[str, Any]) -> str:
    """What a GPU does, as far as its driver tells."""
    told = f"{amount(gpu['memory_used'] or 0)} of {amount(gpu['memory_total'] or 0)} used"
    told += "" if gpu["busy"] is None else f", {gpu['busy']} % busy"
    return told + ("" if gpu["celsius"] is None else f", {gpu['celsius']} °C")


def is_old(gpu: Mapping[str, Any]) -> bool:
    return float(gpu.get("age_s", 0.0)) > OLD_S


def gpu_line(node: Mapping[str, Any]) -> str:
    """All GPUs of a node in one line, and its slots that take no work for theirs; empty where it has none, or tells
    nothing of them."""
    told = [f"GPU {index} {_state(gpu)}" for index, gpu in enumerate(node.get("gpus") or ())]
    told += [f"slot {slot['slot']} takes no work: {slot['why']}" for slot in node.get("drained") or ()]
    return "; ".join(told)


def _state(gpu: Mapping[str, Any]) -> str:
    told = "fell off the bus" if gpu["fell_off"] else load(gpu)
    told += f", {gpu['ecc_errors']} uncorrected memory errors" if gpu["ecc_errors"] else ""
    return told + (f" ({seconds(gpu['age_s'])} ago)" if is_old(gpu) else "")
