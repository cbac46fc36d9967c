"""Reviews as grounds of explanations: their sentences, the features they speak of, the sentence that explains best.

Features and the choice of a sentence know English function words; with other languages they fall back on counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from llmrec.data.records import one_line, paragraphs

MAX_SENTENCE_CHARS = 300  # longer sentences explain nothing
MIN_WORDS, MAX_WORDS = 4, 30  # of a sentence that explains
MIN_WORD, MAX_WORD = 3, 30  # characters of a feature's words
RARE = 3.0  # idf from which a feature counts no more: one that few items have is often a slip of the pen

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# After . ! ? and what closes a quotation, before white space or, where people forgot it, a capital letter.  A run of
# them is tried from its start only: from every place in it, 20,000 dots took a minute.
_END = re.compile(r"(?:(?<![.!?…])[.!?…]+[\"'”’)\]]*(?=\s|$)|(?<=[a-z)])[.!?]+(?=[A-Z][a-z' ])|[。！？]+)")
_NO_END = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|approx|no|vol|inc|ltd|co|dept|fig|e\.g|i\.e|a\.k\.a)|\b[A-Za-z])\.$", re.I
)
_MARKUP = re.compile(r"https?://|www\.|<[^>]*>|&[a-z]+;|[{}|\\<>]", re.I)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_FIRST_PERSON = _set("i i'm i've i'd i'll me my mine myself we we're we've we'd we'll us our ours ourselves")
_PRONOUNS = _set("i you he she it we they who to not don't didn't can't won't will would can could should")
_BEFORE_NOUNS = _set("the a an this that these those its his her their our my your of with no some any")
_BEFORE_ADJECTIVES = _set("is are was were be been it's they're very so too more most really pretty quite as")
_OPINIONS = _set(
    "good great nice bad best better poor excellent amazing awesome perfect fantastic wonderful terrible horrible love "
    "loved cheap cheaper decent fine solid really very pretty so too super easy little big small other same new old "
    "only whole first second last real right long short high low many few different couple bit lot own next main "
    "huge overall entire full extra most more less much such several beautiful happy nicer simple quick worth"
)
FUNCTION = _set(
    "a about above after again against all almost alone along already also although always am an and another any "
    "anyone anything are aren't around as at away back be because been before being below between both but by came "
    "can can't cannot come could couldn't did didn't do does doesn't doing don't done down during each either else "
    "enough even ever every everyone everything except far for found from further gave get gets getting give go goes "
    "going gone got had hadn't has hasn't have haven't having he her here hers him his how however i i'd i'll i'm "
    "i've if in into is isn't it it's its itself just keep kind know left let like likely made make makes making may "
    "maybe me might mine must my myself need needs neither never no nobody none nor not nothing now of off often on "
    "once one ones onto or our ours out over own per perhaps put quite rather said same say see seem seems she should "
    "shouldn't since so some someone something somewhere sort still such sure take takes than thank thanks that "
    "that's the their theirs them then there there's these they they're thing things think this those though thought "
    "three through to together took too toward tried try two under unless until up upon us use used using usually "
    "want wanted was wasn't way we well went were weren't what what's when where whether which while who whole whose "
    "why will with within without won't would wouldn't yet you you'd you'll you're your yours year years month months "
    "week weeks day days time times today yesterday bit lot stuff anyway actually definitely probably please yes ok "
    "okay im ive dont doesnt didnt isnt wasnt cant wont etc amazon review reviews reviewer star stars buy bought "
    "buying purchase purchased purchasing order ordered ordering arrived arrive shipped shipping return returned "
    "recommend recommended half part end rest reason problem problems issue issues fact idea guy guys people person "
    "wife husband son daughter friend friends money dollars bucks number boy kinds others plus "
    "various deal"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, each on one line and without control characters; the longest are clipped at
    300 characters."""
    found = []
    for line in paragraphs(text).split("\n"):
        start = 0
        for end in _END.finditer(line):
            if not _NO_END.search(line[max(start, end.start() - 12) : end.end()]):
                found.append(line[start : end.end()])
                start = end.end()
        found.append(line[start:])
    return [sentence for sentence in (one_line(one, MAX_SENTENCE_CHARS) for one in found) if sentence]


