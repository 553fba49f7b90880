"""What these tests do to signals ends with each."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from dflow_cli.own_run.interrupts import SIGNALS


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Shells start what runs in the background deaf to SIGINT."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
