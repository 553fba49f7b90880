"""A game of several turns: a letter is guessed, and each guess is answered by whether the letter comes later (`l`) or
earlier (`e`) in the alphabet. Who halves what is left needs three guesses for seven letters."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]


class Guess:
    """One conversation's game. `hint`: what a wrong guess earns that may have been right; the letter itself earns 1."""

    def __init__(self, hint: float = 0.1) -> None:
        self.hint = hint
        self.letter, self.first, self.last = "", "a", "z"

    def reset(self, entry: dict[str, Any]) -> None:
        """The conversation begins as the data words it: with the first and the last letter that it may be."""
        self.letter = entry["answer"]
        self.first, self.last = entry["question"]

    def step(self, messages: list[Message]) -> tuple[str, float, bool]:
        """`messages`: so far, the guess at their end. Gives the answer, the turn's reward, and whether it is over."""
        guess = messages[-1]["content"]
        if guess == self.letter:
            return "", 1.0, True
        earned = self.hint if len(guess) == 1 and self.first <= guess <= self.last else 0.0
        if guess < self.letter:
            self.first = max(self.first, chr(ord(guess[0]) + 1)) if earned else self.first
            return "l", earned, False
        self.last = min(self.last, chr(ord(guess[0]) - 1)) if earned else self.last
        return "e", earned, False
