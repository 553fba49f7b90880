"""What stands between this node and its mesh, in words for people: for `status`, and `dflow doctor` which reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dflow_protocols.names import NodeId

if TYPE_CHECKING:
    from dflow_protocols.membership.machine import Membership


@dataclass(frozen=True, slots=True)
class Trouble:
    """`key` tells troubles apart; `hint` says what a person can do."""

    key: str
    what: str
    hint: str


def troubles(membership: Membership) -> list[Trouble]:
    """All that stand now, the gravest first."""
    return [*_silenced(membership), *_unreachable(membership), *_unreached(membership), *_late(membership)]


def _silenced(membership: Membership) -> list[Trouble]:
    other = membership.silenced_by
    if other is None:
        return []
    what = f"another daemon with this key, `{other.name}` at {other.control}, was there first; this one is silent"
    hint = "stop this daemon and give it a state directory and a key of its own; a copied one is another's identity"
    return [Trouble("membership.silenced", what, hint)]


def _unreachable(membership: Membership) -> list[Trouble]:
    found = []
    for (source, lane), complaint in sorted(membership.reach.complaints.items()):
        what = (
            f"{_name(membership, source)} cannot dial this node at {complaint.address}; others may pass on what it says"
        )
        hint = f"set listen.{lane} to an address that the others reach, and open its port in firewalls"
        found.append(Trouble(f"membership.unreachable/{source}/{lane}", what, hint))
    return found


def _unreached(membership: Membership) -> list[Trouble]:
    found = []
    for node, lanes in sorted(membership.reach.unreached.items()):
        if not membership.members[node].is_up:
            continue
        relay = membership.routes.get(node)
        cost = "is given no work" if relay is None else f"is reached through {_name(membership, relay)}"
        for lane, address in sorted(lanes.items()):
            name = _name(membership, node)
            what = f"{name} speaks to this node, but cannot be dialled at {address}, and {cost}"
            hint = f"on {name}, set listen.{lane} to an address that this host reaches, and open its port in firewalls"
            found.append(Trouble(f"membership.unreached/{node}/{lane}", what, hint))
    return found


def _late(membership: Membership) -> list[Trouble]:
    if not membership.is_unhealthy:
        return []
    what = "this daemon runs late or loses messages, and takes longer to notice deaths"
    hint = "look at the host's load and network; engines run at nice 5, other programs may not"
    return [Trouble("membership.late", what, hint)]


def _name(membership: Membership, node: NodeId) -> str:
    member = membership.members.get(node)
    return member.meta.name if member is not None and member.meta is not None else node[:8]
