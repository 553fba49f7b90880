"""What a client may rely on: any daemon answers for the mesh, says who is missing, and refuses in two lines."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import zmq

from dflow_protocols.wire.keys import key_text
from dflowd.transport.keys import new_key_pair
from tests.support.mesh import Daemon, Mesh, Refused
from tests.support.toy import toy_pipeline

PIPELINE = toy_pipeline(steps=3, generate_s=0.2)  # long enough that each daemon gets a task


@pytest.fixture(scope="module")
def run(mesh: Mesh) -> str:
    """A run that is over, and each daemon knows it."""
    name = mesh.submit(mesh.nodes["n0"], PIPELINE)
    mesh.until(lambda: all(mesh.ask(node, "run", run=name)["state"] == "done" for node in mesh.running()), 120)
    return name


def test_every_node_answers_alike(mesh: Mesh, run: str) -> None:
    """Nothing depends on the node that a run was submitted to."""
    answers = [mesh.ask(node, "run", run=run) for node in mesh.running()]
    for name in ("state", "weights", "version", "step", "steps", "evals", "checkpoint", "nodes"):
        values = [answer[name] for answer in answers]
        assert values[1:] == values[:-1], name
    assert answers[0]["nodes"] == 3
    assert len(answers[0]["checkpoint"]) >= 2
    for folder in answers[0]["checkpoint"].values():
        assert Path(folder).is_dir()
    assert {entry["run"] for node in mesh.running() for entry in mesh.ask(node, "runs")["runs"]} == {run}


def test_tasks_are_gathered_from_all_members(mesh: Mesh, run: str) -> None:
    """A node knows only its own; a user asks for all."""
    answer = mesh.ask(mesh.nodes["n1"], "tasks", run=run)
    tasks = [task for task in answer["tasks"] if task["stage"] == "roll"]
    assert sorted(task["id"] for task in tasks) == [f"{step}/roll/p{p}" for step in range(3) for p in range(4)]
    assert {task["node"] for task in tasks} == {"n0", "n1", "n2"}
    assert all(task["started"] <= task["ended"] and task["state"] == "done" for task in tasks)
    assert answer["missing"] == []
    assert {task["step"] for task in mesh.ask(mesh.nodes["n1"], "tasks", run=run, step=1)["tasks"]} == {1}


def test_metrics_have_the_names_that_people_know(mesh: Mesh, run: str) -> None:
    """Figures of the step are the same whoever is asked; times are put together from all members."""
    rows = mesh.ask(mesh.nodes["n2"], "metrics", run=run)["rows"]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    for row in rows[1:]:
        assert {"reward_mean", "reward_std", "frac_groups_zero_std", "grad_norm", "tokens_per_s"} <= row.keys()
        assert {"roll", "score", "adv", "learn", "learn.reduce", "learn.apply"} == row["seconds"].keys()
        assert 0.0 <= row["mesh_s"] <= row["step_s"]
        idle = row["idle_frac"], row["sampler_idle_frac"], row["trainer_idle_frac"]
        assert all(0.0 <= share <= 1.0 for share in idle), idle
    assert [row["step"] for row in mesh.ask(mesh.nodes["n2"], "metrics", run=run, since_step=2)["rows"]] == [2, 3]


def test_samples_and_events_can_be_read(mesh: Mesh, run: str) -> None:
    """A reward curve alone does not show a hacked reward."""
    samples = mesh.ask(mesh.nodes["n1"], "samples", run=run, limit=2)["samples"]
    assert len(samples) == 2
    assert {"prompt", "completion", "reward", "step", "node"} <= samples[0].keys()
    events = mesh.ask(mesh.nodes["n0"], "events", run=run, limit=100)["events"]
    for name in ("n0", "n1", "n2"):
        mine = [event for event in events if event["node"] == name]
        assert "run.ended" in [event["name"] for event in mine]  # a checkpoint that was on its way may come after it
        steps = [event["fields"]["step"] for event in mine if event["name"] == "step.advanced"]
        assert steps == sorted(set(steps)), "a daemon that is behind may take a later version, never an earlier one"
        assert steps[-1] == 3


def test_bytes_are_counted_by_lane_and_peer(mesh: Mesh, run: str) -> None:
    """What a step costs the network is a promise, so it can be looked up."""
    node, *others = mesh.running()
    traffic = mesh.ask(node, "status")["traffic"]
    for lane in ("control", "bulk"):
        for peer in others:
            assert traffic[lane][peer.id]["sent"] > 0, lane
            assert traffic[lane][peer.id]["received"] > 0, lane


def test_a_finished_run_leaves_no_shard(mesh: Mesh, run: str) -> None:
    """Memory that a run took is the next one's."""
    nodes = mesh.running()
    mesh.until(lambda: all(shards(mesh, node)["shards_count"] == 0 for node in nodes), 30)
    assert all(shards(mesh, node)["grants_count"] == 0 for node in nodes)


def shards(mesh: Mesh, node: Daemon) -> dict[str, int]:
    value: dict[str, int] = mesh.ask(node, "status")["memory"]["shards"]
    return value


