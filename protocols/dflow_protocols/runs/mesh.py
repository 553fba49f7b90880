"""The mesh as a node's runs see it, kept for as long as nothing changes of which it follows.

It is asked for at every event, and changes seldom: with the membership list, with what lanes and probes find out, when
a member has lived for a while, and with what the node says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from ..claiming.ability import Offers, offers_of
from ..membership.machine import Membership
from ..names import NodeId
from ..run_state.run_state import MeshView
from ..wire.gossip import Meta


class Mesh:
    """One node's."""

    def __init__(self, membership: Membership, meta: Meta, slots: int) -> None:
        """`meta`: what the node announced of itself; `slots`: how many works it runs at once."""
        self._membership = membership
        self._me, self._my_offers, self._my_slots = meta.node, offers_of(meta), slots
        self._basis: tuple[object, ...] = ()  # what `_living` and the tables of the view were derived from
        self._routes: Mapping[NodeId, NodeId] = {}
        self._living: frozenset[NodeId] = frozenset()
        self._says: tuple[object, ...] = ()  # what the node said of itself for the view
        self._view: MeshView | None = None
        self._stable_again_at = inf  # when the first of those that are not stable may be so

    def living(self) -> frozenset[NodeId]:
        """Those that shards can be fetched from, if only by way of others. The same object until it changes."""
        membership = self._membership
        unreached, routes = membership.reach.unreached, membership.routes
        basis = (membership.revision, tuple(unreached))
        if basis != self._basis or routes is not self._routes:
            self._basis, self._routes, self._view = basis, routes, None
            living = frozenset(membership.alive()) - (unreached.keys() - routes.keys())
            self._living = self._living if living == self._living else living
        return self._living

    def view(self, now: float, *, is_gathered: bool, is_shared: bool, unable: str) -> MeshView:
        """What MeshView says, which has the same fields. The same object until it changes."""
        living = self.living()
        is_rejoining = self._membership.is_rejoining
        is_cut_off = self._is_cut_off()
        says, known = (is_gathered, is_shared, unable, is_rejoining, is_cut_off), self._view
        if known is None or says != self._says or now >= self._stable_again_at:
            self._says = says
            known = self._view = MeshView(
                living,
                self._stable(now),
                self._membership.suspicion_s(),
                self._membership.incarnation,
                is_gathered=is_gathered,
                offers=self._offers() if known is None else known.offers,
                is_shared=is_shared,
                slots=self._slots() if known is None else known.slots,
                unable=unable,
                drained=self._membership.drained() & living,
                routes=self._membership.routes,
                is_rejoining=is_rejoining,
                is_cut_off=is_cut_off,
            )
        return known

    def _stable(self, now: float) -> frozenset[NodeId]:
        """The living that have been so for a while, this node among them: a step may be dealt to them. Not to one whose
        link comes and goes, for which each seal and fetch would wait; unless that is so of most."""
        timing, members = self._membership.timing, self._membership.members
        others = [node for node in self._living if node != self._me and members[node].meta is not None]
        here_at = {node: members[node].up_since + timing.stable_s for node in others}
        suspicion_s = self._membership.suspicion_s()
        steady_at = {node: max(at, members[node].steady_at(suspicion_s)) for node, at in here_at.items()}
        self._stable_again_at = min((at for at in (*here_at.values(), *steady_at.values()) if at > now), default=inf)
        me = self._living & {self._me}
        here = me | {node for node, at in here_at.items() if at <= now}
        steady = me | {node for node, at in steady_at.items() if at <= now}
        return steady if 2 * len(steady) > len(here) else here

    def _is_cut_off(self) -> bool:
        """Whether no other member can dial this one, by the word of all."""
        complaints = self._membership.reach.complaints
        if not complaints:
            return False  # nearly always
        others = self._living - {self._me}
        return bool(others) and others <= {source for source, _ in complaints}

    def _metas(self) -> Mapping[NodeId, Meta]:
        members = self._membership.members
        return {node: meta for node in sorted(self._living) if (meta := members[node].meta) is not None}

    def _offers(self) -> Offers:
        return {**{node: offers_of(meta) for node, meta in self._metas().items()}, self._me: self._my_offers}

    def _slots(self) -> Mapping[NodeId, int]:
        return {**{node: meta.slots for node, meta in self._metas().items()}, self._me: self._my_slots}
