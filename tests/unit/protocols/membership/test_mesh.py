from __future__ import annotations

import dataclasses

import msgpack
import pytest

from dflow_protocols.events import Dial, Lagged, LaneFailed, LaneOpened, Received, Report, Send, Tick
from dflow_protocols.membership.bootstrap import MAX_CACHED, Seed, decode_peers, encode_peers
from dflow_protocols.membership.machine import Membership
from dflow_protocols.membership.table import Changed, Member
from dflow_protocols.membership.timing import Timing
from dflow_protocols.wire.gossip import Ack, Gossip, MetaGet, MetaPut, Ping, Sync, SyncAsk, Unreachable, Update
from dflowd.service.troubles import troubles
from tests.unit.protocols.membership.mesh import Mesh, meta_of

SEEDS = range(4)


def started(count: int, seed: int, *, loss: float = 0.0) -> Mesh:
    mesh = Mesh(count, seed=seed, loss=loss)
    mesh.start_all()
    assert mesh.until(lambda: mesh.all_see("alive", *range(count)), 30.0), "the mesh did not form"
    return mesh


def everyone(mesh: Mesh) -> bool:
    return mesh.all_see("alive", *range(len(mesh.hosts)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("through", [0, 3, 6])
def test_everyone_finds_everyone_through_any_one_seed(seed: int, through: int) -> None:
    """No node is special: whichever one the configuration names, all meet, and each can be sent to."""
    mesh = Mesh(7, seed=seed)
    for host in mesh.hosts:
        host.seeds = (Seed(meta_of(through).public_key, meta_of(through).control),)
    mesh.start_all()
    assert mesh.until(lambda: everyone(mesh), 10.0)


def test_a_chain_of_seeds_makes_one_mesh() -> None:
    """Each knows only the one before: meshes that formed apart merge as soon as one node of each meets."""
    mesh = Mesh(9, seed=1)
    for index, host in enumerate(mesh.hosts):
        before = meta_of(max(0, index - 1))
        host.seeds = (Seed(before.public_key, before.control),)
    mesh.start(8, 6, 7, 2, 4)
    mesh.run(5.0)
    mesh.start(0, 1, 3, 5)
    assert mesh.until(lambda: everyone(mesh), 20.0)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 30])
def test_a_killed_node_is_dead_to_all_and_nobody_else_is(count: int) -> None:
    """Detection is complete and, in calm, accurate (SWIM section 2)."""
    mesh = started(count, count)
    mesh.crash(count - 1)
    assert mesh.until(lambda: mesh.all_see("dead", count - 1), 10.0)
    mesh.run(20.0)
    assert {dead for _, _, dead in mesh.deaths()} == {mesh.id(count - 1)}
    assert len(mesh.deaths()) == count - 1, "each of the others buries it once"


def test_two_of_four_killed_at_once_are_noticed_by_the_other_two() -> None:
    """With half of the relays gone, suspicion must not wait for confirmations that cannot come."""
    for seed in SEEDS:
        mesh = started(4, seed)
        mesh.crash(0)
        mesh.crash(2)
        assert mesh.until(lambda mesh=mesh: mesh.all_see("dead", 0, 2), 4.0)  # type: ignore[misc]


@pytest.mark.parametrize("count", [3, 7])
def test_no_living_node_is_declared_dead_while_a_tenth_of_all_messages_is_lost(count: int) -> None:
    """Indirect probes and refutation are there for just this."""
    mesh = started(count, count, loss=0.1)
    mesh.run(60.0)
    assert mesh.deaths() == []


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_process_starved_for_a_second_is_never_declared_dead(count: int) -> None:
    """On a loaded machine a daemon may not run for a second; its work must not be dealt again for that."""
    mesh = started(count, count)
    for index in range(count):
        mesh.freeze(index, 1.0)
        mesh.run(4.0)
    for index in range(count):
        mesh.freeze(index, mesh.rng.uniform(0.5, 1.5))  # all of them, as when the whole machine swaps
    mesh.run(10.0)
    assert mesh.deaths() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_suspect_that_refutes_is_never_declared_dead(seed: int) -> None:
    """SWIM section 4.2: a suspicion is a question, and the suspect's own answer settles it for all."""
    mesh = started(5, seed)
    accuser = mesh.hosts[1]
    assert accuser.life is not None
    claim = accuser.life.members[mesh.id(4)].claim
    slander = dataclasses.replace(claim, state="suspect", by=mesh.id(2))
    for index in (0, 1, 2, 3):
        mesh.tell(index, mesh.id(2), Gossip((slander,)))
    assert mesh.view(0)[mesh.id(4)] == "suspect"
    assert mesh.id(4) in (accuser.life.alive()), "a suspect counts as living"
    assert mesh.until(lambda: everyone(mesh), 3.0)
    mesh.run(10.0)
    assert mesh.deaths() == []


