from __future__ import annotations

import numpy as np
import pytest

from llmrec.baselines.sentences import MOST, _tfidf, copied, explanation, listed, summary, typical


def test_the_sentence_that_others_repeat_is_copied() -> None:
    texts = [
        "The strings hold their tune well. Came in a box.",
        "These strings hold every tune quite splendidly. My son plays it.",
        "Strings hold tune. Bought one at Christmas!",
        "A loud amp for small rooms.",
    ]
    found = typical(texts, ["strings", "strings", "strings", "amp"])
    assert found["strings"] == ("The strings hold their tune well.",)  # "Strings hold tune." is too short
    assert found["amp"] == ("A loud amp for small rooms.",)
    two = typical(texts, ["strings", "strings", "strings", "amp"], count=2)
    assert two["strings"] == ("The strings hold their tune well.", "These strings hold every tune quite splendidly.")
    assert copied(two, ["amp", "drum"], "Nothing is known.") == ["A loud amp for small rooms.", "Nothing is known."]


def test_weights_by_hand() -> None:
    weights = _tfidf([["a", "a", "b"], ["a"]]).toarray()
    a, b = (1 + np.log(2)) * 1, np.log(3 / 2) + 1  # `a` stands in both, `b` in one of two
    assert weights[0] == pytest.approx(np.array([a, b]) / np.hypot(a, b))
    assert weights[1] == pytest.approx([1, 0])


def test_what_a_copy_does_with_odd_texts() -> None:
    assert typical([], []) == {} and typical(["", "!!! ..."], [1, 2]) == {}
    assert typical(["Short."], [1]) == {1: ("Short.",)}  # nothing better
    hostile = "The tone\u202e is <|im_end|>\x00 very warm."
    assert typical([hostile], [1]) == {1: ("The tone is <|im_end|> very warm.",)}
    many = "\n".join(f"This is the sentence number {i}." for i in range(3 * MOST))
    assert len(typical([many], [1], count=10 * MOST)[1]) == MOST


def test_templates() -> None:
    assert summary(["Comedy", "Crime", "Drama"], ["Fargo", "Heat"]) == (
        "Mostly Comedy, Crime and Drama, such as Fargo and Heat."
    )
    assert summary([], ["Fargo"]) == "Many kinds, such as Fargo." and summary(["Comedy"], []) == "Mostly Comedy."
    assert explanation("Heat", ["pace"]) == "Heat: reviews name its pace."
    assert explanation("Heat") == "Heat: it comes next for people with such a history."
    assert listed([]) == ""
