"""What an engine child's environment says before Python starts in it."""

from __future__ import annotations

import subprocess
import sys

from dflowd.slots.devices import Devices, engine_environment

WALK = "import locale; print(*{'a', 'b', 'c', 'd', 'e'}, locale.getpreferredencoding())"


def test_user_code_sees_one_order_and_one_encoding_on_every_host() -> None:
    """A reward that walks a set of texts, or opens a file, would else give other numbers in another engine."""
    seen = set()
    for more in ({}, {"PYTHONHASHSEED": "7"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}):
        environment = engine_environment(Devices((), 2).of_slot(0), {"PATH": "/usr/bin", **more})
        done = subprocess.run([sys.executable, "-c", WALK], env=environment, capture_output=True, text=True, check=True)
        seen.add(done.stdout)
    assert len(seen) == 1


def test_each_slot_has_a_gpu_of_its_own() -> None:
    assert engine_environment(Devices(("H100", "H100"), 8).of_slot(1), {})["CUDA_VISIBLE_DEVICES"] == "1"
    assert engine_environment((2, 3), {})["CUDA_VISIBLE_DEVICES"] == "2,3"
