"""Rules of versions, broken."""

from __future__ import annotations

from dataclasses import replace

from ...names import VersionId, content_id
from ...work import ApplyWork, Product
from .mutation import Mutation, gives

VERSIONS = (
    Mutation(
        "rollouts_are_of_the_newest_version",
        "2a",
        "versions.lagged:sampled",
        lambda original: lambda pipeline, version, number: original(pipeline, version, version.step),
    ),
    Mutation(
        "a_version_carries_itself_along",
        "2a",
        "versions.lagged:carry",
        lambda original: lambda pipeline, parent, state: original(pipeline, None, state),
    ),
    Mutation(
        "a_reference_moves_with_its_policy",
        "2c",
        "versions.kept:carry",
        lambda original: lambda pipeline, number, parent, state: original(pipeline, number, None, state),
    ),
    Mutation(
        "a_reference_that_is_not_made_yet_is_a_part_of_a_name",
        "2c",
        "versions.kept:numbers",
        lambda original: lambda pipeline: dict.fromkeys(original(pipeline), 0),
        unseen="in drawn worlds whatever is sampled is scored by it; "
        "`tests/unit/protocols/versions/test_kept.py:test_before_it_is_there_what_is_sampled_has_one_name_all_the_same`",
    ),
    Mutation(
        "a_reference_comes_without_what_is_said_of_its_base",
        "2c",
        "steps.view:params_of",
        lambda original: (
            lambda state, models, bases: original(state, models, [each for each in bases if each[0] == each[1]])
        ),
    ),
    Mutation(
        "versions_amid_a_step_are_carried_along",
        "22b",
        "versions.lagged:carry",
        lambda original: lambda pipeline, parent, state: original(pipeline, parent and replace(parent, step=0), state),
    ),
    Mutation(
        "rosters_come_as_if_each_step_made_one_update",
        "22b",
        "pipeline.spec:Pipeline.rostered_with",
        lambda original: (
            lambda self, number: number + 1 + self.ahead if number + self.ahead < self.schedule.versions else None
        ),
        unseen="who lacks a roster issues one: it costs time alone; "
        "`tests/unit/protocols/pipeline/test_plan.py:test_each_step_has_a_roster_before_it_opens`",
    ),
    Mutation(
        "what_was_lost_is_sampled_from_newer_weights",
        "22b",
        "run_state.run_state:RunState.source",
        lambda original: (
            lambda self, header, number: (
                self.began(header) if self.plan(number).is_carried else original(self, header, number)
            )
        ),
        unseen="seldom is something lost amid a step whose rollouts are behind; "
        "`tests/sim/test_behind.py:test_what_was_lost_is_sampled_again_as_it_was`",
    ),
    Mutation(
        "nothing_is_sampled_ahead",
        "2a",
        "run_state.run_state:RunState.views",
        lambda original: lambda self, now, mesh, header: original(self, now, mesh, header)[:1],
        unseen="it costs time alone; `tests/sim/test_lag.py:test_the_next_steps_are_sampled_while_one_trains`",
    ),
    Mutation(
        "what_older_versions_sampled_does_not_count",
        "2b",
        "run_state.run_state:RunState.older",
        gives(()),
        unseen="it costs time alone; `tests/sim/test_async.py:test_rollouts_are_of_the_newest_version_there_is`",
    ),
    Mutation(
        "steps_too_far_ahead_are_sampled",
        "2b",
        "pipeline.spec:Pipeline.ahead",
        lambda original: property(lambda self: original.fget(self) + (self.max_staleness > 0)),
    ),
    Mutation(
        "versions_named_without_state",
        "1",
        "names:version_id",
        lambda original: lambda seal, state, coefficients=(): VersionId(content_id("version", seal)),
    ),
    Mutation(
        "weights_follow_half_of_the_step",
        "7c",
        "versions.coefficients:_moved",
        lambda original: (
            lambda weight, before, manifest: original(
                weight, before, replace(manifest, entries=manifest.entries[: len(manifest.entries) // 2])
            )
        ),
    ),
    Mutation("committed_as_soon_as_made", "9", "versions.versions:Versions.is_committed", gives(True)),
    Mutation("nothing_is_committed", "9", "versions.versions:Versions.is_committed", gives(False)),
    Mutation(
        "nobody_says_that_all_have_a_version",
        "9b",
        "run_state.outbox:Outbox.tell_arrival",
        gives(None),
        unseen="drawn worlds have members so few that each hears of all; "
        "`tests/sim/test_many.py:test_many_nodes_hold_no_more_than_few_do`",
    ),
    Mutation(
        "the_fewest_samples_win",
        "10",
        "versions.versions:preference",
        lambda original: lambda head: (head.samples, head.step, head.version),
    ),
    Mutation("a_stalled_head_is_not_set_aside", "10", "versions.catch_up:CatchUp._set_aside", gives(None)),
    Mutation(
        "any_chunk_counts_as_a_copys",
        "10",
        "shards.holdings:Holdings._note_chunk",
        lambda original: lambda self, now, shard, wanted_as: original(self, now, shard, {Product.STATE}),
        unseen="it costs time alone; "
        "`tests/unit/protocols/versions/test_step_heads.py:test_a_copy_stalls_though_rollouts_come`",
    ),
    Mutation(
        "what_nobody_can_give_is_waited_for",
        "10",
        "versions.catch_up:CatchUp._is_abandoned",
        gives(False),
        unseen="it costs time alone; `tests/unit/protocols/versions/test_step_heads.py:"
        "test_a_copy_that_nobody_can_give_is_left_for_what_they_went_to`",
    ),
    Mutation(
        "who_newly_holds_a_head_is_not_asked",
        "10",
        "versions.versions:Versions._counts",
        lambda original: (
            lambda self, now, head, living: head not in self.set_aside or self.set_aside[head].until <= now
        ),
        unseen="seldom does somebody new come to hold a head that was set aside; `tests/unit/protocols/versions/"
        "test_step_heads.py:test_a_head_that_was_set_aside_is_tried_again_when_somebody_new_has_it`",
    ),
    Mutation(
        "a_failed_update_is_waited_for",
        "10",
        "runs.run:Run._is_applying",
        lambda original: lambda self: any(isinstance(call.work, ApplyWork) for call in self.state.calls.values()),
        unseen="engines that break in drawn worlds do so at once, so the tries take next to no time; "
        "`tests/sim/test_claiming.py:test_a_machine_that_fails_to_apply_copies_what_others_made`",
    ),
    Mutation(
        "who_fails_at_updates_leaves_none_to_others",
        "10",
        "versions.own_updates:OwnUpdates.are_left",
        gives(False),
        unseen="engines that break in drawn worlds do so at once, so the tries take next to no time; "
        "`tests/sim/test_claiming.py:test_whose_updates_always_fail_leaves_them_to_others`",
    ),
    Mutation(
        "an_update_is_left_to_others_for_ever",
        "10",
        "controllers.advance:Advance._is_left_to_others",
        lambda original: lambda self, view: self._state.own_updates.are_left(view.trains.step + 1),
        unseen="seldom do updates of two versions in a row fail on all nodes of a drawn world, and then work again; "
        "`tests/sim/test_claiming.py:test_where_all_updates_fail_somebody_tries_again`",
    ),
    Mutation(
        "a_lost_branch_goes_untold",
        "10a",
        "versions.lineage:Lineage.switch",
        gives(None),
        unseen="it is told to people, and no node acts on it; "
        "`tests/sim/test_splits.py:test_a_lost_branch_is_told_of_once_with_what_it_cost`",
    ),
    Mutation(
        "nothing_is_pinned",
        "15h",
        "controllers.ending:Ending._pinned",
        gives(None),
        unseen="in drawn worlds a copy takes no longer than a step; "
        "`tests/sim/test_late.py:test_who_copies_slowly_arrives_and_becomes_a_trainer`",
    ),
    Mutation("who_is_late_copies_nothing", "15f", "versions.catch_up:CatchUp.reconcile", gives(None)),
)