@dataclass(frozen=True)
class Features:
    """What the reviews of a domain speak of, most widespread first, and how telling each is of an item."""

    idf: dict[str, float]
    """Feature (one or two words, lower case) → log(items / items whose reviews name it), at least 0."""

    @classmethod
    def of(cls, reviews: Iterable[str], items: Iterable[str], *, most: int = 1000, min_reviews: int = 5) -> Features:
        """Noun-like words and pairs of words that at least `min_reviews` reviews name, the `most` widespread; `items`
        says whose review each is.  Give it training reviews only.

        A word is noun-like where it often follows `the`, `this`, `of` … and more seldom `I`, `to`, `is`, `very` …; a
        pair is where its second word is, and both meet ten times as often as by chance.
        """
        named: dict[str, set[int]] = defaultdict(set)  # candidate → reviews
        of_item: list[str] = []
        times: Counter[str] = Counter()
        as_noun: Counter[str] = Counter()
        as_other: Counter[str] = Counter()
        total = 0
        for number, (review, item) in enumerate(zip(reviews, items, strict=True)):
            of_item.append(item)
            for sentence in sentences(review):
                before = ""
                for word in _words(sentence):
                    total += 1
                    times[word] += 1
                    if _candidate(word):
                        named[word].add(number)
                        as_noun[word] += before in _BEFORE_NOUNS or before in _OPINIONS
                        as_other[word] += before in _PRONOUNS or before in _BEFORE_ADJECTIVES
                        if _candidate(before):
                            pair = f"{before} {word}"
                            named[pair].add(number)
                            times[pair] += 1
                    before = word
        nouns = {word for word in named if as_noun[word] > max(as_other[word], 0.15 * times[word])}
        chosen = []
        for name, where in named.items():
            first, _, second = name.partition(" ")
            if len(where) < min_reviews or (second or first) not in nouns:
                continue
            if second and times[name] * total < 10 * times[first] * times[second]:
                continue
            chosen.append(name)
        chosen.sort(key=lambda name: (-len(named[name]), name))
        count = len(set(of_item))
        return cls({
            name: math.log(count / len({of_item[number] for number in named[name]})) for name in chosen[:most]
        })  # fmt: skip

    def named(self, text: str) -> list[str]:
        """The features that `text` names, each once, in order; of a pair not its words."""
        found, said, at = [], _words(text), 0
        while at < len(said):
            pair = " ".join(said[at : at + 2])
            if at + 1 < len(said) and pair in self.idf:
                found.append(pair)
                at += 2
                continue
            if said[at] in self.idf:
                found.append(said[at])
            at += 1
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Reason:
    """A sentence of a review that says why, and the features it names, most telling first."""

    sentence: str
    features: tuple[str, ...]


def reason(review: str, features: Features) -> Reason | None:
    """The sentence of `review` that explains best; None where none names a feature.

    It has 4 to 30 words, asks nothing, holds no markup, and is not about the writer: each `I`, `my`, `we` … costs 1,
    where a feature gives 1 + idf (at most 4) and the three most telling count.  Of equals the first.
    """
    best, most = None, 0.0
    for sentence in sentences(review):
        said = _words(sentence)
        if not MIN_WORDS <= len(said) <= MAX_WORDS or len(sentence) == MAX_SENTENCE_CHARS:
            continue
        if sentence.endswith("?") or _MARKUP.search(sentence) or sentence.isupper():
            continue
        named = sorted(features.named(sentence), key=lambda name: -features.idf[name])
        weight = sum(1 + min(features.idf[name], RARE) for name in named[:3])
        weight -= sum(word in _FIRST_PERSON for word in said)
        if named and weight > most:
            best, most = Reason(sentence, tuple(named)), weight
    return best


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def _candidate(word: str) -> bool:
    return (
        MIN_WORD <= len(word) <= MAX_WORD
        and word not in FUNCTION
        and word not in _OPINIONS
        and not word.endswith("ly")
        and word.isalpha()
    )
