"""Who serves a file to this node, where not all members can talk to each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dflow_protocols.membership.reach import MAX_HOPS
from dflow_protocols.names import NodeId, ShardId, ShardRef
from dflowd.files.supplies import Supplies
from dflowd.service.dispatch import Service
from dflowd.service.files import FileAnswers, holders_of
from dflowd.service.request import Refusal

ME, NEAR, FAR, ODD = (NodeId(f"{letter}" * 32) for letter in "abcd")
BOTH, FAR_ALONE, NOBODYS = (ShardRef(ShardId(f"{digit}" * 64), 10) for digit in "123")


class Gathers:
    """A service to whose node FAR speaks through NEAR."""

    def __init__(self) -> None:
        self.me = ME
        self.node = SimpleNamespace(membership=SimpleNamespace(routes={FAR: NEAR}))
        self.asked: list[tuple[NodeId, str, dict[str, Any]]] = []
        self.shares: dict[str, Any] = {}

    def serve(self, methods: Any, shares: dict[str, Any]) -> None:
        self.shares = shares

    async def gather(self, method: str, params: dict[str, Any], deadline_s: float) -> Any:
        odd = {"ids": [[NOBODYS.id], 7, "f" * 64]}
        return {ME: {"ids": [BOTH.id]}, NEAR: {"ids": [BOTH.id]}, FAR: {"ids": [BOTH.id, FAR_ALONE.id]}, ODD: odd}, []

    async def ask_one(self, node: NodeId, method: str, params: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        self.asked.append((node, method, params))
        return {}


async def test_a_relay_is_asked_to_fetch_what_only_a_member_apart_has() -> None:
    """It counts as nobody's otherwise, and a person is told to submit the spec again."""
    service = Gathers()
    found = await holders_of(cast("Service", service), [BOTH, FAR_ALONE, NOBODYS], hops=0)
    assert found == {BOTH.id: (NEAR,), FAR_ALONE.id: ()}
    assert service.asked == [(NEAR, "share.files.relay", {"files": [(FAR_ALONE.id, 10)], "hops": 1})]


async def test_relays_do_not_ask_each_other_without_end() -> None:
    """Two that are each other's next hop would, while what they know differs."""
    service = Gathers()
    await holders_of(cast("Service", service), [FAR_ALONE], hops=MAX_HOPS)
    assert service.asked == []


async def test_one_that_answers_something_else_is_passed_over() -> None:
    """One member that does would keep all others' files from coming."""
    found = await holders_of(cast("Service", Gathers()), [BOTH, NOBODYS], hops=0)
    assert found == {BOTH.id: (NEAR,)}


@pytest.mark.parametrize("hops", [-1_000_000, 0, MAX_HOPS + 1, True, "1", None])
def test_a_relay_counts_on_from_no_number_but_that_of_a_relay(hops: Any) -> None:
    """From one below nothing two relays would ask each other for as long."""
    service, started = Gathers(), list[int]()
    supplies = SimpleNamespace(start_relaying=lambda refs, hops: started.append(hops))
    FileAnswers(cast("Service", service), cast("Supplies", supplies))
    with pytest.raises(Refusal):
        service.shares["share.files.relay"]({"files": [(BOTH.id, 10)], "hops": hops})
    service.shares["share.files.relay"]({"files": [(BOTH.id, 10)], "hops": MAX_HOPS})
    assert started == [MAX_HOPS]
