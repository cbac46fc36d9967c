from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.choices.identifiers import NAMELESS, identifiers, printable
from llmrec.errors import ChoiceError


def words(texts: list[str]) -> list[list[int]]:
    """One token per word (brackets count as words of their own), then a terminator."""
    return [[hash(word) % 10_000_000 for word in text.replace("(", "( ").split()] + [-1] for text in texts]


def letters(texts: list[str]) -> list[list[int]]:
    return [[*map(ord, text), 10] for text in texts]


def test_titles_are_clipped_between_words_and_outside_open_brackets() -> None:
    made, _ = identifiers(
        ["One Two Three Four Five", "Seven (The Long Version)", "Heat"], [None] * 3, words, max_tokens=4
    )
    assert made == ["One Two Three", "Seven", "Heat"]


def test_a_single_long_word_is_cut() -> None:
    assert identifiers(["Abcdefghij"], [None], letters, max_tokens=5)[0] == ["Abcd"]


def test_the_first_of_equal_titles_stays_plain_then_year_then_number() -> None:
    made, _ = identifiers(["Sabrina"] * 4, [1995, 1954, 1954, None], letters, max_tokens=20)
    assert made == ["Sabrina", "Sabrina (1954)", "Sabrina #2", "Sabrina #3"]


def test_what_tells_items_apart_fits_too() -> None:
    """A year that does not is left out, and where no number fits either, that is said."""
    made, _ = identifiers(["Sabrina"] * 3, [1995, 1954, None], letters, max_tokens=5)
    assert made == ["Sabr", "S #2", "S #3"]
    with pytest.raises(ChoiceError, match="no identifier of at most 3 tokens"):
        identifiers(["Sabrina"] * 3, [1995, 1954, None], letters, max_tokens=3)


def test_texts_with_equal_tokens_are_told_apart() -> None:
    made, _ = identifiers(
        ["HEAT", "Heat"], [None, None], lambda texts: letters([t.lower() for t in texts]), max_tokens=20
    )
    assert made == ["HEAT", "Heat #2"]


@given(st.lists(st.text(max_size=8) | st.just("Same"), max_size=30))
def test_any_titles_become_unique_single_lines(titles: list[str]) -> None:
    made, _ = identifiers(titles, [None] * len(titles), letters, max_tokens=12)
    assert len(set(made)) == len(titles)
    for text in made:
        assert len(text) >= 1 and len(letters([text])[0]) <= 12
        assert "\n" not in text and text == unicodedata.normalize("NFC", text).strip()


def test_what_no_reader_sees_is_left_out() -> None:
    assert printable(" A\u202e\x00B\t\nC  ") == "AB C"
    assert printable("\u200b\n") == NAMELESS
