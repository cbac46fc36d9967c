from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.errors import RecipeError
from llmrec.model.rows import dense_rows, last_rows, latest, shuffled_ties, thinned

HEADER = [90, 91]
LINES = [np.arange(10 * i, 10 * i + i + 1) for i in range(8)]  # choice i has i + 1 tokens
histories = st.lists(st.integers(0, 7), min_size=1, max_size=40).map(np.array)


@given(histories, st.integers(10, 40), st.floats(0, 0.9), st.none() | st.integers(0, 30))
def test_every_line_is_a_target_once_and_in_order(
    history: np.ndarray, window: int, overlap: float, first: int | None
) -> None:
    made = dense_rows(HEADER, LINES, history, window_tokens=window, overlap=overlap, first_tokens=first)
    assert np.concatenate([row.choices for row in made]).tolist() == history.tolist()
    for row in made:
        assert row.tokens[:2].tolist() == HEADER and len(row.tokens) <= window
        for start, choice in zip(row.starts, row.choices, strict=True):
            assert row.tokens[start : start + choice + 1].tolist() == LINES[choice].tolist()


def test_overlap_repeats_the_lines_before_as_context() -> None:
    first, second = dense_rows([], LINES, np.array([1, 2, 3, 4]), window_tokens=9, overlap=0.5)
    assert first.tokens.tolist() == [10, 11, 20, 21, 22, 30, 31, 32, 33]
    assert second.tokens.tolist() == [30, 31, 32, 33, 40, 41, 42, 43, 44]
    assert second.starts.tolist() == [4] and second.choices.tolist() == [4]


def test_the_peer_has_a_row_for_each_target_with_all_that_fits_before() -> None:
    made = last_rows([9], LINES, np.array([1, 2, 1]), window_tokens=6)
    assert [row.tokens.tolist() for row in made] == [[9, 10, 11], [9, 10, 11, 20, 21, 22], [9, 20, 21, 22, 10, 11]]
    assert [(row.starts.tolist(), row.choices.tolist()) for row in made] == [([1], [1]), ([3], [2]), ([4], [1])]


def test_only_ties_are_shuffled() -> None:
    history, times = np.arange(6), np.array([5, 5, 5, 7, 8, 8])
    seen = {tuple(shuffled_ties(history, times, np.random.default_rng(seed))) for seed in range(200)}
    assert len(seen) == 12
    assert all(set(order[:3]) == {0, 1, 2} and order[3] == 3 for order in seen)


@given(histories, st.floats(0, 1, exclude_max=True), st.integers(0, 99))
def test_a_thinned_history_is_a_part_of_it_in_order(history: np.ndarray, share: float, seed: int) -> None:
    kept = thinned(history, share, np.random.default_rng(seed)).tolist()
    rest = iter(history.tolist())
    assert kept and all(choice in rest for choice in kept)  # each is found behind the one before it


def test_about_the_share_that_is_named_is_left_out() -> None:
    assert len(thinned(np.arange(10_000), 0.3, np.random.default_rng(0))) == pytest.approx(7_000, abs=200)
    assert thinned(np.arange(50), 0, np.random.default_rng(0)).tolist() == [*range(50)]


@given(histories, st.integers(0, 80))
def test_the_latest_part_of_a_history_is_as_long_as_fits(history: np.ndarray, tokens: int) -> None:
    kept = latest(LINES, history, tokens)
    before = history[: len(history) - len(kept)].tolist()
    assert [*before, *kept] == history.tolist() and len(kept)
    size = sum(len(LINES[choice]) for choice in kept)
    assert size <= tokens or len(kept) == 1
    assert not before or size + len(LINES[before[-1]]) > tokens  # not one more


def test_a_window_that_is_too_short_says_how_long_it_must_be() -> None:
    with pytest.raises(RecipeError, match="raise it to at least 10"):
        dense_rows(HEADER, LINES, np.array([7]), window_tokens=9)
