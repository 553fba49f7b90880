"""Looking at hosts and meshes for `dflow doctor`: asks `dflowd check-config`, daemons, and the engine's imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import CliError
from ..mesh.client import Client, KeyedEndpoint
from ..mesh.keyfiles import key_pair
from ..mesh.meshfiles import read_mesh
from ..mesh.reach import reach, remembered
from .diagnosis import Check, judge_config, judge_host, judge_mesh

CONFIG_S = 30.0
ENGINE_S = 180.0  # a cold disk takes its time with PyTorch
DOCTOR_S = 4.0
TRY_ENGINE = "import numpy, safetensors, torch, transformers; print(torch.__version__, torch.cuda.is_available())"


def examine(config: Path | None, folder: Path, to: str) -> Iterator[Check]:
    """All findings, the nearest first. Raises CliError for wrong input only."""
    configs = [config] if config is not None else _local_configs(folder)
    found: list[dict[str, Any]] = []
    for path in configs:
        report = _inspect(path)
        if isinstance(report, Check):
            yield report
            continue
        found.append(report)
        yield from judge_config(report)
        yield from judge_host(report["facts"], bool(report["running"]))
    yield from _mesh(found, folder, to, is_look=config is not None)
    yield _engine(found)


def _local_configs(folder: Path) -> list[Path]:
    mesh = read_mesh(folder)
    return [Path(node.config) for node in mesh.nodes] if mesh is not None else []


def _inspect(path: Path) -> dict[str, Any] | Check:
    command = [sys.executable, "-P", "-m", "dflowd", "check-config", "--config", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CONFIG_S, check=False)
    if done.returncode == 0:
        value: dict[str, Any] = json.loads(done.stdout)
        return value
    lines = dict(line.split(": ", 1) for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: ")))
    what = lines.get("error") or (done.stderr.splitlines() or ["it ended without a word"])[-1]
    return Check("configuration", str(path), "wrong", what.removeprefix(f"{path}: "), lines.get("hint", ""))


def _mesh(found: list[dict[str, Any]], folder: Path, to: str, is_look: bool) -> Iterator[Check]:
    """The mesh behind `to`, else of the daemons that run here, else the one that was met last from DIR. `is_look`: a
    host is looked at before its daemon is started, so that none is asked is no wonder."""
    endpoints = [KeyedEndpoint(it["key"]["public"], it["running"]["control"]) for it in found if it["running"]]
    if not to and not endpoints:
        place = found[0]["facts"]["name"] if found else "here"
        mend = "start it, then ask again, to hear of the mesh; or name a daemon with --to KEY@HOST:PORT"
        met = remembered(folder)
        if not met:
            what = "none is running: only this host was looked at, and no mesh was asked"
            yield Check("daemon", str(place), "ok" if is_look else "warning", what, mend)
            return
        yield Check("daemon", str(place), "ok", "none is running on this host", mend)
        endpoints = met
    folder.mkdir(parents=True, exist_ok=True)
    client_key = key_pair(folder / "client.key")
    try:
        with reach(folder, to) if to else Client(endpoints, client_key) as client:
            answer = client.call("doctor", deadline_s=DOCTOR_S)
            members = client.call("nodes")["nodes"]
    except CliError as problem:
        is_refused = "refuses" in problem.what
        mend = f"dflow keys show --dir {folder} | dflow keys authorize ALLOW_LIST -" if is_refused else problem.hint
        is_host = is_refused and not to and bool(found)  # whose daemon runs and does not know this client
        place = to.rpartition("@")[2] or endpoints[0].address
        yield Check("mesh", place, "warning" if is_host else "wrong", problem.what, mend)
        return
    near = {it["facts"]["name"] for it in found}
    for member in answer["members"]:
        if member["name"] not in near:
            yield from judge_host(member, is_running=True)
    yield from judge_mesh(answer, members)


def _engine(found: list[dict[str, Any]]) -> Check:
    """Whether an engine could start with this program's Python."""
    mend = "install the engine's packages where dflowd is: pip install '.[engine,tasks]'"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", TRY_ENGINE], capture_output=True, text=True, timeout=ENGINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        what = f"loading PyTorch took more than {ENGINE_S:.0f} s"
        return Check("engine", sys.executable, "wrong", what, "look at the disk that it lies on")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        return Check("engine", sys.executable, "wrong", last, mend)
    version, has_gpu = done.stdout.split()
    device = str(found[0]["facts"]["device"]) if found else "cpu"
    if not device.startswith("cpu") and has_gpu != "True":
        mend = "install a PyTorch build for this driver; `nvidia-smi` tells the driver's CUDA version"
        return Check("engine", sys.executable, "wrong", f"PyTorch {version} sees no GPU, the host has {device}", mend)
    return Check("engine", sys.executable, "ok", f"PyTorch {version} loads")
