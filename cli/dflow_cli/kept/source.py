"""Who answers questions about runs: a mesh, or the folder that it left."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from ..mesh.client import Client

OVERLAP = 4  # steps that are under way at once, at most
FROM_FOLDER = "from_folder"  # the key of an answer that no daemon gave


class Source(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def call(
        self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0
    ) -> dict[str, Any]: ...


def news_of(source: Source) -> Client | None:
    """The mesh that answers, where one does: then there may be news."""
    return source if isinstance(source, Client) else None


def all_rows(source: Source, method: str, name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every row of `metrics` or `tasks`, however many answers they fill: one holds the newest that fit.

    Steps overlap in time, so of the first ones in an answer that was cut some rows may be missing.
    """
    found: list[dict[str, Any]] = []
    before: dict[str, int] = {}
    while True:
        answer = source.call(method, {**params, **before})
        rows = answer[name]
        if not answer.get("cut") or not rows:
            return [*rows, *found]
        first, last = (end(int(row["step"]) for row in rows) for end in (min, max))
        whole = min(first + OVERLAP, last)
        found = [*(row for row in rows if row["step"] >= whole), *found]
        before = {"before_step": whole}


def origin(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What an object of one's own making says of who answered."""
    return {FROM_FOLDER: answer[FROM_FOLDER]} if FROM_FOLDER in answer else {}
