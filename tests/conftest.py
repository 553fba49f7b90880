"""What holds for all tests: a machine that does other things besides may be slow, and is not wrong for it."""

from __future__ import annotations

import gc
import signal
from types import FrameType

from hypothesis import settings

settings.register_profile("busy-machine", deadline=None)
settings.load_profile("busy-machine")


def pytest_configure() -> None:
    """SIGTERM, of `timeout` or of who runs the tests at night, stops them as Ctrl-C does: daemons of a test, which are
    in sessions of their own, would outlive it."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # `timeout` tells a process and its group: twice
    raise KeyboardInterrupt


def pytest_collection_finish() -> None:
    """Torch, transformers and all tests are loaded now, and stay: the collector need not walk them time and again."""
    gc.collect()
    gc.freeze()
