"""show: training rows as the model sees them, token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from llmrec import config, prepare
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.catalog import Catalog
from llmrec.data.names import readable
from llmrec.data.split import histories
from llmrec.errors import DataError
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model, load_tokenizer
from llmrec.model.rows import Row, dense_rows, last_rows
from llmrec.recommender import Listing
from llmrec.tasks import next_item
from llmrec.tasks.template import Template

STYLES = {"learned": "bold green", "forced": "dim", "context": ""}


def show(
    recipe: config.Recipe,
    *,
    user: str | None = None,
    wording: int = 0,
    n: int = 1,
    ids: bool = False,
    console: Console | None = None,
) -> None:
    """Prints the first `n` training rows of a user (default: the first user), cut as `fit` cuts them.

    Raises: DataError for a user without training interactions, PromptError, AssetError.
    """
    console = console or Console(highlight=False)
    dataset = prepare.load(recipe)
    catalog = Catalog.of(dataset)
    found = [one for one in histories(dataset, catalog, "train") if user is None or one.user_id == user]
    if not found:
        raise DataError(f"no user '{user}' with training interactions in {recipe.domain}")
    template = Template.load(config.project() / "prompts" / "next_item.yaml")
    messages = next_item.conversation(template, recipe, (), wording=wording).messages
    encoder = Encoder(load_tokenizer(base_model(recipe.base_model).folder))
    listing = Listing.build(catalog, template, encoder, recipe.identifier.max_tokens)
    cut = dense_rows if recipe.fit.supervision == "dense" else last_rows
    rows = cut(encoder.header(messages), listing.lines, found[0].items, window_tokens=recipe.fit.window_tokens)
    console.print(legend(marked=not console.is_terminal))
    for number, row in enumerate(rows[:n], 1):
        kinds = row_kinds(row, listing.choices.trie)
        count = Counter(kinds)
        console.rule(
            f"user {found[0].user_id}, row {number} of {len(rows)}: {len(row.choices)} targets; "
            f"{count['learned']} tokens learned, {count['forced']} forced, {count['context']} context"
        )
        texts = [encoder.tokenizer.decode([token]) for token in row.tokens.tolist()]
        shown = row.tokens.tolist() if ids else None
        console.print(render_row(texts, kinds, ids=shown, marked=not console.is_terminal), soft_wrap=True)


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
