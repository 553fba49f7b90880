"""What is no text: JSON and YAML can say half of a surrogate pair, which UTF-8, tokenizers and the wire cannot."""

from __future__ import annotations


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def half_character(text: str) -> str:
    """The first half of a surrogate pair in it, as JSON writes it; empty in a text."""
    return next((f"\\u{ord(letter):04x}" for letter in text if not is_text(letter)), "")
