"""A place in a message: its words, what stands there and where it ends.  Nothing here says what is wanted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from llmrec.data.names import MAX_LOOKED, Found, look_up, plain
from llmrec.dialogue.vocabulary import Vocabulary
from llmrec.dialogue.words import (
    ABBREVIATED,
    AGAINST,
    ASIDE,
    BEHIND_PLACE,
    CARRY_NOTHING,
    COUNT,
    COUNTED,
    FROWNS,
    HAVE,
    JOINS,
    MODES,
    NUMBER,
    PRAISE,
    REFUSED,
    SEQUEL,
    UNCLEAR,
)
from llmrec.dialogue.years import BOUND, OPEN_END, RANGE, SPAN, YEAR

LONGEST_NAME = 16  # words of a title that are compared at once
TOKEN = re.compile(
    r'["“«](?P<quote>[^"”»]*)["”»]|(?P<dated>\(\s*\d{4}\s*\))|(?P<word>[^\s,;!?()"“”«»]+)|(?P<stop>[,;!?()])'
)


@dataclass(frozen=True)
class Token:
    """A word or a mark of a message, and where in its text it stands."""

    kind: str
    """`word`, `quote` (what stands in quotes), `dated` ("(1996)") or `stop` (what ends a sentence or a part of it)."""
    text: str
    start: int
    end: int


class Cursor:
    """The place that is reached in a message, from which its words are looked at."""

    def __init__(self, text: str, vocabulary: Vocabulary):
        self.text, self.vocabulary = text, vocabulary
        self.tokens = list(_tokens(text))
        self.at = 0
        self.title_end = lru_cache(maxsize=None)(self._title_end)
        self.looked: dict[tuple[str, bool], Found] = {}

    @property
    def now(self) -> Token:
        """The token that is reached."""
        return self.tokens[self.at]

    @property
    def like_name(self) -> bool:
        """Whether the word is written like a name within a sentence."""
        before = self.tokens[self.at - 1] if self.at else None
        inside = before is not None and (before.kind == "word" or before.text == ",")
        return inside and self.now.text[:1].isupper()

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Whether what stands here begins as the pattern says."""
        return pattern.match(self.text, self.now.start)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The same; goes behind what matches."""
        if found := self.match(pattern):
            self.skip_to(found.end())
        return found

    def skip_to(self, position: int) -> None:
        """Goes to the first token that begins at a position of the text or behind it."""
        while self.at < len(self.tokens) and self.tokens[self.at].start < position:
            self.at += 1

    def between(self, first: int, end: int) -> str:
        """The text from token `first` to before token `end`."""
        return self.text[self.tokens[first].start : self.tokens[end - 1].end]

    def is_thing(self, word: str) -> bool:
        """Whether a word is what the catalog's items are called, "films", or a category."""
        return plain(word) in self.vocabulary.things or self.vocabulary.category(word) is not None

    def behind_thing(self, at: int) -> int:
        """Where "that film" ends, whose thing, if any, is token `at`."""
        return at + (at < len(self.tokens) and plain(self.tokens[at].text) in self.vocabulary.things)

    def describes(self, end: int) -> bool:
        """Whether the words before `end` say of what kind something shall be: "dark" of "I love dark comedies"."""
        kind = end < len(self.tokens) and self.tokens[end].kind == "word" and self.is_thing(self.tokens[end].text)
        return kind and not self.now.text[:1].isupper()

    def counted(self, at: int) -> bool:
        """Whether a number before token `at` says how many are wanted."""
        follows = self.tokens[at] if at < len(self.tokens) else None
        return follows is not None and (self.is_thing(follows.text) or bool(COUNTED.match(self.text, follows.start)))

    def alone(self, end: int) -> bool:
        """Whether the words before `end` are a part of a list or all there is."""
        follows = self.tokens[end] if end < len(self.tokens) else None
        return follows is None or follows.kind != "word" or follows.text.casefold() in ("and", "&", "or", "but")

    def ends(self, end: int) -> bool:
        """Whether they are alone, or a year, a verdict, or words that carry nothing follow: "Fargo was great"."""
        while end < len(self.tokens) and not self.alone(end):
            word = self.tokens[end]
            if REFUSED.match(self.text, self.tokens[end - 1].end) or any(
                pattern.match(self.text, word.start) for pattern in (AGAINST, PRAISE, ASIDE)
            ):
                return True
            if word.text.casefold() not in CARRY_NOTHING and not re.fullmatch(YEAR, word.text):
                return False
            end += 1
        return True

    def clause_end(self, at: int) -> int:
        """Where the words from token `at` end: at a comma, a stop or "but"."""
        while at < len(self.tokens) and self.tokens[at].kind == "word" and self.tokens[at].text.casefold() != "but":
            at += 1
        return at

    def or_a_category(self) -> bool:
        """Whether the sentence goes on with "or" and a category."""
        for at in range(self.at, len(self.tokens) - 1):
            if self.tokens[at].kind != "word" and self.tokens[at].text != ",":
                break
            ends = range(at + 2, min(at + 4, len(self.tokens)) + 1)
            if self.tokens[at].text.casefold() == "or" and any(
                self.vocabulary.category(self.between(at + 1, end)) for end in ends
            ):
                return True
        return False

    @property
    def only_places(self) -> bool:
        """Whether the message is nothing but places in the list: "2", "1 3", "2, 3 and 5"."""
        words = [word for token in self.tokens if (word := token.text.casefold()) not in (",", "and", "or", "&")]
        titles = {word for word in words if word in self.vocabulary.names and not re.fullmatch(r"\d\d?", word)}
        return not titles and all(re.fullmatch(NUMBER, word) for word in words)

    def ends_place(self, found: re.Match[str]) -> bool:
        """Whether what follows an ordinal makes it a place in the list, unlike "the first Godfather"."""
        follows = next((token for token in self.tokens[self.at :] if token.start >= found.end()), None)
        if follows is None or follows.kind != "word":  # "First, a comedy" begins to tell
            return self.at > 0 or follows is None or follows.text != "," or bool(found["the"])
        if plain(follows.text) in self.vocabulary.things:
            return True
        ends = [BEHIND_PLACE, AGAINST, PRAISE, RANGE, BOUND, SPAN]
        if found["the"] and not follows.text.casefold().startswith("favo"):
            ends += [pattern for _, pattern in MODES]
        return any(pattern.match(self.text, follows.start) for pattern in ends)

    def begins_title(self, at: int) -> bool:
        """Whether a title begins at token `at`; a word that carries nothing is none alone."""
        if at == len(self.tokens):
            return False
        return self.title_end(at, 2 if self.tokens[at].text.casefold() in CARRY_NOTHING else 1) > 0

    def _title_end(self, first: int, least: int) -> int:
        """Where the longest title to the letter from `first` ends that has `least` words or more; 0 for none."""
        if self.tokens[first].kind != "word":
            return 0
        for end in range(min(len(self.tokens), first + LONGEST_NAME), first, -1):
            key = plain(self.between(first, end))
            if self.tokens[end - 1].kind == "word" and len(key.split()) >= least and key in self.vocabulary.names:
                while end - 1 > first and plain(self.between(first, end - 1)) == key:
                    end -= 1  # "Heat, a" is Heat, too
                return end
        return 0

    def title_behind(self, end: int) -> int:
        """Where a title of two words or more begins, only words that carry nothing before it; 0 for none."""
        while end < len(self.tokens) and self.tokens[end].kind == "word":
            word = self.tokens[end].text.casefold()
            if word in JOINS:
                break
            if self.title_end(end, 2):
                return end
            if word not in CARRY_NOTHING:
                break
            end += 1
        return 0

    def cuts_title(self, found: re.Match[str]) -> bool:
        """Whether a match ends within a title of two words or more: "in 2001" of "Hal in 2001: A Space Odyssey"."""
        at = self.at + 1
        while at < len(self.tokens) and self.tokens[at].start < found.end():
            if (end := self.title_end(at, 2)) and self.tokens[end - 1].end > found.end():
                return True
            at += 1
        return False

    def asks_for_title(self) -> bool:
        """ "Do you have Heat?" """
        found = self.match(HAVE)
        return found is not None and self.begins_title(sum(word.start < found.end() for word in self.tokens))

    def run_end(self, first: int, named: bool = False) -> int:
        """Where the words that are no grammar end; words that carry nothing may stand between, not at the end.

        A title of two words or more ends them, unless they begin with it.

        Args:
            named: a category that is written like a name is one of the words, as in "Rocky Horror".
        """
        end = last = self.title_end(first, 2) or first + 1
        while end < len(self.tokens) and self.tokens[end].kind == "word":
            word, start = self.tokens[end].text.casefold(), self.tokens[end].start
            category = self.vocabulary.category(word) and not (named and self.tokens[end].text[:1].isupper())
            if word in JOINS or category or self.title_end(end, 2):
                break
            if any(p.match(self.text, start) for p in (RANGE, BOUND, SPAN, COUNT, UNCLEAR, *(p for _, p in MODES))):
                break
            end += 1
            if word not in CARRY_NOTHING:
                last = end
        return last

    def longer_ends(self, end: int) -> list[int]:
        """Ends of longer runs, joined by "and" or a comma, or ended by a title, longest first: "Beuty and the Beast" is
        one title, and "Retrun of the Pink Panther" not "The Pink Panther"."""
        ends: list[int] = []
        for _ in range(2):
            joined = end + 1 < len(self.tokens) and self.tokens[end].text.casefold() in ("and", "&", ",")
            if not (first := end + 1 if joined else self.title_behind(end)):
                break
            ends.extend({end := self.run_end(first), self.title_end(first, 2) or end})
        return sorted(ends, reverse=True)

    def sequel_end(self, title: str, end: int) -> int:
        """Where the number ends that makes a title, which ends at `end`, another one; 0 for none."""
        if end == len(self.tokens) or self.is_year_of(title, self.tokens[end].text) or self.title_end(end, 2):
            return 0
        start = self.tokens[end].start
        found = SEQUEL.match(self.text, start)
        if not found or RANGE.match(self.text, start) or OPEN_END.match(self.text, found.end()):
            return 0
        further = next((at + 1 for at in range(end, len(self.tokens)) if self.tokens[at].end == found.end()), 0)
        if not further or self.counted(further):  # "like Fargo 5 comedies"
            return 0
        subtitle = self.text[found.end() :].startswith(": ") and further < len(self.tokens)
        return self.run_end(further, named=True) if subtitle else further

    def look_up(self, name: str, *, near: bool = True) -> Found | None:
        """What a name may mean.  None for one that is no title to the letter, once `MAX_LOOKED` of a message's have
        been compared with all titles."""
        if plain(name) in self.vocabulary.names:
            return look_up(name, self.vocabulary.catalog, near=near)
        if (name, near) not in self.looked:
            if len(self.looked) == MAX_LOOKED:
                return None
            self.looked[name, near] = look_up(name, self.vocabulary.catalog, near=near)
        return self.looked[name, near]

    def is_year_of(self, name: str, text: str) -> bool:
        """Whether a bare number behind a name is its year: "Heat 1995"."""
        if not re.fullmatch(YEAR, text):
            return False
        found = self.look_up(f"{name} ({text})", near=False) or Found(())
        return any(self.vocabulary.catalog.year[item] == int(text) for item in found.items)

    def from_year(self, name: str, at: int) -> str:
        """The year of "from 1996" at a token, where it is the named title's own."""
        words = [token.text for token in self.tokens[at : at + 2]]
        return words[1] if len(words) == 2 and words[0] == "from" and self.is_year_of(name, words[1]) else ""

    def is_part(self, word: str, item: int) -> bool:
        """Whether a word in small letters is one of a title's words, and no title itself."""
        key = plain(word)
        parts = plain(self.vocabulary.catalog.title[item]).split()
        return word.islower() and key in parts and key not in self.vocabulary.names


def _tokens(text: str) -> Iterator[Token]:
    """A message's tokens; a word keeps neither the stop behind it nor marks that say nothing."""
    for found in TOKEN.finditer(text):
        kind = found.lastgroup or ""
        start, end = found.span(kind)
        if kind != "word":
            yield Token(kind, found[kind], start, end)
            continue
        kept = found[kind].rstrip(".:…")
        if kept in ("+", "/"):  # "Heat + Fargo"
            yield Token("word", "&" if kept == "+" else "or", start, start + 1)
        elif plain(kept) or kept == "&" or kept.startswith("#") or kept[0:1] in {*FROWNS}:
            yield Token("word", kept, start, start + len(kept))
        if len(kept) < len(found[kind]) and found[kind].endswith(".") and kept.casefold() not in ABBREVIATED:
            yield Token("stop", ".", start + len(kept), end)
