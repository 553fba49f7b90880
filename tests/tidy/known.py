"""What breaks a rule that came later than the code: each list may shrink only, and goes when it is empty."""

from __future__ import annotations

from collections.abc import Mapping


def unlike(found: Mapping[str, list[str]], known: Mapping[str, int]) -> list[str]:
    """More faults at a place than are known there."""
    return [f"{place}: {', '.join(faults)}" for place, faults in found.items() if len(faults) > known.get(place, 0)]


def hold(found: Mapping[str, list[str]], known: Mapping[str, int]) -> None:
    """Assert that there is nothing of the sort."""
    wrong = unlike(found, known)
    assert not wrong, "\n".join(wrong)


FILES_IN_CIRCLES: dict[str, int] = {}

FOLDERS_IN_CIRCLES: dict[str, int] = {}

UPWARD: dict[str, int] = {}

FULL_FOLDERS: dict[str, int] = {}

FOREIGN: dict[str, int] = {}

DISK: dict[str, int] = {}

RETIRED: dict[str, int] = {}
