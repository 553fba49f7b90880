"""Weights that follow their divergence: the proportional controller, as a function of seals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from dflow_protocols.metrics import REFERENCE_KL_COUNT, REFERENCE_KL_SAMPLES, REFERENCE_KL_SUM
from dflow_protocols.names import MANIFEST, UPDATE, RunId
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.simulator.toy import several_updates, two_steps, warm_then_two, with_adaptive_kl
from dflow_protocols.steps.admission import is_header
from dflow_protocols.versions import coefficients
from dflow_protocols.versions.saved import Place, Saved, read_saved, write_saved
from dflow_protocols.wire.steps import Seal
from tests.unit.protocols.books import SPEC, ZERO, record, shard, version

ADAPTIVE = with_adaptive_kl(two_steps())  # 0.05, target 0.1, horizon 200
HALF_AS_LONG = 100.0  # completions


def sealed(*apart: float, samples: float = HALF_AS_LONG, step: int = 0) -> tuple[Seal, Seal]:
    """An update and its manifest, whose partitions were so far from the reference, in nats a token, each of as many."""
    entries = tuple(
        record(
            "ref",
            f"p{place}",
            [ZERO.id],
            shard(f"ref{place}"),
            step=step,
            metrics=(
                (REFERENCE_KL_COUNT, 10.0),
                (REFERENCE_KL_SAMPLES, samples / len(apart)),
                (REFERENCE_KL_SUM, 10.0 * each),
            ),
        )
        for place, each in enumerate(apart)
    )
    manifest = Seal(SPEC, step, ZERO.id, ZERO.id, MANIFEST, 0, 0, entries)
    return Seal(SPEC, step, ZERO.id, manifest.id, UPDATE, 0, 8, ()), manifest


def moved(*apart: float, pipeline: Pipeline = ADAPTIVE, **said: Any) -> float:
    """What becomes of the loss's weight, in times what it was."""
    found = dict(coefficients.after(pipeline, coefficients.first(pipeline), *sealed(*apart, **said)))
    assert found["adv"] == found["learn"], "both have the same settings here"
    return found["learn"] / 0.05


@pytest.mark.parametrize(
    ("apart", "factor"),
    [
        ((0.11,), 1 + 0.1 * 0.5),
        ((0.09,), 1 - 0.1 * 0.5),
        ((0.05, 0.17), 1 + 0.1 * 0.5),
        ((0.5,), 1 + 0.2 * 0.5),
        ((0.0,), 1 - 0.2 * 0.5),
        ((-3.0,), 1 - 0.2 * 0.5),
    ],
)
def test_a_weight_moves_by_what_the_divergence_is_off_its_target(apart: tuple[float, ...], factor: float) -> None:
    """Ziegler et al. 2019, section 2.2: the error is clipped at a fifth; half a horizon of completions counts half."""
    assert moved(*apart) == pytest.approx(factor, rel=1e-12)


def test_a_step_counts_for_no_more_than_a_horizon() -> None:
    """Else a large batch would turn a weight around."""
    assert moved(0.0, samples=100 * 200.0) == pytest.approx(0.8, rel=1e-12)


def test_the_order_of_partitions_changes_no_bit() -> None:
    """All nodes have one weight, to the last bit."""
    apart = [0.1 + 0.013 * place**1.5 for place in range(9)]
    assert moved(*apart) == moved(*reversed(apart))


@pytest.mark.parametrize("apart", [(), (float("inf"),)])
def test_where_nothing_is_measured_a_weight_stays(apart: tuple[float, ...]) -> None:
    """A step that only warms up tells nothing, and what is no number is no measure."""
    assert moved(*apart) == 1
    update, _ = sealed(0.3)
    first = coefficients.first(ADAPTIVE)
    assert coefficients.after(ADAPTIVE, first, update, None) == first


def test_a_weight_that_never_meets_its_target_stays_a_number() -> None:
    """Some thousand steps of a fifth would end at infinity, or at nothing, from where no step leads back."""
    for apart, bound in ((9.0, 5e4), (0.0, 5e-8)):
        found = coefficients.first(ADAPTIVE)
        for _ in range(500):
            found = coefficients.after(ADAPTIVE, found, *sealed(apart, samples=200))
        assert dict(found)["learn"] == pytest.approx(bound)
        assert coefficients.are_of(ADAPTIVE, found)


def test_all_updates_of_a_step_go_by_one_weight() -> None:
    """It moves where the step ends: what is sampled again amid the updates must come out as it did."""
    pipeline = with_adaptive_kl(several_updates())
    firsts = pipeline.schedule.firsts
    assert [moved(0.3, pipeline=pipeline, step=number) == 1 for number in range(firsts[1])] == [
        *[True] * (firsts[1] - 1),
        False,
    ]


def test_weights_are_in_a_version_s_id_and_other_pipelines_keep_theirs() -> None:
    """Whoever has the version has them; a run without any is what it was."""
    one = replace(ZERO, coefficients=(("learn", 0.05),))
    assert len({ZERO.id, one.id, replace(one, coefficients=(("learn", 0.06),)).id}) == 3
    assert coefficients.first(two_steps()) == ()


def test_people_are_told_what_a_step_went_by() -> None:
    """Each by its stage, and not where it did not run."""
    pipeline = with_adaptive_kl(warm_then_two())
    first = coefficients.first(pipeline)
    assert coefficients.told(pipeline, first, 0) == ()
    assert coefficients.told(pipeline, first, 2) == (("kl_coefficient/adv", 0.05), ("kl_coefficient/learn", 0.05))
    assert coefficients.told(pipeline, first[:1], 2) == (("kl_coefficient", 0.05),)


def test_a_header_has_the_weights_that_its_pipeline_asks_for() -> None:
    """What a member says is taken only if a version may have it."""
    made = replace(version("one"), coefficients=coefficients.first(ADAPTIVE))
    assert is_header(made, ADAPTIVE)
    for others in ((), made.coefficients[:1], tuple((stage, float("nan")) for stage, _ in made.coefficients)):
        assert not is_header(replace(made, coefficients=others), ADAPTIVE)
    assert not is_header(made, two_steps())


def test_a_checkpoint_brings_a_version_s_weights_back() -> None:
    """A run that begins again goes on with what it had; without any nothing of it is written."""
    for header in (ZERO, replace(ZERO, coefficients=coefficients.first(ADAPTIVE))):
        places = tuple(Place(str(PurePosixPath(f"{at}")), 0) for at, _ in enumerate(header.state))
        saved = Saved(RunId("a" * 32), SPEC, 2, "toy", header, places)
        text = write_saved(saved)
        assert read_saved(text) == saved
        assert ("coefficients" in json.loads(text)) == bool(header.coefficients)
