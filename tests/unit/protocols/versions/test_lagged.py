"""What a version carries along of those before it."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.names import SealId, ShardRef, content_id
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.toy import actor_critic, two_models, two_steps, with_lag
from dflow_protocols.steps.admission import is_header
from dflow_protocols.versions.lagged import carry, own, role, sampled
from dflow_protocols.wire.steps import Header
from tests.unit.protocols.books import shard

TWO_BEHIND = with_lag(replace(two_steps(), steps=6), 2)
SEVERAL = with_lag(actor_critic(), 2)  # its steps begin with versions 0, 4, 6 and 10


BEGUN_BEFORE = dict(enumerate([(0, 0)] * 5 + [(4, 0)] * 2 + [(6, 4)] * 4))  # of each version


def state_of(number: int, models: tuple[str, ...] = ("policy",)) -> tuple[tuple[str, ShardRef], ...]:
    params = [(f"params:{model}", shard(f"params {number} {model}".removesuffix(" policy"), 1000)) for model in models]
    return (("optimizer:learn", shard(f"moments {number}", 2000)), *params)


def chain(length: int, pipeline: Pipeline = TWO_BEHIND) -> list[Header]:
    """So many versions, each made of the one before."""
    found: list[Header] = []
    for number in range(length):
        before = found[-1] if found else None
        seal = SealId(content_id("seal", number))
        state = carry(pipeline, before, state_of(number, pipeline.trainable))
        found.append(Header(before.id if before else None, number, 0, seal, state))
    return found


def test_a_version_has_the_parameters_of_as_many_before_it_as_rollouts_are_behind() -> None:
    """So whoever holds one version, and nothing else, can sample each step that may be open to it."""
    *_, last = chain(5)
    assert last.state == (
        ("lag1:policy", shard("params 3", 1000)),
        ("lag2:policy", shard("params 2", 1000)),
        *state_of(4),
    )
    assert own(last.state) == state_of(4)


def test_before_there_were_so_many_it_is_the_first_one() -> None:
    """Steps up to the lag are all sampled from version 0."""
    first, second, *_ = chain(3)
    assert {ref for _, ref in first.state if ref.nbytes == 1000} == {shard("params 0", 1000)}
    assert dict(second.state)[role(2, "policy")] == shard("params 0", 1000)


def test_what_is_sampled_from_has_one_name_in_all_versions_that_carry_it() -> None:
    """A rollout that began before a version was made counts after it."""
    versions = chain(5)
    names = {sampled(TWO_BEHIND, versions[later], 2).id for later in (2, 3, 4)}
    assert len(names) == 1
    assert sampled(TWO_BEHIND, versions[3], 1).id not in names
    assert sampled(TWO_BEHIND, versions[4], 2).state == (("params:policy", shard("params 2", 1000)),)


def test_amid_the_updates_of_a_step_those_are_carried_that_began_steps() -> None:
    """No step samples from what another one's updates left halfway; the step's own beginning is sampled from later."""
    versions = chain(11, SEVERAL)
    begun = {number: [shard(f"params {each}", 1000) for each in due] for number, due in BEGUN_BEFORE.items()}
    for number, version in enumerate(versions):
        assert [dict(version.state)[role(behind, "policy")] for behind in (1, 2)] == begun[number], number
    assert dict(versions[5].state)[role(1, "critic")] == shard("params 4 critic", 1000)


def test_what_a_step_samples_from_has_one_name_in_all_versions_from_which_it_is_sampled() -> None:
    """It is open from the step two before it on, to whatever of their updates a node got."""
    versions = chain(11, SEVERAL)
    assert len({sampled(SEVERAL, versions[number], 0).id for number in range(7)}) == 1
    assert len({sampled(SEVERAL, versions[number], 4).id for number in range(4, 11)}) == 1
    assert sampled(SEVERAL, versions[6], 4).id != sampled(SEVERAL, versions[6], 0).id


def test_without_a_lag_rollouts_are_of_the_version_itself() -> None:
    """The records, seals and versions of such a run are what they were."""
    version = chain(2, two_steps())[-1]
    assert version.state == state_of(1)
    assert sampled(two_steps(), version, 1) is version


def test_only_models_that_rollouts_are_made_with_are_carried() -> None:
    """A copy of a judge that nobody samples from would fill memory for nothing."""
    assert two_models().sampled == ("policy",)
    assert two_models().trainable == ("judge", "policy")


def test_a_version_that_lacks_what_later_steps_sample_from_is_not_taken() -> None:
    """A member that invents one would else have others copy what they cannot go on from."""
    version = chain(3)[-1]
    lacking = [entry for entry in version.state if entry[0] != role(2, "policy")]
    shorter = [(name, shard("short", 10)) if name == role(1, "policy") else (name, ref) for name, ref in version.state]
    assert is_header(replace(version, step=2), TWO_BEHIND)
    assert not is_header(replace(version, step=2, state=tuple(lacking)), TWO_BEHIND)
    assert not is_header(replace(version, step=2, state=tuple(shorter)), TWO_BEHIND)
