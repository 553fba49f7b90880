"""Imports point one way: cli -> protocols <- dflowd, and the daemon's light rooms know nothing of the heavy ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from tests.tidy.sources import imports, is_within, module_name, package_files, shown

HEAVY_ARROWS: Mapping[str, tuple[str, ...]] = {
    "child": ("engines", "jobs"),
    "engines": ("operators", "training", "models", "workers", "data", "jobs"),
    "operators": ("algorithms", "asking", "models", "workers", "data", "jobs"),
    "asking": ("models", "workers", "data", "jobs"),
    "training": ("algorithms", "models", "data", "jobs"),
    "models": ("data", "jobs"),
    "rewards": ("workers",),
    "workers": ("data", "jobs"),
    "data": ("jobs",),
    "algorithms": (),
    "jobs": (),
}
"""A heavy room and those that it may import: each stands above what it names."""

HEAVY_ROOMS = tuple(f"dflowd.{room}" for room in HEAVY_ARROWS)
HEAVY_PACKAGES = ("torch", "numpy", "transformers", "safetensors", "reasoning_gym", "vllm", "matplotlib")
LENT_TO_HEAVY = ("dflowd.boot.config", "dflowd.shards.layout", "dflowd.slots.calls", "dflowd.slots.doing")
PROTOCOL_PACKAGES = ("dflow_protocols", "msgpack", "blake3")


def faults(paths: Iterable[Path], is_forbidden: Callable[[str], bool]) -> list[str]:
    return [
        f"{shown(path)}:{line} imports {module}"
        for path in paths
        for module, line in imports(path)
        if is_forbidden(module)
    ]


def is_heavy(path: Path) -> bool:
    return is_within(module_name(path), *HEAVY_ROOMS)


def test_protocols_import_the_standard_library_msgpack_and_blake3_only() -> None:
    """Whoever writes another client or node of the mesh can take the protocols alone."""

    def is_foreign(module: str) -> bool:
        return module.partition(".")[0] not in sys.stdlib_module_names and not is_within(module, *PROTOCOL_PACKAGES)

    assert faults(package_files("dflow_protocols"), is_foreign) == []


def test_the_daemon_and_the_command_line_do_not_know_each_other() -> None:
    """They speak over the wire: either may be of another release."""
    assert faults(package_files("dflowd"), lambda module: is_within(module, "dflow_cli")) == []
    assert faults(package_files("dflow_cli"), lambda module: is_within(module, "dflowd")) == []


def test_light_rooms_import_no_heavy_room_and_no_heavy_package() -> None:
    """The daemon must be up in under a second and small beside the engines; one import would undo it."""
    light = [path for path in package_files("dflowd") if not is_heavy(path)]
    assert faults(light, lambda module: is_within(module, *HEAVY_ROOMS, *HEAVY_PACKAGES)) == []


def test_heavy_rooms_take_from_the_daemon_only_what_is_lent_to_them() -> None:
    """An engine child is asked by messages and reads mapped shards: it shares no state with the daemon."""

    def is_borrowed(module: str) -> bool:
        return is_within(module, "dflowd") and not is_within(module, *HEAVY_ROOMS, *LENT_TO_HEAVY)

    heavy = [path for path in package_files("dflowd") if is_heavy(path)]
    assert faults(heavy, is_borrowed) == []


def test_heavy_rooms_import_only_those_below_them() -> None:
    """A room can be read, tested and replaced with what is below it alone: an engine of another library keeps data,
    models and training, and none of them knows of it."""

    def is_above(path: Path, module: str) -> bool:
        room = module_name(path).split(".")[1]
        below = [f"dflowd.{name}" for name in (room, *HEAVY_ARROWS[room])]
        return is_within(module, *HEAVY_ROOMS) and not is_within(module, *below)

    heavy = [path for path in package_files("dflowd") if is_heavy(path)]
    assert [fault for path in heavy for fault in faults([path], partial(is_above, path))] == []
