"""Which versions there are: what is committed stays, nobody goes back, and of several branches one is left."""

from __future__ import annotations

from itertools import combinations

from ...events import Advanced, Drop
from ...names import NodeId, RunId, VersionId
from ...run_state.run_state import RunState
from ...versions.versions import preference
from ...wire.steps import Head, Header
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, state_of

ONE_BRANCH_S = 4.0  # in which whoever holds a lost version copies the one that won


class Heads(Checker):
    """`committed_kept`, `never_back`, `one_branch`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._whole: set[tuple[NodeId, int, VersionId]] = set()  # versions that nodes came to hold, by place and life
        self._held: dict[tuple[NodeId, int, RunId, int], Head] = {}  # the own head, by place, life, run and attempt
        self._apart: dict[tuple[RunId, VersionId, VersionId], float] = {}  # since when, heads of two branches

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced, Drop: self._dropped}

    def _advanced(self, host: Host, action: Advanced) -> None:
        self._whole.add((host.place, host.lives, action.head.version))

    def _dropped(self, host: Host, action: Drop) -> None:
        state = state_of(host, action.run)
        if state is None or not _keeps(host, state):
            return
        held = self._committed(host, state)
        gone = [] if held is None else [ref for _, ref in held.state if ref.id in action.shards]
        gone = [ref for ref in gone if ref.id not in host.store.sizes]
        if held is not None and gone:
            what = f"{host.name} drops {len(gone)} shards of version {held.step}, which is the newest committed one"
            raise self.broken(what, "committed_kept")

    def _committed(self, host: Host, state: RunState) -> Header | None:
        """The newest committed version, if the node ever had it whole in this life."""
        versions = state.versions
        whole = [
            header
            for header in versions.headers.values()
            if header.step == state.committed_step and (host.place, host.lives, header.id) in self._whole
        ]
        return next((each for each in whole if versions.own and versions.descends(versions.own.id, each)), None)

    def inspect(self) -> None:
        for run in self.world.runs:
            heads: dict[VersionId, tuple[Header, RunState]] = {}
            for host in self.world.live():
                state = state_of(host, run)
                own = None if state is None else state.versions.own
                if state is None or not state.is_active:
                    continue
                self._check_back(host, state, own)
                if own is not None and host.answers and not host.is_drained:
                    heads[own.id] = own, state
            self._check_branches(run, heads)

    def _check_back(self, host: Host, state: RunState, own: Header | None) -> None:
        """The best version with a living holder falls only with its holders, if none of them leaves it for a worse."""
        key = host.place, host.lives, state.id, state.status.attempt
        if not _keeps(host, state):
            self._held.pop(key, None)
            return
        before = self._held.get(key)
        if before is not None and (own is None or preference(own.head) > preference(before)):
            now = "none" if own is None else f"version {own.step}"
            raise self.broken(f"{host.name} held version {before.step}, and holds {now}", "never_back")
        if own is not None:
            self._held[key] = own.head

    def _check_branches(self, run: RunId, heads: dict[VersionId, tuple[Header, RunState]]) -> None:
        apart = set()
        if self.steady.seconds > 0.0 and "narrow" not in self.world.struck:  # chunks that left then still crawl
            for one, other in combinations(sorted(heads), 2):
                (first, state), (second, _) = sorted((heads[one], heads[other]), key=lambda each: -each[0].step)
                if state.versions.descends(first.id, second) is False:
                    apart.add((run, one, other))
        for key in [key for key in self._apart if key[0] == run and key not in apart]:
            del self._apart[key]
        for key in apart:
            if self.world.now - self._apart.setdefault(key, self.world.now) > ONE_BRANCH_S:
                raise self.broken(f"two branches are there for {ONE_BRANCH_S:g} s", "one_branch")


def _keeps(host: Host, state: RunState) -> bool:
    """Whether a node is to keep what it has of a run."""
    return state.is_active and not (state.is_leaving or host.is_drained)
