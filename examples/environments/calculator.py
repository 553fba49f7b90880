"""A tool: letters are numbers (a is 0, z is 25), and a turn that begins with `q` asks for the sum of those behind it.
Any other turn is the answer."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]

ASKS = "q"
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def total(letters: str) -> str:
    """The sum's letter: behind z comes a."""
    return ALPHABET[sum(map(ALPHABET.index, letters)) % len(ALPHABET)]


class Calculator:
    """One conversation with it. `price`: of a question, taken off what the turn earns."""

    def __init__(self, price: float = 0.0) -> None:
        self.price = price
        self.answer = ""

    def reset(self, entry: dict[str, Any]) -> None:
        """The conversation begins as the data words it: with the letters to be added."""
        self.answer = entry["answer"]

    def step(self, messages: list[Message]) -> tuple[list[Message], float, bool]:
        """`messages`: so far, a question or the answer at their end. Gives the tool's message, the turn's reward, and
        whether it is over."""
        said = messages[-1]["content"]
        asked = said.removeprefix(ASKS)
        if said == asked or not asked or not set(asked) <= set(ALPHABET):
            return [], float(said == self.answer), True
        return [{"role": "tool", "content": total(asked)}], -self.price, False