def test_one_that_was_away_for_long_comes_back_with_all_it_had() -> None:
    """A paused process is dead to the others, then returns in the same life: its shards are good."""
    mesh = started(4, 1)
    mesh.freeze(2, 6.0)
    assert mesh.until(lambda: mesh.all_see("dead", 2), 5.0)
    seen = len(mesh.changes)
    assert mesh.until(lambda: everyone(mesh), 10.0)
    back = [change for _, by, change in mesh.changes[seen:] if change.node == mesh.id(2) and change.new == "alive"]
    assert len(back) == 3
    assert not any(change.restarted for change in back)


def test_a_restart_too_fast_to_be_noticed_is_still_told() -> None:
    """What the old process held in memory is gone, though nobody ever saw it dead."""
    mesh = started(4, 2)
    seen = len(mesh.changes)
    mesh.crash(3)
    mesh.start(3)

    def told() -> list[Changed]:
        return [change for _, by, change in mesh.changes[seen:] if by != mesh.id(3)]

    assert mesh.until(lambda: len(told()) >= 3, 2.0)
    mesh.run(5.0)
    assert [(c.node, c.old, c.new, c.restarted) for c in told()] == [(mesh.id(3), "alive", "alive", True)] * 3
    assert mesh.deaths() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_split_heals_by_itself(seed: int) -> None:
    """Both halves hold each other dead; somebody keeps asking, and nobody dies of the news."""
    mesh = started(6, seed)
    left, right = [0, 1], [2, 3, 4, 5]
    mesh.cut(left, right)
    mesh.cut(right, left)
    assert mesh.until(lambda: mesh.view(5)[mesh.id(0)] == "dead" == mesh.view(0)[mesh.id(5)], 10.0)
    mesh.run(20.0)
    before = len(mesh.deaths())
    mesh.heal()
    assert mesh.until(lambda: everyone(mesh), 10.0)
    mesh.run(10.0)
    assert len(mesh.deaths()) == before


@pytest.mark.parametrize("mute", [True, False])
def test_one_way_cuts_end_in_agreement_once_healed(mute: bool) -> None:
    """A node that hears but is not heard, or the other way round, is no use and no lasting harm."""
    mesh = started(5, 3)
    if mute:
        mesh.cut([0], [1, 2, 3, 4])
    else:
        mesh.cut([1, 2, 3, 4], [0])
    assert mesh.until(lambda: all(mesh.view(i)[mesh.id(0)] == "dead" for i in (1, 2, 3, 4)), 10.0)
    assert all(mesh.view(i)[mesh.id(j)] == "alive" for i in (1, 2, 3, 4) for j in (1, 2, 3, 4))
    mesh.heal()
    assert mesh.until(lambda: everyone(mesh), 15.0)


def test_one_cut_link_kills_nobody() -> None:
    """Indirect probes go round it (SWIM section 3.1)."""
    mesh = started(4, 5)
    mesh.cut([1], [2])
    mesh.cut([2], [1])
    mesh.run(30.0)
    assert mesh.deaths() == []


def test_a_mesh_without_its_seed_forms_once_the_seed_is_there() -> None:
    """Bootstrap is never fatal: who finds nobody keeps asking."""
    mesh = Mesh(4, seed=4)
    mesh.start(1, 2, 3)
    mesh.run(60.0)
    assert all(set(mesh.view(i).values()) == {"alive"} and len(mesh.view(i)) == 1 for i in (1, 2, 3))
    mesh.start(0)
    assert mesh.until(lambda: everyone(mesh), 10.0)


