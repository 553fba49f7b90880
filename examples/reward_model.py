"""What reward_model.yaml prefers one answer to another by: it stands for the taste of people."""


def vowels(completion: str) -> float:
    """The share of vowels among what was said."""
    said = completion.strip()
    return sum(letter in "aeiou" for letter in said) / max(len(said), 1)
