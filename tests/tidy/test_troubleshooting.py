"""Whoever looks a message up has to find it as the program writes it."""

from __future__ import annotations

import ast
import re

from dflow_protocols.reports import REPORTS
from tests.tidy.sources import ROOT, all_package_files, tree

PAGE = ROOT / "docs" / "troubleshooting.md"
PYTHONS_OWN = {"No module named"}


def texts() -> str:
    """All constant texts of the packages, and the parts of those that are put together."""
    return "\n".join(
        node.value
        for path in all_package_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_every_message_that_the_page_explains_is_one_that_the_program_writes() -> None:
    """A heading in code is a piece of a message, or a report; so is what a list under `did not start` begins with."""
    page = PAGE.read_text()
    told = re.findall(r"^### `([^`]+)`", page, re.MULTILINE) + re.findall(r"^- `([^`]+)`:", page, re.MULTILINE)
    assert len(told) > 25
    written = texts()
    assert [text for text in told if text not in written and text not in REPORTS and text not in PYTHONS_OWN] == []
