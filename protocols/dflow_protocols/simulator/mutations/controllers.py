"""What a node does about a run, broken."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

from .mutation import Mutation, becomes, gives


def _samples_uncounted(original: Any) -> Any:
    """Versions say that nothing was trained on."""

    def adopt(self: Any, now: float, mesh: Any, update: Any, *rest: Any) -> None:
        original(self, now, mesh, replace(update, samples=0), *rest)

    return adopt


def _of_any_attempt(original: Any) -> Any:
    """What lay on a disk in an earlier attempt is taken for there."""
    return lambda self, source, put: self.learn(source, put.heads)


def _untold(_: Any) -> Any:
    """Who leaves says so to nobody before it is done."""

    def leave(self: Any, now: float, actions: Any) -> None:
        self._leaving = True
        mesh = self._mesh(now)
        for run in self.runs.values():
            actions += run.leave(now, mesh, mesh.drained)

    return leave


def _unless_it_leaves(original: Any) -> Any:
    """Neither as it leaves, nor as it is drained from then on."""
    return lambda self, *args: None if self._state.is_leaving else original(self, *args)


CONTROLLERS = (
    Mutation(
        "no_bound_on_uncommitted_versions",
        "8",
        "controllers.advance:UNCOMMITTED",
        becomes(1000),
        unseen="who is two steps before all others is the only trainer of the roster that follows, and its own claim "
        "commits; it takes a claim that is lost for as long as three steps last; "
        "`tests/unit/protocols/controllers/test_advance.py:test_a_node_does_not_run_far_ahead_of_what_others_hold`",
    ),
    Mutation("samples_go_uncounted", "10", "controllers.advance:Advance._adopt", _samples_uncounted),
    Mutation(
        "slices_are_freed_at_commit",
        "9a",
        "controllers.ending:Ending._needed_step",
        lambda original: lambda self, now, mesh, out: self._state.committed_step,
    ),
    Mutation(
        "the_committed_version_goes",
        "9a",
        "controllers.ending:Ending._is_kept",
        gives(False),
    ),
    Mutation("nothing_is_freed_at_commit", "9a", "controllers.ending:Ending._free", gives(None)),
    Mutation("nothing_is_carried_on", "22", "controllers.carrying:Carrying.reconcile", gives(None)),
    Mutation(
        "what_nobody_has_is_waited_for",
        "22a",
        "controllers.carrying:LOST_AFTER",
        becomes(inf),
        unseen="seldom does nobody who lives have the version that a step began with; "
        "`tests/sim/test_updates.py:test_a_joiner_goes_on_without_what_nobody_has_any_more`",
    ),
    Mutation(
        "books_of_updates_between_stay",
        "22a",
        "run_state.run_state:RunState.free_amid",
        gives(None),
        unseen="drawn steps make a few updates; "
        "`tests/sim/test_updates.py:test_books_of_a_step_do_not_grow_with_its_updates`",
    ),
    Mutation("nobody_pauses_in_a_split", "10b", "steps.roster:is_minority", gives(False)),
    Mutation(
        "no_roster_is_issued_again",
        "12",
        "controllers.rosters:Rosters.ensure",
        lambda original: lambda self, view, mesh, out: view.step.roster is not None,
    ),
    Mutation(
        "a_refusal_is_forgotten_at_once",
        "11b",
        "controllers.stealing:LEAVE_ALONE",
        becomes(0.0),
        unseen="it costs messages, and nobody waits; `tests/unit/protocols/controllers/test_step_stealing.py`",
    ),
    Mutation(
        "a_victim_gives_what_is_not_worth_it",
        "11c",
        "controllers.stealing:WORTH",
        becomes(1000.0),
        unseen="it costs time only; "
        "`tests/unit/protocols/controllers/test_step_stealing.py:test_a_slow_thief_gets_less_than_half`",
    ),
    Mutation(
        "a_partition_is_skipped_for_any_error",
        "14c",
        "controllers.quarantine:Quarantine._may_skip",
        gives(True),
        unseen="drawn pipelines are not `exact`; "
        "`tests/sim/test_claiming.py:test_where_weights_are_a_function_of_the_pipeline_a_dying_engine_leaves_nothing_out`",
    ),
    Mutation(
        "nobody_is_told_of_a_block",
        "14d",
        "controllers.alarm:Alarm.needs",
        gives(None),
        unseen="it is told to people; "
        "`tests/sim/test_claiming.py:test_a_stage_that_nobody_can_run_waits_and_goes_on_when_somebody_joins`",
    ),
    Mutation(
        "no_alarm",
        "14e",
        "controllers.alarm:Alarm.reconcile",
        gives(None),
        unseen="it is told to people; "
        "`tests/sim/test_alarms.py:test_work_that_is_repeated_for_ever_is_told_with_what_the_run_waits_for`",
    ),
    Mutation("finished_with_one_saver", "15", "controllers.checkpoints:SAVERS", becomes(1)),
    Mutation("no_checkpoint_is_written", "15a", "controllers.checkpoints:Checkpoints.owed", gives(None)),
    Mutation(
        "who_is_early_counts_whom_it_knows",
        "15a",
        "controllers.checkpoints:ARRIVAL_WAIT",
        becomes(-1.0),
        unseen="it costs a slot and a disk; "
        "`tests/unit/protocols/controllers/test_checkpoints.py:test_who_is_early_leaves_a_version_for_a_while_to_those_who_come_before_it`",
    ),
    Mutation(
        "what_was_replaced_is_written",
        "15a",
        "controllers.checkpoints:Checkpoints._is_outlived",
        gives(False),
        unseen="it costs a slot, and goes again; "
        "`tests/unit/protocols/controllers/test_checkpoints.py:test_what_newer_ones_replaced_is_not_written_again`",
    ),
    Mutation(
        "who_passed_a_version_is_no_writer",
        "15a",
        "versions.versions:Versions.passers",
        gives(frozenset()),
        unseen="it costs a slot and a disk; "
        "`tests/unit/protocols/controllers/test_checkpoints.py:test_who_copied_a_later_version_writes_none_before_it`",
    ),
    Mutation(
        "who_writes_nothing_comes_first",
        "15a",
        "controllers.checkpoints:Checkpoints._silent",
        gives(frozenset()),
        unseen="a disk of a drawn world is full for less than a run lasts; "
        "`tests/unit/protocols/controllers/test_checkpoints.py:test_where_steps_are_fast_others_step_in_for_a_disk_that_takes_nothing`",
    ),
    Mutation(
        "a_drained_disk_counts",
        "15a",
        "controllers.checkpoints:Checkpoints.holders",
        lambda original: lambda self, version, mesh: original(self, version, replace(mesh, drained=frozenset())),
        unseen="drained hosts of a drawn world take their disks nowhere; "
        "`tests/unit/protocols/controllers/test_checkpoints.py:test_a_drained_disk_is_none_of_two`",
    ),
    Mutation(
        "that_none_is_left_is_said_once",
        "15a",
        "controllers.checkpoints:Checkpoints.are_told",
        lambda original: property(lambda self: bool(self.mine)),
        unseen="a member of a drawn world soon has another one; "
        "`tests/unit/protocols/controllers/test_step_checkpoints.py:test_that_none_is_left_is_said_again`",
    ),
    Mutation(
        "what_a_disk_had_before_counts",
        "15e",
        "controllers.checkpoints:Checkpoints.take",
        _of_any_attempt,
        unseen="no run of a drawn world is begun anew at version 0; "
        "`tests/unit/protocols/runs/test_step_attempts.py:test_what_was_said_in_an_earlier_attempt_counts_in_none_after_it`",
    ),
    Mutation(
        "old_checkpoints_stay",
        "15b",
        "controllers.checkpoints:Checkpoints._keep_newest",
        gives(None),
    ),
    Mutation(
        "nobody_is_waited_for_after_a_restart",
        "15c",
        "controllers.beginning:Beginning._have_all_spoken",
        gives(True),
    ),
    Mutation("a_damaged_checkpoint_is_tried_again", "15d", "controllers.checkpoints:Checkpoints.refuse", gives(None)),
    Mutation("leaving_hands_nothing_over", "16", "controllers.leaving:Leaving.hand_over", gives(None)),
    Mutation(
        "who_leaves_is_counted_on",
        "16",
        "node:Node._leave",
        _untold,
        unseen="seldom is a node of a drawn world asked to leave as it saves the last version; "
        "`tests/sim/test_leave.py:test_the_end_lies_on_two_disks_that_stay`",
    ),
    Mutation(
        "who_leaves_leaves_it_to_others",
        "16",
        "controllers.checkpoints:Checkpoints._before_leaving",
        lambda original: lambda self, mesh: mesh,
        unseen="seldom are all nodes of a drawn world asked to leave in one moment; "
        "`tests/sim/test_power_cut.py:test_a_site_that_is_switched_off_in_order_loses_no_step`",
    ),
    Mutation("leaving_gives_nothing_back", "16", "run_state.outbox:Outbox.put_all_claims", _unless_it_leaves),
    Mutation("a_drained_node_lets_nothing_go", "16a", "controllers.draining:Draining.reconcile", gives(None)),
)
