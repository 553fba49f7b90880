from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.dflowd.shards.peers import Neighbours


@pytest.fixture
async def neighbours() -> AsyncIterator[Neighbours]:
    made = Neighbours()
    yield made
    made.close_all()
