"""The failure detector message by message: SWIM sections 3.1 and 4.3, Lifeguard section IV-A."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from dflow_protocols.events import Report, Send
from dflow_protocols.membership.awareness import Awareness
from dflow_protocols.membership.probe import FURTHER_SHARE, LEAST_SHARE, NACK_SHARE, FailureDetector
from dflow_protocols.membership.reach import Links, Reach
from dflow_protocols.membership.table import Actions, Changed, Table
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId
from dflow_protocols.wire.gossip import Ack, MemberState, Nack, Ping, PingRequest, Update
from tests.unit.protocols.membership.mesh import meta_of

TIMING = Timing.lan()
ROUND, TIMEOUT = TIMING.probe_interval_s, TIMING.probe_timeout_s


class Rig:
    """A detector and what it stands on. Node 0 is the one; the others are members that it can send to, and that have
    spoken to it."""

    def __init__(self, members: int = 2) -> None:
        me = meta_of(0)
        self.table = Table(me.node, 1, me, TIMING, 0.0)
        self.awareness = Awareness(TIMING.awareness_max)
        self.detector = FailureDetector(self.table, Links(self.table, Reach()), self.awareness, TIMING, Random(1))
        self.others = [meta_of(index) for index in range(1, members)]
        for other in self.others:
            self.table.merge(0.0, Update(other.node, 1, 0, "alive", other.id, None), [], synced=False)
            self.table.learn(other, other.node, [])
            self.table.members[other.node].note_contact(0.0)
            self.detector.add(other.node)
        self.table.news.clear()
        self.detector.begin(ROUND)

    def tick(self, now: float) -> Actions:
        out: Actions = []
        self.detector.tick(now, out)
        self.table.news.clear()
        return out

    def ping(self) -> tuple[NodeId, int]:
        """The first round begins: whom it asks, under which sequence."""
        (send,) = self.tick(ROUND)
        assert isinstance(send, Send)
        assert isinstance(send.message, Ping)
        return send.to, send.message.sequence


def suspects(actions: Actions) -> list[NodeId]:
    return [action.node for action in actions if isinstance(action, Changed) and action.new == "suspect"]


def test_who_answers_its_ping_is_not_suspected() -> None:
    """And the next one is asked a round later, no sooner."""
    rig = Rig()
    target, sequence = rig.ping()
    rig.detector.answered(target, sequence, [])
    assert rig.tick(ROUND + TIMEOUT) == []
    assert rig.detector.deadline == 2 * ROUND
    assert suspects(rig.tick(2 * ROUND)) == []


def test_who_says_anything_while_it_is_probed_is_not_suspected() -> None:
    """In a network that is full its answer is late behind frames of its own, each of which is a sign of life."""
    rig = Rig()
    target, _ = rig.ping()
    rig.table.members[target].note_contact(1.5 * ROUND)
    assert suspects(rig.tick(2 * ROUND)) == []
    assert rig.awareness.score > 0, "yet this node waits longer: its probes do not come through in time"
    assert suspects(rig.tick(4 * ROUND)) == [target], "what was heard before a probe began says nothing"


def test_who_is_silent_is_asked_through_others_before_it_is_suspected() -> None:
    """One bad link is not a death: k others try (SWIM 3.1)."""
    rig = Rig(4)
    target, sequence = rig.ping()
    asked = rig.tick(ROUND + TIMEOUT)
    request = PingRequest(sequence, target, ROUND - TIMEOUT, ())
    relays = sorted(other.node for other in rig.others if other.node != target)
    assert asked == [Send(relay, request) for relay in relays]
    assert suspects(rig.tick(2 * ROUND)) == [target]


def test_an_answer_through_another_is_an_answer() -> None:
    """The relay's ack carries the asker's own sequence."""
    rig = Rig(4)
    target, sequence = rig.ping()
    relay = next(send.to for send in rig.tick(ROUND + TIMEOUT) if isinstance(send, Send))
    rig.detector.answered(relay, sequence, [])
    assert suspects(rig.tick(2 * ROUND)) == []
    assert target in rig.table.alive()


@pytest.mark.parametrize(("nacks", "score"), [(0, 2), (1, 1), (2, 0)])
def test_relays_that_are_silent_too_speak_against_this_node(nacks: int, score: int) -> None:
    """Who misses nacks is itself slow or cut off, and waits longer from now on (Lifeguard IV-A)."""
    rig = Rig(4)
    target, sequence = rig.ping()
    relays = [send.to for send in rig.tick(ROUND + TIMEOUT) if isinstance(send, Send)]
    for relay in relays[:nacks]:
        rig.detector.nacked(relay, sequence)
    rig.detector.nacked(target, sequence)  # it was not asked to relay
    assert suspects(rig.tick(2 * ROUND)) == [target]
    assert rig.awareness.score == score


def test_who_cannot_be_sent_to_yet_is_probed_once_it_can_or_should() -> None:
    """Else a wave of joiners takes each other for dead, for pings that were never sent."""
    rig = Rig(1)
    newcomer = meta_of(7)
    rig.table.merge(ROUND, Update(newcomer.node, 1, 0, "alive", newcomer.id, None), [], synced=False)
    rig.detector.add(newcomer.node)
    rounds = range(1, int(TIMING.stable_s / ROUND) + 4)
    found = [node for at in rounds for node in suspects(rig.tick(at * ROUND)) if node == newcomer.node]
    assert found == [newcomer.node], "a ghost of which nobody knows where it is must go, too"
    assert rig.table.suspicions[newcomer.node].started > TIMING.stable_s


def test_who_cannot_be_sent_to_yet_holds_up_nobodys_probe() -> None:
    """Else one that waits for its introduction, or a member that tells of ever new ghosts, would keep everybody from
    noticing who dies."""
    rig = Rig(4)
    for number in range(7, 20):
        ghost = meta_of(number)
        rig.table.merge(ROUND, Update(ghost.node, 1, 0, "alive", ghost.id, None), [], synced=False)
        rig.detector.add(ghost.node)
    asked = []
    for turn in range(1, 10):
        for send in rig.tick(turn * ROUND):
            assert isinstance(send, Send)
            asked.append(send.to)
            rig.detector.answered(send.to, send.message.sequence, [])
    assert sorted(asked) == sorted(3 * [other.node for other in rig.others]), "each once a round"


def test_an_answer_to_another_probe_is_none_to_this_one() -> None:
    """A late ack of the round before proves nothing of the member that is asked now."""
    rig = Rig()
    target, sequence = rig.ping()
    rig.detector.answered(target, sequence - 1, [])
    rig.detector.answered(meta_of(7).node, sequence, [])
    assert suspects(rig.tick(2 * ROUND)) == [target]


def test_a_relay_passes_the_answer_on_or_says_in_time_that_there_is_none() -> None:
    """Without the nack the asker could not tell a silent target from a silent relay."""
    for answers in (True, False):
        rig = Rig(3)
        asker, target = (other.node for other in rig.others)
        rig.detector.begin(100.0)
        out: Actions = []
        rig.detector.relay(0.0, asker, PingRequest(7, target, 1.0, ()), out)
        (ping,) = out
        assert isinstance(ping, Send)
        assert ping.to == target
        out.clear()
        if answers:
            rig.detector.answered(target, ping.message.sequence, out)
        assert out == ([Send(asker, Ack(7, ()))] if answers else [])
        assert rig.tick(NACK_SHARE) == ([] if answers else [Send(asker, Nack(7))])


def asked_to_relay(patience_s: float, state: MemberState = "alive") -> tuple[Rig, NodeId, Actions]:
    """A relay of five members after a while in which the target was silent: who is to try now. And the asker."""
    rig = Rig(5)
    asker, target = (other.node for other in rig.others[:2])
    rig.detector.begin(100.0)
    rig.table.merge(0.0, replace(rig.table.members[target].claim, state=state), [], synced=False)
    rig.detector.relay(0.0, asker, PingRequest(7, target, patience_s, ()), [])
    return rig, asker, rig.tick(FURTHER_SHARE * patience_s)


def test_a_relay_asks_members_that_the_asker_may_not_reach() -> None:
    """Two links in a row may have broken just now, and nobody knows yet who can talk to whom."""
    rig, asker, sent = asked_to_relay(TIMEOUT)
    further = sorted(other.node for other in rig.others[2:])
    assert [send.to for send in sent if isinstance(send, Send)] == further
    (request,) = {send.message for send in sent if isinstance(send, Send)}
    assert (request.target, request.deadline_s) == (rig.others[1].node, (NACK_SHARE - FURTHER_SHARE) * TIMEOUT)
    out: Actions = []
    rig.detector.answered(asker, request.sequence, out)  # it was not asked
    rig.detector.answered(further[0], request.sequence, out)
    assert out == [Send(asker, Ack(7, ()))]
    assert rig.tick(NACK_SHARE * TIMEOUT) == []


def test_asking_further_comes_to_an_end() -> None:
    """Each has less patience than who asked it; and of whom all are told that it is suspected, its denial tells."""
    assert asked_to_relay(0.9 * LEAST_SHARE * TIMEOUT)[2] == []
    assert asked_to_relay(TIMEOUT, "suspect")[2] == []


def test_a_relay_that_knows_no_such_member_says_so_at_once() -> None:
    """The asker's patience is short."""
    rig = Rig()
    out: Actions = []
    rig.detector.relay(0.0, rig.others[0].node, PingRequest(7, meta_of(9).node, 1.0, ()), out)
    assert out == [Send(rig.others[0].node, Nack(7))]


