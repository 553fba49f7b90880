"""A step's books: which records are the accepted ones, whose claims count, and which failures end a run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.claiming.failure import Failures
from dflow_protocols.names import Block, NodeId, Partition, SealId, TaskKey
from dflow_protocols.pipeline.plan import Chain, plan
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.step import MAX_PER_TASK, Step
from dflow_protocols.wire.books import Page
from dflow_protocols.wire.steps import Record
from dflow_protocols.work import FailureKind
from tests.unit.protocols.books import ZERO, finished_partition, record, shard, version, who

CHAIN = next(chain for chain in plan(two_steps(), 0).chains if len(chain.stages) > 1)
UNIT = TaskKey(0, "roll", Partition(0))


def everything(_: Record) -> bool:
    return True


def step_with(*records: Record) -> Step:
    step = Step(0)
    for each in records:
        step.add(each)
    return step


def accepted(step: Step, chain: Chain = CHAIN, sources: tuple[str, ...] = (ZERO.id,)) -> tuple[Record, ...]:
    return step.chain(chain, 0, sources, everything)


def test_the_toy_chain_has_the_stages_that_these_tests_speak_of() -> None:
    assert CHAIN.stages == ("roll", "score", "adv")


@given(st.permutations([*finished_partition(0, take="a"), *finished_partition(0, take="b")]))
def test_two_executions_of_a_chain_are_never_mixed(order: list[Record]) -> None:
    """Text A with the reward of B would train on a lie; whatever order records come in, one execution is taken."""
    found = accepted(step_with(*order))
    assert found in (finished_partition(0, take="a"), finished_partition(0, take="b"))
    assert found == accepted(step_with(*reversed(order)))


def test_records_that_do_not_lead_to_each_other_are_not_joined() -> None:
    """A reward without the rollout it read counts for nothing yet."""
    a, b = finished_partition(0, take="a"), finished_partition(0, take="b")
    assert accepted(step_with(a[0], b[1], b[2])) == (a[0],)
    assert accepted(step_with(a[1], a[2])) == ()


def test_the_longest_finished_run_of_stages_is_taken_over_a_smaller_id() -> None:
    """Work that is done is not done again because somebody began the partition a second time."""
    for take in "abcdef":
        longer, beside = finished_partition(0, take="long"), finished_partition(0, take=take)
        assert accepted(step_with(*longer[:2], beside[0])) == longer[:2]


def test_of_equally_long_runs_the_smaller_id_counts() -> None:
    """Any rule would do, so long as all nodes have the same."""
    executions = [finished_partition(0, take=take) for take in "abcdef"]
    every = [each for execution in executions for each in execution]
    assert accepted(step_with(*every))[0].id == min(execution[0].id for execution in executions)


def test_a_record_whose_outputs_nobody_holds_is_passed_over() -> None:
    """Its task is unfinished again; the other execution's records count instead."""
    a, b = finished_partition(0, take="a"), finished_partition(0, take="b")
    step = step_with(*a, *b)
    first = accepted(step)[0]
    other = b if first == a[0] else a
    assert step.chain(CHAIN, 0, (ZERO.id,), lambda each: each != first) == other


def test_records_of_another_version_are_not_accepted() -> None:
    """After a fork the books hold both branches' work."""
    other = version("other")
    step = step_with(*finished_partition(0, parent=other.id))
    assert accepted(step) == ()
    assert len(accepted(step, sources=(other.id,))) == 3


def test_where_rollouts_may_be_of_several_versions_each_call_of_a_chain_has_its_own() -> None:
    """What goes on with a partition reads the newest that there is then, and names it beside what was made before."""
    older = version("older")
    begun, *_ = finished_partition(0, parent=older.id)
    scored = replace(finished_partition(0)[1], inputs=(ZERO.id, *(ref.id for ref in begun.shards)))
    step = step_with(begun, scored)
    assert accepted(step) == ()
    assert accepted(step, sources=(ZERO.id, older.id)) == (begun, scored)
    assert accepted(step, sources=(older.id,)) == (begun,)


def test_a_block_is_found_by_what_it_read() -> None:
    """A gradient of an older manifest's groups must not be summed into this one's."""
    block = record("learn", "b0-2", [ZERO.id, "m" * 64], shard("g"))
    step = step_with(block)
    assert step.gradient("learn", Block(0, 2), (ZERO.id, "m" * 64), everything) == block
    assert step.gradient("learn", Block(0, 2), (ZERO.id, "n" * 64), everything) is None
    assert step.gradient("learn", Block(0, 1), (ZERO.id, "m" * 64), everything) is None


@given(st.permutations(finished_partition(0) + finished_partition(1)))
def test_the_digest_of_the_books_tells_what_is_in_them_not_how_it_came(order: list[Record]) -> None:
    """Who has the same needs no answer; who lacks one record gets one."""
    step = step_with(*order)
    assert step.records_digest() == step_with(*finished_partition(0), *finished_partition(1)).records_digest()
    fewer = step_with(*order[1:])
    assert step.records_digest() != fewer.records_digest()
    fewer.add(order[0])
    assert step.records_digest() == fewer.records_digest()


def test_a_page_that_was_lost_comes_again_with_all_after_it() -> None:
    """Any message may be lost: what one brought that came after it says nothing of what it would have brought."""
    step, page = Step(0), Page("books", 0, 256)
    step.learn_page(who(2), replace(page, first=256, end=300))
    assert step.read.get(who(2)) is None
    step.learn_page(who(2), page)
    step.learn_page(who(2), replace(page, first=256, end=300))
    assert step.read[who(2)] == Page("books", 0, 300)
    step.learn_page(who(2), replace(page, first=0, end=100))
    assert step.read[who(2)] == Page("books", 0, 300)
    step.learn_page(who(2), Page("its next books", 0, 1))
    assert step.read[who(2)] == Page("its next books", 0, 1)
    step.forget(who(2))
    assert who(2) not in step.read


