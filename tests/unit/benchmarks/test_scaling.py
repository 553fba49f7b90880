"""Workloads that are scaled down stay what they were, and what was measured of them is told as it was."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.registry import options_of
from benchmarks.scaling import figures, measure
from benchmarks.scaling.baselines import LABELS
from benchmarks.scaling.hosts import Host
from benchmarks.scaling.measured import Measured, from_row, settled
from benchmarks.scaling.profile import NAMES, load
from benchmarks.scaling.report import write


def measured(system: str, nodes: int, step_s: float) -> Measured:
    return Measured(system, "siirl-table1", nodes, 4, step_s, 128 * nodes, 0.5, {"bulk": 1e6}, {"roll": 0.5 * nodes})


@pytest.mark.parametrize("name", NAMES)
def test_a_node_computes_as_long_as_its_profile_says(name: str) -> None:
    """In the mean: sampling, scoring and training together."""
    profile, rng = load(name), np.random.default_rng(7)
    took = []
    for _ in range(100):
        batch = profile.batch(rng)
        tokens = sum(int(lengths.sum()) for lengths in batch)
        rest = (profile.device["score_token_s"] + profile.device["train_token_s"]) * tokens
        took.append(profile.generate_s(batch) + rest)
    assert np.mean(took) == pytest.approx(profile.seconds, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_a_run_that_the_mesh_takes(name: str) -> None:
    """As many samples a node on two nodes as on one."""
    profile = load(name)
    (roll,) = (stage for stage in profile.pipeline(2, 3).stages if stage.id == "roll")
    assert roll.config["prompts"] * roll.config["group"] == 2 * profile.samples
    assert profile.pipeline(3, 3).stages, "a mesh that lives may have any number of hosts"
    assert profile.samples * profile.scale > 0
    assert set(profile.shares) == {"generate", "score", "train"}
    assert sum(profile.shares.values()) == pytest.approx(1.0)


def test_what_another_process_measured_arrives_as_it_was() -> None:
    """A row is rounded, and what follows from it is left out."""
    row = json.dumps(measured("ray, batches", 2, 3.0).row())
    assert from_row(row) == measured("ray, batches", 2, 3.0)


def test_the_first_step_does_not_count_where_there_are_more() -> None:
    assert settled([9.0, 2.0, 4.0, 3.0]) == 3.0
    assert settled([9.0]) == 9.0


def test_efficiency_is_of_the_smallest_mesh_and_peers_are_met_at_the_largest() -> None:
    """Four nodes that take a quarter longer than one are 0.8 efficient."""
    found = [measured("dflowd", 1, 2.0), measured("dflowd", 4, 2.5)]
    found += [measured("ray, batches", 1, 2.2), measured("ray, batches", 4, 5.0)]
    one, four, beside = figures(found, strong=False)
    assert one.ratio == 1.0
    assert four.ratio == pytest.approx(0.8)
    assert beside.ratio == pytest.approx(2.0)
    assert not beside.holds  # 2.09 is what was published
    assert beside.anchor == "ray, batches"


def test_only_systems_that_there_are_are_measured() -> None:
    """A name that is mistyped would else be told as ours."""
    (systems,) = (option for option in options_of(measure) if option.name == "systems")
    assert set(systems.choices or ()) == {"dflowd", *LABELS} > set(systems.default)


def test_the_report_is_a_table_a_picture_and_a_page_that_loads_nothing(tmp_path: Path) -> None:
    """For a mail, or a wiki that keeps one file."""
    pytest.importorskip("matplotlib")
    write(tmp_path, [measured("dflowd", 1, 2.0), measured("dflowd", 2, 2.1), measured("ray, batches", 2, 3.0)], "weak")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((tmp_path / "scaling.json").read_text())
    assert [row["nodes"] for row in told["rows"]] == [1, 2, 2]
    with (tmp_path / "scaling.csv").open() as file:
        assert [row["system"] for row in csv.DictReader(file)] == ["dflowd", "dflowd", "ray, batches"]
    page = (tmp_path / "scaling.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page.replace("<html", "")
    assert "192.3" in page  # what was published stands beside it
    assert "host of its own" not in page


def test_the_report_tells_what_hosts_its_nodes_had(tmp_path: Path) -> None:
    """And how much smaller the work was than the profile's file says."""
    pytest.importorskip("matplotlib")
    host = asdict(Host(slower=16.0, cores=2.0, gbit_s=25.0))
    write(tmp_path, [replace(measured("dflowd", 1, 2.0), host=host)], "weak", smaller=2.0)
    page = (tmp_path / "scaling.html").read_text()
    assert "2 cores and a link of 25 Gbit/s, whose cores, link and devices are 16 times slower" in page
    assert "divided by 64: 64 samples" in page
