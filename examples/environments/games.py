"""Writes what the examples here read, warm-ups included; of what is held out the latter have nothing.

guess.yaml: letters.jsonl, all games of five to seven letters, and moves.jsonl, guesses that may be right at all stages
of a game. calculator.yaml: sums.jsonl, all sums of two letters, and calls.jsonl, a guess or a question for each, and
what to make of the answer.

    python examples/environments/games.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from calculator import ALPHABET, ASKS, total

from dflow_protocols.pipeline.entries.entry import hashed_text, is_held_out

SHARE = 0.2  # that is held out
TURNS = 3  # of a game
END = "<eos>"  # what ends a turn: a prompt of a warm-up is a conversation as the model reads it

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


def calls(each: Row, draw: random.Random) -> Iterator[Row]:
    """Of one sum: a guess, a question, and what to say when it is answered."""
    asked, told = ASKS + each["prompt"], each["answer"]
    yield {"prompt": each["prompt"], "answer": draw.choice(ALPHABET)}
    yield {"prompt": each["prompt"], "answer": asked}
    yield {"prompt": f"{each['prompt']}\n{asked}{END}{told}", "answer": told}


def shown(rows: list[Row]) -> list[Row]:
    """Those that are not held out."""
    return [row for row in rows if not is_held_out(hashed_text(row["prompt"], "question_lower"), SHARE)]


def main() -> None:
    folder, draw = Path(__file__).parent, random.Random(0)
    letters, sums = games(), [{"prompt": a + b, "answer": total(a + b)} for a in ALPHABET for b in ALPHABET]
    draw.shuffle(letters)
    written = {
        "letters": letters,
        "moves": [move for game in shown(letters) * 3 for move in moves(game, draw)],
        "sums": sums,
        "calls": [call for each in shown(sums) for call in calls(each, draw)],
    }
    for name, rows in written.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


if __name__ == "__main__":
    main()
