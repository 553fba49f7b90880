"""What a version keeps of an earlier one, for a model that is to be that."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.names import SealId, content_id
from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.ranges import State, in_order
from dflow_protocols.simulator.toy import two_steps, warm_then_two, with_kept_reference, with_lag
from dflow_protocols.steps.admission import is_header
from dflow_protocols.versions import lagged
from dflow_protocols.versions.kept import carry, own, role
from dflow_protocols.wire.steps import Header
from tests.unit.protocols.books import shard

PIPELINE = with_kept_reference(warm_then_two(), 2)
KEPT = role("reference")
BEHIND = with_lag(replace(two_steps(), steps=8), 2)
LATE = replace(
    BEHIND,  # asked for what is sampled from version 3, and later ones
    models={**BEHIND.models, "reference": {"version_of": "policy", "at": 3}},
    stages=[*BEHIND.stages[:1], Stage("ref", "logprob", model="reference", when="step >= 5"), *BEHIND.stages[1:]],
)


def state_of(number: int) -> State:
    return (("optimizer:learn", shard(f"moments {number}", 2000)), ("params:policy", shard(f"params {number}", 1000)))


def chain(pipeline: Pipeline = PIPELINE) -> list[Header]:
    """All versions of the run, each made of the one before."""
    found: list[Header] = []
    for number in range(pipeline.schedule.versions + 1):
        before = found[-1] if found else None
        seal = SealId(content_id("seal", number))
        lagging = lagged.carry(pipeline, before, state_of(number))
        state = carry(pipeline, number, before.state if before else None, lagging)
        found.append(Header(before.id if before else None, number, 0, seal, state))
    return found


def test_from_its_step_on_each_version_has_the_one_that_began_it() -> None:
    """So whoever holds one version, and nothing else, has the reference of all that follows."""
    versions = chain()
    kept = [dict(each.state)[KEPT] for each in versions]
    assert kept == [shard(f"params {number}", 1000) for number in (0, 1, 2, 2, 2)]
    assert own(versions[4].state) == state_of(4)


def test_a_step_that_trains_on_nothing_hands_it_on() -> None:
    """The state of the version before is taken whole then, what it keeps included."""
    before = chain()[3].state
    assert carry(PIPELINE, 4, before, before) == before


def test_a_header_that_keeps_another_version_is_not_taken() -> None:
    """Up to that step it is the own parameters, as everybody can see; and it is as long as they are."""
    versions = chain()
    assert all(is_header(each, PIPELINE) for each in versions)

    def keeping(number: int, nbytes: int) -> Header:
        kept = (KEPT, shard("another", nbytes))
        return replace(versions[number], state=in_order([*state_of(number), kept]))

    assert not is_header(keeping(2, 1000), PIPELINE)
    assert is_header(keeping(3, 1000), PIPELINE)  # which one it was is for who has the versions before to know
    assert not is_header(keeping(3, 996), PIPELINE)
    assert not is_header(replace(versions[3], state=state_of(3)), PIPELINE)


def test_what_is_sampled_from_an_earlier_version_has_it_along() -> None:
    """A rollout is scored with what the version has that sampled it, whichever later one a node works from."""
    versions = chain(LATE)
    sources = [lagged.sampled(LATE, versions[later], 4) for later in (4, 5, 6)]
    due = ((KEPT, shard("params 3", 1000)), ("params:policy", shard("params 4", 1000)))
    assert [source.state for source in sources] == [due] * 3


def test_before_it_is_there_what_is_sampled_has_one_name_all_the_same() -> None:
    """Until then it is another one in each version, and no rollout of these asks it."""
    versions = chain(LATE)
    for number in (0, 1, 2):
        names = {lagged.sampled(LATE, versions[later], number).id for later in range(number, number + 3)}
        assert len(names) == 1
