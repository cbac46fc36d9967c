"""What is answered: a list from the exact ranking, a question back, or the reasons of a place in the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.names import label, look_up, readable
from llmrec.dialogue.grammar import MAX_MESSAGE, parse
from llmrec.dialogue.query import Act, Mention, Query, Reference
from llmrec.dialogue.state import MAX_ITEMS, MAX_LIST, MAX_NAMES, MAX_SHOWN, Doubt, Session, State
from llmrec.dialogue.vocabulary import Vocabulary
from llmrec.dialogue.years import Years

WEIGHED = 10  # latest items of a history whose part in a place is weighed
SAYS = 0.05  # nats from which an item of the history counts as speaking for another


@dataclass(frozen=True)
class Ranked:
    """An item as the ranking sees it."""

    item: int
    """Catalog position."""
    score: float
    """log p plus bonus, nats."""
    log_p: float
    """Under the whole catalog, nats."""


class Ranker(Protocol):
    """The exact ranking of a catalog, and what its adapter has learned to say."""

    def rank(
        self, histories: Sequence[Sequence[int]], n: int, exclude: Sequence[int], allowed: np.ndarray | None
    ) -> list[list[Ranked]]:
        """Per history (catalog positions, oldest first) its top `n`, best first, among `allowed` (items,) and without
        `exclude` and the history itself; shorter where less is left."""

    def reason(self, history: Sequence[int], item: int) -> str:
        """A sentence or two on why an item fits a history; empty where there is nobody who learned to say."""

    def taste(self, history: Sequence[int]) -> tuple[str, ...]:
        """Sentences on what a history shows; none where there is nobody who learned to say."""


@dataclass(frozen=True)
class Entry:
    """One line of a list; numbers go on where a list is continued."""

    number: int
    item_id: str
    title: str
    year: int | None
    categories: tuple[str, ...]
    score: float
    p: float


@dataclass(frozen=True)
class Reply:
    """Sentences, then the list they speak of."""

    text: tuple[str, ...]
    items: tuple[Entry, ...] = ()
    ends: bool = False
    """Whether the conversation is over."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"text": list(self.text), "items": [asdict(item) for item in self.items]}


def respond(
    session: Session, message: str, vocabulary: Vocabulary, ranker: Ranker, noun: str = "items", unit: str = "item"
) -> tuple[Reply, Session]:
    """The answer to a message, and the session after it."""
    if len(message) > MAX_MESSAGE:
        return Reply((f"A message may have {MAX_MESSAGE:,} characters; this one has {len(message):,}.",)), session
    return _Turn(session, vocabulary.catalog, ranker, noun, unit).answer(parse(message, vocabulary))


