"""Samples: fixed by their seed, in order, and what a suite or a training asks does not change by itself."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.sample import at_most, sampled


@pytest.mark.parametrize("count", [0, 1, 5, 26, 100])
def test_a_sample_is_fixed_in_order_and_without_repeats(count: int) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    found = sampled(letters, count, 7)
    assert found == sampled(letters, count, 7) == sorted({*found}) and len(found) == min(count, 26)
    assert sampled([], count, 7) == []
    assert at_most(letters, count, 7) == (found or [*letters])


def test_seeds_differ_and_a_generator_goes_on() -> None:
    whole = list(range(1000))
    rng = np.random.default_rng(3)
    first, second = sampled(whole, 10, rng), sampled(whole, 10, rng)
    assert first == sampled(whole, 10, 3) and first != second
    assert sampled(whole, 10, [3, 1]) != first


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    assert {*sampled(range(100), 10, 0)} < {*sampled(range(100), 20, 0)}


def test_the_draw_itself_is_what_it_was() -> None:
    """Kept results and resumed runs stand on it."""
    assert sampled(range(20), 5, 0) == sorted(np.random.default_rng(0).permutation(20)[:5].tolist())
