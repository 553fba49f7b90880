"""Engines by the names that specs give them. Each module has `make_engine() -> Engine`, and is imported when its engine
is asked for: the libraries of one are no burden of another."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from dflow_protocols.pipeline.grammar.engines import ENGINES as KINDS

from .contract import Engine

ENGINES: Mapping[str, str] = {
    "torch": "dflowd.engines.torch_engine",
    "vllm": "dflowd.engines.vllm_engine",
    "emulated": "dflowd.engines.emulated.engine",
}

HOST_ENGINES: Mapping[str, str] = dict.fromkeys(ENGINES, "dflowd.engines.host_engine") | {
    "emulated": ENGINES["emulated"],  # it pretends how long an update takes, too
}
"""What does an engine's work on shards in a slot without a device."""


def open_engine(name: str, is_host: bool = False) -> Engine:
    """Raises ImportError where its libraries are not installed, RuntimeError where the device contradicts itself."""
    engine: Engine = import_module((HOST_ENGINES if is_host else ENGINES)[name]).make_engine()
    return engine


def open_engines(name: str, is_host: bool = False) -> Mapping[str, Engine]:
    """An engine, first, and the one that does what it leaves: one process has both, so that a slot that samples and
    trains in turn loads neither anew. Raises as `open_engine`."""
    rest = KINDS[name].rest
    return {each: open_engine(each, is_host) for each in (name, rest) if each}
