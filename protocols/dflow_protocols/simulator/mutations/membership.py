"""Who lives, broken."""

from __future__ import annotations

from typing import Any

from .mutation import Mutation, gives


def _over(self: Any, now: float) -> list[Any]:
    """Nobody is asked, and it is over."""
    self.is_over = True
    return []


MEMBERSHIP = (
    Mutation("who_slept_acts_at_once", "17", "membership.rejoin:Rejoin.take_due", lambda original: _over),
    Mutation("time_goes_on_in_sleep", "17", "clock:NodeClock.read", lambda original: lambda self, now, *_: (now, 0.0)),
    Mutation("two_of_one_key_both_speak", "17a", "membership.duplicate:Duplicate.yields_to", gives(False)),
    Mutation("who_cannot_be_dialled_counts", "18", "membership.reach:Reach.fail", gives(False)),
    Mutation(
        "who_cannot_be_dialled_takes_orphans",
        "18",
        "runs.mesh:Mesh._is_cut_off",
        gives(False),
        unseen="it costs that node's time alone; `tests/sim/test_links.py` shows it",
    ),
    Mutation(
        "lanes_are_forgotten_with_a_death",
        "18",
        "membership.reach:Reach.bury",
        lambda original: lambda self, node: (self.unreached.pop(node, None), original(self, node)),
        unseen="in few drawn worlds a member that nobody can dial stands still until it is held dead, and comes back; "
        "`tests/sim/test_links.py` shows it",
    ),
    Mutation(
        "the_silent_are_not_asked",
        "18",
        "membership.reach:Reach.await_word",
        gives(None),
        unseen="in few drawn worlds all others fail to dial a member, of which one heard nothing just then; "
        "`tests/unit/protocols/membership/test_reach.py` shows it",
    ),
    Mutation(
        "who_comes_and_goes_is_dealt_work",
        "18b",
        "membership.table:UNSTEADY_FOR",
        lambda original: 0.0,
        unseen="it costs time alone, and drawn cuts seldom strike a member again and again; "
        "`tests/unit/protocols/runs/test_mesh.py` shows it",
    ),
    Mutation(
        "a_lost_word_waits_like_a_silent_member",
        "13",
        "membership.timing:answer_s",
        lambda original: lambda suspicion_s: suspicion_s,
        unseen="drawn worlds have the times of one machine; `tests/sim/test_losses.py` shows it",
    ),
    Mutation("nobody_passes_frames_on", "18a", "runs.framing:pass_on", gives([])),
    Mutation(
        "nobody_refutes",
        "membership",
        "membership.table:Table._answer",
        gives(False),
    ),
    Mutation(
        "relays_ask_nobody_further",
        "18a",
        "membership.probe:FailureDetector._ask_further",
        gives(None),
        unseen="a suspect denies it in time; "
        "`tests/sim/test_links.py:test_links_that_break_under_way_are_found_and_gone_round` shows it",
    ),
    Mutation("no_suspect_is_buried", "membership", "membership.table:Table.expire", gives(None)),
)
