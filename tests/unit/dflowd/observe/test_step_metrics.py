"""What `metrics` promises: figures do not depend on who is asked, and times are honest about what is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dflow_protocols.books import merge_abandoned, merge_rows, own_report
from dflow_protocols.events import Start
from dflow_protocols.names import Block, Once, Part, Partition, RunId, ShardId, ShardRef, TaskKey
from dflow_protocols.pipeline.schedule import Schedule
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, Done, Failed, Made, Work
from dflowd.observe.journal import Journal
from dflowd.observe.metrics import FIRST_SAMPLES, SAMPLES_KEPT, MetricsBook
from dflowd.observe.timeline import Timeline

RUN = RunId("ab" * 16)
REF = ShardRef(ShardId("cd" * 32), 4)
LIMIT = 64 << 20
LIFE = 1.0
ONE_EACH = Schedule(9, {}, range(10))
SUMS = {"samples": 8.0, "completion_tokens": 40.0, "rewarded": 8.0, "reward_sum": 6.0}


def journal(folder: Path) -> Journal:
    return Journal(folder, LIMIT, print)


def book(folder: Path) -> MetricsBook:
    return MetricsBook(journal(folder))


def chain(step: int, partition: int) -> tuple[TaskKey, ChainWork]:
    return TaskKey(step, "roll", Partition(partition)), ChainWork(step, ("roll", "score"), partition, ())


def test_a_chain_shows_as_one_task_a_stage_with_its_own_seconds(tmp_path: Path) -> None:
    """A chain runs in one call, yet users ask how long each stage takes."""
    timeline = Timeline(journal(tmp_path), LIFE)
    timeline.start(Start(1, RUN, *chain(3, 7)), 100.0)
    assert [row["state"] for row in timeline.rows(RUN, 10)] == ["running"]
    done = Done((Made("roll", (("rollout", REF),), seconds=2.0), Made("score", (("reward", REF),), seconds=0.5)))
    timeline.finish(1, done, 103.0)
    rows = timeline.rows(RUN, 10, 3, 4)
    assert [(row["id"], row["state"], row["seconds"]) for row in rows] == [
        ("3/roll/p7", "done", 2.0),
        ("3/score/p7", "done", 0.5),
    ]
    assert rows[-1]["ended"] == pytest.approx(103.0)
    cost = timeline.costs(RUN, 0)[3]
    assert (cost.busy_s, cost.seconds) == (3.0, {"roll": 2.0, "score": 0.5})


def test_partitions_that_share_a_slot_keep_it_no_busier_than_it_was(tmp_path: Path) -> None:
    """Each was there for two seconds, and had half of them: a slot that is idle would look busy by their sum."""
    timeline = Timeline(journal(tmp_path), LIFE)
    for call in (1, 2):
        task, work = chain(3, call)
        timeline.start(Start(call, RUN, task, replace(work, at_once=4)), 100.0)
    for call in (1, 2):
        timeline.finish(call, Done((Made("roll", (("rollout", REF),), seconds=1.0),)), 102.0)
    rows = timeline.rows(RUN, 10, 3, 4)
    assert [(row["started"], row["ended"], row["seconds"]) for row in rows] == [(100.0, 102.0, 1.0)] * 2
    assert timeline.costs(RUN, 0)[3].busy_s == 2.0


def test_training_is_told_apart_by_its_parts(tmp_path: Path) -> None:
    """Gradient, sum and update have different remedies when they are slow."""
    timeline = Timeline(journal(tmp_path), LIFE)
    works: list[tuple[Part, Work]] = [
        (Block(0, 2), BlockWork(0, "learn", 0, 2, (), (), ())),
        (Once("apply"), ApplyWork(0, "learn", (), (), 0, 1, False)),
    ]
    for call, (part, work) in enumerate(works):
        timeline.start(Start(call, RUN, TaskKey(0, "learn", part), work), 10.0)
        timeline.finish(call, Done((Made("learn", ()),)), 11.0)
    assert timeline.costs(RUN, 0)[0].seconds == {"learn": 1.0, "learn.apply": 1.0}


def test_a_call_that_failed_or_was_given_up_still_cost_its_time(tmp_path: Path) -> None:
    """A node that redoes work is not idle."""
    timeline = Timeline(journal(tmp_path), LIFE)
    timeline.start(Start(1, RUN, *chain(0, 0)), 0.0)
    timeline.fail(1, Failed("user", "reward.py:3: no"), 2.0)
    timeline.start(Start(2, RUN, *chain(0, 0)), 2.0)
    timeline.stop(2, 5.0)
    assert timeline.costs(RUN, 0)[0].busy_s == 5.0
    assert [(row["state"], row["error"]) for row in timeline.rows(RUN, 9)] == [("failed", "reward.py:3: no")]


def report(folder: Path, name: str, busy_s: float, first: int = 0) -> dict[str, object]:
    rows, timeline = book(folder / name), Timeline(journal(folder / name), LIFE)
    for step in range(first, 3):
        rows.advance(RUN, step, f"v{step}", 8 * step, SUMS, 10.0 if step > first else None, 100.0 + 10.0 * step)
        timeline.start(Start(step, RUN, *chain(step, 0)), 0.0)
        timeline.finish(step, Done((Made("roll", (), seconds=busy_s),)), busy_s)
    return own_report(rows.rows(RUN, 0), rows.abandoned(RUN, 0), timeline.costs(RUN, 0), 1)


def test_rows_are_put_together_from_all_members(tmp_path: Path) -> None:
    """Compute adds up; what is not compute is bounded by the busiest node; who joined late still answers for all."""
    rows = merge_rows([report(tmp_path, "late", 4.0, first=2), report(tmp_path, "all", 9.0)], ONE_EACH)
    assert [row["step"] for row in rows] == [0, 1, 2]
    last = rows[2]
    assert (last["version"], last["reward_mean"]) == ("v2", 0.75)
    assert last["step_s"] == 10.0
    assert last["compute_s"] == 9.0  # the late one did nothing in the step before version 2
    assert last["mesh_s"] == 1.0
    assert last["tokens_per_s"] == 4.0
    assert last["idle_frac"] == pytest.approx(1 - 9.0 / 10.0)
    assert "step_s" not in rows[0]


def test_what_slots_waited_is_told_of_all_nodes_that_had_a_role(tmp_path: Path) -> None:
    """Of two samplers one waited half of its time, one not at all; who only trained is no sampler."""
    told = []
    for name, waited in (("a", {"sampler": (5.0, 10.0)}), ("b", {"sampler": (0.0, 10.0), "trainer": (0.0, 10.0)})):
        one = book(tmp_path / name)
        one.advance(RUN, 0, "v0", 0, {}, None, 100.0)
        one.advance(RUN, 1, "v1", 8, SUMS, 10.0, 110.0, waited)
        told.append(own_report(book(tmp_path / name).rows(RUN, 0), [], {}, 1))  # as a later life reads it
    first, last = merge_rows(told, ONE_EACH)
    assert (last["sampler_idle_frac"], last["trainer_idle_frac"]) == (0.25, 0.0)
    assert "sampler_idle_frac" not in first


def test_rows_outlive_the_process_and_a_torn_last_line(tmp_path: Path) -> None:
    """A daemon that was killed comes back with what it had told before."""
    books = journal(tmp_path)
    first = MetricsBook(books)
    for step in range(3):
        first.advance(RUN, step, f"v{step}", 8, SUMS, 1.0, float(step))
    first.add_samples(RUN, 1, [{"prompt": "a", "completion": "b", "reward": 1.0}])
    first.add_checkpoint(RUN, 2, "/somewhere")
    books.close()
    with (tmp_path / RUN / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "ver')
    again = book(tmp_path)
    assert [row["step"] for row in again.rows(RUN, 1)] == [1, 2]
    assert again.samples(RUN, 5)[0]["completion"] == "b"
    assert again.samples_between(RUN, 1, 2, 5) == again.samples(RUN, 5)
    assert again.samples_between(RUN, 2, 3, 5) == []
    assert again.checkpoint(RUN) == (2, "/somewhere")


def test_a_version_that_replaced_another_replaces_its_row(tmp_path: Path) -> None:
    """After a lost fork the figures are those of the chain that went on."""
    rows = book(tmp_path)
    rows.advance(RUN, 1, "lost", 8, SUMS, 1.0, 1.0)
    rows.advance(RUN, 1, "won", 8, SUMS, 1.0, 2.0)
    assert [row["version"] for row in rows.rows(RUN, 0)] == ["won"]


def test_rows_of_a_lost_branch_are_marked_and_do_not_hide_those_that_count(tmp_path: Path) -> None:
    """After a split both halves have a row for one step; only one version of it leads to the final weights."""
    books = journal(tmp_path / "loser")
    loser, winner = MetricsBook(books), book(tmp_path / "winner")
    for one, name in ((loser, "lost"), (winner, "kept")):
        for step in (1, 2, 3):
            version = name if step > 1 else "both"
            one.advance(RUN, step, f"{version}{step}", 10 * step, {"generated_tokens": 5.0}, 1.0, 0.0)
    loser.abandon(RUN, 1)
    loser.advance(RUN, 3, "kept3", 30, {}, None, 0.0)
    books.close()
    again = book(tmp_path / "loser")
    for told in (loser, again):
        reports = [own_report(one.rows(RUN, 0), one.abandoned(RUN, 0), {}, 1) for one in (told, winner)]
        assert [row["version"] for row in merge_rows(reports, ONE_EACH)] == ["both1", "kept2", "kept3"]
        lost = merge_abandoned(reports, ONE_EACH)
        assert [(row["version"], row["abandoned"]) for row in lost] == [("lost2", True), ("lost3", True)]


def test_tasks_and_what_steps_cost_outlive_the_process(tmp_path: Path) -> None:
    """A daemon that comes back tells of its earlier lives, and counts none of them twice."""
    for life, partition in ((1.0, 0), (2.0, 1)):
        books = journal(tmp_path)
        timeline = Timeline(books, life)
        timeline.start(Start(1, RUN, *chain(3, partition)), 10.0 * life)
        timeline.finish(1, Done((Made("roll", (), seconds=2.0),)), 10.0 * life + 3.0)
        books.close()
    last = Timeline(journal(tmp_path), 3.0)
    last.start(Start(1, RUN, *chain(3, 2)), 30.0)
    last.fail(1, Failed("user", "no"), 31.0)
    assert [row["id"] for row in last.rows(RUN, 9)] == ["3/roll/p2"]
    last.learn(RUN, last.read(RUN))
    last.learn(RUN, last.read(RUN))
    assert [row["id"] for row in last.rows(RUN, 9)] == ["3/roll/p0", "3/roll/p1", "3/roll/p2"]
    cost = last.costs(RUN, 0)[3]
    assert (cost.busy_s, cost.seconds) == (7.0, {"roll": 4.0})


def test_what_a_run_said_first_is_kept_however_much_it_says_later(tmp_path: Path) -> None:
    """What it learnt shows beside what it said before; of a long run the newest alone would not tell."""
    books = journal(tmp_path)
    first = MetricsBook(books)
    for step in range(2 * SAMPLES_KEPT):
        first.add_samples(RUN, step, [{"prompt": "a", "completion": str(step), "reward": 0.0}])
    books.close()
    for rows in (first, book(tmp_path)):
        steps = [sample["step"] for sample in rows.samples(RUN, 10_000)]
        assert len(steps) == SAMPLES_KEPT
        assert (steps[0], steps[FIRST_SAMPLES - 1], steps[-1]) == (0, FIRST_SAMPLES - 1, 2 * SAMPLES_KEPT - 1)