def test_a_run_is_named_by_the_first_digits_of_its_id(mesh: Mesh, run: str) -> None:
    """Nobody types 32 digits; three could be anything."""
    node = mesh.nodes["n0"]
    assert mesh.ask(node, "run", run=run[:8])["run"] == run
    with pytest.raises(Refused) as caught:
        mesh.ask(node, "run", run=run[:3])
    assert caught.value.value == {
        "what": f"no run `{run[:3]}` is known here",
        "hint": "give at least 4 digits of a run's id; list runs with `dflow ps`",
        "exit": 2,
    }


@pytest.mark.parametrize("method", ["no_such", "share.tasks"])
def test_a_client_gets_what_is_for_clients_only(mesh: Mesh, method: str) -> None:
    """Shares are for nodes, and a misspelt method is told apart from a broken daemon."""
    with pytest.raises(Refused, match="no method"):
        mesh.ask(mesh.nodes["n0"], method)


def test_what_is_no_pipeline_is_refused(mesh: Mesh) -> None:
    """A daemon validates by itself: clients come in many versions."""
    for spec in (b"", b"{}", b'{"name": "x"}', b"\xff"):
        with pytest.raises(Refused, match="not a pipeline") as caught:
            mesh.ask(mesh.nodes["n0"], "submit", spec=spec, base="/", name="x", nonce="1")
        assert caught.value.value["exit"] == 2
    with pytest.raises(Refused, match="parameter `spec` must be a bytes"):
        mesh.ask(mesh.nodes["n0"], "submit", spec=3)


def test_submitting_again_is_the_same_run(mesh: Mesh, run: str) -> None:
    """A client that heard no answer asks again, perhaps elsewhere."""
    assert mesh.submit(mesh.nodes["n2"], PIPELINE) == run


def test_a_cancelled_run_ends_on_every_node(mesh: Mesh) -> None:
    """Cancelling is a status that spreads, not a message to somebody."""
    first, second, third = mesh.running()
    name = mesh.submit(first, toy_pipeline(steps=500, generate_s=0.2, seed=7))
    mesh.until(lambda: mesh.ask(third, "run", run=name)["step"] >= 1, 60)
    assert mesh.ask(second, "cancel", run=name[:6])["state"] == "cancelled"
    for node in mesh.running():
        mesh.until(lambda node=node: mesh.ask(node, "run", run=name)["state"] == "cancelled", 30)  # type: ignore[misc]
        mesh.until(lambda node=node: shards(mesh, node)["used_bytes"] == 0, 30)  # type: ignore[misc]
        mesh.until(lambda node=node: not mesh.ask(node, "status")["engine"]["slots"][0]["task"], 30)  # type: ignore[misc]


def test_waiting_answers_when_the_run_moves_on(mesh: Mesh) -> None:
    """A client that waits neither polls nor hears late."""
    node, other, _ = mesh.running()
    name = mesh.submit(node, toy_pipeline(steps=4, generate_s=0.1, seed=8))
    step, answers = -1, 0
    while True:
        answer = mesh.ask(other, "wait", run=name, timeout_s=20.0, known_step=step, deadline_s=25.0)
        answers += 1
        if answer["state"] != "active":
            break
        assert answer["step"] > step
        step = answer["step"]
    assert answer["state"] == "done"
    assert answers <= 6


def test_garbage_on_either_port_changes_nothing(mesh: Mesh, run: str) -> None:
    """Port scanners and broken peers are part of every network."""
    node = mesh.nodes["n0"]
    for address in (node.control, node.bulk):
        host, port = address.removeprefix("tcp://").split(":")
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"\xff" * 64, b""):
            with socket.create_connection((host, int(port)), timeout=10) as line:
                line.sendall(garbage)
    assert mesh.states(node) == {"n0": "alive", "n1": "alive", "n2": "alive"}
    assert mesh.ask(node, "run", run=run)["state"] == "done"


def test_a_stranger_gets_no_byte(mesh: Mesh) -> None:
    """Whoever is not on the allow-list cannot even make a daemon answer that it is one."""
    node, stranger = mesh.nodes["n0"], new_key_pair()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    line = context.socket(zmq.DEALER)
    line.curve_publickey, line.curve_secretkey = (key_text(key).encode() for key in (stranger.public, stranger.secret))
    line.curve_serverkey = key_text(node.keys.public).encode()
    line.connect(node.control)
    line.send(b"\xdf\x01\x92\x90\x90")
    mesh.until(lambda: any("transport.stranger" in text for text in node.log_lines()), 30)
    assert line.poll(200) == 0
    context.destroy(linger=0)


def test_members_that_do_not_answer_are_named(mesh: Mesh, run: str) -> None:
    """An answer that is not whole must say so; one that waits for everybody is none."""
    asked, silent, _ = mesh.running()
    os.kill(silent.pid, signal.SIGSTOP)
    try:
        answer = mesh.ask(asked, "tasks", run=run)
        assert answer["missing"] == [silent.name]
        assert {task["node"] for task in answer["tasks"]} == {"n0", "n2"}
    finally:
        os.kill(silent.pid, signal.SIGCONT)
    mesh.until(lambda: mesh.ask(asked, "tasks", run=run)["missing"] == [], 60)
    mesh.await_all()