def test_what_a_flood_made_a_node_forget_is_read_again() -> None:
    """A member that invents executions of a task holds it up no longer than it goes on, so what went for them must be
    told again; and who tells it leaves out what was read."""
    true = record("roll", "p0", [ZERO.id], shard("true"))
    step = step_with(true)
    step.learn_page(who(2), Page("books", 0, 1))
    for number in range(MAX_PER_TASK + 1):
        step.add(record("roll", "p0", [ZERO.id], shard(f"invented {number}")))
    assert true.id not in step.by_id
    assert who(2) not in step.read


def test_what_came_since_is_what_was_not_there_before() -> None:
    """Also where too many executions of a task had the oldest forgotten: what comes has a place of its own."""
    first, second = finished_partition(0), finished_partition(1)
    step = step_with(*first)
    place = step.count
    assert step.came_from(place) == []
    for made in second:
        step.add(made)
    assert step.came_from(place) == list(second)
    for number in range(MAX_PER_TASK + 2):
        step.add(record("roll", "p2", [ZERO.id], shard(f"another execution {number}")))
    assert step.count == len(first) + len(second) + MAX_PER_TASK + 2
    assert step.came_from(place)[: len(second)] == list(second)
    assert len(step.came_from(0)) == len(step.by_id)


def test_the_digest_of_claims_tells_who_is_at_work_on_what_and_not_how_long() -> None:
    """Who has heard of the same claims needs no answer, though they were said again; it does once one has ended."""
    first, second = Step(0), Step(0)
    one, two = (TaskKey(0, "roll", Partition(index)) for index in range(2))
    assert first.claims_digest(0.0) == second.claims_digest(0.0)
    first.claim(0.0, who(0), [one, two], until=4.0)
    first.claim(0.0, who(1), [], until=4.0)
    assert first.claims_digest(0.0) != second.claims_digest(0.0)
    second.learn_claim(0.0, who(0), [two, one], until=5.0)
    assert first.claims_digest(0.0) == second.claims_digest(0.0)
    assert first.claims_digest(4.5) != second.claims_digest(4.5)
    second.learn_failed(who(0), one)
    assert first.claims_digest(0.0) != second.claims_digest(0.0)


def test_a_claim_lives_for_its_lease_and_names_all_that_its_node_runs() -> None:
    """A node says what it runs now; what it no longer names, others may take."""
    step, other = Step(0), TaskKey(0, "roll", Partition(1))
    step.claim(0.0, who(2), [UNIT], until=5.0)
    step.claim(0.0, who(3), [UNIT], until=4.0)
    assert step.claimants(3.0, UNIT) == (who(2), who(3))
    assert step.claimants(4.0, UNIT) == (who(2),)
    step.claim(0.0, who(2), [other], until=6.0)
    assert step.claimants(3.0, UNIT) == (who(3),)
    step.forget(who(3))
    assert step.claimants(3.0, UNIT) == ()


def test_a_forgotten_node_acknowledged_nothing() -> None:
    """A replica's later life does not keep the bytes that its earlier one acknowledged."""
    step = Step(0)
    step.acks[SealId("s" * 64)] = {who(1), who(2)}
    step.forget(who(2))
    assert list(step.acks.values()) == [{who(1)}]


ALL = [who(number) for number in (1, 2, 3)]


def everybody(task: TaskKey) -> Collection[NodeId]:
    return ALL


@pytest.mark.parametrize(
    ("failed", "is_fatal"),
    [
        ([(1, "user", "division by zero")], False),
        ([(1, "user", "division by zero"), (2, "user", "division by zero")], True),
        ([(1, "user", "division by zero"), (1, "user", "division by zero")], True),
        ([(1, "user", "division by zero"), (2, "user", "another")], False),
        ([(1, "engine", "killed"), (2, "engine", "killed")], False),
        ([(1, "engine", "killed"), (2, "engine", "hung"), (3, "user", "odd")], True),
    ],
)
def test_a_run_fails_by_one_error_twice_or_any_three(
    failed: list[tuple[int, FailureKind, str]], is_fatal: bool
) -> None:
    """User code that raises the same twice will always; engines die for reasons that pass, but not three times."""
    nodes: dict[int, Failures] = {}
    everywhere = Failures()
    for number, kind, error in failed:
        everywhere.add(nodes.setdefault(number, Failures()).record(UNIT, who(number), kind, error))
    assert bool(everywhere.verdicts(everybody)) == is_fatal


def test_a_broken_host_alone_does_not_fail_a_run() -> None:
    """Three tries of one node say something of the node, unless no other node is left to try."""
    failures = Failures()
    for _ in range(4):
        failures.record(UNIT, who(1), "engine", "no such device")
    assert not failures.verdicts(everybody)
    assert failures.verdicts(lambda task: [who(1)])


def test_a_failure_told_twice_is_one_failure() -> None:
    """Messages are repeated; attempts are not."""
    here, failures = Failures(), Failures()
    failure = here.record(UNIT, who(1), "user", "division by zero")
    failures.add(failure)
    failures.add(failure)
    assert not failures.verdicts(everybody)


def test_failures_of_different_tasks_do_not_add_up() -> None:
    failures = Failures()
    for partition in range(4):
        failures.record(TaskKey(0, "roll", Partition(partition)), who(1), "engine", "killed")
    assert not failures.verdicts(everybody)
