"""What `dflow doctor` makes of facts: each trouble is named, with what mends it, and nothing is cried over."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest

from dflow_cli.checkup.diagnosis import GIB, Check, judge_config, judge_host, judge_mesh

FACTS: dict[str, Any] = {
    "name": "a1",
    "versions": {"dflowd": "0.1.0", "wire": "1", "plan": "1"},
    "numerics": "torch-2.6.0 cpu-AVX2-1thread",
    "device": "cpu x2",
    "limits": {"nofile": 65536, "memlock": None},
    "memory": {"total": 64 * GIB, "available": 60 * GIB, "cgroup_limit": None, "shards_limit": 2 * GIB},
    "disk": {"path": "/var/lib/dflowd", "free": 100 * GIB, "total": 200 * GIB, "writable": True},
    "fabric": "encrypted",
    "timing": "lan",
}
CONFIG: dict[str, Any] = {
    "config": "dflowd.toml",
    "facts": FACTS,
    "running": {},
    "listen": {
        "control": {"address": "tcp://10.0.0.7:7300", "state": "free"},
        "bulk": {"address": "tcp://10.0.0.7:7301", "state": "free"},
    },
    "key": {"file": "key", "public": "k" * 40, "listed": {"name": "a1", "address": "10.0.0.7:7300", "role": "node"}},
    "allow_list": {"path": "allow", "nodes": 3, "clients": 1, "open_to_all": False},
    "seeds": ["tcp://10.0.0.7:7300", "tcp://10.0.0.8:7300"],
}


def member(name: str) -> dict[str, Any]:
    allowed = {"keys": 4, "digest": "ab" * 32}
    more = {"clock_off_s": 0.0, "engines": [], "problems": [], "allow_list": allowed}
    return {**copy.deepcopy(FACTS), "name": name, **more}


ANSWER: dict[str, Any] = {
    "members": [member("a1"), member("a2"), member("a3")],
    "missing": [],
    "took_s": 0.01,
}
ALIVE = [{"name": name, "state": "alive"} for name in ("a1", "a2", "a3")]


def found(checks: Iterable[Check]) -> list[tuple[str, str, str]]:
    """State, subject and place of what is not in order; each of these says what mends it."""
    bad = [check for check in checks if check.state != "ok"]
    assert all(check.mend for check in bad)
    return [(check.state, check.subject, check.place) for check in bad]


def changed(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    whole = copy.deepcopy(value)
    *way, last = path.split("/")
    place: Any = whole
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[last] = new
    return whole


def test_a_sound_host_and_a_sound_mesh_give_nothing_to_do() -> None:
    """A doctor that always finds something is not asked again."""
    assert found(judge_config(CONFIG)) == []
    assert found(judge_host(FACTS, is_running=True)) == []
    assert found(judge_mesh(ANSWER, ALIVE)) == []


@pytest.mark.parametrize(
    ("path", "value", "state", "subject"),
    [
        ("listen/control/state", "taken", "wrong", "control port"),
        ("listen/bulk/state", "foreign", "wrong", "bulk port"),
        ("was_killed", True, "wrong", "daemon"),
        ("key/public", "", "warning", "key"),
        ("key/listed", None, "wrong", "key"),
        ("key/listed/role", "client", "wrong", "key"),
        ("key/listed/address", "10.0.0.9:7300", "warning", "key"),
        ("allow_list/open_to_all", True, "wrong", "allow-list"),
        ("seeds", ["tcp://10.0.0.7:7300"], "warning", "seeds"),
        ("listen/control/address", "tcp://127.0.0.1:7300", "wrong", "seeds"),
    ],
)
def test_each_trouble_of_a_configuration_is_named(path: str, value: Any, state: str, subject: str) -> None:
    """All of these start, or fail to, in ways that look like something else."""
    told = found(judge_config(changed(CONFIG, path, value)))
    assert (state, subject, "a1") in told
    assert len(told) <= 2  # a loopback address is no longer what the list says, either


@pytest.mark.parametrize(
    ("path", "value", "state", "subject"),
    [
        ("limits/nofile", 1024, "warning", "limits"),
        ("memory/total", GIB, "wrong", "memory"),
        ("memory/cgroup_limit", GIB, "wrong", "memory"),
        ("memory/available", GIB, "warning", "memory"),
        ("disk/free", 2 * GIB, "warning", "disk"),
        ("disk/free", 0, "wrong", "disk"),
        ("disk/writable", False, "wrong", "disk"),
    ],
)
def test_each_limit_of_a_host_is_named(path: str, value: Any, state: str, subject: str) -> None:
    """A run meets them hours later."""
    assert found(judge_host(changed(FACTS, path, value), is_running=False)) == [(state, subject, "a1")]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("missing", ["a4"], ("warning", "members", "a4")),
        (
            "members/1/problems",
            [{"key": "x", "what": "cannot be dialled", "hint": "open it"}],
            ("wrong", "reported", "a2"),
        ),
        (
            "members/1/problems",
            [{"key": "membership.late", "what": "runs late", "hint": "look"}],
            ("warning", "reported", "a2"),
        ),
        ("members/1/clock_off_s", -40.0, ("warning", "clocks", "a1")),
        ("members/1/versions/wire", "2", ("wrong", "versions", "wire")),
        ("members/1/versions/dflowd", "0.2.0", ("warning", "versions", "dflowd")),
        ("members/1/fabric", "trusted", ("wrong", "configuration", "trust.fabric")),
        ("members/1/timing", "wan", ("wrong", "configuration", "mesh.timing")),
        ("members/2/allow_list/digest", "cd" * 32, ("warning", "allow-list", "mesh")),
        ("members/2/numerics", "torch-2.7.0 cpu-AVX2-1thread", ("warning", "numerics", "advertised")),
    ],
)
def test_each_disagreement_in_a_mesh_is_named(path: str, value: Any, expected: tuple[str, str, str]) -> None:
    """Members that differ work together badly, or not at all."""
    assert found(judge_mesh(changed(ANSWER, path, value), ALIVE)) == [expected]


def test_engines_that_tested_themselves_are_believed_over_what_shows_from_outside() -> None:
    """Two processors of one kind may still differ in bits; only the engines' own test shows it."""
    answer = changed(changed(ANSWER, "members/0/engines", ["x f00"]), "members/1/engines", ["x ba7"])
    assert found(judge_mesh(answer, ALIVE)) == [("warning", "numerics", "tested")]


def test_the_dead_are_named() -> None:
    """A host that is gone for good keeps a key that still opens the mesh."""
    members = [*ALIVE[:2], {"name": "a3", "state": "dead"}]
    assert found(judge_mesh(ANSWER, members)) == [("warning", "members", "a3")]


GPU: dict[str, Any] = {
    "fell_off": False,
    "name": "NVIDIA H100",
    "memory_total": 80 * GIB,
    "memory_used": GIB,
    "busy": 3,
    "celsius": 41,
    "hot_at": 87,
    "ecc_errors": 0,
    "age_s": 2.5,
}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"fell_off": True}, "wrong"),
        ({"ecc_errors": 2}, "warning"),
        ({"celsius": 88}, "warning"),
        ({"age_s": 90.0}, "warning"),
    ],
)
def test_a_gpu_that_fails_is_told_by_its_place(change: dict[str, Any], state: str) -> None:
    assert found(judge_host({**FACTS, "gpus": [GPU, GPU]}, is_running=True)) == []
    facts = {**FACTS, "gpus": [GPU, GPU | change]}
    assert found(judge_host(facts, is_running=True)) == [(state, "GPU 1", "a1")]
