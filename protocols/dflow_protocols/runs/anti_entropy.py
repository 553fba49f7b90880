"""Anti-entropy: what is said again while a step waits, what is asked for, and what is answered from the state.

Any message may be lost, doubled or late. Who waits compares what it knows with the books of the step's replicas, and
says again what others may not have heard: that heals any loss, and the outbox' puts only spare the wait.
"""

from __future__ import annotations

from collections.abc import Collection

from ..controllers.checkpoints import Checkpoints
from ..controllers.leaving import Leaving
from ..events import Action, Send
from ..names import NodeId, RecordId, SealId, ShardId
from ..run_state.long_seals import RECORDS_A_MESSAGE, parted
from ..run_state.outbox import Outbox, is_few
from ..run_state.run_state import MeshView, RunState
from ..steps.patience import Wait
from ..steps.step import Step, digest_of
from ..wire.books import Page, TaskClaim
from ..wire.steps import (
    BucketGet,
    BucketPut,
    FailurePut,
    HeaderPut,
    Held,
    Kept,
    Record,
    RecordPut,
    RecordsAsk,
    RecordsHeld,
    RosterPut,
    SealPut,
)
from ..work import Product
from .vouched import Vouched

REFRESH = 0.5  # answer times between two looks at a step that waits: twice within the shortest other delay
IDS_A_MESSAGE = 8_192


