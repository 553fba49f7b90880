"""Members hold keys, but may be broken: what one says of a run's end or of a manifest must not break another."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from dflow_protocols.events import CancelRequested, Persist, Tick
from dflow_protocols.names import Partition
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.ranges import MAX_RANGES
from dflow_protocols.run_state import status as runs
from dflow_protocols.simulator.toy import TOY_PARTITIONS, two_steps
from dflow_protocols.steps.admission import is_header, is_of_gradient, is_seal
from dflow_protocols.wire.books import Holding
from dflow_protocols.wire.steps import Record, RosterPut, Seal, SealPut
from tests.unit.protocols.books import MIB, SPEC, finished_partition, record, shard, version
from tests.unit.protocols.midway import Midway
from tests.unit.protocols.written_specs import example


def test_a_status_with_another_spec_never_replaces_the_runs_own(midway: Midway) -> None:
    """The spec is what the run's id says. A node that wrote another one to disk could not start any more."""
    run = midway.node.runs[midway.run]
    told = midway.tell(replace(run.status, state=runs.CANCELLED, spec=b"broken", acknowledge=True))
    assert run.status.spec == run.state.pipeline.canonical()
    for action in told:
        if isinstance(action, Persist) and action.key.startswith("runs/"):
            Pipeline.from_canonical(runs.load(action.value).spec)


@pytest.mark.parametrize(
    "outcome",
    [
        b"\xc1",
        msgpack.packb({"samples": float("inf")}),
        msgpack.packb({"samples": "many", "step": None}),
        msgpack.packb({"facts": 3}),
        msgpack.packb({"facts": {"nonsense": 1.0}}),
        msgpack.packb({"facts": {"held@x/correct": "y"}}),
        msgpack.packb([1, 2]),
    ],
    ids=["no msgpack", "infinite", "no numbers", "no facts", "no names", "no values", "no map"],
)
def test_an_end_that_cannot_be_read_breaks_nobody(midway: Midway, outcome: bytes) -> None:
    """It is shown to people and compared with other ends, long after it was told."""
    run = midway.node.runs[midway.run]
    midway.tell(replace(run.status, state=runs.FINISHED, outcome=outcome, acknowledge=True))
    run.summary()
    midway.tell(replace(run.status, state=runs.CANCELLED, outcome=b"", acknowledge=True))
    midway.node.handle(midway.now, CancelRequested(99, midway.run))


def test_an_unknown_state_of_a_known_run_changes_nothing(midway: Midway) -> None:
    """A later release may know more states than this one."""
    run = midway.node.runs[midway.run]
    before = run.status
    midway.tell(replace(before, state="resting"))
    assert run.status == before


@pytest.mark.parametrize("name", ["optimizer:../../etc/passwd", "optimizer:nobody", "params:other", ""])
def test_a_version_has_the_parts_that_its_pipeline_names(midway: Midway, name: str) -> None:
    """Checkpoint files are named after the parts of a version, so no member may choose a name."""
    run = midway.node.runs[midway.run]
    position = run.state.position
    assert position is not None
    assert is_header(position, run.state.pipeline)
    assert not is_header(
        replace(position, state=tuple(sorted((*position.state, (name, shard("x")))))), run.state.pipeline
    )


@pytest.mark.parametrize(
    ("params", "moments", "can_be"),
    [
        ((2,), (4,), True),
        ((2, 2, 1), (4, 4, 2), True),
        ((2, 2, 1), (), True),
        ((2, 2, 1), (4, 4), False),  # a range of the moments is missing
        ((2, 2, 1), (10,), False),  # cut elsewhere than the parameters
        ((2, 1.5, 1), (4, 3, 2), False),  # a border within a chunk: slices are whole ones
        ((2, 0), (4, 0), False),
        ((), (), False),
        ((1,) * (MAX_RANGES + 1), (), False),
    ],
)
def test_the_ranges_of_a_version_are_cut_alike(
    midway: Midway, params: tuple[float, ...], moments: tuple[float, ...], can_be: bool
) -> None:
    """Who computes with them takes the same elements of parameters, moments and gradient."""
    run = midway.node.runs[midway.run]
    assert run.state.position is not None
    roles = (("optimizer:learn", moments), ("params:policy", params))
    state = tuple((role, shard(f"{role}{k}", int(size * MIB))) for role, sizes in roles for k, size in enumerate(sizes))
    assert is_header(replace(run.state.position, state=state), run.state.pipeline) == can_be


