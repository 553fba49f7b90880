"""A member lies about everything while a run goes on: nobody breaks, and nobody's books grow with what it says."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from dflow_protocols.membership.table import MAX_MEMBERS
from tests.support.deceit import Deceit
from tests.support.draws import draws
from tests.support.tables import largest_tables

LIES = 600  # of one life, in batches after which all books are measured
BATCHES = 3


@draws(4)
@given(seed=st.integers(0, 2**32), ends=st.booleans())
@example(seed=59178, ends=True)  # a roster that names a trainer twice
def test_nothing_that_is_said_beside_the_truth_breaks_a_node(seed: int, ends: bool) -> None:
    """Lies made of what the members said before, each in the middle of something: a call, a fetch, a seal under way.
    The world ends at a node that raises an error, or whose books do not agree."""
    deceit = Deceit(seed, ends)
    for _ in range(BATCHES):
        deceit.go_on(LIES // BATCHES)
        for host in deceit.world.live():
            for path, entries in largest_tables(host.machine).items():
                assert entries <= MAX_MEMBERS, path


def test_every_table_of_a_node_is_found() -> None:
    """What is not looked at could grow unseen."""
    deceit = Deceit(0, ends=False)
    tables = largest_tables(deceit.world.hosts[0].machine)
    for path in ("runs", ".members", "._asked", ".steps[].records", ".holdings.holders"):
        assert any(found.endswith(path) for found in tables), path
