"""A checker for the part of JSON Schema (draft 2020-12) that the exported schema uses, and no more."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
NOTES = {"$schema", "title", "description", "default"}


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value is valid. Raises KeyError for a keyword that this checker does not know."""
    return all(CHECKS[keyword](schema, value) for keyword in schema if keyword not in NOTES)


def _is_type(name: str, value: Any) -> bool:
    if name in ("number", "integer"):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return not isinstance(value, bool) and (whole or (name == "number" and isinstance(value, float)))
    return isinstance(value, TYPES[name])


def _types(schema: dict[str, Any], value: Any) -> bool:
    wanted = schema["type"]
    return any(_is_type(name, value) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _properties(schema: dict[str, Any], value: Any) -> bool:
    return all(fits(inner, value[key]) for key, inner in schema["properties"].items() if key in value)


def _others(schema: dict[str, Any], value: Any) -> bool:
    others = [inner for key, inner in value.items() if key not in schema.get("properties", {})]
    allowed = schema["additionalProperties"]
    return not others if allowed is False else all(fits(allowed, inner) for inner in others)


CHECKS: dict[str, Any] = {
    "type": _types,
    "const": lambda s, v: v == s["const"],
    "enum": lambda s, v: v in s["enum"],
    "anyOf": lambda s, v: any(fits(option, v) for option in s["anyOf"]),
    "properties": lambda s, v: not isinstance(v, dict) or _properties(s, v),
    "required": lambda s, v: not isinstance(v, dict) or set(s["required"]) <= set(v),
    "additionalProperties": lambda s, v: not isinstance(v, dict) or _others(s, v),
    "propertyNames": lambda s, v: not isinstance(v, dict) or all(fits(s["propertyNames"], key) for key in v),
    "items": lambda s, v: not isinstance(v, list) or all(fits(s["items"], item) for item in v),
    "minItems": lambda s, v: not isinstance(v, list) or len(v) >= s["minItems"],
    "maxItems": lambda s, v: not isinstance(v, list) or len(v) <= s["maxItems"],
    "pattern": lambda s, v: not isinstance(v, str) or re.search(s["pattern"], v) is not None,
    "minLength": lambda s, v: not isinstance(v, str) or len(v) >= s["minLength"],
    "maxLength": lambda s, v: not isinstance(v, str) or len(v) <= s["maxLength"],
    "minimum": lambda s, v: not _is_type("number", v) or v >= s["minimum"],
    "maximum": lambda s, v: not _is_type("number", v) or v <= s["maximum"],
    "exclusiveMinimum": lambda s, v: not _is_type("number", v) or v > s["exclusiveMinimum"],
    "exclusiveMaximum": lambda s, v: not _is_type("number", v) or v < s["exclusiveMaximum"],
}
