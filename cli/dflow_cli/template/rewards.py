"""How a completion is judged: the file to change first."""


def closeness(completion: str, answer: str) -> float:
    """The share of letters that stand where they should: 1 for the right answer, 0.67 for two letters of three.

    Called once for each completion of each prompt. A reward asks by name for what it needs: completion (what the
    model said), answer and prompt (from words.jsonl), entry (that whole line, as a dict), and whatever the stage's
    `args` hold. It gives a number. An exception in it ends the run, and the run's error names the line.
    """
    said = completion.strip()
    right = sum(letter == wanted for letter, wanted in zip(said, answer, strict=False))
    return right / max(len(said), len(answer), 1)
