"""Whether this node makes its next version itself, or leaves that to others and copies what they made.

Each node makes every version for itself, so an update that fails is tried here again and is nobody else's. Where it
fails version after version the host is at fault: each try costs an engine and the patience that follows it. So after
some in a row this node copies for a number of versions, then tries again, and for twice as many if that fails too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LEAVE_AFTER = 2  # versions in a row that could not be made here
COPIED = 8  # versions that are copied before the next try
MAX_DOUBLINGS = 5


@dataclass(slots=True)
class OwnUpdates:
    """One run's at one node."""

    left_before: int = 0  # versions of smaller numbers are made by others
    _failed: list[int] = field(default_factory=list)  # numbers of versions that could not be made, none made since
    _times: int = 0

    def are_left(self, number: int) -> bool:
        """Whether the version with this number is others' to make."""
        return number < self.left_before

    def failed(self, number: int) -> bool:
        """The version with this number could not be made here. True if the next ones are left to others from now on."""
        if self.are_left(number):
            return False  # tried all the same, as nobody else made it
        if number not in self._failed:
            self._failed.append(number)
        if len(self._failed) < LEAVE_AFTER:
            return False
        self.left_before = number + 1 + COPIED * 2 ** min(self._times, MAX_DOUBLINGS)
        self._times += 1
        del self._failed[: 1 - LEAVE_AFTER]
        return True

    def made(self) -> bool:
        """A version came about here: whatever was wrong is over. True if some were left to others."""
        has_left = self._times > 0
        self.left_before, self._times = 0, 0
        self._failed.clear()
        return has_left
