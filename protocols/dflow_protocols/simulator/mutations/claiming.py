"""Who does the work, broken."""

from __future__ import annotations

from .mutation import Mutation, becomes, gives

CLAIMING = (
    Mutation("a_task_is_tried_for_ever", "14b", "claiming.failure:Failures.verdicts", gives([])),
    Mutation("a_loan_never_lapses", "11d", "claiming.loans:Loans.lapse", gives(None)),
    Mutation(
        "a_broken_host_is_dealt_on",
        "14a",
        "claiming.ability:Ability.able",
        lambda original: lambda self, stages, me, living, offers: self.fit(stages, living, offers),
    ),
    Mutation("nobody_withdraws", "14a", "claiming.ability:WITHDRAW_AFTER", becomes(1000)),
    Mutation("one_failure_condemns_a_task", "14b", "claiming.failure:Failures.ANY_ERROR", becomes(1)),
    Mutation("a_task_stays_where_it_failed", "14", "claiming.failure:Failures.nodes", gives(frozenset())),
)
