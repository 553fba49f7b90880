"""Other systems are given the same work as the mesh, and what keeps one from being measured is told."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scaling import baselines, measure
from benchmarks.scaling.baselines.work import Device, Share, advantages, balanced
from benchmarks.scaling.profile import PARTITIONS, load
from benchmarks.scaling.setting import Setting
from dflow_protocols.work import ChainWork
from dflowd.data import columns
from dflowd.engines.emulated import profile as emulated_profile
from dflowd.engines.registry import open_engine
from dflowd.shards import layout
from tests.support.alone import Alone


def test_a_worker_is_given_the_completions_that_the_mesh_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two workers has the partitions of the second node's work, as the engine samples them."""
    monkeypatch.setattr(emulated_profile, "SPEED", math.inf)
    profile = load("siirl-table1")
    (drawn,) = Device(Share(profile, work=2, steps=3, node=1, count=1)).lengths(2)
    engine = Alone(open_engine("emulated"), profile.pipeline(2, 3), tmp_path, tmp_path)
    for at, expected in enumerate(drawn):
        ((made,),) = (engine.done(ChainWork(2, ("roll",), PARTITIONS + at, ())).made,)
        ((_, rollout),) = made.outputs
        tokens = layout.decode(engine.shards.read(rollout))["tokens"]
        assert columns.lengths(tokens).tolist() == expected.tolist()
        assert len(expected) == profile.samples // PARTITIONS


def test_a_sample_has_as_many_bytes_as_its_profile_says() -> None:
    profile = load("vlm-7b")
    made = Device(Share(profile, work=1, steps=1, node=0, count=1)).samples(2)
    assert made.nbytes == 2 * profile.sample_bytes


def test_a_balanced_batch_gives_everybody_as_many_samples_and_about_as_many_tokens() -> None:
    lengths = np.random.default_rng(0).lognormal(7, 0.8, 512).astype(np.int32)
    dealt = balanced(lengths, 4)
    assert sorted(np.concatenate(dealt)) == list(range(512))
    assert {len(share) for share in dealt} == {128}
    tokens = [int(lengths[share].sum()) for share in dealt]
    assert max(tokens) < 1.03 * min(tokens)


def test_a_gathered_batch_has_its_rows_in_the_order_asked_for() -> None:
    """Every column alike, however many places a row has."""
    pytest.importorskip("ray")
    from benchmarks.scaling.baselines.batches import gathered

    parts = [{"sample": np.full((2, 3), at), "lengths": np.array([2 * at, 2 * at + 1])} for at in range(2)]
    whole = gathered(parts, np.array([3, 0, 2, 1]))
    assert whole["lengths"].tolist() == [3, 0, 2, 1]
    assert whole["sample"][:, 0].tolist() == [1, 0, 1, 0]


def test_what_each_worker_made_of_its_share_is_joined_whole() -> None:
    """As many rows as the batch has, so that the next stage is given as many."""
    pytest.importorskip("ray")
    from benchmarks.scaling.baselines.batches import joined

    whole = joined([{"ref": np.full(2, at, np.float32)} for at in range(3)])
    assert whole["ref"].tolist() == [0, 0, 1, 1, 2, 2]


def test_advantages_of_a_group_add_up_to_nothing() -> None:
    made = advantages(np.arange(16), 8)["advantages"].reshape(2, 8)
    assert made.sum(1) == pytest.approx([0.0, 0.0])


def test_a_controller_that_takes_too_long_is_told_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured before it is kept, and goes into the report."""

    def hangs(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 1.0)

    monkeypatch.setattr(baselines, "find_spec", lambda _: object())
    monkeypatch.setattr(subprocess, "run", hangs)
    told: list[Any] = []
    assert measure(told.append, nodes=(1,), systems=("ray-batches",)) == []
    assert [row["skipped"] for row in told] == ["it took more than 600 s"]


def test_work_that_does_not_divide_is_told_and_passed_over() -> None:
    """Workers are all alike; nobody takes a share and a half."""
    assert baselines.on_a_cluster(Setting("ray-batches", "siirl-table1", 3, 4, 2)) == (
        "the work of 4 nodes is not shared evenly by 3"
    )
