"""Whether a document is what the exported JSON Schema says, by a validator of others."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value is valid."""
    return bool(Draft202012Validator(schema).is_valid(value))
