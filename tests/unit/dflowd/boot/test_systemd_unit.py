"""The unit file that hosts install: systemd accepts it, and it fits what the daemon does."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from dflowd.boot.config import MeshSection
from tests.support.repository import ROOT

SYSTEMD = ROOT / "systemd"
UNIT = SYSTEMD / "dflowd.service"


def settings() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit() -> None:
    """A unit with a mistake is not loaded, or loaded without the line."""
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs systemd-sysusers")
def test_systemd_accepts_the_user() -> None:
    """The unit names it."""
    file = str(SYSTEMD / "dflowd.sysusers.conf")
    done = subprocess.run(["systemd-sysusers", "--dry-run", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert settings()["User"] == "dflowd"


def test_the_unit_gives_a_leaving_daemon_its_time() -> None:
    """systemd's SIGKILL must not come before the daemon's own limit."""
    leave_s = MeshSection.model_fields["leave_timeout_s"].default
    assert int(settings()["TimeoutStopSec"]) > leave_s


def test_the_unit_hides_no_device() -> None:
    """Each of these takes the GPUs away, the second one by a side effect."""
    hiding = {"PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy", "MemoryDenyWriteExecute"}
    assert not hiding & settings().keys()
