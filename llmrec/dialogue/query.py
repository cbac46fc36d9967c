"""What a message asks for: the titles and places that it names, filters, a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmrec.dialogue.years import Years

Act = Literal["like", "not", "forget"]
Command = Literal["ask", "more", "why", "undo", "yes", "all", "cancel", "reset", "history", "taste", "help", "quit"]


@dataclass(frozen=True)
class Mention:
    """A title as somebody wrote it, and what it may mean."""

    act: Act
    text: str
    items: tuple[int, ...]
    """Catalog positions: one where it is clear, several where it must be asked back, none where nothing fits."""
    near: tuple[int, ...] = ()
    """Where nothing fits, the nearest."""
    unsure: bool = False
    """A word alone that is a part of a title, and may mean something else: "funny", of Funny Face."""


@dataclass(frozen=True)
class Reference:
    """An item by its place in the list that was shown last."""

    act: Act
    place: int | None
    """1 is the first, -1 the last, None all of them."""


@dataclass(frozen=True)
class Query:
    """What one message asks for."""

    command: Command = "ask"
    mentions: tuple[Mention | Reference, ...] = ()
    only: tuple[tuple[str, ...], ...] = ()
    """Categories: one of every group must hold."""
    without: tuple[str, ...] = ()
    years: Years | None = None
    n: int | None = None
    lift: tuple[str, ...] = ()
    """`category` and `year`: filters that shall hold no more."""
    goes_on: Literal["and", "or"] | None = None
    """Beside the filters there are: both must hold, "and a romance", or either, "or a drama", "dramas too"."""
    dropped: tuple[str, ...] = ()
    """Categories that no filter shall name any more."""
    unknown: tuple[str, ...] = ()
    """What was not understood."""
    others: tuple[str, ...] = ()
    """What is told of somebody else's taste."""
    corrects: bool = False
    """Whether it is meant instead of what was said before: "no, I meant Heat"."""
    wants: bool = False
    """Whether it asks for something, without saying what: "what should I watch?"."""

    points: Act | None = None
    """What becomes of one of the list that it speaks of without saying which: "seen it"."""

    @property
    def changes(self) -> bool:
        """Whether it asks for another list."""
        return bool(self.mentions) or self.filters

    @property
    def filters(self) -> bool:
        """Whether it names any, to be set or to be taken away."""
        return bool(self.only or self.without or self.years or self.lift or self.dropped)