class AntiEntropy:
    """One run's at one node."""

    def __init__(self, state: RunState, outbox: Outbox, checkpoints: Checkpoints, leaving: Leaving) -> None:
        self._state = state
        self._outbox = outbox
        self._checkpoints = checkpoints
        self._leaving = leaving
        self._polls = 0
        self._vouched: dict[int, Vouched] = {}  # by step

    # Asking ---------------------------------------------------------------------------------------------------------

    def refresh(self, now: float, mesh: MeshView, at_once: bool, out: list[Action]) -> bool:
        """Say again what others may not have heard, and ask for what this node may not have heard. False where it is
        not yet time for that."""
        state, header, patience_s = self._state, self._state.position, REFRESH * mesh.answer_s
        if state.is_active and header is not None:  # before whoever made it could be found to be dead
            for each in state.views(now, mesh, header):
                self._outbox.tell_copied(each, out)
        if not state.is_active or (now - state.refreshed_at < patience_s and not at_once):
            return False
        waited = state.advanced_at <= state.refreshed_at
        state.refreshed(now)
        if header is None:
            self._checkpoints.tell(mesh.living, out)
            return True
        self.keep_promises(now, mesh, out)
        if state.is_leaving or state.me not in mesh.on_duty:
            self._leaving.hand_over(mesh, out)
        step = state.step(header.step)
        if step.roster is None:
            self._poll(now, sorted(mesh.living), step, is_of_records=True, is_of_claims=True, out=out)
            return True
        view, *ahead = state.views(now, mesh, header)
        for each in (view, *ahead):
            if state.taken_on(each):
                self._outbox.put_claims(each, out)
        if waited or at_once:
            if self._checkpoints.are_told:
                self._checkpoints.tell(mesh.living, out)
            failed = state.failures.of_step(state.me, step.number)
            if failed:
                put = FailurePut(state.id, state.status.attempt, failed[:RECORDS_A_MESSAGE])
                self._outbox.tell_all(mesh, put, out)
            if step.mine:
                digest = digest_of(self._vouched_in(step).by(state.me))
                self._outbox.tell(view.replicas, RecordsHeld(state.id, step.number, digest, ()), out)
            for seal_id in step.acks:
                if seal_id not in step.settled:
                    self._outbox.put_seal(view, step.seals[seal_id], out)
            others = [node for node in view.replicas if node != state.me] or sorted(mesh.living)
            is_in_want = view.is_idle and (is_few(mesh) or view.step.patience.longest(now, Wait.HOME) >= patience_s)
            is_of_records = is_in_want or state.me in view.replicas
            self._poll(now, others, step, is_of_records, is_of_records or is_few(mesh), out)
        return True

    def _poll(
        self, now: float, nodes: list[NodeId], step: Step, is_of_records: bool, is_of_claims: bool, out: list[Action]
    ) -> None:
        """Ask one after the other. `is_of_records`: who has work of its own, and keeps no books for others, needs no
        records before it is done. Where members are many nor does it need to know who else is at work, and who is done
        asks for both only when it waits for others: mostly all are done at once, and the seal tells the rest."""
        others = [node for node in nodes if node != self._state.me]
        if not others:
            return
        self._polls += 1
        node = others[self._polls % len(others)]
        records, claims = "", step.claims_digest(now) if is_of_claims else ""
        if is_of_records:
            step.polled(now)
            records = step.records_digest()
        knows = tuple(sorted(step.settled)), step.read.get(node) if is_of_records else None
        asked = BucketGet(self._state.id, step.number, step.settled_digest(), claims, records, *knows)
        out.append(Send(node, asked))

    def compare(self, source: NodeId, held: RecordsHeld, out: list[Action]) -> None:
        """What a member says to have made: ask for what is not known of that."""
        step, holdings = self._state.step(held.step), self._state.holdings
        if held.records and digest_of(held.records) == held.digest:
            step.forget_own(source)  # these are all: others that it told of before it has no more
        for record in step.learn_own(source, held.records):
            holdings.credit(source, [ref.id for ref in record.shards])
        if not held.records and digest_of(self._vouched_in(step).by(source)) != held.digest:
            out.append(Send(source, RecordsAsk(self._state.id, held.step, ())))
        lacking = tuple(name for name in held.records if name not in step.by_id)
        if lacking:
            out.append(Send(source, RecordsAsk(self._state.id, held.step, lacking)))

    def keep_promises(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Fetch what leaving members asked this node to keep, and say so once it is here."""
        kept: dict[NodeId, list[ShardId]] = {}
        for ref, source in sorted(self._state.keep_for):
            if self._state.holdings.want(now, ref, mesh.living, out, others=[source], product=Product.STATE):
                kept.setdefault(source, []).append(ref.id)
            elif source in mesh.living:
                continue
            self._state.kept(ref, source)
        for source, shards in kept.items():
            out.append(Send(source, Kept(self._state.id, tuple(shards))))

    def _vouched_in(self, step: Step) -> Vouched:
        """For which records of a step members vouch."""
        known = self._vouched.get(step.number)
        if known is None or known.step is not step:
            self._vouched = {number: each for number, each in self._vouched.items() if number in self._state.steps}
            known = self._vouched[step.number] = Vouched(step, self._state.holdings)
        return known

    # Answering ------------------------------------------------------------------------------------------------------

    def _own(self, step: Step) -> dict[RecordId, Record]:
        """The records that this node vouches for: it made them, and their outputs lie here."""
        vouched = self._vouched_in(step).by(self._state.me)
        return {name: record for name, record in step.mine.items() if name in vouched}

    def answer_records(self, source: NodeId, step: Step, asked: tuple[RecordId, ...], out: list[Action]) -> None:
        """The ids of the own records, or those that were asked for."""
        own = self._own(step)
        if not asked:
            ids, digest = tuple(own), digest_of(own)
            for at in range(0, len(ids), IDS_A_MESSAGE):
                some = ids[at : at + IDS_A_MESSAGE]
                out.append(Send(source, RecordsHeld(self._state.id, step.number, digest, some)))
        wanted = [own[name] for name in dict.fromkeys(asked) if name in own]
        for at in range(0, len(wanted), RECORDS_A_MESSAGE):
            out.append(Send(source, RecordPut(self._state.id, tuple(wanted[at : at + RECORDS_A_MESSAGE]))))

    def answer_books(self, now: float, mesh: MeshView, source: NodeId, known: BucketGet, out: list[Action]) -> None:
        """What this node's books say of a step that is not known, seals first."""
        state, number = self._state, known.step
        step = state.steps.get(number)
        if step is None:
            return
        if known.settled not in ("", step.settled_digest()):
            self._tell_settled(mesh, source, step, known.seals, out)
        claims = known.claims not in ("", step.claims_digest(now))
        records = known.records not in ("", step.records_digest())
        if claims or records:
            self._tell_books(now, mesh, source, step, known, claims, records, out)

    def _tell_settled(
        self, mesh: MeshView, source: NodeId, step: Step, but: Collection[SealId], out: list[Action]
    ) -> None:
        state, number = self._state, step.number
        rostered = state.pipeline.rostered_with(number)
        following = None if rostered is None else state.steps.get(rostered)
        for seal_id, seal in sorted(step.seals.items()):
            if seal_id in step.settled and seal_id not in but:
                roster = following.roster if following is not None and seal.kind == "update" else None
                holdings = self._outbox.holdings(mesh.living, seal)
                records, last = parted(SealPut(state.id, seal, True, holdings, roster))
                out += [Send(source, each) for each in (*records, last)]
        if step.roster is not None:
            out.append(Send(source, RosterPut(state.id, step.roster)))

    def _tell_books(
        self,
        now: float,
        mesh: MeshView,
        source: NodeId,
        step: Step,
        known: BucketGet,
        claims: bool,
        records: bool,
        out: list[Action],
    ) -> None:
        """Who works on what, and the records that `source` has not read in these books yet."""
        books, read = f"{mesh.incarnation}/{self._state.status.attempt}/{step.books}", known.read
        place = read.end if read is not None and read.books == books else 0
        fresh = step.came_from(place) if records else []
        told = tuple(TaskClaim(unit, node) for unit, node in step.first_hand_claims(now)) if claims else ()
        if claims and not fresh:
            out.append(Send(source, BucketPut(self._state.id, step.number, (), told)))
        for at in range(0, len(fresh), RECORDS_A_MESSAGE):
            some = fresh[at : at + RECORDS_A_MESSAGE]
            page = Page(books, place, step.came[some[-1].id] + 1)
            held = tuple(Held(record, self._outbox.holders_of(mesh.living, record)) for record in some)
            out.append(Send(source, BucketPut(self._state.id, step.number, held, told if at == 0 else (), page)))
            place = page.end

    def answer_header(self, source: NodeId, version: str, out: list[Action]) -> None:
        """The header of a version, what led to it, and the roster of the step that begins there."""
        state = self._state
        for header in state.versions.headers.values():
            if header.id == version:
                made_in = state.steps.get(header.step - 1)
                seal = made_in.seals.get(SealId(header.seal)) if made_in is not None else None
                step = state.steps.get(header.step)
                before = state.versions.lineage.before(header.head)
                began = state.began(header)
                begun = began if began is not header else None
                roster = step.roster if step else None
                out.append(Send(source, HeaderPut(state.id, header, before, seal, roster, begun)))
                ahead = [state.steps.get(each) for each in state.pipeline.ahead_of(header.step)]
                rosters = [each.roster for each in ahead if each is not None and each.roster is not None]
                out += [Send(source, RosterPut(state.id, each)) for each in rosters]