@dataclass
class _Turn:
    session: Session
    catalog: Catalog
    ranker: Ranker
    noun: str
    unit: str

    def answer(self, query: Query) -> tuple[Reply, Session]:
        acts: dict[str, Callable[[Query], tuple[Reply, Session]]] = {
            "ask": self._ask, "more": self._more, "why": self._why, "undo": self._undo, "reset": self._reset,
            "cancel": self._cancel, "yes": self._yes, "all": self._all,
        }  # fmt: skip
        if query.command in acts:
            return acts[query.command](query)
        if query.command == "taste":
            return self._taste(), self.session
        if query.command == "history":
            return Reply(tuple(self._known(self._state))), self.session
        if query.command == "help":
            return Reply(tuple(self._help())), self.session
        return Reply(("Goodbye.",), ends=True), self.session

    @property
    def _state(self) -> State:
        return self.session.state

    @property
    def _without_doubt(self) -> State:
        """Where no question waits for an answer."""
        return self._state.model_copy(update={"doubt": None})

    def _ask(self, query: Query) -> tuple[Reply, Session]:
        if query.corrects and (corrected := self._corrected(query)):
            return corrected
        if self._declined(query):
            return self._cancel(query)
        if (doubt := self._state.doubt) and self._beyond(query):
            return Reply(("That is none of them; `never mind` leaves it open.", *self._asked(doubt))), self.session
        query = self._dated(self._settled(query))
        state, notes = self._filtered(self._without_doubt, query)
        before = {*self._positions(state.excluded)}
        doubt = None
        understood = query.n is not None or query.filters
        for mention in query.mentions:
            items = self._meant(mention, notes)
            if isinstance(mention, Reference) or (len(items) == 1 and not mention.unsure):
                for item in items:
                    state, understood = self._with(state, mention.act, item), True
            elif items:
                if doubt is None:
                    doubt = Doubt(act=mention.act, text=mention.text, options=self._ids(items))
                else:
                    notes.append(
                        f"{readable(mention.text)!r} may be several {self.noun}, too; name it again after this."
                    )
        if out := [item for item in self._positions(state.excluded) if item not in before]:
            notes.append(f"Left out: {_listed(label(self.catalog, item) for item in out)}.")
        if query.others:
            told = _listed(repr(readable(text)) for text in query.others)
            notes.append(f"I go by your own taste: {told} counts for nothing; say it as your own where it shall.")
        notes += _not_understood(query)
        if query.points and not understood and not doubt and state.shown and not self._state.doubt:
            doubt = Doubt(act=query.points, text="it", options=state.shown[-state.n :])
        if doubt:
            return Reply((*notes, *self._asked(doubt))), self.session.then(state.model_copy(update={"doubt": doubt}))
        if not understood and not (query.wants and not notes):
            hint = f"Name {self.noun} you liked, or say what you are looking for; `help` shows how."
            return Reply((*notes, hint)), self.session
        return self._list(state, notes)

    def _asked(self, doubt: Doubt) -> Iterable[str]:
        """The question back, with its options."""
        said = readable(doubt.text)
        if len(doubt.options) == 1:
            yield f"Do you mean this {self.unit} by {said!r}?  Answer `yes`, or say it in other words."
        else:
            yield f"Which {self.unit} is {said!r}?  Answer with its number."
        yield from (f"  {i}  {self._label(item)}" for i, item in enumerate(doubt.options, 1))

    def _more(self, query: Query) -> tuple[Reply, Session]:
        state, notes = self._filtered(self._without_doubt, query)
        return self._list(state, notes, after=state.shown)

    def _yes(self, query: Query) -> tuple[Reply, Session]:
        doubt = self._state.doubt
        return self._ask(Query(mentions=(Reference("like", 1),) if doubt and len(doubt.options) == 1 else ()))

    def _all(self, query: Query) -> tuple[Reply, Session]:
        if not self._state.doubt:
            return Reply(("No question is open; `I liked all of them` speaks of the list.",)), self.session
        return self._ask(Query(mentions=(Reference("like", None),)))

    def _cancel(self, query: Query) -> tuple[Reply, Session]:
        if not self._state.doubt:
            return Reply(("No question is open; `undo` takes back what was said last.",)), self.session
        return Reply(("None of them, then.",)), self.session.then(self._without_doubt)

    def _corrected(self, query: Query) -> tuple[Reply, Session] | None:
        """The answer to what is meant instead of the titles that were named last; None where there were none."""
        before = self.session.back()
        if before is None or self._state.doubt:
            return None
        answering = replace(self, session=before)  # the question that was answered last, if one was
        if before.state.doubt and answering._settled(query) is not query:
            return answering._ask(replace(query, corrects=False))
        liked = [one for one in self._state.liked if one not in before.state.liked]
        out = [one for one in self._state.excluded if one not in before.state.excluded]
        named = self._positions(liked or out)
        if query.years and not query.mentions:  # "the 1986 one"
            alike = [other for one in named for other in look_up(self.catalog.title[one], self.catalog).items]
            meant = [one for one in alike if (self.catalog.year[one],) * 2 == query.years and one not in named]
            query = replace(query, mentions=tuple(Mention("like", "", (one,)) for one in meant[:1]))
            query = replace(query, years=None) if meant else query
        if not query.mentions or not named or (liked and out):
            return None
        mentions = tuple(replace(one, act="not") if out and one.act == "like" else one for one in query.mentions)
        left: dict[str, Any] = {
            "liked": tuple(one for one in self._state.liked if one not in liked),
            "excluded": tuple(one for one in self._state.excluded if one not in out),
        }
        session = self.session.model_copy(update={"state": self._state.model_copy(update=left)})
        reply, after = replace(self, session=session)._ask(replace(query, mentions=mentions, corrects=False))
        if after == session:  # nothing of it was understood
            return reply, self.session
        taken = f"Taken back: {_listed(label(self.catalog, one) for one in named)}."
        return replace(reply, text=(taken, *reply.text)), after

    def _undo(self, query: Query) -> tuple[Reply, Session]:
        before = self.session.back()
        if before is None:
            return Reply(("There is nothing to take back.",)), self.session
        return Reply(("Taken back.", *self._known(before.state))), before

    def _reset(self, query: Query) -> tuple[Reply, Session]:
        return Reply(("Everything is forgotten; `undo` brings it back.",)), self.session.then(State())

    def _list(self, state: State, notes: Sequence[str], after: Sequence[str] = ()) -> tuple[Reply, Session]:
        """The next `state.n` after what was shown of the same list."""
        taken = self._positions((*state.excluded, *after))
        if not (n := min(state.n, MAX_SHOWN - len(after))):
            end = f"That was all: a list ends after {MAX_SHOWN:,} {self.noun}.  Name what you like, or a filter."
            return Reply((*notes, end)), self.session.then(self._without_doubt)
        [found] = self.ranker.rank([self._positions(state.liked)], n, taken, state.allowed(self.catalog))
        entries = tuple(self._entry(place, ranked) for place, ranked in enumerate(found, len(after) + 1))
        shown = (*after, *(entry.item_id for entry in entries))
        if entries:
            intro = "Next:" if after else f"{_sentence(self._because(state))}:"
        elif after:
            intro = "That was all: nothing is left of this list."
        else:
            intro = f"No {self.unit} is left ({self._because(state)}); lift a filter, e.g. `any year`, or `undo`."
        return Reply((*notes, intro), entries), self.session.then(state.model_copy(update={"shown": shown}))

    def _why(self, query: Query) -> tuple[Reply, Session]:
        notes = _not_understood(query)
        if len(query.mentions) > 1:
            notes.append("One at a time.")
        elsewhere = not query.mentions and (query.unknown or query.filters)  # "why so many dramas?"
        asked = query.mentions[0] if query.mentions else Reference("like", 1)
        items = [] if elsewhere else self._meant(asked, notes)
        if len(items) != 1:
            return Reply((*notes, "Name one of the list: why the second?")), self.session
        [item] = items
        history = self._positions(self._state.liked)
        if item in history:
            return Reply((f"You named {label(self.catalog, item)} yourself.",)), self.session
        weighed = history[-WEIGHED:]
        alone = np.zeros(len(self.catalog), bool)
        alone[item] = True
        histories = [history, *([other for other in history if other != one] for one in weighed)]
        found = self.ranker.rank(histories, 1, (), alone)
        if not all(found):  # what the history holds is never offered; anything else has a score
            return Reply((f"{label(self.catalog, item)} is not offered here.",)), self.session
        whole, *without = (ranked.score for [ranked] in found)
        gains = sorted(((whole - score, one) for one, score in zip(weighed, without, strict=True)), reverse=True)
        said = self.ranker.reason(history, item) if history else ""
        told = [readable(said)] if said else []
        return Reply((*notes, *told, *self._reasons(item, found[0][0], gains, history))), self.session

    def _taste(self) -> Reply:
        history = self._positions(self._state.liked)
        if not history:
            return Reply((f"You named no {self.noun} yet.",))
        told = self.ranker.taste(history) or ("This adapter has not learned to sum up a history.",)
        return Reply((*map(readable, told), *self._known(self._state)))

    def _reasons(
        self, item: int, ranked: Ranked, gains: Sequence[tuple[float, int]], history: Sequence[int]
    ) -> Iterable[str]:
        own = self.catalog.categories[item]
        kinds = f" ({', '.join(map(readable, own))})" if own else ""
        p = np.exp(ranked.log_p)
        yield f"{label(self.catalog, item)}{kinds}: p {p:.2%} of the whole catalog, score {ranked.score:.2f} nats."
        if not history:
            yield f"You named no {self.noun} yet: this is what people choose in general."
            return
        if speaking := [(gain, one) for gain, one in gains if gain >= SAYS][:3]:
            named = _listed(f"{readable(self.catalog.title[one])} ({gain:.2f} nats)" for gain, one in speaking)
            yield f"Its score would fall without {named}."
        else:
            yield f"No single {self.unit} of yours lifts it: it fits the list as a whole, or is liked in general."
        for name in own:
            if same := [one for one in history[::-1] if name in self.catalog.categories[one]][:3]:
                yield f"{readable(name)}, like {_listed(readable(self.catalog.title[one]) for one in same)}."

    def _settled(self, query: Query) -> Query:
        """The query with the answer to what was asked back, where it is one."""
        doubt = self._state.doubt
        if not doubt:
            return query
        options = self._positions(doubt.options)
        places = [one for one in query.mentions if isinstance(one, Reference)]
        if places and all(_at(options, one.place) for one in places):
            wanted = [one for one in places if one.act != "not"]  # "the first, not the second"
            named = tuple(dict.fromkeys(item for one in wanted or places for item in _at(options, one.place)))
            others = tuple(one for one in query.mentions if isinstance(one, Mention))
            if doubt.act == "like" and not wanted:  # "not the first"
                left = tuple(one for one in options if one not in named)
                return replace(query, mentions=(*([Mention("like", doubt.text, left)] if left else []), *others))
            if not others:
                return replace(query, mentions=tuple(Mention(doubt.act, doubt.text, (one,)) for one in named))
        chosen: list[int] = []
        if len(query.mentions) == 1 and isinstance(mention := query.mentions[0], Mention):
            chosen = [item for item in options if item in mention.items]
        elif query.years and not query.mentions:
            chosen = [item for item in options if (self.catalog.year[item],) * 2 == query.years]
        if len(chosen) != 1:
            return query
        answer = Mention(doubt.act, doubt.text, (chosen[0],))
        return replace(query, mentions=(answer,), years=None if not query.mentions else query.years)

    def _declined(self, query: Query) -> bool:
        """Whether an answer to what was asked back is that none is meant: "none of these", "not the first" of one."""
        if not (doubt := self._state.doubt):
            return False
        out = {item for one in query.mentions if isinstance(one, Reference) and one.act == "not"
               for item in _at(self._positions(doubt.options), one.place)}  # fmt: skip
        alone = not query.filters and all(isinstance(one, Reference) and one.act == "not" for one in query.mentions)
        every = doubt.act == "like" and alone and len(out) == len(doubt.options)
        return every or Reference("not", None) in query.mentions

    def _beyond(self, query: Query) -> bool:
        """Whether an answer to what was asked back is none of the options: a place in the list before them may be
        meant by "not the fifth", and by nothing else that names places alone."""
        doubt = self._state.doubt
        answers = [one for one in query.mentions if isinstance(one, Reference) and one.act == "like"]
        if not doubt or not answers or len(answers) < len(query.mentions):
            return False
        return not all(_at(self._positions(doubt.options), one.place) for one in answers)

    def _dated(self, query: Query) -> Query:
        """The query with a year that tells which of several titles is meant, "the 1986 Heat", instead of a filter."""
        if query.years is None or query.years[0] is None or query.years[0] != query.years[1]:
            return query
        for mention in query.mentions:
            if isinstance(mention, Mention) and len(mention.items) > 1:
                meant = [item for item in mention.items if self.catalog.year[item] == query.years[0]]
                if len(meant) == 1:
                    told = (replace(mention, items=(meant[0],)) if one is mention else one for one in query.mentions)
                    return replace(query, mentions=tuple(told), years=None)
        return query

    def _filtered(self, state: State, query: Query) -> tuple[State, list[str]]:
        """The state with the filters and the length that a query names: categories and years replace older ones."""
        notes: list[str] = []
        only, without = ((), ()) if "category" in query.lift else (state.only, state.without)
        if query.dropped:
            if missing := [name for name in query.dropped if not any(name in group for group in (*only, without))]:
                first = readable(missing[0])
                notes.append(f"No filter names {_listed(map(readable, missing))}; `no {first}` adds one.")
            only = _left(only, query.dropped)
            without = tuple(name for name in without if name not in query.dropped)
        if query.only:
            held = only if query.goes_on else ()
            if query.goes_on == "or" and held:
                joined = (*held[:-1], (*held[-1], *query.only[0]), *query.only[1:])
            else:
                joined = (*held, *query.only)
            groups = (tuple(dict.fromkeys(group))[:MAX_NAMES] for group in joined)
            only = tuple(dict.fromkeys(groups))[:MAX_NAMES]
            wanted = {name for group in only for name in group}
            without = tuple(name for name in without if name not in wanted)
        if query.without:
            only = _left(only, query.without)
            without = tuple(dict.fromkeys((*without, *query.without)))[:MAX_NAMES]
        changes: dict[str, Any] = {"only": only, "without": without}
        if "year" in query.lift:
            changes |= {"years": None}
        if query.years:
            years: Years | None = query.years
            if query.goes_on and state.years:
                years = _joined(state.years, query.years, query.goes_on)
            if years:
                changes |= {"years": years}
            else:
                notes.append("A list has one span of years; say `any year`, or the new one alone.")
        if query.n is not None:
            changes |= {"n": min(max(query.n, 1), MAX_LIST)}
            if changes["n"] != query.n:
                notes.append(f"A list has 1 to {MAX_LIST} {self.noun}.")
        return state.model_copy(update=changes), notes

    def _meant(self, mention: Mention | Reference, notes: list[str]) -> list[int]:
        """Positions that a mention may mean; why there is none goes to `notes`."""
        if isinstance(mention, Mention):
            if not mention.items:
                near = _listed(label(self.catalog, item) for item in mention.near)
                nearest = f"; nearest: {near}" if near else ""
                notes.append(f"I know no {self.unit} like {readable(mention.text)!r}{nearest}.")
            return list(mention.items)
        shown = self._positions(self._state.shown)
        found = _at(shown if mention.place else shown[-self._state.n :], mention.place)
        if not found:
            notes.append(f"The list has {len(shown)} {self.noun}." if shown else "There is no list yet.")
        return found

    def _with(self, state: State, act: Act, item: int) -> State:
        """The state with an item liked (as the latest), left out, or neither."""
        [item_id] = self._ids([item])
        liked = [one for one in state.liked if one != item_id]
        excluded = [one for one in state.excluded if one != item_id]
        if act != "forget":
            (liked if act == "like" else excluded).append(item_id)
        return state.model_copy(update={"liked": tuple(liked[-MAX_ITEMS:]), "excluded": tuple(excluded[-MAX_ITEMS:])})

    def _help(self) -> Iterable[str]:
        """What can be said, in the catalog's own words."""
        first, second = [readable(title) for title in (self.catalog.title * 2)[:2]]
        categories = self.catalog.category_names
        yield f"Say which {self.noun} you liked, and what you are looking for:"
        yield f"  I liked {first} and {second}"
        yield f"  something like {first}, but from the 90s"
        yield f"  not {second}     only before 1980     any year     -n 5"
        yield "  more     next 10     more like the second     none of these     why the third?"
        yield f"  forget {first}     show my history     what do I like?     undo     reset     quit"
        if categories:
            kinds = _listed(map(readable, categories[:30])) + (" and more" if len(categories) > 30 else "")
            yield f"Kinds, alone or with `no`, `or` and `any genre`: {kinds}."
        yield 'Titles may be misspelt, or put between "quotes".'

    def _known(self, state: State) -> Iterable[str]:
        yield f"You liked: {_listed(map(self._label, state.liked)) or 'nothing yet'}."
        if state.excluded:
            yield f"Left out: {_listed(map(self._label, state.excluded))}."
        if filters := self._filters(state):
            yield f"Looking for: {filters}."

    def _because(self, state: State) -> str:
        """What a list follows from, in words."""
        latest = [readable(self.catalog.title[item]) for item in self._positions(state.liked[-3:])][::-1]
        if more := len(state.liked) - len(latest):
            latest.append(f"{more} more")
        parts = [f"because of {_listed(latest)}" if latest else "for anybody", self._filters(state)]
        return "; ".join(part for part in parts if part)

    def _filters(self, state: State) -> str:
        parts = [" or ".join(map(readable, group)) for group in state.only]
        parts += [f"no {readable(name)}" for name in state.without]
        if state.years:
            first, last = state.years
            span = f"{first}" if first == last else f"{first or 'up'} to {last}" if last else f"{first} or later"
            parts.append(span)
        return ", ".join(parts)

    def _entry(self, number: int, ranked: Ranked) -> Entry:
        catalog, i = self.catalog, ranked.item
        return Entry(
            number=number, item_id=catalog.item_id[i], title=catalog.title[i], year=catalog.year[i],
            categories=catalog.categories[i], score=round(ranked.score, 6), p=float(np.exp(ranked.log_p)),
        )  # fmt: skip

    def _label(self, item_id: str) -> str:
        return label(self.catalog, self.catalog.position[item_id])

    def _positions(self, item_ids: Iterable[str]) -> list[int]:
        return [self.catalog.position[item_id] for item_id in item_ids]

    def _ids(self, positions: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.catalog.item_id[item] for item in positions)


