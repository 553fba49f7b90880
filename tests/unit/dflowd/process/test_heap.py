"""What is asked of the C library's allocator."""

from __future__ import annotations

import ctypes

import pytest

from dflowd.process.heap import keep_what_is_freed


def test_a_c_library_without_such_settings_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane is slower there, and works."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_what_is_freed()
