"""The unit files that hosts install: systemd accepts them, and they fit what the daemon does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dflowd.__main__ import EXIT_INPUT
from dflowd.boot.config import MeshSection
from tests.support.repository import ROOT

SYSTEMD = ROOT / "systemd"
UNIT, TEMPLATE = SYSTEMD / "dflowd.service", SYSTEMD / "dflowd@.service"
MOST_EXPOSURE = 2.2  # of 10, as systemd-analyze counts what a service may do; what engines need is 1.9

each_unit = pytest.mark.parametrize("unit", [UNIT, TEMPLATE], ids=lambda unit: unit.name)
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def settings(unit: Path = UNIT) -> dict[str, str]:
    """Each key's last value."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


@needs_analyze
@each_unit
def test_systemd_accepts_the_unit(unit: Path) -> None:
    """A unit with a mistake is not loaded, or loaded without the line."""
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
@each_unit
def test_a_daemon_may_do_little_that_it_need_not(unit: Path) -> None:
    """It runs code of users: what that breaks out into is to be small."""
    ask = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    said = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs systemd-sysusers")
def test_systemd_accepts_the_user() -> None:
    """The unit names it."""
    file = str(SYSTEMD / "dflowd.sysusers.conf")
    done = subprocess.run(["systemd-sysusers", "--dry-run", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert settings()["User"] == "dflowd"


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="needs systemd-tmpfiles")
def test_systemd_makes_the_folder_and_closes_the_keys(tmp_path: Path) -> None:
    """A key that others can read is refused by the daemon, and one that root made it cannot read itself."""
    passwd, group = (tmp_path / "etc" / name for name in ("passwd", "group"))
    key = tmp_path / "etc" / "dflowd" / "a" / "key"
    key.parent.mkdir(parents=True)
    key.write_text("secret")
    key.chmod(0o644)
    owner = key.stat()
    passwd.write_text(f"dflowd:x:{owner.st_uid}:{owner.st_gid}::/:/bin/false\nroot:x:0:0::/:/bin/sh\n")
    group.write_text(f"dflowd:x:{owner.st_gid}:\nroot:x:0:\n")
    ask = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(SYSTEMD / "dflowd.tmpfiles.conf")]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc" / "dflowd").stat().st_mode & 0o777 == 0o750


def test_several_daemons_on_a_host_differ_in_their_places_alone() -> None:
    """What is mended in one unit would be forgotten in the other."""
    one, several = settings(UNIT), settings(TEMPLATE)
    assert one.keys() == several.keys()
    other = {key for key in one if one[key] != several[key]}
    assert other == {"Description", "WorkingDirectory", "StateDirectory", "ExecStart"}
    places = ("/var/lib/dflowd/%i", "dflowd/%i", "/etc/dflowd/%i/dflowd.toml")
    assert all(any(place in several[key] for place in places) for key in other - {"Description"})


@each_unit
def test_a_mistake_is_left_to_a_person_and_all_else_is_tried_until_it_goes(unit: Path) -> None:
    """systemd asks the daemon alone for the status that ends its tries, so what fails before it is tried for ever; and
    by itself it may give up a host that is not ready yet."""
    told = settings(unit)
    assert told["Restart"] == "on-failure"
    assert told["RestartPreventExitStatus"] == str(EXIT_INPUT)
    assert told["StartLimitIntervalSec"] == "0"
    before = re.findall(r"^ExecStartPre=(.*)$", unit.read_text(), re.MULTILINE)
    assert all(command.startswith("-") for command in before)


@each_unit
def test_the_unit_gives_a_leaving_daemon_its_time(unit: Path) -> None:
    """systemd's SIGKILL must not come before the daemon's own limit."""
    leave_s = MeshSection.model_fields["leave_timeout_s"].default
    assert int(settings(unit)["TimeoutStopSec"]) > leave_s


@each_unit
def test_the_unit_hides_nothing_that_engines_need(unit: Path) -> None:
    """Each of these takes the GPUs away (ProtectClock by a side effect), or what is read of the host."""
    hiding = {"PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy", "MemoryDenyWriteExecute", "ProcSubset"}
    assert not hiding & settings(unit).keys()


@each_unit
def test_the_unit_lets_engines_limit_themselves(unit: Path) -> None:
    """Workers set limits of memory, niceness and cores: calls of @resources."""
    filters = re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.MULTILINE)
    assert filters == ["@system-service", "~@privileged"]
    assert settings(unit)["SystemCallErrorNumber"] == "EPERM"  # not a kill: libraries try what a kernel may lack
