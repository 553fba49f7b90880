"""The manual says what the program does, because it is made from it."""

from __future__ import annotations

import runpy

from tests.support.repository import ROOT

REFERENCE = ROOT / "docs" / "reference"


def test_the_reference_of_the_configuration_is_up_to_date() -> None:
    """After a change of dflowd/boot/config.py, run docs/reference/generate.py."""
    made = runpy.run_path(str(REFERENCE / "generate.py"))["reference"]()
    assert (REFERENCE / "config.md").read_text() == made


def test_every_key_has_a_docstring() -> None:
    """A key that nobody explained is a key that nobody needs."""
    from dflowd.boot.config import Config

    text = (REFERENCE / "config.md").read_text()
    for field in Config.model_fields.values():
        for key in field.annotation.model_fields:  # type: ignore[union-attr]
            assert f"| `{key}` |" in text, key
