"""Hosts that are slower than real ones by one factor: what each has, and what is told in their own time."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.scaling.cores import Quotas, lacks_quotas
from benchmarks.scaling.hosts import Host, SlowHosts
from benchmarks.scaling.measured import Measured, from_row
from benchmarks.scaling.profile import load
from benchmarks.scaling.setting import Setting
from tests.support.until import until

HOST = Host(slower=16.0, cores=2.0, gbit_s=25.0)
LACKING = HOST.lacks()


class Pretended(Quotas):
    """Groups of a kernel that is not this one's: of files."""

    def __init__(self, folder: Path, version: int) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(["a"], version_1=folder if version == 1 else folder / "none", version_2=folder)
        for group in self._folders.values():
            group.mkdir()

    def file(self, name: str) -> Path:
        return self._folders["a"] / name


def test_a_part_of_the_cores_is_said_as_either_version_of_control_groups_has_it(tmp_path: Path) -> None:
    """The first version in two files and nanoseconds, the second one in one and microseconds."""
    first, second = Pretended(tmp_path / "1", 1), Pretended(tmp_path / "2", 2)
    for quotas in (first, second):
        quotas._favour()
        quotas.limit(0.125)
    assert first.file("cpu.cfs_period_us").read_text() == "10000"
    assert first.file("cpu.cfs_quota_us").read_text() == "1250"
    assert second.file("cpu.max").read_text() == "1250 10000"
    assert int(first.file("cpu.shares").read_text()) > 80 * 1024, "whatever else runs here comes after it"
    assert int(second.file("cpu.weight").read_text()) > 80 * 100
    first.file("cpu.stat").write_text("nr_periods 3\nthrottled_time 2500000000\n")
    second.file("cpu.stat").write_text("usage_usec 5\nthrottled_usec 2500000\n")
    assert first.throttled_s() == second.throttled_s() == {"a": 2.5}


def test_a_small_part_has_a_longer_period(tmp_path: Path) -> None:
    """The kernel takes no quota below a millisecond."""
    quotas = Pretended(tmp_path, 2)
    quotas.limit(0.01)
    assert quotas.file("cpu.max").read_text() == "1000 100000"


@pytest.mark.skipif(bool(LACKING), reason=LACKING)
def test_a_host_is_held_back_to_its_cores_and_has_an_address_of_its_own() -> None:
    """Whoever was started there is, and this process, which started it, is not."""
    with SlowHosts(["n0", "n1"], HOST) as slow:
        context = multiprocessing.get_context("fork")
        with slow.on("n1") as address:
            busy = context.Process(target=_compute, daemon=True)
            busy.start()
        assert address == slow.net.addresses["n1"]
        try:
            slow.hold_back()
            until(lambda: slow.throttled_s()["n1"] > 0, 60.0)
            assert slow.throttled_s()["n0"] == 0
        finally:
            busy.kill()
            busy.join()


def _compute() -> None:
    while True:
        pass


@pytest.mark.skipif(bool(lacks_quotas()), reason=lacks_quotas())
def test_groups_are_gone_with_whoever_made_them() -> None:
    with Quotas(["a"]) as quotas:
        folders = list(quotas._folders.values())
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)


def test_devices_of_a_slower_host_are_as_much_slower() -> None:
    """In all that they do; prompts and bytes are the same."""
    profile = load("siirl-table1")
    slower = profile.on_slower(16.0)
    for name in ("decode_step_s", "decode_token_s", "score_token_s", "train_token_s"):
        assert slower.device[name] == pytest.approx(16 * profile.device[name])
    assert (slower.samples, slower.device["sample_bytes"]) == (profile.samples, profile.device["sample_bytes"])


def test_a_smaller_profile_keeps_bytes_a_second() -> None:
    """By fewer prompts, and where these cannot be fewer by smaller groups."""
    profile, smaller = load("vlm-7b"), load("vlm-7b", 4.0)
    assert (smaller.prompts, smaller.group) == (profile.prompts, 2)
    assert smaller.samples / smaller.seconds == profile.samples / profile.seconds


def test_seconds_are_told_in_the_hosts_own_time() -> None:
    """Those of processors are what they are: as much is computed."""
    with_hosts = Measured("dflowd", "p", 2, 4, 40.0, 256, 3.0, stage_s={"roll": 32.0}, ideal_s=36.0)
    told = with_hosts.on(HOST, {"n0": 2.0})
    assert (told.step_s, told.ideal_s, told.stage_s, told.cpu_s) == (2.5, 2.25, {"roll": 2.0}, 3.0)
    assert told.throttled_s == {"n0": 0.5}
    assert told.cores == pytest.approx(3.0 / 40.0)
    assert from_row(json.dumps(told.row())).host == asdict(HOST)


@pytest.mark.parametrize("host", [None, HOST])
def test_another_process_is_told_what_to_measure(host: Host | None) -> None:
    setting = Setting("ray-batches", "siirl-table1", 4, 4, 3, 2.0, host)
    assert Setting.from_dict(json.loads(json.dumps(asdict(setting)))) == setting
