"""chat: a conversation about a catalog in the terminal; every list is the exact ranking's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec import config, prepare
from llmrec.data.catalog import Catalog
from llmrec.data.names import readable
from llmrec.data.records import one_line
from llmrec.dialogue.grammar import MAX_MESSAGE
from llmrec.dialogue.reply import Ranked, Ranker, Reply, respond
from llmrec.dialogue.state import MAX_ITEMS, Session, State, load_session, save_session
from llmrec.dialogue.vocabulary import Vocabulary
from llmrec.errors import DataError, LlmrecError
from llmrec.recommend import rows, user_history
from llmrec.screen import screen

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.choices.search import Ranking
    from llmrec.insight import Insight
    from llmrec.recommender import Recommender

LIKELY = 4  # categories that a taste names


def ranked(ranking: Ranking) -> list[Ranked]:
    """A list as a conversation reads it."""
    return [Ranked(*row) for row in rows(ranking)]


@dataclass
class Exact:
    """A domain's recommender as the conversation asks it, loaded when the first list is asked for."""

    recipe: config.Recipe
    adapter: str | None
    prior: bool = True
    engine: str = "hf"
    _model: Recommender | None = None
    _insight: Insight | None = None

    def rank(
        self, histories: Sequence[Sequence[int]], n: int, exclude: Sequence[int], allowed: np.ndarray | None
    ) -> list[list[Ranked]]:
        found = self._loaded().rank(histories, n, exclude=[exclude] * len(histories), allowed=allowed, prior=self.prior)
        return [ranked(ranking) for ranking in found]

    def reason(self, history: Sequence[int], item: int) -> str:
        model = self._loaded()
        if "explanation" not in model.card:
            return ""
        return self.insight().explanations([history], [item], [None])[0].text

    def taste(self, history: Sequence[int]) -> tuple[str, ...]:
        model = self._loaded()
        if not {"interest", "interest_summary"} <= {*model.card}:
            return ()
        [(text, interests)] = self.insight().summaries([history])
        likely = ", ".join(f"{row.category} {row.p:.0%}" for row in interests[:LIKELY])
        return (*([text] if text else []), f"Next, most likely: {likely}.")

    def insight(self) -> Insight:
        """What the model says of people; its wordings and counts are read once."""
        if self._insight is None:
            from llmrec.insight import Insight

            self._insight = Insight(self._loaded())
        return self._insight

    def _loaded(self) -> Recommender:
        if self._model is None:
            from llmrec.recommender import Recommender

            with Console(stderr=True).status("reading the model …"):
                self._model = Recommender.load(self.recipe, self.adapter, engine=self.engine)
        return self._model


@dataclass
class Chat:
    """One conversation: what is known, and who answers."""

    recipe: config.Recipe
    vocabulary: Vocabulary
    ranker: Ranker
    session: Session
    file: Path | None = None

    def say(self, message: str) -> Reply:
        """The reply; the session's file, where there is one, is written after every message."""
        reply, self.session = respond(
            self.session, message, self.vocabulary, self.ranker, self.recipe.noun, self.recipe.unit
        )
        if self.file:
            save_session(self.session, self.file)
        return reply


def chat(
    domain: str,
    *,
    overrides: tuple[str, ...] = (),
    user: str | None = None,
    session: Path | None = None,
    adapter: str | None = None,
    base: bool = False,
    prior: bool = True,
    engine: str = "hf",
) -> Chat:
    """A conversation that can begin, or goes on from the file `session`.

    Args:
        user: whose history it starts with.
        adapter: another adapter than the domain's own.
        base: the base model without an adapter.
        engine: `hf`, `vllm`, or the address of a vLLM server.
    Raises: RecipeError, DataError (unknown user, a file that is no session, a user for a session that goes on).
    """
    if session and not session.absolute().parent.is_dir():  # else a reply would be lost when it is written
        raise DataError(f"{session}: no folder {session.parent}; make it, or name another --session file")
    recipe = config.load_recipe(domain, overrides)
    name = config.adapter_asked(recipe, adapter, base)
    dataset = prepare.load(recipe)
    catalog = Catalog.of(dataset)
    known = Session(domain=recipe.domain)
    if session:
        known = load_session(session, recipe.domain, catalog)
    if user is not None:
        if known != Session(domain=recipe.domain):
            raise DataError(f"{session}: a conversation goes on here; leave out --user, or name another file")
        items = user_history(user, dataset, catalog)[-MAX_ITEMS:]
        latest_first = dict.fromkeys(catalog.item_id[item] for item in items[::-1])  # what counts is the last choice
        known = known.then(State(liked=tuple(latest_first)[::-1]))
    return Chat(
        recipe=recipe,
        vocabulary=Vocabulary(catalog, (recipe.noun, recipe.unit, recipe.domain)),
        ranker=Exact(recipe, name, prior, engine),
        session=known,
        file=session,
    )


def talk(chat: Chat, console: Console | None = None) -> None:
    """Reads messages from the terminal, or a line each from a pipe, until the end or `quit`."""
    console = console or screen()
    console.print(
        Text(
            f"{len(chat.vocabulary.catalog):,} {chat.recipe.noun}.  Name some you liked, or say what you are looking "
            "for.  `help` shows how; Ctrl-D ends.",
            style="dim",
        )
    )
    for message in _messages(console):
        if not message.strip():
            continue
        try:
            reply = chat.say(message)
        except LlmrecError as error:  # of this message; what was said before goes on, where somebody sits there
            if not sys.stdin.isatty():
                raise
            console.print(Text(f"error: {one_line(str(error), MAX_MESSAGE)}"), soft_wrap=True)
            continue
        print_reply(reply, console)
        if reply.ends:
            return


def print_message(message: str, console: Console | None = None) -> None:
    """What somebody said, where they did not type it themselves."""
    shown = one_line(message, MAX_MESSAGE)
    (console or screen()).print(Text(f"> {readable(shown)}", style="bold"), soft_wrap=True)


def print_reply(reply: Reply, console: Console | None = None) -> None:
    """For people: sentences, then a table."""
    console = console or screen()
    for line in reply.text:
        console.print(Text(line), soft_wrap=True)
    if reply.items:
        table = Table(box=None, pad_edge=False, show_header=False)
        for justify in ("right", "left", "right", "left"):
            table.add_column(justify=justify)  # type: ignore[arg-type]
        for item in reply.items:
            table.add_row(
                str(item.number), Text(readable(item.title), style="bold"), str(item.year or ""),
                Text(", ".join(map(readable, item.categories)), style="dim"),
            )  # fmt: skip
        console.print(table)
    console.print()


def as_dict(chat: Chat, turns: Sequence[tuple[str, Reply]]) -> dict[str, Any]:
    """For JSON: what was said and answered, and the state after it."""
    return {
        "domain": chat.recipe.domain,
        "turns": [{"said": one_line(message, MAX_MESSAGE), **reply.as_dict()} for message, reply in turns],
        "state": chat.session.state.model_dump(mode="json"),
    }


def _messages(console: Console) -> Iterator[str]:
    if not sys.stdin.isatty():
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        for line in sys.stdin:
            if line.strip():
                print_message(line, console)
            yield line
        return
    with suppress(ImportError):  # where there is none, lines cannot be edited
        import readline  # noqa: F401 - input() uses it once it is there
    while True:
        try:
            yield input("> ")
        except EOFError:
            console.print()
            return
