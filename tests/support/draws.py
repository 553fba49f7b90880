"""How many inputs a test draws: some in the short suite, ten times as many in `make slow`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

MORE = "DFLOW_TESTS_DRAW"  # how many times as many
Test = Callable[..., Any]


def draws(count: int) -> Callable[[Test], Test]:
    """Marks a test of hypothesis, which tries `count` inputs in the short suite."""

    def marked(test: Test) -> Test:
        # no deadline: a loaded machine is no fault of what is drawn
        many: Test = settings(max_examples=count * int(os.environ.get(MORE, "1")), deadline=None)(test)
        return pytest.mark.draws(many)

    return marked
