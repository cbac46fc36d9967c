"""What a conversation knows so far, and the file that keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import FailFast, Field, ValidationError

from llmrec.config import Section
from llmrec.data.catalog import Catalog
from llmrec.errors import DataError
from llmrec.files import whole

MAX_BYTES = 1_000_000  # of a session file
MAX_ITEMS = 5_000  # liked or left out; the oldest are forgotten, and may be offered again
FORGOTTEN = 250  # of them at a time, where a file would be too long
MAX_LIST = 100  # items of one list
MAX_SHOWN = 1000  # items of one list and all its continuations
MAX_UNDO = 20
MAX_NAMES = 100  # of categories in one filter

Item = Annotated[str, Field(max_length=1000)]
Items = Annotated[tuple[Item, ...], FailFast(), Field(max_length=MAX_ITEMS)]
Shown = Annotated[tuple[Item, ...], FailFast(), Field(max_length=MAX_SHOWN)]
Names = Annotated[tuple[Annotated[str, Field(max_length=300)], ...], FailFast(), Field(max_length=MAX_NAMES)]
Year = Annotated[int, Field(ge=0, le=9999)]


class Doubt(Section):
    """A name that may mean several items, asked back."""

    act: Literal["like", "not", "forget"]
    """What becomes of the one that is meant."""
    text: Annotated[str, Field(max_length=3000)]
    """The name as it was written."""
    options: Shown
    """Item ids."""


class State(Section):
    """What the next list follows from.  Items are ids of the catalog."""

    liked: Items = ()
    """The history, oldest first."""
    excluded: Items = ()
    """Never offered."""
    only: Annotated[tuple[Names, ...], FailFast(), Field(max_length=MAX_NAMES)] = ()
    """Categories: one of every group must hold."""
    without: Names = ()
    """Categories that are left out."""
    years: tuple[Year | None, Year | None] | None = None
    """First and last, null where open."""
    n: int = Field(10, ge=1, le=MAX_LIST)
    """Length of a list."""
    shown: Shown = ()
    """The list that was shown last with its continuations, best first."""
    doubt: Doubt | None = None
    """What was asked back last."""

    def allowed(self, catalog: Catalog) -> np.ndarray | None:
        """(items,) bool: what the filters let through; None without filters.  An unknown year passes no years."""
        if not (self.only or self.without or self.years):
            return None
        only, without = [set(group) for group in self.only], set(self.without)
        passes = np.array([all(not group.isdisjoint(own) for group in only) for own in catalog.categories], bool)
        passes &= np.array([without.isdisjoint(own) for own in catalog.categories], bool)
        if self.years:
            first, last = self.years
            low, high = -np.inf if first is None else first, np.inf if last is None else last
            passes &= np.array([year is not None and low <= year <= high for year in catalog.year], bool)
        return passes


class Session(Section):
    """A conversation as its file holds it."""

    format: Literal[1] = 1
    domain: Annotated[str, Field(max_length=64)]
    state: State = State()
    past: Annotated[tuple[State, ...], FailFast(), Field(max_length=MAX_UNDO)] = ()
    """States to go back to, oldest first."""

    def then(self, state: State) -> Session:
        """The session with a new state, and the present one to go back to."""
        if state == self.state:
            return self
        return self.model_copy(update={"state": state, "past": (*self.past, self.state)[-MAX_UNDO:]})

    def back(self) -> Session | None:
        """The session as it was before; None at its beginning."""
        if not self.past:
            return None
        return self.model_copy(update={"state": self.past[-1], "past": self.past[:-1]})


def load_session(path: Path, domain: str, catalog: Catalog) -> Session:
    """The session in a file, or a new one where there is no file.

    Raises: DataError for a file that is no session of this domain, or names items that the catalog lacks.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES:,} bytes: no session of ours")
        session = Session.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Session(domain=domain)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DataError(f"{path}: no session: {where}: {problem['msg']}; name another file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no session: {error}; name another file") from None
    if session.domain != domain:
        raise DataError(f"{path}: a session about '{session.domain}', not '{domain}'; name another file")
    check_session(session, catalog, path)
    return session


def check_session(session: Session, catalog: Catalog, source: Path | str) -> None:
    """Raises: DataError, naming `source`, for items and categories that the catalog lacks."""
    known = {*catalog.category_names}
    for state in (session.state, *session.past):
        options = state.doubt.options if state.doubt else ()
        for item in (*state.liked, *state.excluded, *state.shown, *options):
            if item not in catalog.position:
                raise DataError(
                    f"{source}: item {item!r} is not in the catalog of {session.domain}; start another session"
                )
        for name in (*state.without, *(name for group in state.only for name in group)):
            if name not in known:
                raise DataError(f"{source}: {session.domain} has no category {name!r}; start another session")


def save_session(session: Session, path: Path) -> None:
    """Whole or not at all; what is too long for a file forgets its oldest past.  Raises: DataError where the disk
    refuses."""
    try:
        with whole(path) as partial:
            partial.write_bytes(_as_bytes(trimmed(session)))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}; name another --session file") from None


def trimmed(session: Session) -> Session:
    """The session without so much of its oldest past, and then of what was liked or left out first, that its file has
    at most MAX_BYTES."""
    while len(_as_bytes(session)) > MAX_BYTES:
        state = session.state
        if session.past:
            session = session.model_copy(update={"past": session.past[1:]})
        elif state.liked or state.excluded:
            fewer = {"liked": state.liked[FORGOTTEN:], "excluded": state.excluded[FORGOTTEN:]}
            session = session.model_copy(update={"state": state.model_copy(update=fewer)})
        else:
            break
    return session


def _as_bytes(session: Session) -> bytes:
    return f"{session.model_dump_json(indent=1)}\n".encode()
