"""Heartbeats by difference: each is told until it is known to have arrived, whatever frames do on their way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dflow_protocols.names import NodeId, RunId
from dflow_protocols.run_state.heartbeats import Heartbeats
from dflow_protocols.wire.heartbeat import Delta, Heartbeat, Mark
from tests.unit.protocols.books import who

A, B = who(1), who(2)
RUNS = [RunId(digit * 32) for digit in "abc"]


def stands(run: RunId, backlog: int = 0) -> Heartbeat:
    return Heartbeat(run, None, None, None, backlog)


def exchange(a: Heartbeats, b: Heartbeats) -> Delta:
    """A frame of A arrives at B, all of it is taken, and B's answer arrives at A. Gives what A's frame carried."""
    told = a.delta(B)
    b.take(A, told)
    b.taken(A, told)
    a.take(B, b.delta(A))
    return told


def test_what_a_member_acknowledged_is_not_told_again() -> None:
    """Most frames say nothing new, and where a node stands was half of their bytes."""
    a, b = Heartbeats(), Heartbeats()
    a.publish(1, [stands(RUNS[0]), stands(RUNS[1])])
    assert len(exchange(a, b).heartbeats) == 2
    assert exchange(a, b).heartbeats == ()
    a.publish(1, [stands(RUNS[0]), stands(RUNS[1], 3)])
    assert exchange(a, b).heartbeats == (stands(RUNS[1], 3),)


def test_what_was_not_taken_whole_comes_again() -> None:
    """Of a run that is not known here yet nothing is kept: its status is asked for, and then all of it is wanted."""
    a, b = Heartbeats(), Heartbeats()
    a.publish(1, [stands(RUNS[0])])
    b.take(A, a.delta(B))
    a.take(B, b.delta(A))
    assert exchange(a, b).heartbeats == (stands(RUNS[0]),)


def test_all_say_again_what_was_forgotten_here() -> None:
    """What was known of a member that died, by its own word or that of others, counts no more."""
    a, b = Heartbeats(), Heartbeats()
    a.publish(1, [stands(RUNS[0])])
    exchange(a, b)
    b.forget(who(3))
    a.take(B, b.delta(A))
    assert exchange(a, b).heartbeats == (stands(RUNS[0]),)


def test_a_word_of_an_earlier_life_is_ignored() -> None:
    """What that life held in memory is gone; an old frame may arrive late, and tell of many changes."""
    b = Heartbeats()
    late = Delta(Mark(3, 90), 0, None, (stands(RUNS[0], 5),))
    new = Delta(Mark(4, 1), 0, None, (stands(RUNS[0]),))
    assert b.take(A, new) == new.heartbeats
    b.taken(A, new)
    assert b.take(A, late) == ()
    b.taken(A, late)
    assert b.delta(A).acknowledged == Mark(4, 1)


def test_an_acknowledgement_of_an_earlier_life_is_none() -> None:
    """Who is started again begins to count anew: what the member knows is of what is gone."""
    a = Heartbeats()
    a.publish(2, [stands(RUNS[0])])
    a.take(B, Delta(Mark(1, 0), 0, Mark(1, 1), ()))
    assert a.delta(B).heartbeats == (stands(RUNS[0]),)


class AnyNetwork(RuleBasedStateMachine):
    """A changes and is started again, B forgets, and frames both ways come late, twice or never."""

    def __init__(self) -> None:
        super().__init__()
        self.incarnation = 1
        self.truth: dict[RunId, Heartbeat] = {}
        self.a, self.b = Heartbeats(), Heartbeats()
        self.known: dict[RunId, Heartbeat] = {}  # to B, of A
        self.on_way: list[tuple[NodeId, Delta]] = []

    def _arrive(self, to: NodeId, delta: Delta) -> None:
        if to == A:
            self.a.take(B, delta)
            return
        self.known |= {each.run: each for each in self.b.take(A, delta)}
        self.b.taken(A, delta)

    @rule(run=st.sampled_from(RUNS), backlog=st.integers(0, 3))
    def change(self, run: RunId, backlog: int) -> None:
        self.truth[run] = stands(run, backlog)
        self.a.publish(self.incarnation, self.truth.values())

    @rule()
    def start_again(self) -> None:
        self.incarnation += 1
        self.a = Heartbeats()
        self.a.publish(self.incarnation, self.truth.values())

    @rule()
    def forget(self) -> None:
        self.known.clear()
        self.b.acknowledge_nothing()

    @rule()
    def send(self) -> None:
        self.on_way += [(B, self.a.delta(B)), (A, self.b.delta(A))]

    @rule(data=st.data())
    def deliver(self, data: Any) -> None:
        if self.on_way:
            self._arrive(*data.draw(st.sampled_from(self.on_way)))

    @invariant()
    def two_exchanges_tell_all(self) -> None:
        """From whatever is now: B's word of what it has arrives, then A's of where it stands."""
        a, b, known = _copy(self.a), _copy(self.b), dict(self.known)
        for _ in range(2):
            a.take(B, b.delta(A))
            told = a.delta(B)
            known |= {each.run: each for each in b.take(A, told)}
            b.taken(A, told)
        assert {run: known[run] for run in self.truth} == self.truth


def _copy(heartbeats: Heartbeats) -> Heartbeats:
    """As it is now, to look ahead with."""
    twin = Heartbeats()
    for name, value in vars(heartbeats).items():
        setattr(twin, name, dict(value) if isinstance(value, dict) else replace(value))
    return twin


TestAnyNetwork = AnyNetwork.TestCase
