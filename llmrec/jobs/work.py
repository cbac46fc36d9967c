"""Kinds of work a batch job can do: what a row must hold, and what becomes of it.

A new kind is a class with the members of `Kind` and one line in `KINDS`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pyarrow as pa

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.names import match_titles, meant_id, plain_ids
from llmrec.data.records import MAX_ID_CHARS, is_whole, paragraphs, shown
from llmrec.data.split import histories
from llmrec.errors import DataError

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.insight import Insight
    from llmrec.judge import Judge
    from llmrec.recommender import Recommender

MAX_LIST = 100_000  # entries of one cell
MAX_TITLES = 1000  # of them that are titles: a misspelt one is compared with the whole catalog
Tick = Callable[[int], None] | None


@dataclass(frozen=True)
class Known:
    """What rows are looked up in."""

    catalog: Catalog
    history: Mapping[str, Sequence[int]]
    """User id → everything the user chose, oldest first, as catalog positions."""

    @classmethod
    def of(cls, dataset: Dataset, catalog: Catalog) -> Known:
        """Every user of the data, also those without interactions."""
        history: dict[str, Sequence[int]] = dict.fromkeys(dataset.users["user_id"].tolist(), ())
        history |= {found.user_id: found.items for found in histories(dataset, catalog, None)}  # type: ignore[misc]
        return cls(catalog, history)

    def of_user(self, user: str) -> list[int]:
        """Raises: DataError."""
        if user not in self.history:
            raise DataError(f"user_id: no user {shown(user)} in the domain's data{meant_id(user, self._plain_users)}")
        return [int(i) for i in self.history[user]]

    def position(self, item: str, column: str) -> int:
        """Raises: DataError."""
        if item not in self.catalog.position:
            raise DataError(f"{column}: no item {shown(item)} in the catalog{meant_id(item, self._plain_items)}")
        return self.catalog.position[item]

    @cached_property
    def _plain_users(self) -> dict[str, str]:
        return plain_ids(self.history)

    @cached_property
    def _plain_items(self) -> dict[str, str]:
        return plain_ids(self.catalog.item_id)

    def digest(
        self, history: Sequence[int], candidates: Sequence[int] | None = None, exclude: Sequence[int] = ()
    ) -> str:
        """12 hex digits over the item ids of a history, in order, and of what may be offered where a row says so."""
        asked, may, never = (
            None if part is None else [self.catalog.item_id[i] for i in part]
            for part in (history, candidates, exclude)
        )  # fmt: skip
        text = json.dumps(asked if may is None and not never else [asked, may, never])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Kind(Protocol):
    """One kind of work."""

    needs: tuple[str, ...]
    """Columns that the input must have."""
    takes: tuple[str, ...]
    """Columns that are used where the input has them."""
    unit: str
    """What a row asks about, in the plural."""
    task: str
    """What the model does: a task of reviews is asked of a `Judge`, anything else of a `Recommender`."""
    wordings: tuple[str, ...]
    """Prompt files that answers depend on, beside the one that words the list."""

    def schema(self) -> pa.Schema:
        """Columns of an answer."""

    def known(self, model: Any) -> Any:
        """What rows are looked up in."""

    def read(self, number: int, values: Mapping[str, Any], known: Any) -> Any:
        """What a row asks.  Raises: DataError saying why it cannot be answered."""

    def answer(self, model: Any, asked: Sequence[Any], n: int, prior: bool, tick: Tick) -> list[dict[str, Any]]:
        """One answer per question, in order; `tick` is told how many more are done."""


@dataclass(frozen=True)
class Question:
    """A list is asked for."""

    row: int
    key: str | None
    """The user's id, or the row's own."""
    history: list[int]
    digest: str
    """Of the history, and of the candidates and exclusions that come with it: the answer is out of date once it
    differs."""
    candidates: list[int] | None
    """None: the whole catalog."""
    exclude: list[int]


class OfDomain:
    """Kinds whose rows name users and items of the domain."""

    task = "next_item"
    wordings: tuple[str, ...] = ()
    _insight: Insight | None = None

    def known(self, model: Recommender) -> Known:
        return Known.of(model.dataset, model.catalog)

    def insight(self, model: Recommender) -> Insight:
        """What `model` says of people, the same for all batches of a job."""
        if self._insight is None or self._insight.model is not model:
            from llmrec.insight import Insight

            self._insight = Insight(model)
        return self._insight


class Users(OfDomain):
    """The top n for users of the domain's data."""

    needs: tuple[str, ...] = ("user_id",)
    takes: tuple[str, ...] = ("candidates", "exclude")
    unit = "users"
    key: ClassVar[str] = "user_id"

    def schema(self) -> pa.Schema:
        text, texts, numbers = pa.string(), pa.list_(pa.string()), pa.list_(pa.float32())
        return pa.schema(
            [("row", pa.int64()), (self.key, text), ("item_id", texts), ("title", texts), ("score", numbers),
             ("log_p", numbers), ("exact", pa.bool_()), ("history", text)]
        )  # fmt: skip

    def read(self, number: int, values: Mapping[str, Any], known: Known) -> Question:
        key, history = self.who(values, known)
        named = listed(values, "candidates")
        candidates = None if named is None else [known.position(item, "candidates") for item in named]
        exclude = [known.position(item, "exclude") for item in listed(values, "exclude") or ()]
        return Question(number, key, history, known.digest(history, candidates, exclude), candidates, exclude)

    def who(self, values: Mapping[str, Any], known: Known) -> tuple[str | None, list[int]]:
        """The row's key and history.  Raises: DataError."""
        user = text(values, "user_id")
        return user, known.of_user(user)

    def answer(
        self, model: Recommender, asked: Sequence[Question], n: int, prior: bool, tick: Tick
    ) -> list[dict[str, Any]]:
        rankings = model.rank(
            [q.history for q in asked], n, exclude=[q.exclude for q in asked],
            candidates=[q.candidates for q in asked], prior=prior, progress=tick,
        )  # fmt: skip
        catalog = model.catalog
        return [
            {
                "row": q.row,
                self.key: q.key,
                "item_id": [catalog.item_id[i] for i in ranking.items],
                "title": [catalog.title[i] for i in ranking.items],
                "score": [round(x, 6) for x in ranking.score.tolist()],
                "log_p": [round(x, 6) for x in ranking.log_p.tolist()],
                "exact": ranking.exact,
                "history": q.digest,
            }
            for q, ranking in zip(asked, rankings, strict=True)
        ]


