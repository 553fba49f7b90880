"""The page of what simulated meshes notice."""

from __future__ import annotations

from benchmarks.mutations import PAGE, Outcome, page
from dflow_protocols.simulator.mutations import MUTATIONS


def test_a_row_says_what_noticed_a_mutation_or_how_many_worlds_it_survived() -> None:
    """Who strengthens an invariant looks for what survives."""
    told = page([Outcome("no_back_up_copy", 2, "copied_first"), Outcome("a_loan_never_lapses", 300)]).splitlines()
    assert told[-2].endswith("| `controllers.sealer:Sealer.back_up` | `copied_first` | 1 |")
    assert told[-1].startswith("| `a_loan_never_lapses` | 11d |")
    assert told[-1].endswith("| survives 300 | |")


def test_each_mutation_has_its_row() -> None:
    """A new one is on the page only after `make mutations`."""
    text = PAGE.read_text()
    assert [name for name in MUTATIONS if f"| `{name}` |" not in text] == []
