"""The compressed trie against a walk over plain sets of prefixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.choices.trie import MAX_TOKENS, ChoiceTrie
from llmrec.errors import ChoiceError

END = 99
sequences = st.lists(
    st.lists(st.integers(0, 3), max_size=5).map(lambda tokens: (*tokens, END)), min_size=1, max_size=40, unique=True
)


@given(sequences)
def test_nodes_are_the_prefixes_that_several_tokens_follow(made: list[tuple[int, ...]]) -> None:
    trie = ChoiceTrie.build(made)
    following: dict[tuple[int, ...], set[int]] = {}
    for tokens in made:
        for d, token in enumerate(tokens):
            following.setdefault(tokens[:d], set()).add(token)
    decisions = {prefix: sorted(tokens) for prefix, tokens in following.items() if len(tokens) > 1}
    found = {tuple(trie.path(n).tolist()): trie.children(n).tolist() for n in range(len(trie.node_lo))}
    assert found == decisions
    assert not decisions or trie.node_depth[0] == min(map(len, decisions))


@given(sequences)
def test_intervals_nest_and_ways_lead_to_the_choice(made: list[tuple[int, ...]]) -> None:
    trie = ChoiceTrie.build(made)
    assert sorted(trie.order.tolist()) == list(range(len(made)))
    for choice, tokens in enumerate(made):
        assert tuple(trie.tokens(choice).tolist()) == tokens
        way = trie.decision_child[trie.decision_offsets[choice] : trie.decision_offsets[choice + 1]]
        node = 0
        for child in way:
            assert trie.child_parent[child] == node
            assert tokens[trie.node_depth[node]] == trie.child_token[child]
            assert trie.node_lo[node] <= trie.child_lo[child] <= trie.leaf[choice] < trie.child_hi[child]
            assert trie.child_hi[child] <= trie.node_hi[node]
            node = trie.child_node[child]
        assert node == -1 or len(made) == 1


def test_one_choice_has_no_decision() -> None:
    trie = ChoiceTrie.build([[5, 6, END]])
    assert len(trie) == 1 and len(trie.node_lo) == 0 and trie.decision_offsets.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "no choices"),
        ([[1, 2], [1, 2]], "choices 0 and 1 cannot be told apart"),
        ([[7], [1, 2, 3], [1, 2]], "choices 1 and 2 cannot be told apart"),
        ([[1], []], "choice 1 has 0 tokens"),
        ([[1], [2] * (MAX_TOKENS + 1)], "choice 1 has 65 tokens"),
    ],
)
def test_what_cannot_be_a_closed_set(made: list[list[int]], message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        ChoiceTrie.build(made)


def test_a_hundred_thousand_choices_take_a_second() -> None:
    rng = np.random.default_rng(0)
    trie = ChoiceTrie.build(rng.integers(0, 50_000, (100_000, 6)))
    assert len(trie) == 100_000
    assert trie.child_offsets[-1] == len(trie.child_token) == len(trie.child_parent)
