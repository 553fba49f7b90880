"""Runs as a whole, and what their nodes tell each other, broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...names import NodeId
from ...run_state.heartbeats import Heartbeats
from ...wire.heartbeat import Delta, Mark
from ...wire.steps import FailurePut, RunPut
from .mutation import Mutation, becomes, gives


def _told_once(original: Callable[[Heartbeats, NodeId], Delta]) -> Callable[[Heartbeats, NodeId], Delta]:
    """Whatever a frame carries its receiver has from then on, were it lost."""

    def delta(self: Heartbeats, to: NodeId) -> Delta:
        told = original(self, to)
        self.take(to, Delta(Mark(0, 0), 0, told.mark, ()))
        return told

    return delta


def _attempts_do_not_count(original: Callable[[RunPut, RunPut], bool]) -> Callable[[RunPut, RunPut], bool]:
    return lambda one, other: original(replace(one, attempt=0), replace(other, attempt=0))


def _heartbeats_of_any_attempt(original: Callable[..., None]) -> Callable[..., None]:
    """Where a node stood in an earlier attempt is taken as if it were of this one."""

    def observe(self: Any, now: float, source: NodeId, delta: Delta, actions: Any) -> None:
        now_at = {name: run.status.attempt for name, run in self.runs.items()}
        taken = tuple(replace(each, attempt=now_at.get(each.run, each.attempt)) for each in delta.heartbeats)
        original(self, now, source, replace(delta, heartbeats=taken), actions)

    return observe


def _failures_of_any_attempt(original: Callable[..., None]) -> Callable[..., None]:
    """A failure that was mended is taken for one of this attempt."""

    def learn(self: Any, now: float, mesh: Any, source: NodeId, message: Any, out: Any) -> None:
        is_failure = isinstance(message, FailurePut)
        told = replace(message, attempt=self._state.status.attempt) if is_failure else message
        original(self, now, mesh, source, told, out)

    return learn


def _unanswered(original: Callable[..., Any]) -> Callable[..., Any]:
    """What is said of an ended run is passed over."""

    def deliver(self: Any, now: float, mesh: Any, source: NodeId, message: Any) -> Any:
        run = self.runs.get(message.run)
        return original(self, now, mesh, source, message) if run is None else run.take(now, mesh, source, message)

    return deliver


RUNS = (
    Mutation("nobody_learns_where_others_stand", "13c", "run_state.heartbeats:Heartbeats.take", gives(())),
    Mutation(
        "what_was_told_once_counts_as_known",
        "13c",
        "run_state.heartbeats:Heartbeats.delta",
        _told_once,
        unseen="a node of a drawn world soon says something else, with what was lost; "
        "`tests/sim/test_losses.py:test_what_a_node_says_of_itself_is_known_to_all_though_most_frames_are_lost`",
    ),
    Mutation(
        "what_was_forgotten_stays_acknowledged",
        "13c",
        "run_state.heartbeats:Heartbeats.acknowledge_nothing",
        gives(None),
        unseen="as above; "
        "`tests/unit/protocols/run_state/test_heartbeats.py:test_all_say_again_what_was_forgotten_here`",
    ),
    Mutation("nothing_is_said_again", "13", "runs.anti_entropy:AntiEntropy.refresh", gives(False)),
    Mutation(
        "a_settled_seal_goes_no_further",
        "4a",
        "runs.inbox:Inbox._pass_on",
        gives(None),
        unseen="drawn worlds have members so few that each is told by who settled it; "
        "`tests/sim/test_many.py:test_a_seal_comes_to_everybody_without_being_asked_for`",
    ),
    Mutation(
        "no_long_seal_is_put_together",
        "4b",
        "run_state.long_seals:joined",
        gives(None),
        unseen="drawn worlds have no seal so long; "
        "`tests/sim/test_many.py:test_a_seal_too_long_for_a_message_settles_as_any_other`",
    ),
    Mutation(
        "who_works_on_what_has_ended_is_not_told",
        "15",
        "runs.registry:Registry.deliver",
        _unanswered,
        unseen="the next sync or change of its heartbeat tells it; "
        "`tests/unit/protocols/steps/test_step_messages.py:test_who_still_works_on_a_run_that_has_ended_is_told_so_at_once`",
    ),
    Mutation(
        "ends_are_not_compared",
        "13",
        "runs.registry:Registry.compare",
        gives([]),
        unseen="who speaks of a run that has ended is told so as well; "
        "`tests/sim/test_cases.py:test_a_dead_node_that_returns_learns_that_the_run_was_cancelled`",
    ),
    Mutation("what_failed_is_not_tried_again", "14", "runs.outcomes:RETRY_AFTER", becomes(1e6)),
    Mutation("works_open_files_that_are_not_there", "14f", "run_state.calls:Calls.may_begin", gives(True)),
    Mutation("a_submit_is_answered_by_one_node", "15", "runs.registry:SUBMIT_COPIES", becomes(1)),
    Mutation("the_last_word_counts", "15", "run_state.status:merge", lambda original: lambda mine, other: other),
    Mutation("a_resumed_run_stays_failed", "15e", "run_state.status:is_above", _attempts_do_not_count),
    Mutation(
        "where_others_stood_counts",
        "15e",
        "node:Node._observe",
        _heartbeats_of_any_attempt,
        unseen="who missed a resume in a drawn world hears of it by other ways as well; "
        "`tests/sim/test_splits.py:test_who_was_cut_off_when_a_run_began_again_begins_again_with_the_others`",
    ),
    Mutation(
        "what_was_mended_counts",
        "15e",
        "runs.inbox:Inbox._learn_from",
        _failures_of_any_attempt,
        unseen="no word of a failure is late in a drawn world until its run was resumed; "
        "`tests/unit/protocols/runs/test_step_attempts.py:test_what_was_said_in_an_earlier_attempt_counts_in_none_after_it`",
    ),
    Mutation(
        "nothing_is_left_of_an_attempt",
        "15e",
        "runs.run:Run.inherit",
        gives(None),
        unseen="a run of a drawn world goes on from its checkpoints as well; "
        "`tests/unit/protocols/runs/test_step_attempts.py:test_who_missed_a_failure_enters_the_next_attempt_with_empty_books`",
    ),
    Mutation(
        "attempts_have_an_end",
        "15e",
        "run_state.status:is_later",
        lambda original: lambda attempt, than: attempt > than,
        unseen="no member of a drawn world invents one; "
        "`tests/unit/protocols/runs/test_step_attempts.py:test_whatever_attempt_a_member_invents_the_run_can_be_resumed_everywhere`",
    ),
    Mutation(
        "a_slot_takes_whatever_comes",
        "11aa",
        "run_state.calls:FreeSlots.take",
        gives(None),
        unseen="works then wait in the slot, which costs time only; "
        "`tests/unit/protocols/run_state/test_calls.py:test_partitions_that_share_slots_are_spread_over_them`",
    ),
    Mutation(
        "no_end_is_forgotten",
        "19",
        "runs.tombstones:Tombstones.take_old",
        gives([]),
        unseen="drawn worlds do not live for thirty days; "
        "`tests/unit/protocols/runs/test_tombstones.py:test_an_end_that_is_too_old_is_not_taken_up_again`",
    ),
    Mutation(
        "room_is_not_told_of",
        "20a",
        "run_state.calls:Calls.room_made",
        gives(None),
        unseen="it costs a wait of four suspicion times; "
        "`tests/unit/protocols/shards/test_admission_queue.py:test_who_comes_first_is_waited_for_but_not_for_ever`",
    ),
    Mutation(
        "no_run_gives_way",
        "20b",
        "runs.yielding:Yielding.reconcile",
        gives(None),
        unseen="two runs of a drawn world have room for both; "
        "`tests/sim/test_little_room.py:test_of_two_runs_whose_state_leaves_no_room_for_either_the_later_one_waits_for_the_other`",
    ),
    Mutation("a_full_disk_vouches", "21", "runs.registry:Registry.not_persisted", gives([])),
    Mutation(
        "a_slice_is_claimed_at_replicas_alone",
        "11a",
        "run_state.outbox:Outbox._concerned",
        lambda original: lambda self, view, units: list(view.replicas),
        unseen="it costs bytes on slow links only; "
        "`tests/sim/test_calm.py:test_on_slow_links_a_slice_is_left_to_who_brings_its_blocks`",
    ),
)
