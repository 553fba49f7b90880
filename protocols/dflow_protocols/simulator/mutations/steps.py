"""Rules of a step, broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...names import RecordId, SealId, content_id
from ...wire.books import Page
from .mutation import Mutation, gives


def _chain_of_strangers(original: Any) -> Any:
    """Records of one partition's stages, whatever they read."""

    def chain(self: Any, chain: Any, partition: int, parent: str, counts: Any) -> tuple[Any, ...]:
        from ...names import Partition, TaskKey

        found: list[Any] = []
        for stage in chain.stages:
            known = self.records.get(TaskKey(self.number, stage, Partition(partition)), {}).values()
            fits = [record for record in known if counts(record)]
            if not fits:
                break
            found.append(min(fits, key=lambda record: record.id))
        return tuple(found)

    return chain


def _unwaited(original: Any) -> Any:
    """As if the first in line had been waited for in vain, again and again."""
    return lambda self, view, record, late: original(self, view, record, late + len(view.replicas))


def _left_out(original: Any) -> Any:
    """The last leaf is never summed."""
    return lambda partitions, leaves: original(partitions, leaves)[:-1]


def _unasked(original: Any) -> Any:
    """Whoever asked nobody for its books takes what seems to be an orphan."""

    def is_orphan(view: Any, *rest: Any) -> bool:
        before = view.step.polled_at
        view.step.polled(view.now - view.suspicion_s / 2)
        found = original(view, *rest)
        view.step.polled(before)
        return bool(found)

    return is_orphan


def _one_more(original: Any) -> Any:
    """A further round, though there is enough."""
    return lambda self, kept: min(self.most, original(self, kept) + 1)


def _twice(original: Any) -> Any:
    """The last leaf reads what the first one does, too."""

    def cut(partitions: Any, leaves: int) -> Any:
        from dataclasses import replace

        found = original(partitions, leaves)
        return (*found[:-1], replace(found[-1], pieces=(*found[0].pieces, *found[-1].pieces))) if found[1:] else found

    return cut


