"""Engines by the names that specs give them. Each module has `make_engine() -> Engine`, and is imported when its engine
is asked for: the libraries of one are no burden of another."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from .contract import Engine

ENGINES: Mapping[str, str] = {
    "torch": "dflowd.engines.torch_engine",
    "emulated": "dflowd.engines.emulated_engine",
}

HOST_ENGINES: Mapping[str, str] = dict.fromkeys(ENGINES, "dflowd.engines.host_engine") | {
    "emulated": ENGINES["emulated"],  # it pretends how long an update takes, too
}
"""What does an engine's work on shards in a slot without a device."""


def open_engine(name: str, is_host: bool = False) -> Engine:
    """Raises ImportError where its libraries are not installed, RuntimeError where the device contradicts itself."""
    engine: Engine = import_module((HOST_ENGINES if is_host else ENGINES)[name]).make_engine()
    return engine
