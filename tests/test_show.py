"""show: which tokens are learned, and how they are printed."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from llmrec import config
from llmrec.choices.trie import ChoiceTrie
from llmrec.errors import DataError
from llmrec.model.rows import Row
from llmrec.show import legend, render_row, row_kinds, show

END = 0
NOTHING = np.empty(0, np.int32)


def test_only_decisions_of_targets_are_learned():
    """Lines 1-2-3-end, 1-2-4-end and 5-6-end: decisions after nothing (1 or 5) and after 1-2 (3 or 4)."""
    trie = ChoiceTrie.build([[1, 2, 3, END], [1, 2, 4, END], [5, 6, END]])
    row = Row(
        np.array([9, 9, 5, 6, END, 1, 2, 4, END], np.int32), np.array([5], np.int32), np.array([1], np.int32), NOTHING
    )
    assert row_kinds(row, trie) == ["context"] * 5 + ["learned", "forced", "learned", "forced"]
    both = Row(row.tokens, np.array([2, 5], np.int32), np.array([2, 1], np.int32), NOTHING)
    assert row_kinds(both, trie)[2:5] == ["learned", "forced", "forced"]


def test_a_catalog_of_one_teaches_nothing():
    row = Row(np.array([9, 1, END], np.int32), np.array([1], np.int32), np.array([0], np.int32), NOTHING)
    assert row_kinds(row, ChoiceTrie.build([[1, END]])) == ["context", "forced", "forced"]


def test_colours_and_marks():
    tokens, kinds = ["Go", " on\n", "Far", "go", "\n"], ["context", "context", "learned", "forced", "learned"]
    text = render_row(tokens, kinds)
    assert text.plain == "Go on⏎\nFargo⏎\n"
    assert [(text.plain[span.start : span.end], str(span.style)) for span in text.spans if span.style] == [
        ("Far", "bold green"), ("go", "dim"), ("⏎", "bold green"),
    ]  # fmt: skip
    assert render_row(tokens, kinds, marked=True).plain == "Go on⏎\n«Far»go«⏎»\n"
    assert render_row(tokens[2:], kinds[2:], ids=[7, 8, 9]).plain == "Far·7go·8⏎·9\n"
    assert "\x1b" not in render_row(["\x1b[0m"], ["context"]).plain
    assert "learned" in legend().plain


@pytest.mark.slow
def test_a_real_row(real_home: Path):
    recipe = config.load_recipe("movies")
    console = Console(width=200, file=io.StringIO(), record=True)
    show(recipe, user="1", n=2, ids=False, console=console)
    text = console.export_text()
    assert "You recommend films." in text and "user 1, row 1 of" in text and "«" in text
    with pytest.raises(DataError, match="no user 'nobody'"):
        show(recipe, user="nobody", console=SimpleNamespace())  # type: ignore[arg-type]
