"""What holds for all tests: a machine that does other things besides may be slow, and is not wrong for it."""

from __future__ import annotations

import gc

from hypothesis import settings

settings.register_profile("busy-machine", deadline=None)
settings.load_profile("busy-machine")


def pytest_collection_finish() -> None:
    """Torch, transformers and all tests are loaded now, and stay: the collector need not walk them time and again."""
    gc.collect()
    gc.freeze()
