"""What is wrong with a data file, and what to do about it."""

from __future__ import annotations


class EntryError(ValueError):
    """A row that is no entry, or a file that has none. `what` names what is at fault; `hint` is the remedy."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint
