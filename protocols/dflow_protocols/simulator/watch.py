"""What must hold at each action of a node, seen through its own books: two copies before a word is given.

Which copies are enough is the node's to say, as far as it knows who lives. Where a rule gives in after a wait, it is
held to only while all machines are well, there is room for all, and nothing struck for so long that the wait is over.
"""

from __future__ import annotations

from typing import cast

from ..controllers.advance import UNCOMMITTED
from ..controllers.checkpoints import SAVERS
from ..events import Action, Advanced, Reply, Report, Send, Start
from ..names import MANIFEST, NodeId, RunId, SealId, TaskKey
from ..node import Node
from ..run_state.status import FINISHED
from ..runs.registry import SUBMIT_COPIES
from ..wire.steps import BucketPut, ClaimPut, Seal, SealAck, SealPut
from ..work import BlockWork, ChainWork
from .model.host import Host
from .world import World

QUIET_S = 6.0  # longer than a sealer waits for second holders, and than a save that failed waits
LONG_S = 3.0  # a member that came back has been here for so long: what was settled without it was told before
COPIES = 2  # of a settled seal, and of what a manifest names


class Watch:
    """One world's. Each check raises Violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._acked: dict[SealId, set[NodeId]] = {}  # who said that it keeps a seal
        self._settled: set[SealId] = set()
        self._proposed: set[SealId] = set()
        self._claimed: dict[tuple[NodeId, NodeId], set[TaskKey]] = {}  # from whom, to whom

    def __call__(self, host: Host, action: Action) -> None:
        match action:
            case Reply(ok=True, value={"run": run}):
                self._answered(host, run)
            case Advanced(is_copied=False):
                self._advanced(host, action)
            case Report(name="run.ended", fields={"run": run, "state": state, "version": version}) if state == FINISHED:
                self._finished(host, run, version)
            case Start():
                self._started(host, action)
            case Send(to, frame):
                for message in frame.messages:
                    self._told(host, to, message)

    def _told(self, host: Host, to: NodeId, message: object) -> None:
        match message:
            case SealPut(seal=seal, settled=True) if seal.id not in self._settled:
                self._settle(host, seal)
            case SealPut(seal=seal) if seal.kind == MANIFEST and seal.id not in self._proposed:
                self._propose(host, seal)
            case SealAck(seal=name):
                self._acked.setdefault(name, set()).add(host.id)
            case ClaimPut(units=units):
                self._claimed.setdefault((host.id, to), set()).update(units)
            case BucketPut(claims=claims):
                for claim in claims:
                    self._passed_on(host, claim.node, claim.unit)

    # What is given as a word ----------------------------------------------------------------------------------------

    def _answered(self, host: Host, run: RunId) -> None:
        copies = sum(f"runs/{run}" in each.disk.values for each in self._world.hosts)
        due = min(SUBMIT_COPIES, len(_living(host)))
        if copies < due:
            what = f"{host.name} answers a client, and {copies} of {due} disks have what it asked for"
            raise self._world.violation(what, "answer_kept")

    def _settle(self, host: Host, seal: Seal) -> None:
        self._settled.add(seal.id)
        kept = self._acked.get(seal.id, set()) | {host.id}
        if len(kept) < min(COPIES, 1 + len(_long_known(host))):
            what = f"{host.name} acts on seal {seal.id[:6]} of step {seal.step}, which nobody else keeps"
            raise self._world.violation(what, "seal_kept")

    def _propose(self, host: Host, seal: Seal) -> None:
        self._proposed.add(seal.id)
        if not self._is_quiet():
            return
        due = min(COPIES, len(_on_duty(host)))
        for ref in (ref for record in seal.entries for ref in record.shards):
            copies = sum(each.store.has(ref) for each in self._world.hosts)
            if copies < due:
                what = f"{host.name} seals {ref.id[:6]} of step {seal.step}, which {copies} of {due} stores have"
                raise self._world.violation(what, "copied_first")

    def _finished(self, host: Host, run: RunId, version: str) -> None:
        if not self._is_quiet() or _node(host).runs[run].status.files:
            return
        saved = sum(version in each.disk.saved for each in self._world.hosts)
        holders = sum(_holds(each, run, version) for each in self._world.live())
        if saved < min(SAVERS, holders):
            raise self._world.violation(f"{host.name} ends a run of which {saved} disks have the version", "end_saved")

    def _is_quiet(self) -> bool:
        world = self._world
        is_whole = not (world.network.cuts or world.network.severed or world.network.loss)
        is_over = not world.struck or world.now - world.disturbed_until > QUIET_S
        return is_whole and is_over and all(_is_well(host) for host in world.hosts)

    # What a node does beyond what it may ----------------------------------------------------------------------------

    def _advanced(self, host: Host, action: Advanced) -> None:
        ahead = action.head.step - _node(host).runs[action.run].state.committed_step
        if ahead > UNCOMMITTED:
            what = f"{host.name} makes version {action.head.step}, {ahead} steps beyond what is committed there"
            raise self._world.violation(what, "bounded_ahead")

    def _passed_on(self, host: Host, node: NodeId, unit: TaskKey) -> None:
        if node != host.id and unit not in self._claimed.get((node, host.id), ()):
            raise self._world.violation(f"{host.name} passes on that {unit} is claimed by hearsay", "claim_first_hand")

    def _started(self, host: Host, start: Start) -> None:
        if not isinstance(start.work, ChainWork | BlockWork):
            return
        state = _node(host).runs[start.run].state
        gone = state.ability.withdrawn_at(host.id, host.id)
        if start.task.stage not in gone or start.task in state.loans.borrowed:
            return
        others = [node for node in _on_duty(host) if node != host.id and not state.ability.withdrawn_at(node, host.id)]
        if others:
            what = f"{host.name} starts {start.task} and has withdrawn: {gone[start.task.stage]}"
            raise self._world.violation(what, "withdrawn_rests")


def _is_well(host: Host) -> bool:
    is_at_work = not (host.paused or host.comes_back or host.is_drained)
    return is_at_work and not host.health.handicaps and host.store.limit_bytes is None


def _holds(host: Host, run: RunId, version: str) -> bool:
    known = _node(host).runs.get(run)
    own = None if known is None else known.state.versions.own
    return own is not None and own.id == version


def _node(host: Host) -> Node:
    return cast(Node, host.machine)


def _living(host: Host) -> frozenset[NodeId]:
    """As the node itself sees it."""
    membership = _node(host).membership
    return frozenset(membership.alive()) - membership.reach.unreached.keys()


def _on_duty(host: Host) -> frozenset[NodeId]:
    return _living(host) - _node(host).membership.drained()


def _long_known(host: Host) -> set[NodeId]:
    """Others on duty that have lived for long, as the node itself sees it."""
    members = _node(host).membership.members
    now = max(member.heard for member in members.values())
    return {node for node in _on_duty(host) - {host.id} if now - members[node].up_since > LONG_S}
