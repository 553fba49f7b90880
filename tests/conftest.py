"""What holds for all tests: a machine that does other things besides may be slow, and is not wrong for it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("busy-machine", deadline=None)
settings.load_profile("busy-machine")
