"""A word is given once a second node has what it is about: answers, seals, ends.

Which copies are enough is the node's to say, as far as it knows who lives.
"""

from __future__ import annotations

from ...controllers.checkpoints import SAVERS
from ...events import Reply, Report, Send
from ...names import MANIFEST, NodeId, RunId, SealId
from ...run_state.status import FINISHED, is_above, load
from ...runs.registry import SUBMIT_COPIES
from ...steps.patience import Wait
from ...wire.steps import HeaderPut, RunAck, Seal, SealAck, SealPut
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, living_at, node_of, on_duty_at, state_of

LONG_S = 3.0  # a member that came back has been here for so long: what was settled without it was told before
COPIES = 2  # of a settled seal, and of what a manifest names


class Word(Checker):
    """`answer_kept`, `disk_vouched`, `seal_kept`, `copied_first`, `end_saved`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._acked: dict[SealId, set[NodeId]] = {}  # who said that it keeps a seal
        self._settled: set[SealId] = set()
        self._proposed: set[SealId] = set()

    @property
    def sees(self) -> Seen:
        return {Reply: self._replied, "run.ended": self._ended, Send: self._sent}

    def _replied(self, host: Host, reply: Reply) -> None:
        run = reply.value.get("run")
        if not reply.ok or run is None:
            return
        copies = sum(f"runs/{run}" in each.disk.values for each in self.world.hosts)
        due = min(SUBMIT_COPIES, len(living_at(host)))
        if copies < due:
            what = f"{host.name} answers a client, and {copies} of {due} disks have what it asked for"
            raise self.broken(what, "answer_kept")

    def _sent(self, host: Host, send: Send) -> None:
        for message in send.message.messages:
            match message:
                case SealPut(run=run, seal=seal, settled=True) if seal.id not in self._settled:
                    self._settle(host, run, seal)
                case SealPut(run=run, seal=seal) if seal.kind == MANIFEST and seal.id not in self._proposed:
                    self._propose(host, run, seal)
                case HeaderPut(seal=Seal(id=name)):  # whoever made that version acted on it, and may have been alone
                    self._settled.add(name)
                case SealAck(seal=name):
                    self._acked.setdefault(name, set()).add(host.id)
                case RunAck():
                    self._vouch(host, message)

    def _vouch(self, host: Host, ack: RunAck) -> None:
        kept = host.disk.values.get(f"runs/{ack.run}")
        status = None if kept is None else load(kept)
        if status is None or is_above(ack, status):
            lies = "nothing of it" if status is None else f"that it is {status.state}"
            what = f"{host.name} vouches that it keeps a run as {ack.state}, and on its disk lies {lies}"
            raise self.broken(what, "disk_vouched")

    def _settle(self, host: Host, run: RunId, seal: Seal) -> None:
        self._settled.add(seal.id)
        kept = self._acked.get(seal.id, set()) | {host.id}
        if len(kept) < min(COPIES, 1 + len(_long_known(host, run, seal))):
            what = f"{host.name} acts on seal {seal.id[:6]} of step {seal.step}, which nobody else keeps"
            raise self.broken(what, "seal_kept")

    def _propose(self, host: Host, run: RunId, seal: Seal) -> None:
        self._proposed.add(seal.id)
        if not self.is_quiet() or self._is_over(run, seal.step):
            return
        due = min(COPIES, len(on_duty_at(host)))
        for ref in (ref for record in seal.entries for ref in record.shards):
            copies = sum(each.store.has(ref) for each in self.world.hosts)
            if copies < due:
                what = f"{host.name} seals {ref.id[:6]} of step {seal.step}, which {copies} of {due} stores have"
                raise self.broken(what, "copied_first")

    def _is_over(self, run: RunId, step: int) -> bool:
        """Whether somebody committed what came of the step, and may have let its inputs go: who is late and seals it
        once more does not know yet."""
        states = (state_of(each, run) for each in self.world.live())
        return any(state is not None and state.committed_step > step for state in states)

    def _ended(self, host: Host, report: Report) -> None:
        told = report.fields
        if told["state"] != FINISHED or "version" not in told or not self.is_quiet():
            return
        run, version = told["run"], told["version"]
        if node_of(host).runs[run].status.files:
            return
        saved = sum(version in each.disk.saved for each in self.world.hosts)
        holders = sum(_holds(each, run, version) for each in self.world.live())
        if saved < min(SAVERS, holders):
            raise self.broken(f"{host.name} ends a run of which {saved} disks have the version", "end_saved")


def _holds(host: Host, run: RunId, version: str) -> bool:
    state = state_of(host, run)
    own = None if state is None else state.versions.own
    return own is not None and own.id == version


def _long_known(host: Host, run: RunId, seal: Seal) -> set[NodeId]:
    """Others on duty that have lived for long, and since before the seal was put, as the node itself sees it."""
    members, state = node_of(host).membership.members, state_of(host, run)
    long_ago = max(member.heard for member in members.values()) - LONG_S
    put_at = long_ago if state is None else state.step(seal.step).patience.since.get((Wait.ACKS, seal.id), long_ago)
    return {node for node in on_duty_at(host) - {host.id} if members[node].up_since < min(long_ago, put_at)}