def test_a_restarted_node_finds_the_mesh_by_its_cached_peers_while_every_seed_is_down() -> None:
    """A seed is needed once in a life, not at every start."""
    mesh = started(5, 6)
    mesh.run(10.0)
    mesh.crash(0)
    mesh.crash(4)
    assert mesh.until(lambda: mesh.all_see("dead", 0, 4), 10.0)
    mesh.start(4)
    assert mesh.until(lambda: mesh.all_see("alive", 1, 2, 3, 4), 10.0)


def test_who_leaves_is_left_and_not_dead() -> None:
    """Nobody waits for it, nobody asks whether it is back, and its next start is a plain join."""
    mesh = started(4, 7)
    mesh.leave(2)
    assert mesh.until(lambda: mesh.all_see("left", 2), 1.0)
    mesh.crash(2)
    mesh.run(30.0)
    assert mesh.deaths() == []
    assert mesh.all_see("left", 2)
    mesh.start(2)
    assert mesh.until(lambda: everyone(mesh), 10.0)


def test_a_node_that_forgot_its_incarnation_outbids_its_old_life() -> None:
    """A state directory restored from a backup must not leave the node dead for ever."""
    mesh = started(3, 8)
    for _ in range(3):
        mesh.crash(2)
        mesh.start(2)
        mesh.run(2.0)
    mesh.crash(2)
    assert mesh.until(lambda: mesh.all_see("dead", 2), 10.0)
    mesh.hosts[2].incarnation = 0
    mesh.start(2)
    assert mesh.until(lambda: everyone(mesh), 10.0)
    life = mesh.hosts[2].life
    assert life is not None
    assert life.incarnation > 4
    assert msgpack.unpackb(mesh.hosts[2].disk["incarnation"]) == life.incarnation


def test_new_addresses_after_a_restart_are_learnt_by_all() -> None:
    """A daemon that took another port would be probed at the old one, and buried."""
    mesh = started(4, 9)
    mesh.crash(3)
    mesh.hosts[3].meta = dataclasses.replace(mesh.hosts[3].meta, bulk="tcp://127.0.0.1:1")
    mesh.start(3)
    moved = mesh.hosts[3].meta
    fresh = Member(Update(mesh.id(3), 0, 0, "dead", moved.id, None), 0.0, 0.0)
    lives = [host.life for host in mesh.running() if host.life is not None]
    assert mesh.until(lambda: all(life.members.get(mesh.id(3), fresh).meta == moved for life in lives), 5.0)


def alone() -> Membership:
    meta = meta_of(0)
    return Membership(meta.node, 1, meta, Timing.local(), Mesh(0, seed=1).rng, (), (), 0.0)


def test_a_meta_that_is_not_the_announced_one_is_not_dialled() -> None:
    """Else any member could send work for another to an address of its own."""
    life = alone()
    true, false = meta_of(1), dataclasses.replace(meta_of(1), control="tcp://10.0.0.66:1")
    claim = Update(true.node, 1, 0, "alive", true.id, None)
    life.handle(0.01, Received(meta_of(2).node, Sync(False, meta_of(2), (claim,))))
    forged = life.handle(0.02, Received(meta_of(2).node, MetaPut((false,))))
    assert not [action for action in forged if isinstance(action, Dial)]
    honest = life.handle(0.03, Received(meta_of(2).node, MetaPut((true,))))
    assert Dial(true.node, true.public_key, true.control, true.bulk) in honest


def test_a_meta_under_anothers_id_is_refused_even_if_it_was_announced() -> None:
    """A member's id is the hash of its key; a claim that names another key is a lie."""
    life = alone()
    other = meta_of(2)
    claim = Update(meta_of(1).node, 1, 0, "alive", other.id, None)
    life.handle(0.01, Received(meta_of(1).node, Sync(False, other, (claim,))))
    assert life.members[meta_of(1).node].meta is None
    life.check()


def test_a_stranger_is_asked_who_it_is_but_not_for_every_word() -> None:
    """A message of any protocol is evidence of life; a flood of them must not become a flood of answers."""
    life = alone()
    stranger = meta_of(1).node
    asked = [action for k in range(50) for action in life.observe(0.001 * k, stranger, 1)]
    assert [type(action.message) for action in asked if isinstance(action, Send)] == [Sync]