def test_a_sleep_gives_a_probe_more_time_once() -> None:
    """What lies in the inbox is read first; but a node that sleeps again and again must find the dead, too."""
    rig = Rig()
    target, _ = rig.ping()
    late = 2 * ROUND - 0.1
    rig.detector.slept(late, is_dead_to_others=False)
    assert rig.tick(2 * ROUND) == []
    rig.detector.slept(late + TIMEOUT - 0.1, is_dead_to_others=False)
    assert suspects(rig.tick(late + TIMEOUT)) == [target]


def test_after_a_sleep_that_made_it_dead_to_others_a_node_accuses_nobody() -> None:
    """Their silence was its own."""
    rig = Rig()
    rig.ping()
    rig.detector.slept(2 * ROUND, is_dead_to_others=True)
    assert suspects(rig.tick(3 * ROUND)) == []


def test_a_member_that_comes_and_goes_is_told_of_once() -> None:
    """Each suspicion by itself looks like any other, and the run goes on: nobody would look at the cable."""
    rig, out = Rig(), list[object]()
    member = rig.table.members[rig.others[0].node]
    for refutation in range(4):
        now = 2.0 * refutation
        for state, numbered in (("suspect", refutation), ("alive", refutation + 1)):
            told: Actions = []
            claim = replace(member.claim, state=state, refutation=numbered)  # type: ignore[arg-type]
            rig.table.merge(now, claim, told, synced=False)
            out += [action for action in told if isinstance(action, Report) and action.name == "membership.unsteady"]
        assert len(out) == (refutation > 0)
    assert not member.is_steady(now, TIMING.suspicion_s(2))
    restarted = replace(member.claim, incarnation=2, refutation=0)
    rig.table.merge(now, restarted, [], synced=False)
    assert member.is_steady(now, TIMING.suspicion_s(2)), "a new process on a mended host starts afresh"


def test_a_table_says_whether_it_had_to_refute() -> None:
    """The machine slows its own probes down by that, whatever the log says of it (Lifeguard IV-A)."""
    rig = Rig()
    mine = rig.table.mine
    out: Actions = []
    accused = Update(mine.node, 1, 0, "suspect", mine.meta, rig.others[0].node)
    assert rig.table.merge(1.0, accused, out, synced=False)
    assert [action.name for action in out if isinstance(action, Report)] == ["membership.refuting"]
    assert rig.table.mine.refutation == 1
    assert not rig.table.merge(1.0, accused, out, synced=False)  # it is denied already
    later_life = Update(mine.node, 5, 0, "alive", mine.meta, None)
    assert not rig.table.merge(1.0, later_life, out, synced=False)  # outbid, which is no sign of a slow node
    assert rig.table.mine.incarnation == 6
