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
    Mutation("leaving_gives_nothing_back", "16", "controllers.leaving:Leaving._give_back", gives(False)),
    Mutation("a_drained_node_lets_nothing_go", "16a", "controllers.draining:Draining.reconcile", gives(None)),
)
