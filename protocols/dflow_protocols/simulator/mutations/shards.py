"""Where bytes lie, broken."""

from __future__ import annotations

from .mutation import Mutation, gives

SHARDS = (
    Mutation(
        "a_silent_holder_is_trusted",
        "13a",
        "shards.holdings:Holdings.failed",
        lambda original: (
            lambda self, now, shard, chunks, missing, out, silent=(), suspicion_s=0.0: original(
                self, now, shard, chunks, missing, out
            )
        ),
    ),
    Mutation(
        "a_moment_of_silence_is_distrusted",
        "13a",
        "shards.holdings:SILENT_FOR",
        lambda original: 0.0,
        unseen="it costs time alone; `tests/sim/test_late.py` shows it",
    ),
    Mutation(
        "who_serves_after_all_stays_doubted",
        "13a",
        "shards.holdings:Holdings._trust_who_served",
        gives(None),
        unseen="it costs time alone; `tests/unit/protocols/shards/test_step_holdings.py` shows it",
    ),
    Mutation(
        "who_lacks_a_shard_is_asked_again",
        "2",
        "shards.holdings:Holdings.forget",
        gives(None),
        unseen="who began a new life says that it lacks the shard; `tests/unit/protocols/shards/test_step_holdings.py`",
    ),
    Mutation(
        "what_comes_along_is_asked_for",
        "3c",
        "shards.holdings:Holdings.come_along",
        gives(None),
        unseen="it costs messages alone; `tests/sim/test_calm.py:test_short_outputs_come_along_with_their_records`",
    ),
    Mutation(
        "what_ends_a_step_has_no_precedence",
        "20",
        "shards.space:Priority.__gt__",
        lambda original: lambda one, other: (one.run, one.step) > (other.run, other.step),
        unseen="it shows where a node has little more room than one run takes; `tests/sim/test_little_room.py`",
    ),
    Mutation(
        "every_copier_takes_the_same_share",
        "15g",
        "shards.swarm:_every",
        lambda original: lambda count, at, end: original(count, 0, end),
        unseen="the simulator's lanes take one chunk after another from one holder; "
        "`tests/unit/protocols/shards/test_swarm.py:test_a_version_is_with_many_nearly_as_soon_as_with_one`",
    ),
    Mutation("a_node_forgets_nothing_that_was_shed", "20", "shards.holdings:Holdings.shed", gives(None)),
)
