"""The table of operators' functions beside the grammar's table of what they are."""

from __future__ import annotations

from dflow_protocols.pipeline.grammar import signatures
from dflowd.operators.registry import OPERATORS


def test_every_operator_that_a_spec_may_name_on_partitions_has_a_function_and_no_other_has() -> None:
    """What validation lets pass must not end in an engine that knows nothing of it."""
    named = {name for name, operator in signatures.OPERATORS.items() if operator.is_on_partitions}
    assert set(OPERATORS) == named
