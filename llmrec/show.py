"""show: training rows as the model sees them, token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from llmrec import config
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.names import meant_id, plain_ids, readable
from llmrec.data.split import histories
from llmrec.errors import DataError, RecipeError
from llmrec.learning import LEARNERS
from llmrec.learning.next_item import recommender
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model, load_tokenizer
from llmrec.model.rows import Row, dense_rows, last_rows
from llmrec.screen import screen
from llmrec.tasks import next_item

STYLES = {"learned": "bold green", "forced": "dim", "context": ""}
RULE = 120  # columns of a line between rows, where a pipe has no width
LIKELY = 6  # choices of a soft target that are printed


def show(
    recipe: config.Recipe,
    *,
    task: str | None = None,
    user: str | None = None,
    wording: int = 0,
    n: int = 1,
    ids: bool = False,
    console: Console | None = None,
) -> None:
    """Prints the first `n` training rows of a task (default: the recipe's first).

    Args:
        user, wording: whose rows, cut as `fit` cuts them, in which phrasing; of next_item only.
    Raises: RecipeError for a task that the recipe has not, DataError for a user without training interactions,
        PromptError, AssetError.
    """
    console = console or screen(highlight=False)
    task = task or next(iter(recipe.tasks))
    recipe.task(task)
    encoder = Encoder(load_tokenizer(base_model(recipe.base_model).folder))
    if task == "next_item":
        of, rows, trie = _lists(recipe, encoder, user, wording)
    elif user is not None or wording:
        raise RecipeError(f"--user and --wording choose among the rows of next_item, not of {task}")
    else:
        learner = LEARNERS[task](recipe, encoder, None)
        of, rows, trie = task, learner.rows(0), learner.trie
    console.print(legend(marked=not console.is_terminal))
    for number, row in enumerate(rows[:n], 1):
        kinds = row_kinds(row, trie)
        count = Counter(kinds)
        head = (
            f"{readable(of)}, row {number} of {len(rows):,}: {len(row.choices)} targets; "
            f"{count['learned']} tokens learned, {count['forced']} forced, {count['context']} context"
        )
        console.print(Rule(Text(head)), width=min(console.width, RULE))
        texts = [encoder.tokenizer.decode([token]) for token in row.tokens.tolist()]
        shown = row.tokens.tolist() if ids else None
        console.print(render_row(texts, kinds, ids=shown, marked=not console.is_terminal), soft_wrap=True)
        if row.p is not None:
            best = np.argsort(-row.p[0], kind="stable")[:LIKELY]
            named = [
                f"{encoder.tokenizer.decode(trie.tokens(i)).strip()} {row.p[0, i]:.0%}" for i in best if row.p[0, i]
            ]
            console.print(Text("expected: " + ", ".join(map(readable, named)), "dim"))


def _lists(
    recipe: config.Recipe, encoder: Encoder, user: str | None, wording: int
) -> tuple[str, list[Row], ChoiceTrie]:
    """What one user's rows are called, the rows, and what their targets are chosen from."""
    model = recommender(recipe, encoder, None)
    found = [one for one in histories(model.dataset, model.catalog, "train") if user is None or one.user_id == user]
    if not found:
        near = meant_id(user or "", plain_ids(model.dataset.users["user_id"]))
        raise DataError(f"no user '{user}' with training interactions in {recipe.domain}{near}")
    messages = next_item.messages(model.template, recipe, wording)
    cut = dense_rows if recipe.fit.supervision == "dense" else last_rows
    rows = cut(encoder.header(messages), model.listing.lines, found[0].items, window_tokens=recipe.fit.window_tokens)
    return f"user {found[0].user_id}", rows, model.listing.choices.trie


def row_kinds(row: Row, trie: ChoiceTrie) -> list[str]:
    """`learned` (a decision of a target), `forced` (the rest of a target's line) or `context`, for every token."""
    kinds = ["context"] * len(row.tokens)
    for start, choice in zip(row.starts.tolist(), row.choices.tolist(), strict=True):
        length = len(trie.tokens(choice))
        kinds[start : start + length] = ["forced"] * length
        children = trie.decision_child[trie.decision_offsets[choice] : trie.decision_offsets[choice + 1]]
        for depth in trie.node_depth[trie.child_parent[children]].tolist():
            kinds[start + depth] = "learned"
    return kinds


def render_row(
    tokens: Sequence[str], kinds: Sequence[str], *, ids: Sequence[int] | None = None, marked: bool = False
) -> Text:
    """Tokens coloured by kind; `ids` puts each token's id behind it, `marked` puts learned ones between « and »
    where there are no colours."""
    text = Text()
    for place, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        shown = "⏎".join(map(readable, token.split("\n")))
        if ids is not None:
            shown += f"·{ids[place]}"
        text.append(f"«{shown}»" if marked and kind == "learned" else shown, style=STYLES[kind])
        text.append("\n" if token.endswith("\n") else "")
    return text


def legend(*, marked: bool = False) -> Text:
    """What the colours mean."""
    words = [("learned: the catalog leaves a choice", "learned"), ("forced", "forced"), ("context", "context")]
    return Text(" | ").join(render_row([word], [kind], marked=marked) for word, kind in words)
