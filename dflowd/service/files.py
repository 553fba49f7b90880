"""Answers about pipelines' files: how they stand on each member, their bytes in pieces, and who is to fetch them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dflow_protocols.membership.reach import MAX_HOPS
from dflow_protocols.names import NodeId, ShardId, ShardRef
from dflow_protocols.wire.listing import MAX_FILES, FileRef, listing_fault

from ..files.cache import NoRoomError
from ..files.supplies import Supplies
from ..transport.limits import CLIENT_RATE, Pace
from .dispatch import Service
from .request import EXIT_FAILED, MOST_NUMBER, Params, Refusal, typed

HEX_DIGITS = frozenset("0123456789abcdef")


class FileAnswers:
    """`files.locate`, `files.put`, `files.bring`, and this node's shares of the first and the last."""

    def __init__(self, service: Service, supplies: Supplies) -> None:
        self._service, self._supplies = service, supplies
        self._pace = Pace(CLIENT_RATE)
        service.serve(
            {"files.locate": self._locate, "files.put": self._put, "files.bring": self._bring},
            {
                "share.files.locate": self._own_locate,
                "share.files.bring": self._own_bring,
                "share.files.has": self._own_has,
                "share.files.relay": self._own_relay,
            },
        )

    async def _locate(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        """How files stand on each member: the ids of those under `base`, and of all that lie there."""
        listed(params)
        asked = {"base": typed(params, "base", str), "files": params["files"]}
        shares, missing = await self._service.gather("share.files.locate", asked, deadline_s)
        nodes = [{"node": self._service.name_of(node), "node_id": node, **share} for node, share in shares.items()]
        return {"nodes": nodes, "missing": missing}

    async def _put(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        """The bytes of a file from `offset` on; answers how many have come, which is where to go on."""
        ref, data = _ref(params.get("id"), params.get("bytes")), typed(params, "data", bytes)
        offset = typed(params, "offset", int)
        wait_s = self._pace.wait_s(self._service.host.clock(), source, len(data))
        try:
            come, _ = await asyncio.gather(self._supplies.put(ref, offset, data), asyncio.sleep(wait_s))
            return {"offset": come}
        except NoRoomError as error:
            hint = "raise files.cache_limit of that daemon, or free some of its disk"
            raise Refusal(f"{self._service.name_of(self._service.me)}: {error}", hint, EXIT_FAILED) from None
        except (ValueError, OSError) as error:
            raise Refusal(str(error), "send the file again", EXIT_FAILED) from None

    async def _bring(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        """Have every living member fetch what it has neither under `base` nor in its cache; nobody is waited for."""
        listed(params)
        asked = {"base": typed(params, "base", str), "files": params["files"]}
        shares, missing = await self._service.gather("share.files.bring", asked, deadline_s)
        return {"asked": sorted(map(self._service.name_of, shares)), "missing": missing}

    async def _own_locate(self, params: Params) -> dict[str, Any]:
        located = await self._supplies.located(str(params["base"]), listed(params))
        own, here = _ids(located.own), _ids(located.here)
        return {"own": own, "here": here, "runs_code": self._supplies.runs_code}

    def _own_bring(self, params: Params) -> dict[str, Any]:
        self._supplies.start_bringing(str(params["base"]), listed(params))
        return {}

    async def _own_has(self, params: Params) -> dict[str, Any]:
        refs = [_ref(shard, nbytes) for shard, nbytes in params["files"][:MAX_FILES]]
        return {"ids": await self._supplies.has(refs)}

    def _own_relay(self, params: Params) -> dict[str, Any]:
        refs = [_ref(shard, nbytes) for shard, nbytes in params["files"][:MAX_FILES]]
        hops = typed(params, "hops", int)
        if isinstance(hops, bool) or not 0 < hops <= MAX_HOPS:
            raise Refusal(f"`hops` is {hops}", f"it is 1 to {MAX_HOPS}")
        self._supplies.start_relaying(refs, hops)
        return {}


async def holders_of(service: Service, refs: Sequence[ShardRef], hops: int) -> dict[ShardId, tuple[NodeId, ...]]:
    """Living members, this node aside, that have each of these files and serve it to this node. None for one that only
    members have from which this node is apart: then a relay, after `hops` others, is asked to fetch it first."""
    asked = {"files": [(ref.id, ref.nbytes) for ref in refs]}
    shares, _ = await service.gather("share.files.has", asked, LOCATE_S)
    found: dict[ShardId, list[NodeId]] = {}
    for node, share in sorted(shares.items()):
        for shard in _told(share, refs) if node != service.me else ():
            found.setdefault(shard, []).append(node)
    routes = service.node.membership.routes
    near = {shard: tuple(node for node in nodes if node not in routes) for shard, nodes in found.items()}
    far = [ref for ref in refs if ref.id in near and not near[ref.id]]
    if hops < MAX_HOPS:
        for relay in {routes[found[ref.id][0]] for ref in far}:
            wanted = [(ref.id, ref.nbytes) for ref in far if routes[found[ref.id][0]] == relay]
            with contextlib.suppress(Refusal):  # it is asked again with the next look
                await service.ask_one(relay, "share.files.relay", {"files": wanted, "hops": hops + 1}, LOCATE_S)
    return near


def _told(share: Mapping[str, Any], refs: Iterable[ShardRef]) -> list[ShardId]:
    """Those of these files that a member says it has; none where it says something else."""
    ids = share.get("ids")
    told = {each for each in ids if isinstance(each, str)} if isinstance(ids, list) else set()
    return [ref.id for ref in refs if ref.id in told]


LOCATE_S = 5.0


def listed(params: Params) -> tuple[FileRef, ...]:
    """The files that a request names. Raises Refusal."""
    files = tuple(map(_file, typed(params, "files", list)))
    if fault := listing_fault(files):
        raise Refusal(f"`files`: {fault}", "name fewer, or smaller, files")
    return files


def _file(item: Any) -> FileRef:
    if not isinstance(item, Mapping) or not all(isinstance(item.get(key), str) for key in ("key", "name")):
        raise Refusal("`files` holds something that is no file", "ask with a `dflow` of the daemon's version")
    return FileRef(item["key"], item["name"], _ref(item.get("id"), item.get("bytes")))


def _ref(shard: Any, nbytes: Any) -> ShardRef:
    is_id = isinstance(shard, str) and len(shard) == 64 and HEX_DIGITS.issuperset(shard)
    if not is_id or not isinstance(nbytes, int) or not 0 <= nbytes < MOST_NUMBER:
        raise Refusal("a file is named by `id` and `bytes`", "ask with a `dflow` of the daemon's version")
    return ShardRef(ShardId(shard), nbytes)


def _ids(files: Iterable[FileRef]) -> list[str]:
    return sorted({file.ref.id for file in files})
