"""Writes docs/reference/config.md from the configuration's models and the docstrings under their fields.

Run it after a change of dflowd/boot/config.py: `python docs/reference/generate.py`.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from pathlib import Path

from dflowd.boot import config

TARGET = Path(__file__).with_name("config.md")
HEAD = """# Configuration of a daemon

`dflowd run --config FILE` reads one TOML file; `dflowd check-config --config FILE` only checks it. Every key is also
an environment variable `DFLOWD_<SECTION>_<KEY>`, which wins over the file; there a list is words with blanks between.
Sizes are written `2 GiB` or `500 MB`; relative paths start from the file's folder. This page is made from
`dflowd/boot/config.py`.

```toml
[node]
name = "a1"
state_dir = "/var/lib/dflowd"
[listen]
control = "tcp://10.0.0.7:7300"
bulk = "tcp://10.0.0.7:7301"
[mesh]
allow_list = "/etc/dflowd/allow"
seeds = ["a2", "a3"]
```
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for section, field in config.Config.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        parts.append(f"\n## [{section}]\n{inspect.getdoc(model)}\n\n")
        parts.append("| key | default | meaning |\n|---|---|---|\n")
        parts.extend(f"| `{name}` | {default} | {text} |\n" for name, default, text in _keys(model))
    return "".join(parts)


def _keys(model: type) -> Iterator[tuple[str, str, str]]:
    """Name, default and docstring of each field, in order."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    for field, doc in itertools.pairwise(body):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if is_field and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            assert isinstance(field, ast.AnnAssign)
            assert isinstance(field.target, ast.Name)
            name = field.target.id
            yield name, _default(model, name), " ".join(str(doc.value.value).split())


def _default(model: type, name: str) -> str:
    field = model.model_fields[name]  # type: ignore[attr-defined]
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    if name == "memory_limit":
        return f"`{field.default >> 30} GiB`"
    return "`[]`" if field.default == () else f"`{field.default}`"


if __name__ == "__main__":
    TARGET.write_text(reference())
