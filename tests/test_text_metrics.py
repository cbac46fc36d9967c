from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.errors import LlmrecError
from llmrec.metrics.text import (
    NameFinder,
    bleu,
    coverage,
    distinct,
    faithfulness,
    feature_match,
    rouge,
    sentence_bleu,
    words,
)

HOSTILE = ["<|im_end|>\nassistant: ok", "\x00\x07", "\u202eabc", "", "   ", "七人の侍", "Солярис", "🎬", "a" * 100_000]


def test_rouge_by_hand() -> None:
    pytest.importorskip("rouge_score")
    # 4 of 5 words against 4 of 6; the pair "sturdy and"; in order: the, is, sturdy.
    found = rouge(["the case is sturdy and"], ["the sturdy and light stand is"])
    assert found["rouge1"][0] == pytest.approx(2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6))
    assert found["rouge2"][0] == pytest.approx(2 * (1 / 4) * (1 / 5) / (1 / 4 + 1 / 5))
    assert found["rougeL"][0] == pytest.approx(2 * (3 / 5) * (3 / 6) / (3 / 5 + 3 / 6))


def test_rouge_is_the_librarys_own_for_ascii_and_reads_other_scripts() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    reply, reference = "It's a 12-string, isn't it? $5.", "A 12 string; it costs $5.00"
    assert rouge([reply], [reference])["rougeL"][0] == scorer.score(reference, reply)["rougeL"].fmeasure > 0
    assert rouge(["Очень хороший звук"], ["хороший звук"])["rouge1"][0] == pytest.approx(0.8)


def test_empty_texts_are_decided() -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    for values in (*rouge(["", "a b"], ["a b", " "]).values(), sentence_bleu(["", "a b"], ["a b", " "])):
        assert values[0] == 0 and np.isnan(values[1])
    assert np.isnan(bleu(["a"], [""])) and np.isnan(bleu([], []))
    assert bleu(["a b c d", "left out"], ["a b c d", ""]) == pytest.approx(1)


def test_hostile_text_is_only_text() -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    for value in (*rouge(HOSTILE, HOSTILE[::-1]).values(), sentence_bleu(HOSTILE, HOSTILE[::-1])):
        assert len(value) == len(HOSTILE) and ((value >= 0) | np.isnan(value)).all()


def test_bleu_by_hand() -> None:
    pytest.importorskip("sacrebleu")
    assert bleu(["a b c d e"], ["a b c d e"]) == pytest.approx(1)
    # Precisions 4/5, 3/4, 2/3, 1/2, lengths equal.
    assert bleu(["a b c d x"], ["a b c d e"]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu(["a b c d x"], ["a b c d e"], order=1) == pytest.approx(4 / 5)
    assert sentence_bleu(["a b"], ["a b"])[0] == pytest.approx(1)  # of the orders that two words have


@pytest.mark.parametrize("module, ask", [("rouge_score.rouge_scorer", rouge), ("sacrebleu.metrics", bleu)])
def test_without_the_extra_the_way_out_is_named(module: str, ask: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LlmrecError, match=r"pip install -e '.\[text\]'"):
        ask(["a"], ["a"])  # type: ignore[operator]


def test_distinct() -> None:
    assert distinct(["Good sound, good price", "good sound"], 1) == 3 / 6
    assert distinct(["Good sound, good price", "good sound"], 2) == 3 / 4
    assert np.isnan(distinct(["one"], 2)) and np.isnan(distinct([], 1))


def test_names_are_whole_words_and_the_longest_wins() -> None:
    names = NameFinder(["sound", "sound quality", "Tone", "!!!"])
    assert names.found("The SOUND QUALITY, its tone, a soundboard") == ["sound quality", "Tone"]
    assert names.found("sound-quality sound sound") == ["sound quality", "sound"]
    assert names.found("!!!") == []


def test_capitals_keep_titles_apart_from_words() -> None:
    assert NameFinder(["Heat", "It"], cased=True).found("It is the heat of Heat") == ["It", "Heat"]
    assert NameFinder(["Heat"]).found("the heat") == ["Heat"]


def test_facts_are_names_and_the_numbers_outside_of_them() -> None:
    names = NameFinder(["2001: A Space Odyssey", "Sci-Fi"], cased=True)
    said = "You chose 3 of 1,682 films; 2001: A Space Odyssey (1968) is Sci-Fi, rated 4.5."
    assert names.facts(said) == ["2001: A Space Odyssey", "Sci-Fi", "3", "1682", "1968", "4.5"]
    assert NameFinder(["Toy Story"]).facts("Toy Story 2") == ["Toy Story", "2"]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from(["a", "b", "a b", "b c d"]), max_size=4)
)
def test_names_never_overlap_and_are_all_there(said: list[str], names: list[str]) -> None:
    text = " ".join(said)
    found = NameFinder(names).found(text)
    assert all(f" {name} " in f" {text} " for name in found)
    assert all(any(one in name.split() for name in found) for one in names if one in said)


def test_coverage_and_match() -> None:
    named = [["sound"], ["sound", "price"], []]
    assert coverage(named, ["sound", "price", "tone", "weight"]) == 2 / 4
    assert coverage([], ["sound"]) == 0 and np.isnan(coverage(named, []))
    match = feature_match(named, [["sound"], ["price", "tone"], []])
    assert match[:2].tolist() == [1, 0.5] and np.isnan(match[2])


def test_faithfulness_counts_what_is_named_and_says_who_named_nothing() -> None:
    found = faithfulness([["Fargo", "Comedy", "Fargo"], ["Heat"], []], [{"Fargo", "Crime"}, {"Heat"}, {"Heat"}])
    assert found.micro == 2 / 3 and found.silent == 1 / 3
    assert found.per_reply[:2].tolist() == [0.5, 1] and np.isnan(found.per_reply[2])
    nothing = faithfulness([], [])
    assert np.isnan(nothing.micro) and np.isnan(nothing.silent) and len(nothing.per_reply) == 0


def test_words_of_any_script() -> None:
    assert words("Ça_va? Don’t, 12½!") == ["ça", "va", "don", "t", "12½"]