def test_a_newer_life_heard_of_in_another_protocol_is_asked_for() -> None:
    """Every frame names its sender's incarnation: a fast restart shows there first."""
    mesh = started(3, 1)
    life = mesh.hosts[0].life
    assert life is not None
    assert life.observe(mesh.now, mesh.id(1), 1) == []
    asked = life.observe(mesh.now, mesh.id(1), 2)
    assert [action.message.wants_answer for action in asked if isinstance(action, Send)] == [True]


def test_members_that_believe_the_same_tell_each_other_so_and_no_more() -> None:
    """Everything at every push-pull costs bytes that grow with the mesh, for news of nothing."""
    mesh = started(6, 1)
    one, other = mesh.hosts[0].life, mesh.hosts[1].life
    assert one is not None
    assert other is not None
    said = [out.message for out in one.handle(mesh.now + 60.0, Tick()) if isinstance(out, Send)]
    (ask,) = [message for message in said if isinstance(message, SyncAsk)]
    assert not any(isinstance(message, Sync) for message in said)
    assert other.handle(mesh.now, Received(mesh.id(0), ask)) == []
    answers = other.handle(mesh.now, Received(mesh.id(0), SyncAsk(b"another")))
    assert [(out.to, out.message.wants_answer) for out in answers if isinstance(out, Send)] == [(mesh.id(0), True)]


def test_an_answer_leaves_out_what_was_just_told() -> None:
    """Who asks for everything has told everything: to send it back doubles the bytes."""
    mesh = started(6, 1)
    one, other = mesh.hosts[0].life, mesh.hosts[1].life
    assert one is not None
    assert other is not None
    told = tuple(member.claim for member in one.members.values())
    (answer,) = other.handle(mesh.now, Received(mesh.id(0), Sync(True, mesh.hosts[0].meta, told[:4])))
    assert isinstance(answer, Send)
    assert {claim.node for claim in answer.message.updates} == {claim.node for claim in told[4:]}


def test_the_first_word_to_a_member_says_who_speaks() -> None:
    """In a wave of joiners most hear from members that they were not told of: a push-pull with each is n^2 of them."""
    mesh = started(3, 1)
    life = mesh.hosts[0].life
    assert life is not None
    newcomer, claim = meta_of(7), life.members[mesh.id(0)].claim
    told = Update(newcomer.node, 1, 0, "alive", newcomer.id, None)
    life.handle(mesh.now, Received(mesh.id(1), Gossip((told,))))
    life.handle(mesh.now, Received(mesh.id(1), MetaPut((newcomer,))))
    mesh.hush()
    (ack,) = (out for out in life.handle(mesh.now, Received(newcomer.node, Ping(1, ()))) if isinstance(out, Send))
    assert ack.message == Ack(1, (claim,))
    (ack,) = (out for out in life.handle(mesh.now, Received(newcomer.node, Ping(2, ()))) if isinstance(out, Send))
    assert ack.message == Ack(2, ()), "it answered, so it knows"


def test_who_hears_of_members_asks_once_for_their_addresses() -> None:
    """Several tell of a joiner within milliseconds; each answer is as long as the first one."""
    life = alone()
    claim = Update(meta_of(1).node, 1, 0, "alive", meta_of(1).id, None)
    asked = [
        out.message
        for at, teller in enumerate((2, 3, 4))
        for out in life.handle(0.01 * at, Received(meta_of(teller).node, Sync(False, meta_of(teller), (claim,))))
        if isinstance(out, Send) and isinstance(out.message, MetaGet)
    ]
    assert asked == [MetaGet((meta_of(1).id,))]


