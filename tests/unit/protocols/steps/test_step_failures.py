"""Failures: when a task is at fault, and that nobody waits for a node that gave something up."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.claiming.failure import Failures
from dflow_protocols.events import Broke, Send, Start, Stop, Tick
from dflow_protocols.events import Leaving as AskedToLeave
from dflow_protocols.names import Block, Partition, TaskKey, VersionId
from dflow_protocols.runs.run import Run
from dflow_protocols.simulator.goals import node as node_of
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.steps import ClaimPut, Failure, FailurePut, RecordPut, StealGrant, Stolen
from dflow_protocols.work import ChainWork, Failed
from tests.unit.protocols.books import who
from tests.unit.protocols.midway import Midway, opened

UNIT = TaskKey(0, "roll", Partition(3))
ALL = frozenset(who(number) for number in (1, 2, 3))


def failure(node: int, part: Block, kind: str = "engine") -> Failure:
    return Failure(TaskKey(0, "learn", part), who(node), 1, kind, "aa" * 32, "it died")


def test_a_leaf_that_kills_engines_is_at_fault_in_whatever_blocks_it_was_tried() -> None:
    """Each host sums other blocks; counted block by block no leaf would ever be at fault, and the run never end."""
    failures = Failures()
    for node, part in ((1, Block(0, 8)), (2, Block(2, 4))):
        failures.add(failure(node, part))
    assert not failures.verdicts(lambda task: ALL)
    failures.add(failure(3, Block(6, 8)))
    assert not failures.verdicts(lambda task: ALL)
    failures.add(failure(3, Block(3, 4)))
    (verdict, *_) = failures.verdicts(lambda task: ALL)
    assert {each.node for each in verdict.evidence} == ALL
    assert not verdict.same_error


def test_one_error_is_the_same_wherever_its_object_lies_in_memory() -> None:
    """`<judge.Score object at 0x7f..>` reads otherwise in each process: never twice alike, it would not be skipped."""
    failures = Failures()
    for number, address in ((1, "0x7ff306af31c0"), (2, "0x7f0f867a8ac0")):
        failures.record(UNIT, who(number), "user", f"judge.py:score gave <Score object at {address}>")
    (verdict,) = failures.verdicts(lambda task: ALL)
    assert verdict.same_error


def test_a_claim_ends_with_the_word_that_it_failed_and_not_with_a_repetition_of_it() -> None:
    """Else the next host waits for a lease; and the second try's claim must stand."""
    midway = Midway()
    run = midway.node.runs[midway.run]
    told = Failure(UNIT, midway.peer, 1, "engine", "aa" * 32, "it died")
    midway.tell(ClaimPut(midway.run, 0, (UNIT,)))
    assert midway.peer in run.state.step(0).claimants(midway.now, UNIT)
    midway.tell(FailurePut(midway.run, 0, (told,)))
    assert midway.peer not in run.state.step(0).claimants(midway.now, UNIT)
    midway.tell(ClaimPut(midway.run, 0, (UNIT,)))
    midway.tell(FailurePut(midway.run, 0, (told,)))
    assert midway.peer in run.state.step(0).claimants(midway.now, UNIT)


def test_who_leaves_gives_back_what_it_borrowed_and_says_so_to_the_lender() -> None:
    """It will not run it, and leaving may take long: it waits for others to keep what it has."""
    midway = Midway()
    run = midway.node.runs[midway.run]
    run.state.loans.borrow(midway.peer, [Stolen(UNIT, midway.peer)])
    actions = opened(midway.node.handle(midway.now, AskedToLeave()))
    claims = [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, ClaimPut)]
    assert [a.to for a in actions if isinstance(a, Send) and isinstance(a.message, ClaimPut)].count(midway.peer)
    assert all(not claim.units for claim in claims)
    assert not run.state.loans.held()


def test_an_idle_node_that_waits_for_the_inputs_of_what_it_took_claims_it_once() -> None:
    """Said at every look, two such nodes would answer each other's claims as fast as the network carries them."""
    midway = Midway()
    run = midway.node.runs[midway.run]
    run.state.calls.clear()
    units = [TaskKey(0, stage, Partition(p)) for stage in ("roll", "held") for p in range(5)]
    run.state.retry_at.update(dict.fromkeys(units, midway.now + 100.0))
    run.state.loans.borrow(midway.peer, [Stolen(UNIT, midway.peer)])
    run.stealing.must_claim = True
    said = []
    for _ in range(4):
        actions = midway.tell(RecordPut(midway.run, ()))
        said.append(sum(isinstance(a, Send) and isinstance(a.message, ClaimPut) for a in actions))
    assert said[0] > 0
    assert said[1:] == [0, 0, 0]


def test_a_grant_of_a_step_that_does_not_exist_is_passed_over() -> None:
    """No member's word may make the node stumble."""
    midway = Midway()
    far = Stolen(TaskKey(1 << 40, "roll", Partition(0)), midway.peer)
    midway.tell(StealGrant(midway.run, 1, VersionId("ab" * 32), (far,)))


def test_what_failed_before_a_run_was_resumed_does_not_count_after_it() -> None:
    """Also at a node that never heard that the run had failed: the cause may be mended."""
    midway = Midway()
    run = midway.node.runs[midway.run]
    midway.tell(FailurePut(midway.run, 0, (Failure(UNIT, midway.peer, 1, "user", "aa" * 32, "it died"),)))
    assert run.state.failures.known
    midway.tell(replace(run.status, attempt=1))
    assert midway.node.runs[midway.run].status.attempt == 1
    assert not midway.node.runs[midway.run].state.failures.known


def rolling_out(run: Run) -> list[int]:
    return sorted(call for call, running in run.state.calls.items() if isinstance(running.work, ChainWork))


def queueing() -> tuple[World, Run]:
    """A node alone, which runs one partition and has another one wait behind it."""
    world = World(spawn, nodes=1, seed=1, seeds=(0,))
    world.run(4.0)
    run = node_of(world.hosts[0]).runs[world.submit(0, two_steps())]
    world.expect(30.0, lambda: len(rolling_out(run)) > 1, "one partition is run and another one waits")
    return world, run


def test_a_host_that_is_taken_for_broken_gives_up_what_waits_in_its_queue() -> None:
    """Others take it at once; here it would only kill the next engine."""
    world, run = queueing()
    host, (first, *behind) = world.hosts[0], rolling_out(run)
    now, unit = host.clock.read(world.now), run.state.calls[first].unit
    for other in (0, 1):
        run.state.ability.failed(now, 1.0, TaskKey(unit.step, unit.stage, Partition(90 + other)), "it died", False)
    out = opened(node_of(host).handle(now, Broke(first, Failed("engine", "it died", unit.stage))))
    assert run.state.ability.withdrawn
    assert [action.call for action in out if isinstance(action, Stop)] == behind


def test_code_that_never_returns_costs_two_tries_whatever_else_waits_for_it() -> None:
    """Five minutes a try: what waits behind the first one would hang as well, before the second try could tell."""
    world, run = queueing()
    host, (first, *behind) = world.hosts[0], rolling_out(run)
    now, unit = host.clock.read(world.now), run.state.calls[first].unit
    hangs = Failed("user", "`rewards.py:score` does not return", unit.stage)
    out = opened(node_of(host).handle(now, Broke(first, hangs)))
    assert [action.call for action in out if isinstance(action, Stop)] == behind
    started: list[Start] = []
    for tenths in range(300):
        out = node_of(host).handle(now + tenths / 10, Tick())
        started += [action for action in out if isinstance(action, Start) and action.task.stage == unit.stage]
    assert started[0].task == unit
    assert started[0].fresh
