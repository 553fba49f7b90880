"""How large a machine's books are: every dict, list, set and queue in it, by the path of fields that leads there."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any

TABLES = (dict, list, set, frozenset, tuple, deque)
OWN = "dflow_protocols"


def largest_tables(machine: Any) -> Counter[str]:
    """By its shortest path, the entries of the largest table there: `runs[].state.steps[].seals` a step's."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    left: deque[tuple[str, Any]] = deque([("", machine)])
    while left:
        path, thing = left.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, TABLES):
            found[path] = max(found[path], len(thing))
            inner = [*thing, *thing.values()] if isinstance(thing, Mapping) else list(thing)
            left += [(f"{path}[]", each) for each in inner]
        elif type(thing).__module__.startswith(OWN):
            left += [(f"{path}.{name}" if path else name, value) for name, value in _fields(thing)]
    return found


def _fields(thing: Any) -> Iterator[tuple[str, Any]]:
    slots = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
    for name in (*getattr(thing, "__dict__", {}), *slots):
        if hasattr(thing, name):
            yield name, getattr(thing, name)
