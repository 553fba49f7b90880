"""Stop texts: whether what a row said so far holds one, without reading it all again for every token.

The answer is that of the whole text, `completion_text`, after each token. A new occurrence lies where the last token
changed the text, so the text of a few last tokens shows it: a window, whose left edge moves up behind the row. Tokens
cannot be cut anywhere (half a character, a word's second piece, a leading space that decoders strip), so the edge is
put only where the shorter window's text is the end of the longer one's and begins with a whole character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dflowd.data.prompts import completion_text

MARGIN = 8  # characters before a possible occurrence, for what decoders do at a text's start or around the last token
EDGES_TRIED = 6  # places for a window's edge that are looked at in one turn
BROKEN = "\ufffd"  # what bytes that make no character are decoded to


class StopTexts:
    """The stop texts of a batch. Rows keep their numbers when others leave the batch."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._needed = max(map(len, stop), default=0) + MARGIN
        self._edges: dict[int, int] = {}
        self._patience: dict[int, int] = {}  # the length of a window at which a new edge is looked for

    def ended(self, rows: Iterable[int], tokens: Any) -> Any:
        """[rows] bool. `tokens`: [rows, said so far], one more for each row than in the call before."""
        return np.array([self._has_ended(row, said.tolist()) for row, said in zip(rows, tokens, strict=True)], np.bool_)

    def _has_ended(self, row: int, tokens: list[int]) -> bool:
        if not self._stop:
            return False
        edge = self._edges.get(row, 0)
        text = completion_text(self._tokenizer, tokens[edge:])
        if self._holds(text):
            return edge == 0 or self._holds(completion_text(self._tokenizer, tokens))
        if len(tokens) - edge >= self._patience.get(row, 2 * self._needed):
            self._edges[row] = edge = self._moved(tokens, edge, text)
            self._patience[row] = 2 * max(len(tokens) - edge, self._needed)
        return False

    def _holds(self, text: str) -> bool:
        return any(stop in text for stop in self._stop)

    def _moved(self, tokens: list[int], edge: int, text: str) -> int:
        """A later edge than `edge`, whose window reads `text`; the same one where none is sure."""
        latest = len(tokens) - self._needed
        for place in range(latest, max(edge, latest - EDGES_TRIED), -1):
            shorter = completion_text(self._tokenizer, tokens[place:])
            if len(shorter) >= self._needed and not shorter.startswith(BROKEN) and text.endswith(shorter):
                return place
        return edge