STEPS = (
    Mutation(
        "each_update_takes_all_groups", "22", "pipeline.plan:MiniBatch.of", lambda original: lambda self, groups: groups
    ),
    Mutation("no_round_follows_the_first", "3a", "pipeline.plan:Rounds.due", gives(1)),
    Mutation("a_round_too_many", "3a", "pipeline.plan:Rounds.due", _one_more),
    Mutation(
        "what_is_beyond_enough_is_trained_on",
        "3a",
        "pipeline.plan:Training.share",
        lambda original: lambda self, groups: self.minibatch.of(groups),
    ),
    Mutation(
        "lost_partitions_are_sampled_by_the_newest",
        "22a",
        "run_state.run_state:RunState.began",
        lambda original: lambda self, header: header,
        unseen="seldom is something lost amid a step of several updates; "
        "`tests/sim/test_updates.py:test_a_joiner_goes_on_without_what_nobody_has_any_more`",
    ),
    Mutation(
        "records_named_without_outputs",
        "1",
        "wire.steps:Record.id",
        lambda original: property(lambda self: RecordId(content_id("record", [str(self.task), self.inputs]))),
    ),
    Mutation(
        "seals_named_without_records",
        "1",
        "wire.steps:Seal.id",
        lambda original: property(
            lambda self: SealId(content_id("seal", [self.step, self.previous, self.kind, self.generation]))
        ),
    ),
    Mutation("a_chain_of_strangers", "2", "steps.step:Step.chain", _chain_of_strangers),
    Mutation("a_record_counts_without_holders", "2", "steps.view:StepView.counts", gives(True)),
    Mutation("one_holder_is_sealed_at_once", "3", "steps.sealing:has_copies", gives(True)),
    Mutation("no_back_up_copy", "3", "controllers.sealer:Sealer.back_up", gives(None)),
    Mutation(
        "all_replicas_copy_at_once",
        "3d",
        "controllers.sealer:Sealer._backs_up",
        _unwaited,
        "it costs bytes only, and those count where nothing strikes; "
        "`tests/sim/test_watching.py:test_copies_that_nobody_needs_are_noticed`",
    ),
    Mutation("nobody_hears_of_a_back_up_copy", "3b", "run_state.outbox:Outbox.tell_copied", gives(None)),
    Mutation("settled_before_a_replica_has_it", "4", "steps.sealing:is_kept", gives(True)),
    Mutation(
        "no_seal_is_carried",
        "4",
        "steps.sealing:is_carried",
        gives(False),
        unseen="it takes a slice that is gone while a node holds the version, for as long as a seal lasts; "
        "`tests/unit/protocols/steps/test_step_seals.py:test_a_seal_on_whose_chain_a_living_node_holds_a_version_wins_over_all`",
    ),
    Mutation(
        "nobody_steps_in",
        "5",
        "steps.sealing:is_turn",
        lambda original: lambda view, what: view.succession[0] == view.me,
    ),
    Mutation(
        "who_copies_is_waited_for",
        "5",
        "versions.versions:Versions.behind",
        gives(frozenset()),
        unseen="it costs time only, where a copy takes long; "
        "`tests/sim/test_late.py:test_who_copies_over_a_slow_link_holds_up_no_seal`",
    ),
    Mutation(
        "the_dead_are_in_the_succession",
        "5",
        "steps.view:StepView.succession",
        lambda original: property(
            lambda self: (*self.roster, *(node for node in original.fget(self) if node not in self.roster))
        ),
    ),
    Mutation("no_seal_is_void", "6", "steps.sealing:is_void", gives(False)),
    Mutation("the_last_leaf_is_left_out", "7", "steps.reduction:cut_leaves", _left_out),
    Mutation("a_group_is_trained_on_twice", "7", "steps.reduction:cut_leaves", _twice),
    Mutation(
        "whitened_by_half_of_the_step",
        "7",
        "steps.batch:whitening_of",
        lambda original: (
            lambda manifest, training: original(
                replace(manifest, entries=manifest.entries[: len(manifest.entries) // 2]), training
            )
        ),
    ),
    Mutation(
        "a_missing_leaf_counts_as_empty",
        "7",
        "steps.reduction:cover",
        lambda original: lambda whole, needed, find: original(whole, needed, find) or (),
    ),
    Mutation(
        "blocks_of_slots_are_told_at_once",
        "7a",
        "steps.blocks:kept_back",
        lambda original: lambda view, batch, all_of_it=False: original(view, batch, True),
    ),
    Mutation(
        "pieces_lie_at_the_start",
        "7b",
        "ranges:pieces",
        lambda original: (
            lambda shards, first, end: tuple((ref, 0, high - low) for ref, low, high in original(shards, first, end))
        ),
    ),
    Mutation(
        "the_dead_are_dealt_to",
        "11",
        "claiming.deal:homes",
        lambda original: lambda units, roster, living, *slots, **runs: original(units, roster, roster, *slots, **runs),
    ),
    Mutation(
        "all_take_what_the_dead_left",
        "11",
        "steps.view:dealt_now",
        lambda original: (
            lambda view, chain, able: {
                partition: home if home in able else view.me
                for partition, home in original(view, chain, able | {*view.roster}).items()
            }
        ),
    ),
    Mutation("no_orphan_is_taken", "11", "steps.duty:is_orphan", gives(False)),
    Mutation(
        "an_orphan_is_taken_unasked",
        "11",
        "steps.duty:is_orphan",
        _unasked,
        unseen="it costs executions only; `tests/sim/test_calm.py:test_nothing_is_done_twice_where_nothing_breaks`",
    ),
    Mutation(
        "claims_alone_are_no_news",
        "13",
        "steps.step:Step.claims_digest",
        gives("alike"),
        unseen="it costs executions only; "
        "`tests/sim/test_calm.py:test_nothing_is_done_twice_where_works_last_longer_than_patience`",
    ),
    Mutation(
        "a_claim_never_ends",
        "11a",
        "steps.step:Step.claimants",
        lambda original: lambda self, now, unit: tuple(sorted(self.claims.get(unit, {}))),
        unseen="a claim ends with its node's next word or death, the lease only where both are lost; "
        "`tests/unit/protocols/steps/test_step_books.py:test_a_claim_lives_for_its_lease_and_names_all_that_its_node_runs`",
    ),
    Mutation(
        "hearsay_claims_are_passed_on",
        "11a",
        "steps.step:Step.first_hand_claims",
        lambda original: (
            lambda self, now: [(unit, node) for unit in sorted(self.claims) for node in self.claimants(now, unit)]
        ),
    ),
    Mutation(
        "any_record_is_admitted",
        "13a",
        "steps.admission:is_record",
        gives(True),
        unseen="no node of a drawn world lies; `tests/unit/protocols/steps/test_step_lies.py`",
    ),
    Mutation(
        "a_lost_page_counts_as_read",
        "13b",
        "steps.step:Step.learn_page",
        lambda original: lambda self, node, page: self.read.update({node: Page(page.books, 0, page.end)}),
        unseen="no answer of a drawn world has two pages; "
        "`tests/unit/protocols/steps/test_step_books.py:test_a_page_that_was_lost_comes_again_with_all_after_it`",
    ),
    Mutation(
        "who_sums_hears_of_no_blocks",
        "11e",
        "steps.duties:slice_homes",
        gives([]),
        unseen="drawn worlds have members so few that all hear of blocks; "
        "`tests/unit/protocols/steps/test_step_blocks.py:test_as_many_sum_slices_as_there_are_slices_or_trainers`",
    ),
    Mutation(
        "slices_move_with_each_step",
        "11",
        "steps.view:StepView.reducers",
        lambda original: property(lambda self: self.trainers),
        unseen="it costs fresh memory only; "
        "`tests/unit/protocols/steps/test_step_blocks.py:test_slices_have_the_same_homes_in_every_step`",
    ),
    Mutation(
        "a_failed_claim_stays",
        "14",
        "steps.step:Step.learn_failed",
        gives(None),
        unseen="the node's next claims say the same; "
        "`tests/unit/protocols/steps/test_step_failures.py:test_a_claim_ends_with_the_word_that_it_failed_and_not_with_a_repetition_of_it`",
    ),
)
