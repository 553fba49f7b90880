"""A schedule: which version stands where in the pipeline, when a step may make several."""

from __future__ import annotations

import pytest

from dflow_protocols.pipeline.grammar.expression import parse
from dflow_protocols.pipeline.plan import MiniBatch
from dflow_protocols.pipeline.schedule import Place, Schedule, Timing, make_schedule


def scheduled(steps: int, **updates: tuple[str, int]) -> Schedule:
    """By stage: when, and how many updates it makes then."""
    return make_schedule(steps, [Timing(name, parse(when, {}), 1, (), each) for name, (when, each) in updates.items()])


def test_versions_are_steps_where_each_makes_one_update() -> None:
    """So a pipeline without epochs and mini-batches is numbered as it ever was, and a step without a training is one
    as well."""
    schedule = scheduled(3, warm=("step == 0", 1), learn=("step == 2", 1), probe=("True", 0))
    assert (schedule.versions, [schedule.place(number).step for number in range(4)]) == (3, [0, 1, 2, 3])


def test_each_update_of_a_step_makes_a_version() -> None:
    """Stages that train in one step make theirs one behind the other."""
    schedule = scheduled(3, critic=("True", 2), learn=("step > 0", 3))
    assert schedule.versions == 2 + 5 + 5
    assert schedule.place(1) == Place(0, 1, 2, 0)
    assert schedule.place(2) == Place(1, 0, 5, 2)
    assert schedule.place(11) == Place(2, 4, 5, 7)
    assert schedule.place(12) == Place(3, 0, 1, 12)
    with pytest.raises(ValueError, match="13 of 12"):
        schedule.place(13)


def test_what_any_member_says_has_a_place() -> None:
    """A number that no version has is taken for that of the nearest one; a step that is under way leads to it, too."""
    schedule = scheduled(2, learn=("True", 3))
    assert [schedule.nearest(number).step for number in (-9, 2, 3, 6, 1 << 60)] == [0, 0, 1, 2, 2]
    assert [schedule.steps_to(number) for number in (-9, 0, 1, 3, 4, 6)] == [0, 0, 1, 1, 2, 2]
    assert [schedule.first(step) for step in (-1, 0, 1, 2, 3, 1 << 60)] == [0, 0, 3, 6, 7, 7]


def test_the_next_steps_begin_with_the_same_versions_wherever_one_is_in_a_step() -> None:
    """The last one is the final version, and behind that there is none."""
    schedule = scheduled(3, critic=("True", 2), learn=("step > 0", 3))
    assert [tuple(schedule.begun_after(number, 2)) for number in (0, 1, 2, 6, 7, 11, 12)] == [
        (2, 7), (2, 7), (7, 12), (7, 12), (12,), (12,), (),
    ]  # fmt: skip
    assert tuple(schedule.begun_after(5, 0)) == ()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_mini_batches_are_a_partition_of_the_groups(count: int) -> None:
    """Each group is trained on once an epoch, in parts that differ by one group at most; each epoch has its order."""
    groups = [(partition, place) for partition in range(4) for place in range(partition, 5)]
    epochs = [[MiniBatch(at, count, f"spec/7/learn/{epoch}").of(groups) for at in range(count)] for epoch in range(2)]
    for parts in epochs:
        assert sorted(group for part in parts for group in part) == groups
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert count == 1 or epochs[0] != epochs[1]


def test_more_mini_batches_than_groups_leave_some_without() -> None:
    parts = [MiniBatch(at, 3, "spec/0/learn/0").of([(0, 0)]) for at in range(3)]
    assert sorted(map(len, parts)) == [0, 0, 1]
