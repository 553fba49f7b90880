"""When cycles of dead objects are looked for."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from dflowd.process.collector import NEW_OBJECTS, look_for_cycles_seldom


class Ring:
    """Refers to itself, so no count of references ends it."""

    def __init__(self) -> None:
        self.next = self


@pytest.fixture
def as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_what_refers_to_itself_goes_all_the_same(as_before: None) -> None:
    """A daemon lives for months, so no kind of rubbish may stay."""
    look_for_cycles_seldom()
    first = weakref.ref(Ring())
    for _ in range(2 * NEW_OBJECTS):
        Ring()
    assert first() is None
