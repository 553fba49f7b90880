"""JSON Schema of the format, made from the tables that validation reads: editors complete and check as one types.

It says what one value may look like. What ties values together (who reads what, cycles, numbers that have to fit each
other) only `validate` knows. `x-unwritten` marks keys that the canonical form leaves out where they have their default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..recipes.catalog import ROLES
from .layout import PLAN_VERSION, STAGE, TOP
from .scoring import FUNCTION_PATTERN
from .shape import NAME, REQUIRED, Condition, Flag, Free, Items, Kinds, Named, Number, Section, Shape, Text, Variants
from .signatures import OPERATORS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_EXPRESSION = {"type": "string", "minLength": 1, "maxLength": 400}


def make_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a pipeline as YAML or JSON."""
    top = _table(TOP)
    top["properties"]["params"] = {
        "description": TOP["params"].about,
        "type": "object",
        "propertyNames": {"pattern": f"^{NAME}$"},
        "additionalProperties": {"type": ["number", "boolean", "string"]},
    }
    top["properties"]["stages"]["items"] = {"anyOf": [*map(_stage, OPERATORS), _users_own(), _draft()]}
    top["properties"]["plan_version"]["enum"] = [PLAN_VERSION, None]
    about = {"$schema": DIALECT, "$id": f"urn:dflowd:pipeline:{PLAN_VERSION}", "title": "A dflowd pipeline"}
    return about | top


def _stage(op: str) -> dict[str, Any]:
    """A stage of one built-in operator."""
    operator = OPERATORS[op]
    schema = _table(STAGE)
    properties = schema["properties"]
    properties["op"] = {"const": op, "description": operator.about}
    properties["config"] = _describe(operator.config)
    if operator.model:
        schema["required"].append("model")
    else:
        properties["model"] = {"type": "null"}
    if isinstance(operator.config, Section) and properties["config"]["required"]:
        schema["required"].append("config")
    return schema


def _users_own() -> dict[str, Any]:
    schema = _table(STAGE)
    schema["properties"]["op"] = {"type": "string", "pattern": f"^{FUNCTION_PATTERN}$"}
    schema["properties"]["model"] = {"type": "null"}
    schema["required"].append("writes")
    return schema


def _draft() -> dict[str, Any]:
    """A stage that `algorithm` makes, with some of its keys written."""
    schema = _table(STAGE)
    schema["properties"] |= {"id": {"enum": list(ROLES)}, "op": {"type": "null"}}
    schema["required"].remove("op")
    return schema


def _table(keys: Mapping[str, Shape]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: _optional(shape) for key, shape in keys.items()},
        "required": [key for key, shape in keys.items() if shape.default == REQUIRED],
        "additionalProperties": False,
    }


def _optional(shape: Shape) -> dict[str, Any]:
    """A key's schema; one with a default may also be null."""
    schema = _describe(shape)
    if shape.default != REQUIRED:
        schema = {"anyOf": [schema, {"type": "null"}]}
        if shape.default is not None:
            schema["default"] = list(shape.default) if isinstance(shape.default, tuple) else shape.default
    if shape.unwritten:
        schema["x-unwritten"] = True
    return {"description": shape.about, **schema} if shape.about else schema


def _describe(shape: Shape) -> dict[str, Any]:
    match shape:
        case Number():
            return {"anyOf": [_number(shape), _EXPRESSION]}
        case Text():
            if shape.choices:
                return {"enum": list(shape.choices)}
            return {"type": "string", "minLength": 1, **({"pattern": f"^({shape.pattern})$"} if shape.pattern else {})}
        case Flag():
            return {"type": "boolean"}
        case Items():
            least, most = (shape.at_least, None) if shape.count is None else (shape.count, shape.count)
            bounds = {"minItems": least, "maxItems": most}
            return {"type": "array", "items": _describe(shape.item)} | {k: v for k, v in bounds.items() if v}
        case Section():
            return _table(shape.keys)
        case Named():
            names = {"propertyNames": {"pattern": f"^{NAME}$"}}
            return {"type": "object", **names, "additionalProperties": _describe(shape.item)}
        case Variants():
            return {"anyOf": [_table(table.keys) for table in shape.kinds.values()]}
        case Kinds():
            own = [] if shape.own is None else [_own_kind(shape)]
            return {"anyOf": [*(_kind(shape, kind) for kind in shape.kinds), *own]}
        case Free():
            return {"type": "object"}
        case Condition():
            return {"anyOf": [{"type": "boolean"}, _EXPRESSION]}


def _kind(shape: Kinds, kind: str) -> dict[str, Any]:
    """One of several kinds; the tag may be absent where it is the default."""
    schema = _table(shape.keys_of(kind))
    is_default = kind == shape.choice.default
    about = {"description": shape.choice.about}
    schema["properties"][shape.tag] = about | ({"enum": [kind, None]} if is_default else {"const": kind})
    schema["properties"] |= {key: {"type": "null"} for key in shape.others_of(kind)}
    schema["required"] += [] if is_default else [shape.tag]
    return schema


def _own_kind(shape: Kinds) -> dict[str, Any]:
    """A kind by a name of the user's own."""
    schema = _table(shape.keys_of(""))
    schema["properties"][shape.tag] = {"description": shape.choice.about, "pattern": f"^{shape.choice.pattern}$"}
    schema["properties"] |= {key: {"type": "null"} for key in shape.others_of("")}
    schema["required"] += [shape.tag]
    return schema


def _number(shape: Number) -> dict[str, Any]:
    limits = {
        "minimum": shape.at_least,
        "exclusiveMinimum": shape.above,
        "maximum": shape.at_most,
        "exclusiveMaximum": shape.below,
    }
    bounds = {key: limit for key, limit in limits.items() if limit is not None}
    return {"type": "integer" if shape.integer else "number", **bounds}
