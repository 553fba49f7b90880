"""What a node keeps for others: the step that a late one makes up, and what only it has when it goes."""

from __future__ import annotations

from math import inf

from ...events import Advanced, Drop, Fetched, FetchFailed, Leaving, Send
from ...names import NodeId, Once, RunId, SealId, ShardId, VersionId
from ...run_state.run_state import RunState
from ...runs.anti_entropy import REFRESH
from ...versions.versions import preference
from ...wire.steps import ClaimPut, Head, Keep
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, living_at, node_of, on_duty_at, state_of

COPIES = 2  # of a version that is committed
GIVES_BACK_S = 0.1  # in which a node that leaves takes its claims back
ASKS_S = 0.4  # more than `REFRESH`, in which one that is drained asks somebody to keep what only it has
HANDS_OVER_S = 0.9  # in which a node that leaves hands over what only it has, where nothing is in the way


class Keeping(Checker):
    """`late_served`, `leave_hands_over`, `leave_gives_back`, `commit_true`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._reached: dict[tuple[NodeId, RunId], int] = {}  # the furthest version that a node ever held
        self._whole: set[tuple[NodeId, int, VersionId]] = set()  # versions that nodes came to hold, by their life
        self._never_came: set[tuple[NodeId, ShardId]] = set()  # whose room may be given back: nothing lies in it
        self._leaves: dict[NodeId, float] = {}  # since when
        self._before: dict[NodeId, float] = {}  # for how long all was steady when those who leave were last seen here
        self._owes: dict[NodeId, float] = {}  # nodes that leave and have not taken their claims back yet
        self._alone: dict[tuple[NodeId, RunId], float] = {}  # by who is to ask others to keep something: since when
        self._committed: dict[tuple[NodeId, int, RunId], int] = {}  # by node and life
        self._let_go: dict[
            tuple[NodeId, int, RunId], int
        ] = {}  # a commit after which nobody was late, by node and life
        self._died_at = -inf  # when the last node did

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced, Drop: self._dropped, Send: self._sent}

    @property
    def hears(self) -> Seen:
        return {Leaving: self._leaving, Fetched: self._fetched, FetchFailed: self._not_fetched}

    def _advanced(self, host: Host, action: Advanced) -> None:
        self._whole.add((host.place, host.lives, action.head.version))
        key = host.id, action.run
        self._reached[key] = max(self._reached.get(key, -1), action.head.step)

    def _dropped(self, host: Host, action: Drop) -> None:
        state = state_of(host, action.run)
        if state is None or not state.is_active or state.is_leaving or host.is_drained:
            return
        late = [node for node in on_duty_at(host) if self._reached.get((node, action.run), -1) < state.committed_step]
        key = host.place, host.lives, action.run
        if not late:
            self._let_go[key] = state.committed_step
        if self._let_go.get(key) == state.committed_step:
            return  # whatever a call still read then goes after it, though somebody came on duty meanwhile
        gone = self._for_the_late(host, state).intersection(action.shards)
        gone = {each for each in gone if each not in host.store.sizes and (host.place, each) not in self._never_came}
        if gone:
            what = f"{host.name} frees {len(gone)} shards of step {state.committed_step - 1}, and {len(late)} are late"
            raise self.broken(what, "late_served")

    def _for_the_late(self, host: Host, state: RunState) -> set[ShardId]:
        """The newest committed version's parent, where the node had it whole, and the slices by which a late one makes
        the one from the other. One of a branch that lost may still be held, to be saved: nobody makes that any more."""
        headers, own = state.versions.headers, state.versions.own
        held = [each for each in state.versions.held.values() if each.step == state.committed_step]
        header = next((each for each in held if own is not None and state.versions.descends(own.id, each)), None)
        parent = headers.get(header.parent) if header is not None and header.parent is not None else None
        if header is None or parent is None or header.step - 1 not in state.steps:
            return set()
        if (host.place, host.lives, parent.id) not in self._whole:
            return set()
        seal = state.steps[header.step - 1].seals.get(SealId(header.seal))
        slices = {ref.id for record in seal.entries for ref in record.shards} if seal is not None else set()
        return slices | {ref.id for _, ref in parent.state}

    def _not_fetched(self, host: Host, event: FetchFailed) -> None:
        if not host.store.chunks.get(event.shard):
            self._never_came.add((host.place, event.shard))

    def _fetched(self, host: Host, event: Fetched) -> None:
        self._never_came.discard((host.place, event.shard))

    def _leaving(self, host: Host, event: Leaving) -> None:
        self._leaves.setdefault(host.place, self.world.now)
        runs = [run for run in node_of(host).runs.values() if run.is_active and run.state.position]
        if any(run.state.calls for run in runs) and on_duty_at(host) - {host.id}:
            self._owes[host.place] = self.world.now
        for run in runs:
            if self._holds_alone(host, run.state):
                self._alone[host.place, run.id] = self.world.now

    def _sent(self, host: Host, send: Send) -> None:
        """A checkpoint that is being written is finished: of that it goes on to tell."""
        for message in send.message.messages:
            if isinstance(message, Keep):
                self._alone.pop((host.place, message.run), None)
            if isinstance(message, ClaimPut) and all(unit.part == Once("save") for unit in message.units):
                self._owes.pop(host.place, None)

    def inspect(self) -> None:
        if not self.world.runs and not self._leaves:
            return
        for host in self.world.hosts:
            if host.process is None or node_of(host).has_left:
                self._owes.pop(host.place, None)
                continue
            if host.place in self._leaves:
                self._before[host.place] = self.steady.seconds
            if host.place in self._owes and host.answers and self.world.now - self._owes[host.place] > GIVES_BACK_S:
                raise self.broken(f"{host.name} leaves and still claims what it ran", "leave_gives_back")
            for run in node_of(host).runs.values():
                if run.is_active:
                    self._check_commit(host, run.state)
                self._check_asks(host, run.id)

    def _check_asks(self, host: Host, run: RunId) -> None:
        """Who leaves asks at once, as far as it knew then what only it has; who is drained does again and again."""
        key, state, leaves = (host.place, run), state_of(host, run), host.place in self._leaves
        ends = leaves or host.is_drained
        if state is None or not ends or not _can_speak(host) or not self._holds_alone(host, state):
            self._alone.pop(key, None)
        elif key in self._alone or not leaves:
            waits_s = GIVES_BACK_S if leaves else ASKS_S + REFRESH * node_of(host).membership.suspicion_s()
            if self.world.now - self._alone.setdefault(key, self.world.now) > waits_s:
                raise self.broken(f"{host.name} is to end and asks nobody to keep what only it has", "leave_hands_over")

    def _holds_alone(self, host: Host, state: RunState) -> bool:
        """Whether a node has what would be lost with it, and knows of nobody else who does."""
        living, own = living_at(host), state.versions.own
        if own is None or not state.is_active:
            return False
        lost = self._lost_with(host, state)
        if state.versions.who_got_to(own) & living:  # who claims a version has all of it, or of what came of it
            lost -= {ref.id for _, ref in own.state}
        return any(state.holdings.live_holders(each, living) == (host.id,) for each in lost)

    def _check_commit(self, host: Host, state: RunState) -> None:
        """A node takes a version for committed: two nodes got as far, at some time, or all trainers that there are."""
        key, now = (host.place, host.lives, state.id), state.committed_step
        before, self._committed[key] = self._committed.get(key, 0), now
        if now <= before:
            return
        reached = {node for (node, run), step in self._reached.items() if run == state.id and step >= now}
        saved = any(v in host.disk.saved for v, header in state.versions.held.items() if header.step == now)
        step = state.steps.get(now - 1)
        on_duty = on_duty_at(host)
        trainers = on_duty & set(step.roster.trainers if step and step.roster else on_duty)
        if len(reached) < min(COPIES, len(trainers)) and not saved and self.steady.seconds > 0.0:
            what = f"{host.name} takes version {now} for committed, which {len(reached)} nodes made"
            raise self.broken(what, "commit_true")

    def dies(self, host: Host) -> None:
        asked, steady = self._leaves.pop(host.place, None), self._before.pop(host.place, -inf)
        is_power_cut, self._died_at = self.world.now == self._died_at, self.world.now  # who was to hold it died as well
        if is_power_cut or asked is None or steady < (0.0 if node_of(host).has_left else HANDS_OVER_S):
            return
        for run in node_of(host).runs.values():
            lost = self._lost_with(host, run.state) if run.is_active else set()
            if lost:
                what = f"{host.name} left after {self.world.now - asked:.2f} s and took {len(lost)} shards with it"
                raise self.broken(what, "leave_hands_over")

    def _lost_with(self, host: Host, state: RunState) -> set[ShardId]:
        """What the open step needs and only this node has."""
        others = [other for other in self.world.live() if other is not host and other.id in on_duty_at(host)]
        own = state.versions.own
        if own is None or not others or any(_is_further(other, state.id, own.head) for other in others):
            return set()
        refs = [ref for record in state.step(own.step).all_records() for ref in record.shards]
        refs += [ref for _, ref in own.state]
        mine = {ref for ref in refs if host.store.has(ref)}
        return {ref.id for ref in mine if not any(other.store.has(ref) for other in others)}


def _can_speak(host: Host) -> bool:
    """Whether what a node says in a turn goes out at once; one that slept asks others first what happened meanwhile."""
    membership = node_of(host).membership
    is_mute = membership.is_rejoining or membership.silenced_by is not None
    return host.answers and not (host.is_late or host.disk.is_full or is_mute)


def _is_further(other: Host, run: RunId, head: Head) -> bool:
    known = state_of(other, run)
    own = None if known is None else known.versions.own
    return known is not None and (not known.is_active or (own is not None and preference(own.head) < preference(head)))
