"""Sealing at one node: what it does towards a step's seals, and for the copies that they need.

Which seal counts and when one is due are rules of the step (steps/sealing.py); here they are acted on.
"""

from __future__ import annotations

from ..events import Action
from ..names import MANIFEST, Partition, SealId, SealKind
from ..run_state.outbox import Outbox, is_few
from ..run_state.run_state import MeshView, RunState
from ..steps.batch import Batch, make_batch
from ..steps.blocks import kept_back
from ..steps.duties import slice_homes
from ..steps.patience import Wait
from ..steps.sealing import begin_to_settle, chosen, is_kept, propose_manifest, propose_update, sealed_chains
from ..steps.view import StepView
from ..wire.steps import Record, Seal
from .rosters import Rosters


class Sealer:
    """One run's at one node."""

    def __init__(self, state: RunState, rosters: Rosters, outbox: Outbox) -> None:
        self._state = state
        self._rosters = rosters
        self._outbox = outbox
        self._batch_known: Batch | None = None
        self._rounds_told: tuple[object, ...] = ()  # of which step and version how many were over

    def batch(self, view: StepView, manifest: Seal | None) -> Batch | None:
        """What the manifest gives training: derived once, however often it is asked for."""
        training, known = view.training, self._batch_known
        if manifest is None or training is None:
            return None
        if known is None or (known.manifest.id, known.training) != (manifest.id, training):
            known = self._batch_known = make_batch(manifest, training)
        return known

    def settle(
        self, view: StepView, mesh: MeshView, kind: SealKind, previous: str | None, out: list[Action]
    ) -> Seal | None:
        """The settled seal that counts, after doing what this node can do towards one."""
        step, versions, spec = view.step, self._state.versions, self._state.spec
        current = chosen(view, versions, kind, previous)
        if previous is None:
            return current
        pending = chosen(view, versions, kind, previous, settled=False)
        if pending is None or (current is not None and pending.generation <= current.generation):
            batch = self.batch(view, current if kind == MANIFEST else step.seals.get(SealId(previous)))
            pending = (
                propose_manifest(view, spec, current, batch)
                if kind == MANIFEST
                else propose_update(view, versions, spec, previous, current, batch)
            )
        if pending is None and current is None and kind == MANIFEST:
            self._tell_rounds(view, out)
        if pending is None or pending.id in step.settled:  # made once already: telling all again would never end
            return current
        if begin_to_settle(view, pending):
            self._outbox.put_seal(view, pending, out)
        if pending.id in step.acks and is_kept(view, pending):
            step.settled.add(pending.id)
            self._outbox.announce_seal(view, pending, self._rosters.after(view, pending, mesh), out)
            return chosen(view, versions, kind, previous)
        return current

    def _tell_rounds(self, view: StepView, out: list[Action]) -> None:
        """Rounds are over and a further one is due: only the replicas know, so the sealer tells the others what they
        gave, once, as long as it speaks to all anyhow. Where members are many they ask."""
        rounds = {chain: view.rounds(chain) for chain in sealed_chains(view, MANIFEST) if chain.rounds.most > 1}
        told = (view.step.number, view.trains.id, tuple(rounds.values()))
        if not rounds or told == self._rounds_told or not is_few(view) or view.succession[0] != self._state.me:
            return
        self._rounds_told = told
        over = [record for chain, count in rounds.items() for record in view.accepted(chain, count - 1)]
        self._outbox.tell_books(view, over, out)

    def tell_blocks(self, view: StepView, batch: Batch, out: list[Action]) -> None:
        """Tell of blocks that this node's slots made, once they are summed as far as they can be here."""
        now = kept_back(view, batch, self._state.is_leaving)
        view.step.let_go(now.let_go)
        for record in now.tell:
            view.step.add(record, own=True)
        if now.tell:
            owners = self._state.loans.owners(unit for record in now.tell for unit in record.task.singles)
            readers = view.trainers if is_few(view) else slice_homes(view, batch)
            self._outbox.put_records(view, now.tell, out, owners, readers)

    def back_up(self, view: StepView, out: list[Action]) -> None:
        """Be the second holder of records that have only one, where that is for this node. Of a partition that is known
        once, when of all that was asked for nothing is on its way any more, and said with the next word of the step, or
        at once when no partition is done any more, of all as a replica knows them, or here: at each word all replicas
        look at the step again, and nothing can be sealed before."""
        view.step.patience.follow_all(view.now, Wait.BACK_UP, view.progress.thin)
        self._copy(view, out)
        chains = sealed_chains(view, MANIFEST)  # evaluations hold up nothing that is copied
        stages = {stage for chain in chains for stage in chain.stages}
        is_done_here = not any(isinstance(unit.part, Partition) and unit.stage in stages for unit in view.running)
        if all(map(view.is_over, chains)) or (is_done_here and self._state.me not in view.replicas):
            self._outbox.tell_copied(view, out)

    def _copy(self, view: StepView, out: list[Action]) -> None:
        for part in tuple(view.progress.thin):
            late = int(view.step.patience.lasts(view.now, Wait.BACK_UP, part) / view.suspicion_s)
            records = view.step.by_part[part].values()
            if not late and any(view.holdings.is_coming(ref) for record in records for ref in record.shards):
                continue  # what is asked for is looked at again when it is here
            wanted = [record for record in records if self._backs_up(view, record, late)]
            here = [record for record in wanted if self._fetch(view, record, out)]
            rest = [ref for record in wanted if record not in here for ref in record.shards]
            if here and not any(view.holdings.is_coming(ref) for ref in rest):
                for record in here:
                    view.step.add(record, own=True)
                self._outbox.copied(view, here)

    def _backs_up(self, view: StepView, record: Record, late: int) -> bool:
        """Whether it is for this node to hold what a record names, too: for the first in line, and for as many more as
        there were times that they were waited for in vain."""
        me = self._state.me
        held = [set(view.holdings.live_holders(ref.id, view.living)) - {me} for ref in record.shards]
        is_enough = all(len(holders) >= view.copies for holders in held)
        if record.id in view.step.mine or is_enough or any(not holders for holders in held):
            return False
        return me in view.back_up_order(record.task, set.intersection(*held))[: late + 1]

    def _fetch(self, view: StepView, record: Record, out: list[Action]) -> bool:
        """Whether all is here that a record names; it is asked for."""
        number = view.step.number
        here = [view.holdings.want(view.now, ref, view.living, out, step=number) for ref in record.shards]
        return all(here)
