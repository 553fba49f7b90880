"""The reward of two_policies.yaml."""


def found(completion: str, entry: dict) -> float:
    """How many letters of the word, in their places, came out of what the first model said of it."""
    word = entry["metadata"]["word"]
    said = completion.strip()
    right = sum(a == b for a, b in zip(said, word, strict=False))
    return right / max(len(said), len(word), 1)
