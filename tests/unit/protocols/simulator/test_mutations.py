"""Each rule of the protocol can be broken on purpose, and is whole again afterwards."""

from __future__ import annotations

import inspect
import pkgutil
import re
from pathlib import Path

import pytest

from dflow_protocols.claiming import deal
from dflow_protocols.names import ShardId, ShardRef
from dflow_protocols.simulator import invariants
from dflow_protocols.simulator.mutations import MUTATIONS
from dflow_protocols.simulator.mutations.mutation import Mutation, becomes, gives, living, whole
from dflow_protocols.steps import reduction, sealing
from dflow_protocols.steps.step import Step
from dflow_protocols.wire.steps import Header

RULES = Path(__file__).parents[4] / "docs" / "protocol.md"


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=lambda mutation: mutation.name)
def test_a_mutation_finds_its_target(mutation: Mutation) -> None:
    """A function that was renamed would else be a rule that nobody breaks any more, and that seems well guarded."""
    with living(mutation):
        pass


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=lambda mutation: mutation.name)
def test_a_mutation_is_called_as_its_target_is(mutation: Mutation) -> None:
    """One that fails for its arguments shows as a fault of the program in any world, whatever watches its rule."""
    where = f"dflow_protocols.{mutation.target}"
    target = pkgutil.resolve_name(where)
    with living(mutation):
        other = pkgutil.resolve_name(where)
    if inspect.isfunction(target):
        taken = inspect.signature(target).parameters.values()
        named = {each.name: None for each in taken if each.kind is each.KEYWORD_ONLY}
        inspect.signature(other).bind(*(each.name for each in taken if each.name not in named), **named)


def test_each_rule_has_a_mutation() -> None:
    """What no mutation breaks may be checked by nothing."""
    rules = set(re.findall(r"^\*\*(\d+[a-z]*)\. ", RULES.read_text(), re.MULTILINE))
    assert len(rules) > 40
    assert rules - {mutation.rule for mutation in MUTATIONS.values()} == set()


def test_whoever_imported_a_function_has_the_other_one_until_the_end() -> None:
    """A name that was bound before must not keep the rule whole, nor must the rule stay broken."""
    before = sealing.has_copies
    with living(Mutation("no", "3", "steps.sealing:has_copies", gives("changed"))):
        assert vars(sealing)["has_copies"](None, ()) == "changed"
    assert sealing.has_copies is before
    homes = deal.homes
    with living(Mutation("no", "11", "claiming.deal:homes", gives({}))):
        from dflow_protocols.steps import view

        assert vars(view)["homes"] is deal.homes is not homes
    assert vars(view)["homes"] is homes


def test_a_function_that_is_called_otherwise_where_it_is_imported_changes_too() -> None:
    """Else a mutation of it would break nothing, and its rule would seem to need no guard."""

    def ids() -> set[str]:
        states = ((), (("params:policy", ShardRef(ShardId("a" * 64), 1)),))
        return {Header(None, 0, 0, "s", state).id for state in states}

    assert len(ids()) == 2
    with living(MUTATIONS["versions_named_without_state"]):
        assert len(ids()) == 1


def test_methods_and_constants_change_too_even_where_a_world_breaks() -> None:
    """An exception is how most worlds of a mutation end."""
    claimants, count = Step.claimants, reduction.SLICES
    one = Mutation("no", "11a", "steps.step:Step.claimants", gives("changed"))
    other = Mutation("no", "7", "steps.reduction:SLICES", becomes(1))
    with pytest.raises(KeyError, match="changed', 1"), living(one), living(other):
        raise KeyError(vars(Step)["claimants"](None), reduction.SLICES)
    assert (Step.claimants, reduction.SLICES) == (claimants, count)


def test_checkers_stay_whole() -> None:
    """They import what they look at: broken alike they would agree with it."""
    before = vars(invariants)["pieces"]
    with living(Mutation("no", "7b", "ranges:pieces", gives(()))):
        assert vars(invariants)["pieces"] is before


def test_what_a_broken_world_is_compared_with_is_whole() -> None:
    """And the rule is broken again after that."""
    before = sealing.has_copies
    with living(Mutation("no", "3", "steps.sealing:has_copies", gives("changed"))):
        with whole():
            assert sealing.has_copies is before
        assert sealing.has_copies is not before


def test_a_target_that_is_gone_is_told() -> None:
    """By the name of the mutation, which is to follow the code."""
    with pytest.raises(LookupError, match=r"mutation no: there is no steps\.step:Step\.gone"):  # noqa: SIM117
        with living(Mutation("no", "1", "steps.step:Step.gone", gives(None))):
            pass
