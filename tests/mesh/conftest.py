from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.mesh import Mesh


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Three daemons that a file's tests share."""
    with Mesh(tmp_path_factory.mktemp("mesh"), 3) as made:
        yield made
