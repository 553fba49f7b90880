"""The reference in docs/pipelines.md and the exported JSON Schema are made from the format's tables, and stay true.

Run this file to write both anew: `python tests/unit/protocols/pipeline/grammar/test_reference.py`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from dflow_protocols.pipeline.grammar.layout import STAGE, TOP
from dflow_protocols.pipeline.grammar.schema import make_schema
from dflow_protocols.pipeline.grammar.shape import REQUIRED, Items, Kinds, Named, Section, Shape, Variants
from dflow_protocols.pipeline.grammar.signatures import OPERATORS
from tests.support.repository import ROOT

DOCS = ROOT / "docs"
GUIDE = DOCS / "pipelines.md"
SCHEMA = DOCS / "pipeline.schema.json"
HEADING = "## Every key\n"


def rows(keys: Iterable[tuple[str, Shape]], prefix: str = "", kinds: Collection[str] = ()) -> Iterator[str]:
    """One line a key, those inside it below it. Exactly one of `kinds` has to be there."""
    for key, shape in keys:
        if shape.default == REQUIRED:
            default = "required" if len(kinds) < 2 or key not in kinds else f"this or {other(key, kinds)}"
        else:
            default = "" if shape.default is None else f"`{json.dumps(shape.default)}`"
        choices = getattr(shape, "choices", ())
        about = shape.about + (
            f": {', '.join(choices)}" if choices and not shape.about.startswith(f"{choices[0]}: ") else ""
        )
        yield f"| `{prefix}{key}` | {default} | {about} |"
        yield from inner_rows(shape, f"{prefix}{key}.")


def other(key: str, kinds: Collection[str]) -> str:
    return " or ".join(f"`{kind}`" for kind in kinds if kind != key)


def inner_rows(shape: Shape, prefix: str) -> Iterator[str]:
    if isinstance(shape, Section):
        yield from rows(shape.keys.items(), prefix)
    elif isinstance(shape, Variants):
        seen: dict[str, Shape] = {}
        for table in shape.kinds.values():
            seen |= table.keys
        yield from rows(seen.items(), prefix, shape.kinds)
    elif isinstance(shape, Kinds):
        yield from rows(every_key(shape), prefix)
    elif isinstance(shape, Named):
        yield from inner_rows(shape.item, f"{prefix}NAME.")
    elif isinstance(shape, Items) and isinstance(shape.item, Section) and shape.item.keys is not STAGE:
        yield from inner_rows(shape.item, prefix)


def every_key(shape: Kinds) -> Iterator[tuple[str, Shape]]:
    """Those of any kind; of one that not all have, or not all alike, it is said which have it so."""
    of = {kind: shape.keys_of(kind) for kind in shape.kinds}
    for key in dict.fromkeys(key for keys in of.values() for key in keys):
        alike: list[tuple[Shape, list[str]]] = []
        for kind, inner in ((kind, keys[key]) for kind, keys in of.items() if key in keys):
            known = next((kinds for other, kinds in alike if other == inner), None)
            if known is None:
                alike.append((inner, [kind]))
            else:
                known.append(kind)
        for inner, kinds in alike:
            only = f"; only with `{shape.tag}: {' or '.join(kinds)}`" if len(kinds) < len(of) else ""
            yield key, replace(inner, about=f"{inner.about}{only}")


def table(keys: Iterable[tuple[str, Shape]]) -> list[str]:
    return ["| key | default | |", "|---|---|---|", *rows(keys), ""]


def reference() -> str:
    lines = ["### The pipeline", *table(TOP.items()), "### A stage", *table(STAGE.items())]
    for name, operator in OPERATORS.items():
        reads = ", ".join(f"`{output}`" for output in operator.reads) or "nothing"
        writes = ", ".join(f"`{output}`" for output in operator.writes) or "nothing"
        lines += [f"### `{name}`", f"{operator.about}. Reads {reads}; writes {writes}.", ""]
        of = operator.config
        config = list(every_key(of)) if isinstance(of, Kinds) else list(of.keys.items())
        if config:
            lines += table(config)
    return "\n".join(lines)


def schema_text() -> str:
    return json.dumps(make_schema(), indent=1) + "\n"


def test_the_guide_lists_every_key_as_validation_reads_it() -> None:
    assert GUIDE.read_text().endswith(reference())


def test_the_exported_schema_is_the_one_that_the_tables_give() -> None:
    assert SCHEMA.read_text() == schema_text()


if __name__ == "__main__":
    text, _, after = GUIDE.read_text().partition(HEADING)
    first_paragraph = after.strip().split("\n\n")[0]
    GUIDE.write_text(f"{text}{HEADING}{first_paragraph}\n\n{reference()}")
    SCHEMA.write_text(schema_text())
