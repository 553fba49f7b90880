"""Stop texts are found as if the whole text were read after each token."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dflowd.data.prompts import completion_text
from dflowd.models.stop_texts import StopTexts

TEXTS = ["the end.", "n't", " .", "é", "漢字", "🙂", "\n\n", "ab", "a", "</answer>", " a b"]
SHORT_WORDS = ["a", "b", "ab", "n't", ".", "end", "the", "answer", "</", ">", "\n", "##b", "##end", "##."]


def byte_level() -> Tokenizer:
    """As of GPT-2 and Llama 3: a token is some bytes, and characters may be split between tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate(alphabet)}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def byte_fallback() -> Tokenizer:
    """As of Llama 2 and Gemma: pieces with a mark for spaces, and bytes for what has no piece."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(f"▁{w}" for w in SHORT_WORDS), *SHORT_WORDS]
    made = Tokenizer(models.BPE({p: n for n, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return made


def word_piece() -> Tokenizer:
    """As of BERT: words are joined by spaces, except before pieces with a mark."""
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(["[UNK]", *SHORT_WORDS])}))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def words() -> Tokenizer:
    """As of this project's examples: one character a token."""
    made = Tokenizer(models.WordLevel({c: n for n, c in enumerate("?ab.\n </ansewr>'tdh")}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    return made


@cache
def tokenizer_of(kind: str, cleans: bool) -> Any:
    made = {"byte level": byte_level, "byte fallback": byte_fallback, "word piece": word_piece, "words": words}[kind]()
    made.add_special_tokens([AddedToken("<eos>", special=True), AddedToken("<pad>", special=True)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, eos_token="<eos>", pad_token="<pad>", clean_up_tokenization_spaces=cleans
    )


def found_at(tokenizer: Any, tokens: list[int], stop: tuple[str, ...]) -> int | None:
    """How many tokens were said when a stop text was first found; None: it never was."""
    search = StopTexts(tokenizer, stop)
    for count in range(1, len(tokens) + 1):
        if search.ended([3], np.array([tokens[:count]]))[0]:
            return count
    return None


def truth(tokenizer: Any, tokens: list[int], stop: tuple[str, ...]) -> int | None:
    for count in range(1, len(tokens) + 1):
        if any(text in completion_text(tokenizer, tokens[:count]) for text in stop):
            return count
    return None


@st.composite
def completions(draw: st.DrawFn) -> tuple[Any, list[int], tuple[str, ...]]:
    """Texts and noise of a tokenizer, long enough that the beginning is out of sight."""
    kind = draw(st.sampled_from(["byte level", "byte fallback", "word piece", "words"]))
    tokenizer = tokenizer_of(kind, draw(st.booleans()))
    tokens: list[int] = []
    parts = st.one_of(
        st.sampled_from(TEXTS).map(lambda text: tokenizer.encode(text, add_special_tokens=False)),
        st.lists(st.integers(0, len(tokenizer) - 1), min_size=1, max_size=6),
        st.integers(0, len(tokenizer) - 1).map(lambda token: [token] * 20),
    )
    for part in draw(st.lists(parts, min_size=5, max_size=40)):
        tokens += part
    return tokenizer, tokens, tuple(draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3)))


@given(case=completions())
@settings(max_examples=100, deadline=None)
def test_a_stop_text_is_found_at_the_token_that_completes_it(case: tuple[Any, list[int], tuple[str, ...]]) -> None:
    """Whatever the tokenizer: split characters, marks of pieces, cleaned spaces, special tokens between."""
    tokenizer, tokens, stop = case
    assert found_at(tokenizer, tokens, stop) == truth(tokenizer, tokens, stop)


class Counting:
    """A tokenizer that counts the tokens it was given to decode."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.decoded = tokenizer, 0

    def decode(self, tokens: list[int], **options: Any) -> str:
        self.decoded += len(tokens)
        return str(self.tokenizer.decode(tokens, **options))


@pytest.mark.parametrize("kind", ["byte level", "byte fallback", "word piece", "words"])
def test_the_work_for_a_stop_text_grows_with_the_length_and_no_faster(kind: str) -> None:
    """It was done on the whole text for every token: a second for 16 rows of 400."""
    counting = Counting(tokenizer_of(kind, False))
    tokens = counting.tokenizer.encode("a b " * 1000, add_special_tokens=False)[:2000]
    assert found_at(counting, tokens, ("</answer>",)) is None
    assert counting.decoded < 60 * len(tokens)


def test_rows_are_told_apart_when_others_have_left() -> None:
    """Rows that ended leave the batch, and those that stay move up in it."""
    tokenizer = tokenizer_of("words", False)
    search = StopTexts(tokenizer, ("end",))
    said = {
        row: tokenizer.encode("ab" * 40 + ("end" if row == 2 else "ab"), add_special_tokens=False) for row in (0, 2)
    }
    for count in range(1, 40):
        assert not search.ended([0, 2], np.array([said[0][:count], said[2][:count]])).any()
    ends = [bool(search.ended([2], np.array([said[2][:count]]))[0]) for count in range(40, len(said[2]) + 1)]
    assert ends.index(True) == len(ends) - 1