class Histories(Users):
    """The top n for histories that the rows bring along, as item ids or as titles."""

    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ("id", "item_ids", "titles", "candidates", "exclude")
    unit = "histories"
    key = "id"

    def who(self, values: Mapping[str, Any], known: Known) -> tuple[str | None, list[int]]:
        ids, titles = listed(values, "item_ids"), listed(values, "titles")
        if (ids is None) == (titles is None):
            raise DataError("item_ids, titles: give one of the two" + (", not both" if ids is not None else ""))
        key = None if values.get("id") is None else text(values, "id")
        if ids is not None:
            return key, [known.position(item, "item_ids") for item in ids]
        if titles and len(titles) > MAX_TITLES:
            raise DataError(f"titles: {len(titles):,} entries; the limit is {MAX_TITLES:,}, or give item_ids")
        try:
            return key, match_titles(titles or (), known.catalog)
        except DataError as error:
            raise DataError(f"titles: {error}") from None


@dataclass(frozen=True)
class Pair:
    """A number is asked for."""

    row: int
    user: str
    item: int
    history: list[int]


class Pairs(OfDomain):
    """log p and score of one item for one user of the domain's data."""

    needs: tuple[str, ...] = ("user_id", "item_id")
    takes: tuple[str, ...] = ()
    unit = "pairs"

    def schema(self) -> pa.Schema:
        return pa.schema(
            [("row", pa.int64()), ("user_id", pa.string()), ("item_id", pa.string()), ("score", pa.float32()),
             ("log_p", pa.float32())]
        )  # fmt: skip

    def read(self, number: int, values: Mapping[str, Any], known: Known) -> Pair:
        user, item = text(values, "user_id"), text(values, "item_id")
        return Pair(number, user, known.position(item, "item_id"), known.of_user(user))

    def answer(
        self, model: Recommender, asked: Sequence[Pair], n: int, prior: bool, tick: Tick
    ) -> list[dict[str, Any]]:
        of_user: dict[str, list[int]] = {}  # a user's pairs share one reading of the history
        for place, pair in enumerate(asked):
            of_user.setdefault(pair.user, []).append(place)
        found = model.score(
            [asked[places[0]].history for places in of_user.values()],
            [[asked[place].item for place in places] for places in of_user.values()],
            prior=prior,
        )
        answers: list[dict[str, Any]] = [{}] * len(asked)
        for places, (log_p, score) in zip(of_user.values(), found, strict=True):
            for place, a, b in zip(places, log_p.tolist(), score.tolist(), strict=True):
                pair = asked[place]
                answers[place] = {"row": pair.row, "user_id": pair.user, "item_id": model.catalog.item_id[pair.item],
                                  "score": round(b, 6), "log_p": round(a, 6)}  # fmt: skip
        if tick:
            tick(len(asked))
        return answers


