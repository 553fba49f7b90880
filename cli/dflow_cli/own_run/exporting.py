"""A checkpoint brought here in pieces from a daemon that has it: the model's files, checked twice.

Each file is checked against the digest that the daemon's disk gives now, and the weights against the id that the run
gave them when they were made, so that a disk that changed them since is noticed. The folder appears under its name
when all of it is on the disk; a command that is killed leaves at most a hidden one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from dflow_protocols.names import CHUNK_BYTES, ShardId, chunk_hash, shard_id
from dflow_protocols.versions.saved import FILE, read_saved

from ..errors import EXIT_FAILED, EXIT_WRONG_INPUT, CliError, writing
from ..kept.source import Source, origin
from ..output import note
from .rounding import round_folder

RAW = ".f32"  # ends the files of a version's state, each of which is named after its role
LIST_S = 60.0  # for a daemon to read all files of a checkpoint once


def export_checkpoint(
    source: Source,
    run: str,
    step: int | None,
    place: Path,
    starting: Callable[[str], str],
    lying: Sequence[Mapping[str, Any]] = (),
    *,
    merge: bool = False,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Fill `place`; returns {step, version, node, bytes, files, missing}. Raises CliError and leaves nothing then.
    `starting`: how the daemon of that name is started, in words. `lying`: {node, step} of checkpoints whose daemons
    may be down.

    `merge`: adapters come as a whole model, for which their base has to lie here. `dtype`: of the weights.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CliError("is there already", where=str(place), hint="name a folder that is not there yet")
    answer = source.call("checkpoints", {"run": run})
    holders = _wanted(answer, run, step, starting, lying)
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        problems: list[CliError] = []
        for holder in holders:
            try:
                draft.mkdir()
                version = _bring(source, run, holder, draft)["version"]
                if merge:
                    _merge(draft)
                if dtype != "float32":
                    round_folder(draft)
                _sync(draft)
                draft.rename(place)
            except CliError as problem:
                problems.append(problem)
                continue
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            files = sorted(file for file in place.rglob("*") if file.is_file())
            return {
                "step": holder["step"],
                "version": version,
                "node": holder["node"],
                "bytes": sum(file.stat().st_size for file in files),
                "files": [str(file.relative_to(place)) for file in files],
                "missing": answer["missing"],
                **origin(answer),
            }
        raise problems[-1]


def _wanted(
    answer: Mapping[str, Any],
    run: str,
    step: int | None,
    starting: Callable[[str], str],
    lying: Sequence[Mapping[str, Any]],
) -> list[Mapping[str, Any]]:
    """Who has the checkpoint of `step`, or the newest one. A newer one of a daemon that is down is told of. Raises
    CliError."""
    checkpoints: Sequence[Mapping[str, Any]] = answer["checkpoints"]
    steps = sorted({int(row["step"]) for row in checkpoints})
    told = dict.fromkeys((int(row["step"]), str(row["node"])) for row in (*answer.get("away", ()), *lying))
    away = [(at, name) for at, name in told if at > max(steps, default=-1)]
    if away and (step is None or step not in steps):
        newest = max(at for at, _ in away)
        holders = [name for at, name in away if at == newest]
        are = "is down" if len(holders) == 1 else "are down"
        what = f"the checkpoint of step {newest} lies on {' and '.join(holders)}, which {are}"
        hint = f"start one, then export again: {'; or '.join(dict.fromkeys(map(starting, holders)))}"
        if step is not None or not steps:
            raise CliError(f"run {run}: {what}", hint=hint, exit_code=EXIT_FAILED)
        note(f"{what}: this one is of step {steps[-1]}; {hint}")
    if not steps:
        hint = (
            "one is written at the end, and every so many steps with `checkpoint: {every: N}`; "
            "of a run that has ended none was written, or they were removed from its daemons' disks"
        )
        raise CliError(f"run {run} has no checkpoint", hint=hint, exit_code=EXIT_FAILED)
    if step is not None and step not in steps:
        hint = f"there are those of steps {', '.join(map(str, steps))}; `checkpoint.keep` says how many stay"
        raise CliError(f"run {run} has no checkpoint of step {step}", hint=hint, exit_code=EXIT_WRONG_INPUT)
    return [row for row in checkpoints if row["step"] == (steps[-1] if step is None else step)]


def _bring(source: Source, run: str, holder: Mapping[str, Any], draft: Path) -> dict[str, Any]:
    """All but what only the run itself has a use for: the optimizer's state, and what a version has of earlier ones."""
    asked = {"run": run, "step": holder["step"], "node_id": holder["node_id"]}
    listed = source.call("checkpoint.files", asked, deadline_s=LIST_S)
    listed["files"] = [file for file in listed["files"] if not _is_the_runs_own(str(file["name"]))]
    for file in listed["files"]:
        name = str(file["name"])
        target = draft / name
        if not target.resolve().is_relative_to(draft.resolve()):  # a name that leads out of the folder
            raise CliError(f"`{name}` is no name of a checkpoint's file", where=str(holder["node"]))
        target.parent.mkdir(parents=True, exist_ok=True)
        if _bring_file(source, {**asked, "name": name}, int(file["bytes"]), target) != file["digest"]:
            raise _other_bytes(name, holder)
    _check_weights(draft, holder)
    return listed


