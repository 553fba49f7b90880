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


def open_engine(name: str) -> Engine:
    """Raises ImportError where its libraries are not installed, RuntimeError where the device contradicts itself."""
    engine: Engine = import_module(ENGINES[name]).make_engine()
    return engine
