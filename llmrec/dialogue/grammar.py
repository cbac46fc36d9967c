"""Reads what a message asks for: a small grammar over the catalog's own titles and categories.

    something like Fargo but a comedy from the 90s, -n 5        not Heat        more like the second        why this?

Words are read from left to right.  A mode (like, not, forget) says what becomes of the titles and categories behind
it; what is neither grammar nor a title nor a word that carries nothing is handed back as not understood.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from llmrec.data.names import ARTICLES, Found
from llmrec.data.records import one_line
from llmrec.dialogue.cursor import Cursor
from llmrec.dialogue.query import Act, Command, Mention, Query, Reference
from llmrec.dialogue.vocabulary import Vocabulary
from llmrec.dialogue.words import (
    ACTS,
    AGAINST,
    ALL,
    ASIDE,
    ASKS,
    AVERSE,
    CARRY_NOTHING,
    COMMANDS,
    COMPARES,
    CORRECTS,
    COUNT,
    EXCEPT,
    FILTER,
    FROWNED,
    FROWNS,
    GOES_ON,
    JOINS,
    JUDGED,
    LIFTS,
    MODES,
    MORE,
    NUMBER,
    OPENS,
    OPINION,
    ORDINAL,
    ORDINALS,
    OTHERS,
    POINTER,
    POINTS,
    PRAISE,
    REFUSED,
    RELATED,
    RETRACTS,
    SENTENCE_ENDS,
    SIGNED,
    SIMILAR,
    SMILED,
    SOME,
    SPAN_WORDS,
    UNCLEAR,
    WANTS,
    WHY,
    Mode,
    to_number,
)
from llmrec.dialogue.years import MEANINGS, OPEN_END, SPAN, YEAR, Years

MAX_MESSAGE = 2000  # characters
MAX_MENTIONS = 20  # titles of one message
MAX_OPTIONS = 10  # items that one name may mean


def parse(message: str, vocabulary: Vocabulary) -> Query:
    """Reads one message of at most `MAX_MESSAGE` characters."""
    text = SIGNED.sub(", not ", one_line(message, MAX_MESSAGE))
    text = FROWNED.sub(" not ", SMILED.sub("; ", text)).lstrip(",; ")
    bare = re.sub(r"^please\s+|[\s.!?]+$|,?\s+please[\s.!?]*$", "", text, flags=re.I)
    if text.strip() == "?":
        return Query("help")
    for command, pattern in COMMANDS:
        if pattern.fullmatch(bare):
            return Query(command)
    return _Reader(text, vocabulary).read()


class _Reader(Cursor):
    """One pass over a message, and what it has said so far."""

    def __init__(self, text: str, vocabulary: Vocabulary):
        super().__init__(text, vocabulary)
        self.mode: Mode = "like"
        self.explicit = False  # a mode word asks for what comes now
        self.fresh = False  # nothing has come since the mode word
        self.ended = -1  # the token behind the last title
        self.described = -1  # the token behind the last category or thing
        self.listing = True  # a title may come: at the start, behind a mode word, in a list of titles
        self.listed = 0  # where the titles begin that a verdict behind them is about
        self.kinds: list[str] = []  # the categories that one is about
        self.named = 0  # where the titles began that were named last
        self.opinion = self.prefers = False  # the mode word says what somebody thinks of it
        self.similar = False  # it asks for something like what comes
        self.negated = ""  # what a "not" has been about first: title, category, year
        self.unsure = False  # whether categories are wanted or not
        self.joined = ""  # "or" or "," since the last category
        self.command: Command = "ask"
        self.more = self.wants = self.corrects = False
        self.mentions: list[Mention | Reference] = []
        self.only: list[list[str]] = []
        self.without: list[str] = []
        self.spans: list[tuple[Years, str]] = []  # with their words
        self.n: int | None = None
        self.lift: list[str] = []
        self.dropped: list[str] = []
        self.unknown: list[str] = []
        self.others: list[str] = []
        self.points: Act | None = None

    def read(self) -> Query:
        """What the whole message asks for."""
        steps = (
            self._refused, self._quote, self._stop, self._lift, self._long_title, self._others, self._question,
            self._compares, self._why, self._retracts, self._count, self._years, self._ordinal, self._against,
            self._aside, self._corrects, self._unclear, self._all_but, self._mode, self._averse, self._more,
            self._categories, self._filter, self._short_title, self._nothing, self._other,
        )  # fmt: skip
        while self.at < len(self.tokens):
            any(step() for step in steps)  # the last one always takes at least a word
        years = self._in_all()
        on = [how for how, pattern in GOES_ON if pattern.match(self.text)] if self.only or years else []
        query = Query(
            command=self.command, mentions=tuple(self.mentions), only=tuple(tuple(group) for group in self.only),
            without=tuple(dict.fromkeys(self.without)), years=years, n=self.n, lift=tuple(self.lift),
            goes_on=next(iter(on), None),
            dropped=tuple(dict.fromkeys(self.dropped)), unknown=tuple(self.unknown), others=tuple(self.others),
            wants=self.wants, corrects=self.corrects, points=self.points,
        )  # fmt: skip
        if self.more and query.command == "ask" and not (query.changes or query.unknown or query.points):
            return Query("more", n=self.n)
        return query

    # The steps of `read`, with what they are made of: a step takes tokens and says so, or leaves everything as it was.

    # Titles.

    def _quote(self) -> bool:
        """A title in quotes."""
        if self.now.kind != "quote":
            return False
        self._mention(self.now.text, self.at + 1)
        return True

    def _long_title(self) -> bool:
        """Two words or more that are a title to the letter, wherever they stand."""
        return self._title(2)

    def _short_title(self) -> bool:
        """One word that is a title to the letter, where a title is expected or it is written like a name."""
        if self.describes(self.at + 1):
            return False
        capital = self.now.text[:1].isupper() and (self.like_name or self.alone(self.at + 1))
        if self.now.text.casefold() in CARRY_NOTHING and not (self.fresh or capital):  # "Show me something"
            return False
        return (self.explicit or self.like_name or (self.listing and self.ends(self.at + 1))) and self._title(1)

    def _other(self) -> bool:
        """A run of words: a title that is not written to the letter, or not understood."""
        if self.at == self.described:  # of "no horror after all" the mode has been about horror
            self.explicit = False
        end = self.run_end(self.at)
        if self.explicit or self.now.text[:1].isupper():  # "Blade Runner 2049"
            end = self.sequel_end(self.between(self.at, end), end) or end
        ends = sorted({self.run_end(self.at, named=True), *self.longer_ends(end), end}, reverse=True)
        if self.title_behind(end):
            ends.remove(end)  # "original" of "the original Star Wars" names no film
        for stop in ends:
            alone = self.listing and self.alone(stop)
            says = {token.text.casefold() for token in self.tokens[self.at : stop]} - CARRY_NOTHING
            if says and says <= RELATED:  # "not the sequel" names none
                continue
            if stop - self.at == 1 and (self.describes(stop) or self.match(ORDINAL)):
                continue
            if (self.explicit or self.like_name or stop - self.at > 1 or alone) and self._mention(
                self.between(self.at, stop), stop, only_if_found=stop != end or not self.explicit
            ):
                return True
        if end < len(self.tokens) and self.tokens[end].kind == "dated":
            end += 1  # its year, not one that is asked for
        self._leave(end)
        return True

    def _title(self, least: int) -> bool:
        """Takes the longest run of tokens that is a title of at least `least` words, to the letter."""
        if not (end := self.title_end(self.at, least)):
            return False
        title = self.between(self.at, end)
        same: tuple[int, ...] = ()
        if further := self.sequel_end(title, end):
            same, end = (self.look_up(title) or Found(())).items, further
        self._mention(title := self.between(self.at, end), end, other_than=same)
        self._series(title)
        return True

    def _series(self, title: str) -> None:
        """ "Toy Story 2 and 3": a number that follows a title's own is no place in the list that was shown."""
        name = re.sub(r"\s+#?\d{1,3}$", "", title)
        while name != title:
            at = self.at
            while at < len(self.tokens) and self.tokens[at].text.casefold() in ("and", "or", "&", ","):
                at += 1
            number = self.tokens[at].text if self.at < at < len(self.tokens) else ""
            if not re.fullmatch(r"#?\d{1,3}", number) or self.counted(at + 1) or self.title_end(at, 2):
                break
            self.at = at
            self._mention(f"{name} {number}", at + 1)

    def _mention(self, text: str, end: int, *, only_if_found: bool = False, other_than: tuple[int, ...] = ()) -> bool:
        """Notes a title that ends before token `end`; its year in parentheses belongs to it.

        Args:
            only_if_found: where nothing in the catalog fits, it is no title, and nothing is noted.
            other_than: what it cannot mean, however alike.
        """
        if end < len(self.tokens) and self.tokens[end].kind == "dated":
            text, end = f"{text} {self.tokens[end].text}", end + 1
        elif end < len(self.tokens) and self.is_year_of(text, self.tokens[end].text):
            text, end = f"{text} ({self.tokens[end].text})", end + 1
        elif not self.similar and (year := self.from_year(text, end)):  # "I liked Fargo from 1996"
            text, end = f"{text} ({year})", end + 2
        found = self.look_up(text, near=not only_if_found) if len(self.mentions) < MAX_MENTIONS else None
        if found is None:
            self._not_understood(text)
            self.at = end
            return True
        if re.fullmatch(r"#?\d{1,3}", text) and text not in self.vocabulary.names:  # "2" is no "Jaws 2"
            found = Found(())
        if other_than:
            found = Found(tuple(i for i in found.items if i not in other_than), found.near or other_than[:3])
        if not found.items and only_if_found:
            return False
        act: Act = "not" if text[:1] in FROWNS else self.act
        unsure = len(self.tokens) == 1 and len(found.items) == 1 and self.is_part(text, found.items[0])
        self.mentions.append(Mention(act, text, found.items[:MAX_OPTIONS], found.near, unsure))
        self.at = end
        self._listed()
        return True

    def _listed(self) -> None:
        """What all titles and places leave behind: only behind a comma or an "and" another one is expected."""
        self.listing, self.joined, self.fresh, self.ended = False, "", False, self.at
        if self.act == "not":
            self.negated = self.negated or "title"

    def _end_list(self) -> None:
        """What comes now is another list than what was named before."""
        if len(self.mentions) > self.listed:
            self.named = self.listed
        self.listed, self.kinds = len(self.mentions), []

    # Places in the list that was shown last, and how long the next one shall be.

    def _count(self) -> bool:
        """How many are wanted, "top 5", "5 films"; or a place in the list without a word for it, "2 and 3"."""
        found = self.match(COUNT)
        if found and found["number"] and self.cuts_title(found):  # "show me 12 Angry Men"
            found = None
        if found and self._expected and self.now.text.casefold() in ("only", "just"):  # "I liked only 2"
            found = None
        if found and found["side"] and (self._expected or JUDGED.match(self.text, found.end())):
            n = min(to_number(found["number"]), MAX_MENTIONS + 1)
            self._places(range(1, n + 1) if found["side"].casefold() == "first" else range(-n, 0), found.end())
            return True
        if found:
            self._counts(found["length"] or found["number"])
            self.skip_to(found.end())
            self.more = self.more or bool(found["next"])
            return True
        if not re.fullmatch(NUMBER, self.now.text, re.I):
            return False
        if self.only_places or self._is_place():
            self._places([to_number(self.now.text)], self.now.end)
            return True
        if not self.counted(self.at + 1):
            return False
        self._counts(self.now.text)
        self.at += 1
        return True

    def _counts(self, number: str) -> None:
        """Notes how many are wanted; a list has one length: "5 comedies and 3 dramas"."""
        if self.n not in (None, to_number(number)):
            self._not_understood(number)
            return
        self.n = to_number(number)

    def _ordinal(self) -> bool:
        """A place in the list: "the second", "#2"."""
        found = self.match(ORDINAL)
        if not found or not (found["number"] or found["one"] or self.ends_place(found)):
            return False
        nth = (found["nth"] or found["number"]).casefold()
        self._places([ORDINALS.get(nth) or int(re.sub(r"\D", "", nth))], found.end())
        return True

    def _is_place(self) -> bool:
        """Whether a bare number is a place in the list: "I've seen 1, 2 and 4"."""
        text, end = self.now.text, self.now.end
        begins = self.at == 0 or self.tokens[self.at - 1].kind == "stop"
        judged = begins and JUDGED.match(self.text, end)  # "1 was great, 2 was boring"
        asked = (self._expected or (self.explicit and self.fresh)) and self.alone(self.at + 1)
        return bool(asked or judged) and text.isdecimal() and text not in self.vocabulary.names

    def _places(self, places: Sequence[int], end: int) -> None:
        """Notes places of the list, whose words end at `end`."""
        text = self.text[self.now.start : end]
        self.skip_to(end)
        if len(self.mentions) + len(places) > MAX_MENTIONS:
            self._not_understood(text)
            return
        act: Act = "not" if self.mode == "remove" else self.act  # what stands in a list was never liked or left out
        self.mentions.extend(Reference(act, place) for place in places)
        self._listed()

    def _points_at_list(self, end: int) -> bool:
        """Whether "these", before `end`, are what is shown: "I don't like any of these films"."""
        asked = self.explicit and self.fresh and self.mode != "unseen" and not self.mentions
        words = [token.text.casefold() for token in self.tokens[max(self.at - 2, 0) : self.at]]
        some = words[1:] == ["of"] and (words[0] in SOME or re.fullmatch(NUMBER, words[0]))  # "only one of these"
        return asked and not some and self.ends(self.behind_thing(end))

    # What becomes of what is named.

    def _mode(self) -> bool:
        """Words that say what becomes of the titles and categories behind them."""
        before, start = self.tokens[self.at - 1].text if self.at else "", self.now.start
        compares = self.act == "not" and self.match(SIMILAR)  # "no films like Titanic", "I want no horror like Alien"
        stays = compares and ((self.fresh and not self.negated) or self.is_thing(before))
        if self._exception(before):
            return True
        for mode, pattern in MODES:
            if self.take(pattern):
                mode = "not" if stays else mode
                self._end_mode()
                self.mode, self.explicit, self.fresh, self.listing = mode, mode != "kinds", True, mode != "kinds"
                words = self.text[start : self.tokens[self.at - 1].end].casefold()
                self.opinion, self.prefers = OPINION.search(words) is not None, words == "prefer"
                self.similar = SIMILAR.match(words) is not None
                self._end_list()
                return True
        return False

    def _all_but(self) -> bool:
        """ "Any genre but horror", "all films but Titanic", unlike "any year but a comedy" and "any film but newer"."""
        words = [token.text.casefold() for token in self.tokens[max(self.at - 2, 0) : self.at + 1]]
        if len(words) < 3 or words[0] not in ALL or words[2] != "but":
            return False
        at = self.at + 1
        while at < len(self.tokens) and self.tokens[at].text.casefold() in ARTICLES:
            at += 1
        if at == len(self.tokens) or self.tokens[at].kind not in ("word", "quote"):
            return False
        spanned = SPAN.match(self.text, self.tokens[at].start)
        if words[1] in SPAN_WORDS:
            fits = bool(spanned)
        else:
            named = self.tokens[at].kind == "quote" or self.begins_title(at)
            fits = not spanned and (named or self.vocabulary.category(self.tokens[at].text) is not None)
        if fits:
            self.at += 1
            self._end_mode()
            self.mode, self.explicit, self.fresh, self.listing = "not", True, True, True
            self._end_list()
        return fits

    def _exception(self, before: str) -> bool:
        """ "Nothing except comedies" wants them; "no romance except Titanic" nobody can tell."""
        behind = self.act == "not" and (self.fresh or self.negated or self.is_thing(before))
        if not behind or not (found := self.match(EXCEPT)):
            return False
        if self.negated:
            self._leave_clause()
        else:
            self.skip_to(found.end())
        self._end_mode()
        return True

    def _end_mode(self) -> None:
        """What comes now is wanted, unless another mode says otherwise."""
        self.mode, self.explicit, self.negated, self.unsure, self.similar = "like", False, "", False, False

    @property
    def act(self) -> Act:
        """What becomes of what is named now."""
        return ACTS[self.mode]

    @property
    def _expected(self) -> bool:
        """Whether a mode, or "why", asks for what stands here."""
        return self.listing and (self.explicit or self.command == "why")

    @property
    def _apart(self) -> bool:
        """Whether a comma parts what comes from the title or the years that a "not" was about: "not Fargo, war"."""
        return self.negated in ("title", "year") and self.joined == ","

    # Verdicts behind what was named.

    def _refused(self) -> bool:
        """ "Horror? No.": of what was named last alone."""
        found = self.at and REFUSED.match(self.text, self.tokens[self.at - 1].end)
        if not found or not (self.at == self.ended or self._behind_kinds):
            return False
        if self._behind_kinds:
            self._against_kinds(self.kinds[-1:])
        else:
            self._judge("not", 1)
        self.skip_to(found.end())
        return True

    def _against(self) -> bool:
        """ "Fargo was boring", "horror is not for me": a verdict on the titles or categories just named."""
        pointer = self.match(POINTER)
        verdict = pointer and self.mentions and AGAINST.match(self.text, pointer.end())
        if verdict:  # "I saw Fargo, but it was boring"
            self._judge("not", 1)
            self.skip_to(verdict.end())
            return True
        if self.at != self.ended and not self._behind_kinds:
            return False
        if self.take(PRAISE):
            return True
        kinds = self._behind_kinds
        if not self.take(AGAINST):
            return False
        if kinds:
            self._against_kinds(self.kinds)
        else:
            self._judge("not", len(self.mentions) - self.listed)
        return True

    @property
    def _behind_kinds(self) -> bool:
        """Whether a category that is wanted has come last."""
        return bool(self.kinds) and self.at == self.described

    def _judge(self, act: Act, last: int) -> None:
        """Says what becomes of the `last` titles and places that were named."""
        first = max(len(self.mentions) - last, 0)
        self.mentions[first:] = [replace(mention, act=act) for mention in self.mentions[first:]]

    def _against_kinds(self, names: Sequence[str]) -> None:
        """Leaves out categories that were taken as wanted."""
        self.without += names
        self._take_back(names)

    def _take_back(self, names: Sequence[str]) -> None:
        """Wants categories no more."""
        self.only = [left for group in self.only if (left := [name for name in group if name not in names])]
        self.kinds = []

    def _retracts(self) -> bool:
        """ "A comedy, no, a drama", "the 80s, I mean the 90s": what comes stands for what was said of the same sort."""
        found = self.match(RETRACTS)
        at = sum(token.start < found.end() for token in self.tokens) if found else 0
        while at < len(self.tokens) and self.tokens[at].text.casefold() in ARTICLES:
            at += 1
        if not found or at == len(self.tokens):
            return False
        if self.kinds and self.vocabulary.category(self.tokens[at].text):
            self._take_back(self.kinds)
        elif self.spans and any(pattern.match(self.text, self.tokens[at].start) for pattern, _ in MEANINGS):
            self.spans.clear()
        else:
            return False
        self.skip_to(found.end())
        self.joined = ""
        return True

    # Filters.

    def _categories(self) -> bool:
        """One category of up to three words: wanted, left out, or named by no filter any more."""
        for length in (3, 2, 1):
            words = self.tokens[self.at : self.at + length]
            if len(words) < length or any(
                word.kind != "word" or word.text in ("&", "or") or word.text[0] in FROWNS for word in words
            ):
                continue
            phrase = self.text[words[0].start : words[-1].end]
            if phrase.casefold() in CARRY_NOTHING or not (name := self.vocabulary.category(phrase)):
                continue
            if self.negated == "category" and words[0].text.casefold() in ("a", "an") and self.joined != "or":
                self._end_mode()  # "not a comedy, a drama"
                self.unsure = not self.joined or self.or_a_category()  # "I don't want a comedy, a drama or a western"
            if self.unsure:
                self._not_understood(phrase)
            elif self.mode == "remove" and not self._apart:
                self.dropped.append(name)
                self.negated = "category"
            elif self.act == "not" and not self._apart:
                self.without.append(name)
                self.negated = "category"
            else:
                if self.only and self.joined in ("or", ","):
                    self.only[-1].append(name)
                else:
                    self.only.append([name])
                self.kinds.append(name)
            self.at += length
            self.joined, self.listing, self.described = "", False, self.at
            return True
        return False

    def _filter(self) -> bool:
        """The word behind what shall be removed: "the comedy filter"."""
        return self.mode == "remove" and bool(self.negated) and self.take(FILTER) is not None

    def _lift(self) -> bool:
        """ "Any year", "no filters"."""
        for what, pattern in LIFTS:
            if self.take(pattern):
                self.lift += what
                return True
        return False

    def _years(self) -> bool:
        """A year, a decade, a range, or what lies before or after."""
        if self._names_year():
            return False
        for pattern, meaning in MEANINGS:
            found = self.match(pattern)
            if found and not self.cuts_title(found) and (years := meaning(found)):
                end = found.end()
                if None not in years and (tail := OPEN_END.match(self.text, end)):
                    years = (years[0], None) if tail["later"] else (None, years[1])
                    end = tail.end()
                self._spanned(years, self.text[self.now.start : end])
                self.skip_to(end)
                return True
        return False

    def _names_year(self) -> bool:
        """Whether a bare year stands where the mode asks for a title: "I liked 1984"."""
        before = self.tokens[self.at - 1].text.casefold() if self.at else ""
        asked = self.explicit and self.mode == "like" and (self.fresh or (self.listing and before in ("and", "&")))
        return asked and self.alone(self.at + 1) and re.fullmatch(YEAR, self.now.text) is not None

    def _spanned(self, years: Years, text: str) -> None:
        """Notes years; behind a "not" their opposite, where that is one span, too."""
        if self.mode == "remove" and not self._apart:
            self.lift.append("year")
            self.negated, self.joined = self.negated or "year", ""
            return
        if self.act == "not" and self.negated != "category" and not self._apart:
            self.negated, self.joined = self.negated or "year", ""
            first, last = years
            if first is not None and last is not None:
                self._not_understood(text)
                return
            years = (None if last is None else last + 1, None if first is None else first - 1)
        self.spans.append((years, text))

    def _in_all(self) -> Years | None:
        """The years of the whole message: from the first to the last span, within every half-open one."""
        whole = [years for years, _ in self.spans if None not in years]
        within = [years for years, _ in self.spans if None in years]
        if whole:
            firsts, lasts = zip(*whole, strict=True)
            within.append((min(firsts), max(lasts)))
        first = max((years[0] for years in within if years[0] is not None), default=None)
        last = min((years[1] for years in within if years[1] is not None), default=None)
        if first is not None and last is not None and first > last:  # "before 1990 or after 2000" is no one span
            self.unknown.extend(text for _, text in self.spans)
            return None
        return (first, last) if within else None

    # What else a message says.

    def _more(self) -> bool:
        """Asks for the list to go on, where the message asks for nothing else."""
        if not self.take(MORE):
            return False
        self.more, self.listing = True, False
        if self.negated:  # "less action, more drama"
            self._end_mode()
        return True

    def _why(self) -> bool:
        """Asks for reasons; a place in the list may follow."""
        if not self.take(WHY):
            return False
        self.command, self.listing = "why", True
        return True

    def _corrects(self) -> bool:
        """ "No, I meant Heat": of what was said before this message."""
        found = self.match(CORRECTS)
        if not found:
            return False
        if self.mentions or self.only or self.without or self.spans:  # "I liked Heat, no, I meant the old one"
            self._leave_clause()
        else:
            self.skip_to(found.end())
            self._end_mode()
            self.corrects = self.explicit = self.fresh = self.listing = True
        return True

    def _stop(self) -> bool:
        """A mark: what is no comma ends a mode, a comma may part a list.  Or a year in parentheses behind no title."""
        if self.now.kind == "word":
            return False
        if self.now.kind == "dated":
            of_kind = self.at in (0, self.described) or self.describes(self.at + 1)
            if of_kind and self.match(SPAN):  # "a comedy (1990)"
                return False
            self._not_understood(self.now.text)
            self.at += 1
            return True
        if self.now.text == "(" and self.fresh:  # "not (Titanic)"
            self.at += 1
            return True
        if self.now.text != "," or self.mode == "instead":
            self._end_mode()
            self.listing = True
            self._end_list()
        else:
            self.listing, self.joined, self.fresh = self.at == self.ended, self.joined or ",", False
        self.at += 1
        return True

    def _nothing(self) -> bool:
        """Words that carry nothing, but may end a list of titles, or a "not"."""
        word = self.now.text.casefold()
        if self.is_thing(word):
            self.described = self.at + 1
        elif word not in CARRY_NOTHING:
            return False
        if word in OPENS and (self.negated or word == "but"):
            self._end_mode()
        if word in POINTS and self.fresh and self.act == "not" and self.alone(self.at + 1):
            self.negated, self.joined = "title", ""  # "I hated it, show me a drama"
        if word in POINTS and self.fresh and self.opinion and self.ends(self.behind_thing(self.at + 1)):
            many = word in ("them", "these", "those", "both")  # "I saw Fargo and hated it"
            self._judge(self.act, len(self.mentions) - self.named if many else 1)
        if word in POINTS and self._points_at_list(self.at + 1):
            act: Act = "not" if self.mode == "remove" else self.act
            if word in ("it", "this", "that"):
                self.points = act
            elif word in ("them", "these", "those"):
                self.mentions.append(Reference(act, None))
                self.fresh = False
        if word == "or":
            self.joined = "or"
        self.wants = self.wants or (word in WANTS and self.act != "not")
        if word in ("and", "or", "&"):
            self.listing = self.listing or self.at == self.ended
        elif word not in ARTICLES:
            self.listing, self.explicit = False, self.explicit and self.fresh
            self._end_list()
        self.at += 1
        return True

    # What is no wish, or not understood.

    def _aside(self) -> bool:
        """What says nothing about what somebody liked: "I'd like" asks, "no," answers, "last night" tells when."""
        return self.take(ASIDE) is not None

    def _question(self) -> bool:
        """A sentence that asks about a film, which nothing here answers: what it names is not liked by it."""
        begins = self.at == 0 or self.tokens[self.at - 1].text in SENTENCE_ENDS
        if not begins or not (self.match(ASKS) or self.asks_for_title()):
            return False
        end = self.at
        while end < len(self.tokens) and self.tokens[end].text not in SENTENCE_ENDS:
            end += 1
        self._leave(end)
        return True

    def _others(self) -> bool:
        """What somebody else likes, up to the end of the clause or of its list of titles."""
        if not self.match(OTHERS):
            return False
        end = self.at + 1
        while end < len(self.tokens) and self.tokens[end].text.casefold() not in (*SENTENCE_ENDS, "but", "i", "we"):
            if self.tokens[end].text == "," and not self.begins_title(end + 1):
                break
            end += 1
        while self.tokens[end - 1].text.casefold() in JOINS:
            end -= 1
        self.others.append(self.between(self.at, end))
        self.at = end
        self._end_mode()
        self._end_list()
        return True

    def _compares(self) -> bool:
        """ "Fargo more than Heat", "I prefer comedies to dramas", "I didn't like Fargo as much as Heat": what
        follows is neither liked nor unwanted."""
        behind = self.at and (self.at in (self.ended, self.described) or self.tokens[self.at - 1].text in ("is", "was"))
        found = behind and self.match(COMPARES)
        if not found or (found["prefers"] and not self.prefers) or (found["as"] and self.act != "not"):
            return False
        self._leave_clause()
        return True

    def _unclear(self) -> bool:
        """ "Don't skip Fargo": up to the end of the clause nobody can tell what is wanted."""
        return self._leaves_clause(UNCLEAR)

    def _averse(self) -> bool:
        """ "Ban horror": words that are no mode, behind which nothing is wished for; said rather than guessed."""
        return self._leaves_clause(AVERSE)

    def _leaves_clause(self, pattern: re.Pattern[str]) -> bool:
        if not self.match(pattern):
            return False
        self._leave_clause()
        return True

    def _leave_clause(self) -> None:
        """Takes the rest of the clause as not understood."""
        self._leave(self.clause_end(self.at + 1))

    def _leave(self, end: int) -> None:
        """Takes the words before token `end` as not understood."""
        self._not_understood(self.between(self.at, end))
        self.at = end

    def _not_understood(self, text: str) -> None:
        """Notes what was not understood; no list of titles goes on behind it."""
        self.unknown.append(text)
        self._end_list()