@pytest.mark.parametrize(("base", "can_be"), [(32, True), (31, False), (None, False)])
def test_a_version_of_adapters_names_its_base(midway: Midway, base: int | None, can_be: bool) -> None:
    """One that did not would let a node with other weights beneath them take part."""
    raw = example()
    raw["models"]["policy"]["lora"] = {"rank": 8, "alpha": 16}
    run = midway.node.runs[midway.run].state
    position = run.position
    assert position is not None
    named = () if base is None else (("base:policy", shard("b", base)),)
    state = (*named, ("params:policy", shard("p", MIB)))
    assert is_header(replace(position, state=state), Pipeline.from_dict(raw)) == can_be
    assert not is_header(replace(position, state=(("base:policy", shard("b", 32)), *state[-1:])), run.pipeline)


def test_a_gradient_that_is_cut_elsewhere_than_the_parameters_is_not_kept() -> None:
    """A slice is read from the same chunks of every block, so one that is laid out otherwise must not get in."""
    parts, training = (MIB, MIB, 500), plan(two_steps(), 0).trainings[0]
    state = tuple(("params:policy", shard(f"p{k}", size)) for k, size in enumerate(parts))
    block = record("learn", "b0-2", ["v"], *(shard(f"g{k}", size) for k, size in enumerate(parts)))
    assert is_of_gradient(block, state, training)
    for wrong in ((2 * MIB, 500), (MIB, MIB), (MIB, MIB, 501), ()):
        other = record("learn", "b0-2", ["v"], *(shard(f"g{k}", size) for k, size in enumerate(wrong)))
        assert not is_of_gradient(other, state, training)
    slices = [f"s{k}-{k + 1}" for k in range(3)]
    assert all(is_of_gradient(record("learn", part, ["v"], shard("s")), state, training) for part in slices)
    assert not is_of_gradient(record("learn", "s0-2", ["v"], shard("s")), state, training)


def test_a_manifest_that_mixes_executions_is_not_kept(midway: Midway) -> None:
    """Whatever joins results joins them by id; a member that says otherwise changes no weights."""
    run = midway.node.runs[midway.run]

    def manifests() -> list[Seal]:
        return [seal for step in run.state.steps.values() for seal in step.seals.values() if seal.kind == "manifest"]

    midway.world.expect(30.0, lambda: bool(manifests()), "a manifest is known")
    good = manifests()[0]
    plan = run.state.plan(good.step)
    assert is_seal(good, plan)
    other = tuple((name, shard("of another execution")) for name, _ in good.entries[0].outputs)
    assert not is_seal(replace(good, entries=(replace(good.entries[0], outputs=other), *good.entries[1:])), plan)
    assert not is_seal(replace(good, parent=version("another").id), plan)


def entries() -> list[Record]:
    return [each for partition in range(TOY_PARTITIONS) for each in finished_partition(partition)]


MANIFESTS: dict[str, list[Record]] = {
    "nothing": [],
    "a part of another kind": [*entries(), record("adv", "b0-1", ["x"], shard("y"))],
    "a partition too many": [
        *entries(),
        *(replace(each, task=replace(each.task, part=Partition(77))) for each in entries()[:3]),
    ],
    "a partition missing": entries()[3:],
    "a stage missing": [each for each in entries() if each.task.stage != "roll"],
}


@pytest.mark.parametrize("named", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_no_plan_gives_breaks_nobody(midway: Midway, named: list[Record]) -> None:
    """Who works from it must not fall over at every look from then on."""
    position = midway.node.runs[midway.run].state.position
    assert position is not None
    seal = Seal(SPEC, 0, position.id, position.id, "manifest", 7, 0, tuple(named))
    holdings = (Holding(tuple(range(len(seal.shards))), (midway.peer,)),)
    midway.tell(SealPut(midway.run, seal, True, holdings, None))
    for later in (0.0, 1.0, 5.0):
        midway.node.handle(midway.now + later, Tick())


@pytest.mark.parametrize("twice", ["members", "trainers"])
def test_a_roster_that_names_a_node_twice_is_not_kept(midway: Midway, twice: str) -> None:
    """Units are dealt to those it names, and there are as many shares as nodes."""
    run = midway.node.runs[midway.run]
    step = next(step for step in run.state.steps.values() if step.roster is not None)
    before = step.roster
    assert before is not None
    after = replace(before, generation=before.generation + 1)
    members, trainers = (*before.members, before.members[0]), (*before.trainers, before.trainers[0])
    lie = replace(after, members=members) if twice == "members" else replace(after, trainers=trainers)
    midway.tell(RosterPut(midway.run, lie))
    assert step.roster == before
    midway.tell(RosterPut(midway.run, after))
    assert step.roster == after
