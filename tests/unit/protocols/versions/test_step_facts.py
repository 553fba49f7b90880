"""Facts: what people read of a run follows from its seals alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.names import content_id
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.versions import facts
from dflow_protocols.wire.steps import Header, Seal
from tests.unit.protocols.books import SPEC, ZERO, record, shard, version


def held_out(step: int, *parts: tuple[float, float]) -> Seal:
    """An update seal with (correct, evaluated) of each partition of the toy pipeline's evaluation."""
    entries = tuple(
        record("held", f"p{place}", [ZERO.id], step=step, metrics=(("correct", right), ("evaluated", count)))
        for place, (right, count) in enumerate(parts)
    )
    rest = record("learn", "s0-1", [ZERO.id], shard("slice"), step=step, metrics=(("correct", 99.0),))
    return Seal(SPEC, step, ZERO.id, "m" * 64, "update", 0, 8, (rest, *entries))


def test_an_evaluation_is_the_sum_of_its_partitions_and_of_nothing_else() -> None:
    """Accuracy divides sums, never averages averages; what other stages counted is not in it."""
    found = facts.evaluated(two_steps(), held_out(1, (3.0, 4.0), (1.0, 4.0)), 1)
    assert found == (("held@1/correct", 4.0), ("held@1/evaluated", 8.0))
    assert facts.evals(found) == [{"stage": "held", "step": 1, "accuracy": 0.5, "count": 8}]


def test_evaluations_are_told_by_step_and_those_of_nothing_are_left_out() -> None:
    """Ten comes after nine."""
    found = [facts.evaluated(two_steps(), held_out(step, (1.0, 2.0)), step) for step in (10, 9)]
    nothing = facts.evaluated(two_steps(), held_out(11, (0.0, 0.0)), 11)
    assert [row["step"] for row in facts.evals(facts.merge(*found, nothing))] == [9, 10]


PAIRS = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 9), max_size=3).map(lambda d: tuple(sorted(d.items())))


@given(PAIRS, PAIRS)
def test_merged_facts_are_sorted_and_the_later_ones_count(before: facts.Facts, after: facts.Facts) -> None:
    """Two nodes that made one version must write one header."""
    assert facts.merge(before, after) == tuple(sorted({**dict(before), **dict(after)}.items()))


def test_a_run_is_named_by_the_weights_of_its_only_model_or_of_all() -> None:
    """`weights` must be comparable between runs of one spec: it covers parameters, not the optimizer."""
    one = version("one", ZERO, samples=8)
    assert facts.named(one) == {"version": one.id, "weights": shard("one/p").id, "step": 1, "samples": 8}
    critic, policy = shard("critic"), shard("policy")
    state = (("optimizer:learn", shard("o")), ("params:critic", critic), ("params:policy", policy))
    two = Header(ZERO.id, 1, 8, one.seal, state)
    assert facts.named(two)["weights"] == content_id("weights", [critic.id, policy.id])