def _is_the_runs_own(name: str) -> bool:
    return name.endswith(RAW) and not name.startswith("params-")


def _bring_file(source: Source, asked: Mapping[str, Any], nbytes: int, target: Path) -> str:
    """Returns the digest of what came."""
    hasher = blake3()
    with target.open("wb") as out:
        while out.tell() < nbytes:
            piece = source.call("checkpoint.read", {**asked, "offset": out.tell()})["data"]
            if not piece:
                break
            hasher.update(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    return hasher.hexdigest()


def _merge(draft: Path) -> None:
    """By a process that loads PyTorch, which this one does not. Raises CliError."""
    if next(draft.rglob("adapter_config.json"), None) is None:
        raise CliError("the checkpoint holds no adapters", hint="leave `--merge` out: what it holds is whole")
    if importlib.util.find_spec("torch") is None:
        raise CliError("merging needs PyTorch, which is not here", hint="pip install '.[engine]' in the checkout")
    done = subprocess.run(
        [sys.executable, "-m", "dflowd.models.merging", str(draft)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        what = (done.stderr.strip().splitlines() or ["the process that merges died"])[-1]
        hint = "without `--merge` the adapters come as they are, for `peft`"
        raise CliError(f"cannot merge: {what}", hint=hint, exit_code=EXIT_FAILED)


def _check_weights(draft: Path, holder: Mapping[str, Any]) -> None:
    """Whether the parameters are those of the version."""
    try:
        saved = read_saved((draft / FILE).read_text())
        for (name, ref), place in zip(saved.header.state, saved.places, strict=True):
            if name.startswith("params:") and _shard_in(draft / place.file, place.offset, ref.nbytes) != ref.id:
                raise _other_bytes(place.file, holder)
    except (OSError, ValueError) as error:
        what = f"what {holder['node']} has is no whole checkpoint: {error}"
        raise CliError(what, hint="take another one with --step", exit_code=EXIT_FAILED) from error


def _shard_in(path: Path, offset: int, nbytes: int) -> ShardId:
    with path.open("rb") as file:
        file.seek(offset)
        return shard_id(
            nbytes, (chunk_hash(file.read(min(CHUNK_BYTES, nbytes - at))) for at in range(0, nbytes, CHUNK_BYTES))
        )


def _other_bytes(name: str, holder: Mapping[str, Any]) -> CliError:
    what = f"`{name}` of {holder['node']} has other bytes than were saved"
    return CliError(what, hint="export again; its disk may be failing", exit_code=EXIT_FAILED)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
