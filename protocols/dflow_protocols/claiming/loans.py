"""Loans: units that a node gave to an idle one, and those that it took.

A loan protects nothing: results are joined by content id, so a unit that two nodes run is work done twice and no more.
It only says who should run it. A lent unit waits for the thief's first claim for a short lease; from then on the
thief's claims, renewed while it is at work, stand for it. When they end, the unit is due at its home again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ..names import NodeId, TaskKey
from ..wire.steps import Stolen


@dataclass(frozen=True, slots=True)
class Lent:
    """A unit given away: to whom, whose it is if the thief fails, and until when that holds without a claim."""

    thief: NodeId
    home: NodeId
    until: float


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A unit taken: from whom, and whose it is if this node fails."""

    lender: NodeId
    home: NodeId


@dataclass
class Loans:
    """One run's, for its open steps. Units are single partitions and single leaves."""

    me: NodeId
    lent: dict[TaskKey, Lent] = field(default_factory=dict)
    borrowed: dict[TaskKey, Borrowed] = field(default_factory=dict)

    def lend(self, units: Iterable[TaskKey], thief: NodeId, until: float) -> tuple[Stolen, ...]:
        """Give units away; one that was itself borrowed goes on with its first home."""
        stolen = []
        for unit in units:
            source = self.borrowed.pop(unit, None)
            home = self.me if source is None else source.home
            self.lent[unit] = Lent(thief, home, until)
            stolen.append(Stolen(unit, home))
        return tuple(stolen)

    def still_lent(self, thief: NodeId, stolen: Iterable[Stolen]) -> tuple[Stolen, ...]:
        """Of what `thief` was given, what it has not claimed yet and may still claim."""
        return tuple(each for each in stolen if (loan := self.lent.get(each.unit)) and loan.thief == thief)

    def borrow(self, lender: NodeId, stolen: Iterable[Stolen]) -> None:
        for each in stolen:
            self.lent.pop(each.unit, None)
            self.borrowed[each.unit] = Borrowed(lender, each.home)

    def learn_claims(self, node: NodeId, claimed: Collection[TaskKey]) -> bool:
        """`node` claims these, so its claims stand for them now. True if that is new."""
        before = len(self.lent)
        for unit in [unit for unit, loan in self.lent.items() if loan.thief == node]:
            if any(each.holds(unit) for each in claimed):
                del self.lent[unit]
        return len(self.lent) < before

    def lapse(self, now: float, living: Collection[NodeId]) -> None:
        """What was lent and never claimed in time, or to somebody who died, is due here again."""
        self.lent = {unit: loan for unit, loan in self.lent.items() if loan.until > now and loan.thief in living}

    def owners(self, units: Iterable[TaskKey]) -> set[NodeId]:
        """Who else wants to hear how these units stand: those that they were borrowed from."""
        return {node for unit in units if (loan := self.borrowed.get(unit)) for node in (loan.lender, loan.home)}

    def held(self) -> list[TaskKey]:
        """Units to be claimed beside those that run: what was borrowed, and what was lent on and not claimed yet."""
        return [*self.borrowed, *(unit for unit, loan in self.lent.items() if loan.home != self.me)]

    def has_borrowed(self, unit: TaskKey) -> bool:
        return any(unit.holds(each) for each in self.borrowed)

    def concerned(self) -> list[NodeId]:
        """Who wants to hear of claims of these, beside the replicas."""
        homes = {loan.home for loan in self.lent.values()}
        return sorted((self.owners(self.borrowed) | homes) - {self.me})

    def keep_only(self, due: Collection[TaskKey]) -> None:
        """Of what was borrowed nothing matters any more but these units, or those that lie in them."""
        self.borrowed = {unit: loan for unit, loan in self.borrowed.items() if any(each.holds(unit) for each in due)}

    def give_up(self, unit: TaskKey) -> None:
        """It failed here: it is its home's again."""
        self.borrowed = {each: loan for each, loan in self.borrowed.items() if not unit.holds(each)}

    def give_back(self, but: Collection[TaskKey] = ()) -> list[NodeId]:
        """What was taken is its owners' again, `but` what lies in these units. Who is to hear so."""
        given = [unit for unit in self.borrowed if not any(each.holds(unit) for each in but)]
        owners = sorted(self.owners(given) - {self.me})
        for unit in given:
            del self.borrowed[unit]
        return owners

    def believed(self, unit: TaskKey, claimants: Iterable[NodeId]) -> list[NodeId]:
        """Those of `claimants` whose claim keeps this node from a unit: not itself, nor those that gave it away."""
        loan = self.borrowed.get(unit)
        given = {self.me} if loan is None else {self.me, loan.lender, loan.home}
        return [node for node in claimants if node not in given]

    def end_step(self, step: int) -> None:
        """What was given and taken of this step, and of those before, is over."""
        self.lent = {unit: loan for unit, loan in self.lent.items() if unit.step > step}
        self.borrowed = {unit: loan for unit, loan in self.borrowed.items() if unit.step > step}

    def clear(self) -> None:
        self.lent.clear()
        self.borrowed.clear()
