"""The same spec gives the same bytes of weights on any number of nodes, with a real model that really trains."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.dflow import answer, dflow, example_folder, killed_while_training
from tests.support.until import until


def trained(spec: Path, nodes: int) -> dict[str, Any]:
    """What `dflow run` says of the small run with a reward that has spread."""
    folder = spec.parent / f"m{nodes}"
    return answer("run", spec, spec.with_name("early.yaml"), "--nodes", str(nodes), "--dir", folder)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_folder(tmp_path_factory.mktemp("specs"))


@pytest.fixture(scope="module")
def alone(spec: Path) -> dict[str, Any]:
    return trained(spec, 1)


def check_that_it_trained(run: str, folder: Path) -> None:
    """The steps must move the weights, or equal ones show nothing."""
    rows = [row for row in map(json.loads, dflow("metrics", run, "--dir", folder).splitlines()) if row["step"] > 2]
    assert len(rows) == 3
    assert all(row["grad_norm"] > 0 and row["frac_groups_zero_std"] < 0.5 for row in rows)
    assert rows[-1]["reward_mean"] > rows[0]["reward_mean"]


def test_weights_of_two_nodes_are_those_of_the_one_that_is_left(spec: Path) -> None:
    """Leaves are summed by one tree whoever sums them."""
    folder = spec.parent / "m2"
    nodes = answer("up", "--nodes", "2", "--dir", folder)["nodes"]
    try:
        runs = []
        for living in (2, 1):
            run = answer("submit", spec, spec.with_name("early.yaml"), "--dir", folder)["run"]
            runs.append(answer("wait", run, "--dir", folder, "--timeout", "200"))
            assert (runs[-1]["state"], runs[-1]["nodes"]) == ("done", living)
            check_that_it_trained(run, folder)
            with contextlib.suppress(ProcessLookupError):  # the second time it is gone
                os.kill(nodes[1]["pid"], signal.SIGKILL)
            until(lambda: alive(folder) == {"n0"}, 60.0)
        assert runs[0]["weights"] == runs[1]["weights"]
        assert runs[0]["evals"] == runs[1]["evals"]
    finally:
        dflow("down", "--dir", folder)


def alive(folder: Path) -> set[str]:
    return {node["name"] for node in answer("nodes", "--dir", folder)["nodes"] if node["state"] == "alive"}


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [3, 4])
def test_weights_do_not_depend_on_how_many_nodes_train(spec: Path, alone: dict[str, Any], nodes: int) -> None:
    """As a user gets them by one command."""
    whole = trained(spec, nodes)
    assert (whole["state"], whole["nodes"]) == ("done", nodes)
    assert whole["weights"] == alone["weights"]
    assert whole["evals"] == alone["evals"]
    check_that_it_trained(whole["run"], spec.parent / f"m{nodes}")


@pytest.mark.slow
def test_the_short_form_of_the_example_is_the_same_on_one_to_four_nodes(spec: Path) -> None:
    """What README and scripts run first."""
    short = ("--set", "params.warmup=2", "--set", "params.grpo=4")
    runs = [answer("run", spec, "--nodes", str(n), *short, "--dir", spec.parent / f"s{n}") for n in (1, 2, 3, 4)]
    assert [run["state"] for run in runs] == ["done"] * 4
    assert len({run["weights"] for run in runs}) == 1


@pytest.mark.slow
def test_weights_trained_in_bfloat16_are_the_same_on_one_and_four_nodes(spec: Path) -> None:
    """Masters and sums are float32, so the tree above a leaf is the one of float32 passes."""
    both = [f"stages.{stage}.config.compute=bfloat16" for stage in ("warm", "learn")]
    few = ["params.warmup=1", "params.grpo=2", "stages.warm.config.batch=16", "stages.roll.config.prompts=16"]
    words = [word for key in (*both, *few) for word in ("--set", key)]
    runs = [answer("run", spec, "--nodes", str(n), *words, "--dir", spec.parent / f"h{n}") for n in (1, 4)]
    assert [run["state"] for run in runs] == ["done"] * 2
    assert runs[0]["weights"] == runs[1]["weights"]


@pytest.mark.slow
def test_a_daemon_killed_under_a_real_model_changes_no_bit(spec: Path, alone: dict[str, Any]) -> None:
    """kill -9 in the middle of GRPO, with the model in the engine and gradients half summed."""
    with killed_while_training((spec, spec.with_name("early.yaml")), spec.parent / "killed") as whole:
        assert (whole["state"], whole["weights"]) == ("done", alone["weights"])
