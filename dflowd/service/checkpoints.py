"""Answers about checkpoints on all members' disks: which there are, and their files in pieces.

Only files of a checkpoint folder that this node wrote are served, and only by the names that a listing gives.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from blake3 import blake3

from dflow_protocols.names import NodeId, RunId
from dflow_protocols.versions.saved import FILE

from .dispatch import Service
from .request import Params, Refusal, typed

READ_BYTES = 2 << 20  # of one answer; half a frame


class CheckpointAnswers:
    """`checkpoints`, `checkpoint.files`, `checkpoint.read`: each names the node whose disk is meant. `away`: of members
    that are down the newest checkpoint, as far as it is remembered."""

    def __init__(self, service: Service) -> None:
        self._service, self._loop = service, service.host.loop
        service.serve(
            {
                "checkpoints": self._gather_checkpoints,
                "checkpoint.files": self._files,
                "checkpoint.read": self._read,
            },
            {
                "share.checkpoints": self._own_checkpoints,
                "share.checkpoint_files": self._own_files,
                "share.checkpoint_read": self._own_read,
            },
        )

    async def _gather_checkpoints(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        shares, missing = await self._service.gather(
            "share.checkpoints", {"run": self._service.find(params)}, deadline_s
        )
        found = [
            {**row, "node": self._service.name_of(node), "node_id": node}
            for node, share in shares.items()
            for row in share["checkpoints"]
        ]
        found.sort(key=lambda row: (row["step"], row["node_id"]))
        told = [(int(step), NodeId(node)) for share in shares.values() for node, step in share["away"]]
        newest = {node: step for step, node in sorted(told) if node not in shares}
        away = [{"node": self._service.name_of(node), "step": step} for node, step in sorted(newest.items())]
        return {"checkpoints": found, "away": away, "missing": missing}

    async def _files(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        asked = {"run": self._service.find(params), "step": typed(params, "step", int)}
        return await self._service.ask_one(_node(params), "share.checkpoint_files", asked, deadline_s)

    async def _read(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        asked = {
            "run": self._service.find(params),
            "step": typed(params, "step", int),
            "name": typed(params, "name", str),
            "offset": typed(params, "offset", int),
        }
        return await self._service.ask_one(_node(params), "share.checkpoint_read", asked, deadline_s)

    def _own_checkpoints(self, params: Params) -> Awaitable[dict[str, Any]]:
        run = RunId(params["run"])
        known = self._service.node.runs.get(run)
        away = sorted(known.summary().get("away", {}).items()) if known is not None else []
        return self._loop.run_in_executor(None, lambda: {"checkpoints": self._known(run), "away": away})

    def _own_files(self, params: Params) -> Awaitable[dict[str, Any]]:
        return self._loop.run_in_executor(None, self._list, params)

    def _own_read(self, params: Params) -> Awaitable[dict[str, Any]]:
        return self._loop.run_in_executor(None, self._piece, params)

    # In a thread: disks may be slow -----------------------------------------------------------------------------------

    def _known(self, run: RunId) -> list[dict[str, Any]]:
        rows = []
        for step, folder in self._service.recorder.metrics.checkpoints(run):
            try:
                facts = json.loads((Path(folder) / FILE).read_text())
            except (OSError, ValueError):  # it made room for newer ones
                continue
            rows.append({"step": step, "folder": folder, "version": str(facts.get("version", ""))})
        return rows

    def _folder(self, params: Params) -> tuple[Path, str]:
        """The checkpoint's folder and version."""
        for row in self._known(RunId(params["run"])):
            if row["step"] == params["step"]:
                return Path(row["folder"]), row["version"]
        raise Refusal(f"no checkpoint of step {params['step']} lies here", "the newest ones are kept: export again")

    def _list(self, params: Params) -> dict[str, Any]:
        folder, version = self._folder(params)
        files = []
        for name in _names(folder):
            hasher = blake3()
            hasher.update_mmap(folder / name)
            files.append({"name": name, "bytes": (folder / name).stat().st_size, "digest": hasher.hexdigest()})
        return {"files": files, "version": version}

    def _piece(self, params: Params) -> dict[str, Any]:
        folder, _ = self._folder(params)
        name = str(params["name"])
        if name not in _names(folder):
            raise Refusal(f"the checkpoint has no file `{name[:100]}`", "ask for what `checkpoint.files` lists")
        with (folder / name).open("rb") as file:
            file.seek(max(0, int(params["offset"])))
            return {"data": file.read(READ_BYTES)}


def _node(params: Params) -> NodeId:
    return NodeId(typed(params, "node_id", str))


def _names(folder: Path) -> list[str]:
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sorted(str(name) for name in files if not any(part.startswith(".") for part in name.parts))
