"""What is known of runs and rosters merges the same way in whatever order, and however often, it is heard."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.names import VersionId
from dflow_protocols.run_state import status as runs
from dflow_protocols.steps.roster import make_roster, newer
from dflow_protocols.wire.listing import FileRef
from dflow_protocols.wire.steps import Roster, RunPut
from tests.unit.protocols.books import RUN, shard, who

NODES = st.lists(st.integers(1, 5).map(who), max_size=4)
ROSTERS = st.builds(make_roster, st.just(3), st.integers(0, 2), NODES, NODES)
VERSIONS = st.sampled_from(["a" * 64, "b" * 64]).map(VersionId)
OUTCOMES = st.one_of(
    st.just(b""),
    st.builds(
        lambda samples, step, version: msgpack.packb({"samples": samples, "step": step, "version": version}),
        st.integers(0, 2),
        st.integers(0, 2),
        VERSIONS,
    ),
    st.binary(max_size=6),
)
ROSTER = make_roster(0, 0, [who(1)], [who(1)])
FILES = (FileRef("data.sums.jsonl", "sums.jsonl", shard("sums")), FileRef("models.policy.path", "/m/x", shard("x")))
BARE = RunPut(RUN, runs.ACTIVE, 0, b"spec", "/base", FILES, who(1), "0", ROSTER, b"", False)
STATUSES = st.builds(
    lambda state, attempt, outcome: replace(BARE, state=state, attempt=attempt, outcome=outcome),
    st.sampled_from(sorted(runs.RANK)),
    st.sampled_from([0, 1, 2, runs.ATTEMPTS - 2, runs.ATTEMPTS - 1]),
    OUTCOMES,
)


@given(ROSTERS, ROSTERS, ROSTERS)
def test_rosters_merge_alike_in_any_order(a: Roster, b: Roster, c: Roster) -> None:
    """Two nodes that heard the same rosters deal the step alike."""
    assert newer(a, b) == newer(b, a)
    assert newer(newer(a, b), c) == newer(a, newer(b, c))
    assert newer(a, a) == newer(a, None) == newer(None, a) == a
    assert newer(None, None) is None


@given(ROSTERS, ROSTERS)
def test_a_roster_of_a_higher_generation_always_wins(a: Roster, b: Roster) -> None:
    """It was made because nobody of the older one could train."""
    higher = replace(b, generation=a.generation + 1)
    assert newer(a, higher) == newer(higher, a) == higher


@given(STATUSES, STATUSES, STATUSES)
def test_statuses_of_a_run_merge_alike_in_any_order(a: RunPut, b: RunPut, c: RunPut) -> None:
    """Whatever the path by which an end is told, all nodes say the same of the run; garbage in it raises nothing."""
    assert runs.merge(a, b) == runs.merge(b, a)
    assert runs.merge(runs.merge(a, b), c) == runs.merge(a, runs.merge(b, c))
    assert runs.merge(a, a) == a


@given(STATUSES, STATUSES)
def test_a_status_never_moves_down(a: RunPut, b: RunPut) -> None:
    """active < failed < finished < cancelled: a late message of a running mesh revives no ended run."""
    merged = runs.merge(a, b)
    assert not any(runs.is_above(each, merged) for each in (a, b))


@given(STATUSES)
def test_only_a_later_attempt_is_above_a_failure_and_below_every_other_end(status: RunPut) -> None:
    """What was resumed stays so when an old failure is told again; what has finished or was cancelled has ended."""
    failed = replace(status, state=runs.FAILED)
    again = runs.resumed(failed)
    assert runs.merge(failed, again) == runs.merge(again, failed) == again
    for end in (runs.FINISHED, runs.CANCELLED):
        assert runs.merge(again, replace(status, state=end)).state == end


@given(st.integers(0, runs.ATTEMPTS - 1), st.integers(0, runs.ATTEMPTS - 1))
def test_of_two_attempts_exactly_one_is_later_and_after_each_there_is_a_next(one: int, other: int) -> None:
    """A member that invents one can be outdone by whoever resumes the run: no attempt is the last."""
    assert runs.is_later(one, other) + runs.is_later(other, one) == (one != other)
    again = runs.resumed(replace(BARE, state=runs.FAILED, attempt=one))
    assert runs.is_later(again.attempt, one)
    assert runs.is_sound(again)


def test_no_run_that_was_resumed_is_at_the_attempt_of_one_just_submitted() -> None:
    """Who hears of it for the first time, as it joins, would begin it at version 0."""
    last = replace(BARE, state=runs.FAILED, attempt=runs.ATTEMPTS - 1)
    assert runs.resumed(last).attempt > 0


def test_of_two_ends_the_one_that_trained_on_more_counts() -> None:
    """A split that heals after both halves finished must agree on one version, as heads do."""
    less = runs.ended(BARE, runs.FINISHED, {"samples": 8, "step": 2, "version": "a" * 64})
    more = runs.ended(BARE, runs.FINISHED, {"samples": 9, "step": 2, "version": "b" * 64})
    assert runs.merge(less, more) == runs.merge(more, less) == more


@given(STATUSES)
def test_what_is_on_disk_is_the_status_that_was_written(status: RunPut) -> None:
    """A restarted node knows of its runs what it had acknowledged."""
    assert runs.load(runs.dump(status)) == status


def test_a_file_that_says_an_unknown_state_is_refused() -> None:
    """A newer release's state must not be taken for a running one."""
    with pytest.raises(ValueError, match="unknown run state 'resting'"):
        runs.load(runs.dump(replace(BARE, state="resting")))


def test_a_file_of_another_release_is_refused_in_words() -> None:
    """`not enough values to unpack` helps nobody who upgrades."""
    shorter = msgpack.packb(msgpack.unpackb(runs.dump(BARE))[:-1])
    for data in (shorter, b"\x01", b"old", b""):
        with pytest.raises(ValueError, match="written by another release, or is torn"):
            runs.load(data)
