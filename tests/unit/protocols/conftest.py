"""What tests of the step protocol are given."""

from __future__ import annotations

import pytest

from tests.unit.protocols.midway import Midway


@pytest.fixture
def midway() -> Midway:
    return Midway()