def _at(items: Sequence[int], place: int | None) -> list[int]:
    """The item at a place, 1 the first and -1 the last, or all of them; none where there is no such place."""
    if place is None:
        return [*items]
    at = place - 1 if place > 0 else place
    return [items[at]] if place and -len(items) <= at < len(items) else []


def _joined(known: Years, years: Years, how: Literal["and", "or"]) -> Years | None:
    """Years beside those of a filter.  Two spans, or either: from the first to the last; else what is in both.  None
    where that is no span."""
    firsts = [first for first, _ in (known, years) if first is not None]
    lasts = [last for _, last in (known, years) if last is not None]
    if how == "or" or len(firsts) == len(lasts) == 2:
        span = (min(firsts) if len(firsts) == 2 else None, max(lasts) if len(lasts) == 2 else None)
        return None if span == (None, None) else span
    if firsts and lasts and max(firsts) > min(lasts):
        return None
    return max(firsts, default=None), min(lasts, default=None)


def _not_understood(query: Query) -> list[str]:
    """The note on what of a message was not understood, if anything."""
    told = _listed(repr(readable(text)) for text in query.unknown)
    return [f"I did not understand {told}."] if query.unknown else []


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _left(groups: Sequence[tuple[str, ...]], names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """What is left of the groups that still hold something."""
    left = (tuple(name for name in group if name not in names) for group in groups)
    return tuple(group for group in left if group)


def _listed(texts: Iterable[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    *first, last = list(texts) or [""]
    return f"{', '.join(first)} and {last}" if first else last
