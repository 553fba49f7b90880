"""Writes what guess.yaml reads: letters.jsonl, all games of five to seven letters, and moves.jsonl, guesses that may be
right at all stages of a game, for the supervised warm-up. Of games that are held out there are no moves.

    python examples/environments/games.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from dflow_protocols.pipeline.entries.entry import hashed_text, is_held_out

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
SHARE = 0.2  # that guess.yaml holds out
TURNS = 3
END = "<eos>"  # what ends a turn: a prompt of moves.jsonl is a conversation as the model reads it

Row = dict[str, str]


def games() -> list[Row]:
    return [
        {"prompt": ALPHABET[at] + ALPHABET[at + width - 1], "answer": letter}
        for width in (5, 6, 7)
        for at in range(len(ALPHABET) + 1 - width)
        for letter in ALPHABET[at : at + width]
    ]


def moves(game: Row, draw: random.Random) -> Iterator[Row]:
    """Of one game that is played at random, by guesses that may be right."""
    said, (first, last), letter = game["prompt"], game["prompt"], game["answer"]
    for _ in range(TURNS):
        guess = draw.choice([each for each in ALPHABET if first <= each <= last])
        yield {"prompt": said, "answer": guess}
        if guess == letter:
            return
        is_later = guess < letter
        said += f"\n{guess}{END}{'l' if is_later else 'e'}"
        first, last = (chr(ord(guess) + 1), last) if is_later else (first, chr(ord(guess) - 1))


def main() -> None:
    folder, draw = Path(__file__).parent, random.Random(0)
    letters = games()
    draw.shuffle(letters)
    shown = [game for game in letters if not is_held_out(hashed_text(game["prompt"], "question_lower"), SHARE)]
    played = [move for game in shown * 3 for move in moves(game, draw)]
    for name, rows in (("letters", letters), ("moves", played)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


if __name__ == "__main__":
    main()
