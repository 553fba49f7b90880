"""What does it cost a member to know who lives, and how fast and how wrongly does it learn of deaths, as meshes grow?

Real membership machines in virtual time (tests/unit/protocols/membership/mesh.py), every message through its bytes; so
the figures are the protocol's, whatever else this machine does. A row a size:

    calm        messages that a member sends a second, mean, when nothing happens
    killed      seconds from a kill until the first member holds the victim dead, and until all do; mean and worst of
                several kills, one after another
    trouble     with 5% of all messages lost and 5% of the members stopped for 0.5 to 2 s every 5 s: how many living
                members were declared dead by anybody, and messages a second
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from benchmarks.figure import Figure, Goal, Tell
from dflow_protocols.events import Received
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId
from dflow_protocols.wire.gossip import MetaPut, Sync
from tests.unit.protocols.membership.mesh import Mesh

TIMINGS = {"lan": Timing.lan, "wan": Timing.wan, "local": Timing.local}
KILLS = 5
LOSS = 0.05
STOPPED_SHARE, STOPPED_S, STOP_EVERY_S = 0.05, (0.5, 2.0), 5.0
METAS_A_MESSAGE = 256
QUICK = {"members": (10, 100), "trouble_s": 20.0}
PATIENCE_S = 300.0  # virtual, for a death to be known to all


def formed(members: int, timing: Timing) -> Mesh:
    """A mesh in which all know each other, as long after the last of them joined."""
    mesh = Mesh(members, seed=members, timing=timing, checks=False)
    mesh.start_all()
    lives = [host.life for host in mesh.hosts if host.life is not None]
    metas = tuple(host.meta for host in mesh.hosts)
    claims = tuple(life.members[host.node].claim for life, host in zip(lives, mesh.hosts, strict=True))
    for host, life in zip(mesh.hosts, lives, strict=True):
        teller = mesh.hosts[0 if host is not mesh.hosts[0] else 1]
        life.handle(mesh.now, Received(teller.node, Sync(False, teller.meta, claims)))
        for at in range(0, members, METAS_A_MESSAGE):
            life.handle(mesh.now, Received(teller.node, MetaPut(metas[at : at + METAS_A_MESSAGE])))
        host.dialled = {other.node for other in mesh.hosts}
    mesh.hush()
    mesh.run(2 * timing.probe_interval_s)
    return mesh


def rate(mesh: Mesh, seconds: float) -> float:
    """Messages a member sends a second, over the next `seconds`."""
    before = mesh.sent
    mesh.run(seconds)
    return (mesh.sent - before) / seconds / len(mesh.running())


def kill(mesh: Mesh, index: int) -> tuple[float, float]:
    """Seconds until the first and until the last of the others holds it dead."""
    mesh.changes.clear()
    began, victim = mesh.now, mesh.id(index)
    mesh.crash(index)
    mesh.until(lambda: len(mesh.changes) > 0 and mesh.changes[-1][2].new == "dead", PATIENCE_S)
    first_s, wanted = mesh.now - began, len(mesh.running())
    mesh.until(lambda: len(mesh.changes) >= wanted and _buried(mesh, victim) >= wanted, PATIENCE_S)
    return first_s, mesh.now - began


def _buried(mesh: Mesh, victim: NodeId) -> int:
    return sum(dead == victim for _, _, dead in mesh.deaths())


def disturb(mesh: Mesh, seconds: float) -> dict[str, float]:
    """Loss and members that stop for a while: whoever is declared dead now is wronged."""
    mesh.changes.clear()
    mesh.loss, before, began = LOSS, mesh.sent, mesh.now
    while mesh.now < began + seconds:
        alive = [index for index, host in enumerate(mesh.hosts) if host.life is not None]
        for index in mesh.rng.sample(alive, max(1, round(STOPPED_SHARE * len(alive)))):
            mesh.freeze(index, mesh.rng.uniform(*STOPPED_S))
        mesh.run(STOP_EVERY_S)
    wronged = {dead for _, _, dead in mesh.deaths()}
    sent = (mesh.sent - before) / (mesh.now - began) / len(mesh.running())
    return {"wrongly_dead": len(wronged), "messages_per_s": round(sent, 2)}


def of_size(members: int, timing: Timing, calm_s: float, trouble_s: float) -> dict[str, Any]:
    mesh = formed(members, timing)
    calm = rate(mesh, calm_s)
    kills = []
    for index in range(members - 1, members - 1 - min(KILLS, members - 3), -1):
        kills.append(kill(mesh, index))
        mesh.run(2 * timing.probe_interval_s)
    firsts, alls = [first for first, _ in kills], [last for _, last in kills]
    return {
        "members": members,
        "calm_messages_per_s": round(calm, 2),
        "killed_first_s": round(sum(firsts) / len(firsts), 2),
        "killed_all_s": round(sum(alls) / len(alls), 2),
        "killed_all_worst_s": round(max(alls), 2),
        "trouble": disturb(mesh, trouble_s),
    }


def measure(
    tell: Tell,
    *,
    members: Annotated[tuple[int, ...], "sizes of the meshes"] = (10, 100, 200, 1000),
    timing: Annotated[Literal["lan", "wan", "local"], "times of the protocol"] = "lan",
    calm_s: Annotated[float, "virtual seconds without faults"] = 30.0,
    trouble_s: Annotated[float, "virtual seconds with them"] = 60.0,
) -> list[Figure]:
    figures = []
    for count in members:
        began = time.monotonic()
        found = of_size(count, TIMINGS[timing](), calm_s, trouble_s)
        tell({"timing": timing, **found, "took_s": round(time.monotonic() - began, 1)})
        figures += [
            Figure(f"{count} members: messages of each, calm", "a second", found["calm_messages_per_s"]),
            Figure(f"{count} members: a death is known to all", "s", found["killed_all_s"]),
            Figure(f"{count} members: living declared dead", "members", found["trouble"]["wrongly_dead"], goal=Goal(0)),
        ]
    return figures
