"""Striking daemons in tests: who runs what now, what a process holds, and whether all of it is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.rendezvous import ranked
from tests.support.mesh import Daemon, Mesh

SEGMENT = "memfd:dflowd-"
RUN_S = 120.0  # a run of these tests takes some seconds; a loaded machine has its way


def all_stages(steps: int = 3, parameters: int = 600_000, leaves: int = 4, seed: int = 1, **times: float) -> Pipeline:
    """One step of demonstrations, then GRPO with an evaluation before each step and a checkpoint after each: every
    kind of task there is. `times`: of the engine's profile, in seconds."""
    pace = {"generate_s": 0.1, "gradient_s": 0.1, "reduce_s": 0.1, "apply_s": 0.1, "evaluate_s": 0.1, "save_s": 0.1}
    roll = {"data": "words", "prompts": 32, "group": 4, "partitions": 8, "max_tokens": 6}
    warm = {"data": "words", "demos": 64, "batch": 32, "partitions": 4}
    learn = {"leaves": leaves, "optimizer": {"adamw": {"lr": 1e-3}}}
    look = {"data": "words.held_out", "greedy": True, "partitions": 2}
    held_out = {"by": "question_lower", "share": 0.1, "count": 64}
    rl = "step >= 1"
    return Pipeline.from_dict(
        {
            "name": "all-stages",
            "seed": seed,
            "steps": steps,
            "engine": "emulated",
            "emulated": {**pace, "parameters": parameters, **times},
            "models": {"policy": {"init": {"config": "c.json", "tokenizer": "t"}}},
            "data": {"words": {"reasoning_gym": "spell_backward", "held_out": held_out}},
            "stages": [
                {"id": "warm", "op": "sft", "model": "policy", "when": "step < 1", "config": {**warm, **learn}},
                {"id": "roll", "op": "generate", "model": "policy", "when": rl, "config": roll},
                {"id": "score", "op": "reward"},
                {"id": "adv", "op": "advantage", "config": {"method": "grpo"}},
                {"id": "learn", "op": "train", "model": "policy", "config": learn},
                {"id": "heldout", "op": "evaluate", "model": "policy", "when": rl, "config": look},
            ],
            "checkpoint": {"every": 1, "keep": 2},
        }
    )


def await_stable(mesh: Mesh, timing: Timing | None = None) -> None:
    """Until steps are dealt to every running daemon: one that was just started is not dealt to for a while. `timing`:
    the mesh's; `local` if None."""
    mesh.await_all()
    began, stable_s = time.monotonic(), (timing or Timing.local()).stable_s
    mesh.until(lambda: time.monotonic() - began > stable_s, RUN_S)


def ended(mesh: Mesh, run: str, nodes: list[Daemon] | None = None) -> dict[str, Any]:
    """The run's summary once it is over for each of `nodes` (all running ones)."""
    answers: dict[str, dict[str, Any]] = {}
    for node in nodes or mesh.running():

        def is_over(node: Daemon = node) -> bool:
            answers[node.name] = mesh.ask(node, "run", run=run)
            return bool(answers[node.name]["state"] != "active")

        mesh.until(is_over, RUN_S)
    told = {(answer["state"], answer["weights"]) for answer in answers.values()}
    assert len(told) == 1, told
    return next(iter(answers.values()))


def running_tasks(mesh: Mesh, run: str, stage: str, part: str, since_step: int = 1) -> list[dict[str, Any]]:
    """Tasks of the stage that run now on daemons of the mesh, oldest first; `part` begins the task's part."""
    asked = next(iter(mesh.running()))
    rows = mesh.ask(asked, "tasks", run=run)["tasks"]
    return [
        row
        for row in rows
        if row["state"] == "running"
        and row["stage"] == stage
        and row["step"] >= since_step
        and row["id"].rpartition("/")[2].startswith(part)
    ]


def running_step(mesh: Mesh, run: str) -> int:
    """The first step of GRPO, once leaves of it run."""

    def found() -> int:
        rows = running_tasks(mesh, run, "learn", "b")
        return int(rows[0]["step"]) if rows else 0

    return mesh.until(found, RUN_S)


def sealer(mesh: Mesh, run: str, step: int) -> Daemon:
    """Who seals the step: the first of its roster, in a mesh that is stable."""
    nodes = {node.keys.id: node for node in mesh.nodes.values() if node.process is not None}
    return nodes[ranked(f"{run}/{step}", tuple(sorted(NodeId(name) for name in nodes)))[0]]


def segments(pid: int) -> set[tuple[int, int]]:
    """(device, inode) of the shards' segments that a process has open."""
    return set(_open_segments(pid))


def mapped_segments(pid: int) -> set[int]:
    """Inodes of the shards' segments that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {int(line.split()[4]) for line in lines if SEGMENT in line}


def holders_of(inodes: set[int]) -> set[int]:
    """Pids of all processes that have one of these segments open or mapped."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return {pid for pid in pids if inodes & (mapped_segments(pid) | {inode for _, inode in segments(pid)})}


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _open_segments(pid: int) -> Iterator[tuple[int, int]]:
    try:
        handles = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for handle in handles:
        try:
            if SEGMENT in os.readlink(handle):
                found = handle.stat()
                yield found.st_dev, found.st_ino
        except OSError:
            continue


def strike(mesh: Mesh, *victims: Daemon) -> None:
    """kill -9 the victims at once. Their engines and shared memory must end with them, though nobody cleans up."""
    children = [pid for victim in victims for pid in victim.children()]
    inodes = {inode for victim in victims for _, inode in segments(victim.pid)}
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    for victim in victims:
        mesh.kill(victim)
    mesh.until(lambda: not any(is_alive(pid) for pid in children), 30)
    mesh.until(lambda: not holders_of(inodes), 30)
    assert not list(Path("/dev/shm").glob("*dflowd*"))