def test_a_joiner_tells_nobody_what_the_mesh_told_it() -> None:
    """The claims of a thousand members, told by each joiner to members that have them."""
    mesh = started(8, 2)
    mesh.run(10.0)
    joiner = Mesh(9, seed=2).hosts[8]
    life = Membership(joiner.node, 1, joiner.meta, Timing.local(), mesh.rng, (), (), mesh.now)
    teller = mesh.hosts[0].life
    assert teller is not None
    claims = tuple(member.claim for member in teller.members.values())
    out = life.handle(mesh.now, Received(mesh.id(0), Sync(False, mesh.hosts[0].meta, claims)))
    out += life.handle(mesh.now, Received(mesh.id(0), MetaPut(tuple(host.meta for host in mesh.hosts))))
    told = {claim.node for each in out if isinstance(each, Send) for claim in getattr(each.message, "updates", ())}
    assert told <= {joiner.node}


def test_one_who_left_says_nothing_more() -> None:
    """A word after the goodbye would bring it back to life at its peers."""
    mesh = started(3, 1)
    life = mesh.hosts[0].life
    assert life is not None
    life.leave(mesh.now)
    assert life.handle(mesh.now + 1.0, Tick()) == []
    assert life.deadline == float("inf")


def test_torn_peer_caches_are_worth_nothing_and_harm_nothing() -> None:
    """A cache is a hint; after a power cut it may hold anything."""
    peers = tuple(Seed(meta_of(i).public_key, meta_of(i).control, meta_of(i).bulk) for i in range(3))
    assert decode_peers(encode_peers(peers)) == peers
    assert len(decode_peers(encode_peers(peers * 40))) == MAX_CACHED
    whole = encode_peers(peers)
    for data in (b"", whole[:-5], b"\x01", b"\x91\x93\x01\x02\x03", b"\xff" * 9):
        assert decode_peers(data) == ()


def test_what_a_loop_lags_makes_it_wait_longer_before_it_judges() -> None:
    """Lifeguard IV-A: a member that is itself late takes the others for silent; its own lag tells it so."""
    life = alone()
    life.handle(0.01, Lagged(0.01))
    assert not life.is_unhealthy
    for k in range(Timing.local().awareness_max):
        life.handle(0.02 + 0.01 * k, Lagged(1.0))
    assert life.is_unhealthy
    life.check()


@pytest.mark.parametrize("timing", [Timing.local(), Timing.lan()], ids=["local", "lan"])
@pytest.mark.parametrize("late", [1.1, 2.0, 3.0])
def test_a_node_that_is_always_late_finds_the_dead_all_the_same(timing: Timing, late: float) -> None:
    """On a host that is busy for good each alarm comes late: if that counted as sleep, its time would stand still."""
    mesh = Mesh(2, seed=3, timing=timing)
    mesh.start_all()
    mesh.run(10.0)
    for host in mesh.hosts:
        host.late_s = late * timing.probe_timeout_s
    mesh.run(10.0)
    assert not mesh.deaths()
    mesh.crash(1)
    assert mesh.until(lambda: mesh.all_see("dead", 1), 30.0)


def test_after_a_long_sleep_members_are_asked_and_the_first_answer_is_enough() -> None:
    """Its own view is as old as its sleep; a push-pull with one member brings it up to date."""
    mesh = started(4, 3)
    mesh.run(1.0)
    life = mesh.hosts[0].life
    assert life is not None
    short = life.slept(mesh.now, 0.5)
    assert not life.is_rejoining
    assert not [action for action in short if isinstance(action, Send)]
    asked = life.slept(mesh.now, 30.0)
    assert life.is_rejoining
    syncs = [action.to for action in asked if isinstance(action, Send) and isinstance(action.message, Sync)]
    assert len(set(syncs)) == 3
    other = mesh.hosts[1]
    assert other.life is not None
    life.handle(mesh.now, Received(other.node, Sync(False, other.meta, ())))
    assert not life.is_rejoining


def test_who_overslept_by_a_moment_tells_how_late_it_was_in_all() -> None:
    """The clock counts sleep from a probe timeout on, and what was told began there: "asleep for 0.012 s" of a process
    that had stood still for half a second."""
    mesh = started(2, 3)
    life = mesh.hosts[0].life
    assert life is not None
    told = [action for action in life.slept(mesh.now, 0.012) if isinstance(action, Report)]
    assert [report.fields for report in told] == [{"seconds": round(life.timing.probe_timeout_s + 0.012, 3)}]