class Summaries(OfDomain):
    """What users of the domain's data like: sentences, and how likely each category comes next."""

    needs: tuple[str, ...] = ("user_id",)
    takes: tuple[str, ...] = ()
    unit = "users"
    task = "interest_summary"
    wordings: tuple[str, ...] = ("interest", "interest_summary")

    def schema(self) -> pa.Schema:
        return pa.schema(
            [("row", pa.int64()), ("user_id", pa.string()), ("text", pa.string()),
             ("categories", pa.list_(pa.string())), ("p", pa.list_(pa.float32())), ("history", pa.string())]
        )  # fmt: skip

    def read(self, number: int, values: Mapping[str, Any], known: Known) -> Question:
        user = text(values, "user_id")
        history = _some(known.of_user(user), user)
        return Question(number, user, history, known.digest(history), None, [])

    def answer(
        self, model: Recommender, asked: Sequence[Question], n: int, prior: bool, tick: Tick
    ) -> list[dict[str, Any]]:
        found = self.insight(model).summaries([q.history for q in asked])
        if tick:
            tick(len(asked))
        return [
            {
                "row": q.row,
                "user_id": q.key,
                "text": told,
                "categories": [interest.category for interest in interests],
                "p": [interest.p for interest in interests],
                "history": q.digest,
            }
            for q, (told, interests) in zip(asked, found, strict=True)
        ]


class Explanations(Pairs):
    """Why an item fits a user of the domain's data."""

    task = "explanation"
    wordings: tuple[str, ...] = ("explanation",)

    def schema(self) -> pa.Schema:
        texts = pa.list_(pa.string())
        return pa.schema(
            [("row", pa.int64()), ("user_id", pa.string()), ("item_id", pa.string()), ("text", pa.string()),
             ("shared", texts), ("near", texts)]
        )  # fmt: skip

    def read(self, number: int, values: Mapping[str, Any], known: Known) -> Pair:
        pair = super().read(number, values, known)
        _some(pair.history, pair.user)
        return pair

    def answer(
        self, model: Recommender, asked: Sequence[Pair], n: int, prior: bool, tick: Tick
    ) -> list[dict[str, Any]]:
        users = [pair.user for pair in asked]
        read, items = [pair.history for pair in asked], [pair.item for pair in asked]
        found = self.insight(model).explanations(read, items, users)
        if tick:
            tick(len(asked))
        return [
            {
                "row": pair.row,
                "user_id": pair.user,
                "item_id": one.item_id,
                "text": one.text,
                "shared": list(one.shared),
                "near": list(one.near),
            }
            for pair, one in zip(asked, found, strict=True)
        ]


