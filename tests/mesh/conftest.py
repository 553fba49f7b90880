from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import launch
from tests.support.mesh import Mesh


@pytest.fixture(scope="session", autouse=True)
def _forked_daemons() -> Iterator[None]:
    """By their command they are started wherever a user's commands are tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mesh, "start", staticmethod(launch.fork))
        yield


@pytest.fixture
def by_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what an operator or a service manager starts: its weight, its signals."""
    monkeypatch.setattr(Mesh, "start", staticmethod(launch.spawn))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Three daemons that a file's tests share."""
    with Mesh(tmp_path_factory.mktemp("mesh"), 3) as made:
        yield made
