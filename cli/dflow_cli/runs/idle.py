"""Waiting until a drained node has nothing left to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import EXIT_FAILED, CliError
from ..mesh.client import Client
from ..output import amount

LOOK_S = 0.5
LEFT = ("tasks", "shards", "nbytes")


def await_idle(
    client: Client, name: str, node: str, left: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], None]
) -> Mapping[str, Any]:
    """What is left when the node is idle: nothing. `left`: what was when it was drained; `tell` is called whenever it
    is something else. Raises CliError where the node is gone, or takes work again."""
    told, left = None, {key: left[key] for key in LEFT}
    while left["tasks"] or left["shards"]:
        if left != told:
            tell(left)
        told = left
        time.sleep(LOOK_S)
        members = client.call("nodes", {"detail": True})["nodes"]
        found = next((member for member in members if member["id"] == node), None)
        if found is None or found["state"] in ("dead", "left"):
            hint = "what it ran is done again by others; `dflow logs` says what happened"
            raise CliError(f"{name} is gone, with what it had left to do", hint=hint, exit_code=EXIT_FAILED)
        if not found["is_drained"]:
            hint = f"`dflow drain {name}` drains it once more"
            raise CliError(f"{name} takes work again: somebody undid it", hint=hint, exit_code=EXIT_FAILED)
        left = {key: found["work"][key] for key in LEFT} if found["work"] else left
    return left


def standing(name: str, left: Mapping[str, Any]) -> str:
    """`n2: 2 tasks still run, 1 shard (12 MB) to hand over`."""
    tasks, shards = left["tasks"], left["shards"]
    told = [f"{tasks} task{' still runs' if tasks == 1 else 's still run'}"] if tasks else []
    told += [f"{shards} shard{'' if shards == 1 else 's'} ({amount(left['nbytes'])}) to hand over"] if shards else []
    return f"{name}: {', '.join(told)}"