@dataclass(frozen=True)
class Review:
    """A label is asked for."""

    row: int
    key: str | None
    """The row's own id."""
    text: str
    headline: str | None


class Reviews:
    """What texts say of the thing they are about, with calibrated probabilities."""

    needs: tuple[str, ...] = ("review",)
    takes: tuple[str, ...] = ("id", "headline")
    unit = "reviews"
    task = "review_sentiment"
    wordings: tuple[str, ...] = ()

    def schema(self) -> pa.Schema:
        return pa.schema(
            [("row", pa.int64()), ("id", pa.string()), ("label", pa.string()), ("labels", pa.list_(pa.string())),
             ("p", pa.list_(pa.float32()))]
        )  # fmt: skip

    def known(self, model: Judge) -> None:
        return None

    def read(self, number: int, values: Mapping[str, Any], known: None) -> Review:
        said, headline = prose(values, "review"), prose(values, "headline")
        if not said:
            raise DataError("review: no text")
        return Review(number, None if values.get("id") is None else text(values, "id"), said, headline)

    def answer(self, model: Judge, asked: Sequence[Review], n: int, prior: bool, tick: Tick) -> list[dict[str, Any]]:
        p = model.p([(review.text, review.headline) for review in asked])
        if tick:
            tick(len(asked))
        return [
            {
                "row": review.row,
                "id": review.key,
                "label": model.labels[int(row.argmax())],
                "labels": list(model.labels),
                "p": [round(x, 6) for x in row.tolist()],
            }
            for review, row in zip(asked, p, strict=True)
        ]


class Classes(Reviews):
    """Which of the categories that the data knows texts are about."""

    unit = "texts"
    task = "item_class"


KINDS: dict[str, Callable[[], Kind]] = {
    "users": Users, "histories": Histories, "pairs": Pairs, "summaries": Summaries, "explanations": Explanations,
    "reviews": Reviews, "classes": Classes,
}  # fmt: skip


def _some(history: list[int], user: str) -> list[int]:
    """Raises: DataError for a user of whom nothing can be said."""
    if not history:
        raise DataError(f"user_id: {shown(user)} has no history")
    return history


def text(values: Mapping[str, Any], column: str) -> str:
    """An id.  Raises: DataError where there is none."""
    return _id(values.get(column), column)


def prose(values: Mapping[str, Any], column: str) -> str | None:
    """Running text without control characters; None where there is no value.  Raises: DataError."""
    value = values.get(column)
    if value is None or value != value:
        return None
    if not isinstance(value, str):
        raise DataError(f"{column}: text is expected, not {shown(value)}")
    return paragraphs(value)


def listed(values: Mapping[str, Any], column: str) -> list[str] | None:
    """A list of ids or titles: a list, a JSON list as text, or text with `|` between; None where there is no value.

    Raises: DataError.
    """
    value = values.get(column)
    if value is None:
        return None
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise DataError(f"{column}: {shown(value)} begins like a JSON list and is none") from None
        else:
            value = [part.strip() for part in value.split("|")]
    if not isinstance(value, list):
        raise DataError(f"{column}: a list is expected, not {shown(value)}")
    if len(value) > MAX_LIST:
        raise DataError(f"{column}: {len(value):,} entries; the limit is {MAX_LIST:,}")
    return [_id(entry, column) for entry in value]


def _id(value: Any, column: str) -> str:
    """Ids are text; whole numbers are taken."""
    if is_whole(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or value == "" or value != value:
        raise DataError(f"{column}: no value")
    if not isinstance(value, str):
        raise DataError(f"{column}: text or a whole number is expected, not {shown(value)}")
    if len(value) > MAX_ID_CHARS:
        raise DataError(f"{column}: longer than {MAX_ID_CHARS} characters")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise DataError(f"{column}: {shown(value)} holds half a character, which no file can keep")
    return value