def test_a_member_that_speaks_but_cannot_be_dialled_is_told_so_and_kept_apart() -> None:
    """One that nobody heard of lately is merely away: that its address does not answer then says nothing."""
    mesh = started(3, 4)
    mesh.run(2.0)
    life, other = mesh.hosts[0].life, mesh.hosts[1]
    assert life is not None
    assert life.handle(mesh.now, LaneFailed(other.node, "bulk", "tcp://127.0.0.1:1")) == [], "it announces another one"
    assert troubles(life) == []
    told = life.handle(mesh.now, LaneFailed(other.node, "bulk", other.meta.bulk))
    assert Send(other.node, Unreachable("bulk", other.meta.bulk)) in told
    assert set(life.reach.unreached) == {other.node}
    assert [trouble.key for trouble in troubles(life)] == [f"membership.unreached/{other.node}/bulk"]
    assert other.life is not None
    other.life.handle(mesh.now, Received(mesh.id(0), Unreachable("bulk", "tcp://127.0.0.1:1")))
    assert troubles(other.life) == [], "it was another life's"
    other.life.handle(mesh.now, Received(mesh.id(0), Unreachable("bulk", other.meta.bulk)))
    assert [trouble.key for trouble in troubles(other.life)] == [f"membership.unreachable/{mesh.id(0)}/bulk"]
    again = [("control", other.meta.control), ("bulk", other.meta.bulk), ("control", other.meta.control)]
    told = [a for lane in again for a in other.life.handle(mesh.now, Received(mesh.id(0), Unreachable(*lane)))]
    reports = [action.fields["lane"] for action in told if isinstance(action, Report)]
    assert reports == ["control"], "each lane is told of once, however they take turns"
    life.handle(mesh.now, LaneOpened(other.node, "bulk"))
    assert troubles(life) == []
    mesh.crash(2)
    assert mesh.until(lambda: mesh.all_see("dead", 2), 10.0)
    life.handle(mesh.now, LaneFailed(mesh.id(2), "bulk", "tcp://127.0.0.1:1"))
    assert troubles(life) == []


def test_a_life_that_is_not_remembered_is_dialled_under_the_own_key_and_the_later_one_yields() -> None:
    """A member that lies can only make a node look: what silences it is another holder of its key, in person."""
    mesh = started(3, 5)
    life, me, liar = mesh.hosts[0].life, mesh.hosts[0], mesh.hosts[1]
    assert life is not None
    other = dataclasses.replace(me.meta, control="tcp://127.0.0.1:1", born_ms=me.meta.born_ms - 1)
    claim = Update(me.node, life.incarnation + 1, 0, "alive", other.id, None)
    asked = life.handle(mesh.now, Received(liar.node, Gossip((claim,))))
    assert Send(liar.node, MetaGet((other.id,))) in asked
    dialled = life.handle(mesh.now, Received(liar.node, MetaPut((other,))))
    assert Dial(me.node, other.public_key, other.control, "") in dialled
    assert life.silenced_by is None
    later = dataclasses.replace(other, born_ms=me.meta.born_ms + 1)
    life.handle(mesh.now, Received(me.node, Sync(True, later, ())))
    assert life.silenced_by is None, "the other one started later"
    life.handle(mesh.now, Received(me.node, Sync(True, me.meta, ())))
    assert life.silenced_by is None, "its own echo"
    last = life.handle(mesh.now, Received(me.node, Sync(True, other, ())))
    assert life.silenced_by == other
    assert [action.to for action in last if isinstance(action, Send)] == [me.node], "so that it can be outbid"
    assert life.handle(mesh.now + 1.0, Tick()) == []


def test_the_earlier_of_two_processes_outbids_the_later_at_once() -> None:
    """What the later one claimed before it fell silent must not stand until somebody finds it dead."""
    mesh = started(3, 6)
    life, me = mesh.hosts[0].life, mesh.hosts[0]
    assert life is not None
    later = dataclasses.replace(me.meta, control="tcp://127.0.0.1:1", born_ms=me.meta.born_ms + 1)
    claim = Update(me.node, life.incarnation + 5, 0, "alive", later.id, None)
    life.handle(mesh.now, Received(me.node, Sync(False, later, (claim,))))
    assert life.incarnation == claim.incarnation + 1
