"""How a pretended process runs late, and tells of it as a daemon does."""

from __future__ import annotations

from dflow_protocols.events import Lagged
from dflow_protocols.simulator.model.lateness import Lateness


def test_nothing_overtakes_what_waits() -> None:
    """A daemon has one inbox: what comes when the host is well again waits behind what came before."""
    late = Lateness()
    assert late.wait(1.0, 0.5) == 0.5
    assert late.wait(1.25, 0.0) == 0.25
    assert late.wait(2.0, 0.0) == 0.0


def test_the_worst_wait_of_a_second_is_told_once() -> None:
    """As often as a daemon tells it, and only what no quiet machine does."""
    late = Lateness()
    late.note(0.04)
    assert late.take(1.0) is None
    late.note(0.3)
    late.note(0.2)
    assert late.take(1.0) == Lagged(0.3)
    late.note(0.4)
    assert late.take(1.5) is None
    assert late.take(2.0) == Lagged(0.4)
