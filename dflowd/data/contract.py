"""What stages ask of their data, whether it is one data set or a mixture of several."""

from __future__ import annotations

from typing import Protocol

from .prompts import Wording
from .sources import Entry


class Data(Protocol):
    """Entries in their order, and how each is put to a model. Methods raise UserError for what the user has to mend."""

    def training(self, position: int) -> Entry:
        """The entry at a position of the endless training order."""

    def demonstration(self, position: int, demos: int) -> Entry:
        """The entry at a position of the endless order over the first `demos` training entries."""

    def held_out(self, index: int) -> Entry | None:
        """The held-out entry number `index`; None where there are not so many."""

    def wording_of(self, entry: Entry) -> Wording:
        """How an entry that came from here is put to a model."""

    def place(self, entry: Entry) -> str:
        """Where the user finds an entry that came from here, such as `FILE:LINE`."""

    def score(self, completion: str, entry: Entry) -> float:
        """By the verifier of the entry's own source."""

    @property
    def has_conversations(self) -> bool:
        """Whether some of its entries may be conversations."""

    @property
    def dropped(self) -> int | None:
        """Entries that are left out, as their prompts are too long; None where none may be."""
