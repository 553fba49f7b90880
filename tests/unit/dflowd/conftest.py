"""Engines are tested under the settings that their processes have; libraries read them when they are loaded."""

import os
from collections.abc import AsyncIterator

import pytest

from dflowd.child.process import ENVIRONMENT
from tests.unit.dflowd.shards.peers import Neighbours

os.environ.update(ENVIRONMENT)


@pytest.fixture
async def neighbours() -> AsyncIterator[Neighbours]:
    made = Neighbours()
    yield made
    made.close_all()
