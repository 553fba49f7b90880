"""The format's conformance documents: whoever writes another reader of pipelines holds it to them, and this one is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError
from dflow_protocols.pipeline.grammar.schema import make_schema
from tests.support.repository import ROOT
from tests.unit.protocols.pipeline.grammar.schema_check import fits
from tests.unit.protocols.pipeline.vectors import INVALID, VALID, settled, spell, told

SCHEMA = make_schema()
PAGE = (ROOT / "docs" / "format.md").read_text()
RULES = dict(re.findall(r"^\| `([a-z.]+)` \| .+ \| (yes|no) \|$", PAGE, re.MULTILINE))
"""The page's table of rules: whether the JSON Schema sees that one is broken."""


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_document_has_its_canonical_form_and_id(path: Path) -> None:
    """Seeds follow from the id: a change here gives every run of old specs other weights."""
    assert path.read_text() == spell(settled(told(path)))


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_canonical_form_is_a_document_that_is_its_own(path: Path) -> None:
    """A checkpoint holds it, and is opened by what it says."""
    vector = told(path)
    pipeline = Pipeline.from_canonical(vector["canonical"].encode())
    assert pipeline.id == vector["id"]
    assert fits(SCHEMA, vector["document"])
    assert fits(SCHEMA, pipeline.to_dict())


def test_two_ways_to_write_one_pipeline_have_one_id() -> None:
    """As the documents say of each other."""
    ids = {path.stem: told(path)["id"] for path in VALID}
    same = {path.stem: told(path)["same_as"] for path in VALID if "same_as" in told(path)}
    assert len(same) > 3
    assert {name: ids[name] for name in same} == {name: ids[other] for name, other in same.items()}
    assert len(set(ids.values())) == len(ids) - len(same)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_document_is_refused_where_it_says(path: Path) -> None:
    """At the place that a person has to change, and by the schema where that can see it."""
    vector = told(path)
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(vector["document"])
    assert [problem.path for problem in caught.value.problems] == vector["places"]
    assert fits(SCHEMA, vector["document"]) == (RULES[vector["rule"]] == "no")
    assert path.read_text() == spell(vector)


def test_each_rule_of_the_page_has_a_document_that_breaks_it() -> None:
    """A rule that no document breaks is one that another reader may leave out."""
    assert {told(path)["rule"] for path in INVALID} == set(RULES)
