"""What a message asks for: a small grammar over the catalog's own titles and categories.

    something like Fargo but a comedy from the 90s, -n 5        not Heat        more like the second        why this?

Words are read from left to right.  A mode (like, not, forget) says what becomes of the titles and categories behind
it; what is neither grammar nor a title nor a word that carries nothing is handed back as not understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from rapidfuzz import fuzz

from llmrec.data.catalog import Catalog
from llmrec.data.names import ARTICLES, Found, look_up, plain, spellings
from llmrec.data.records import one_line

Act = Literal["like", "not", "forget"]
Command = Literal["ask", "more", "why", "undo", "yes", "cancel", "reset", "history", "taste", "help", "quit"]
Years = tuple[int | None, int | None]  # first and last, None where open

MAX_MESSAGE = 2000  # characters
MAX_MENTIONS = 20  # titles of one message
MAX_OPTIONS = 10  # items that one name may mean
LONGEST_NAME = 16  # words of a title that are compared at once
ALIKE = 88.0  # likeness, 0 to 100, from which a misspelt category is taken


def _words(text: str) -> list[str]:
    return text.split()


FROWNS = "👎🙁☹😞😠😡🤢🤮💩😒"  # of all that is no letter, what says the opposite of a name alone
NUMBERS = {word: i for i, word in enumerate(_words("one two three four five six seven eight nine ten eleven"), 1)}
NUMBERS |= {"dozen": 12, "twelve": 12, "fifteen": 15, "twenty": 20, "fifty": 50, "hundred": 100}
ORDINALS = {
    word: i for i, word in enumerate(_words("first second third fourth fifth sixth seventh eighth ninth tenth"), 1)
}
ORDINALS |= {"last": -1}
DECADES = {
    word: 1920 + 10 * i for i, word in enumerate(_words("twenties thirties forties fifties sixties seventies eighties"))
}
DECADES |= {"nineties": 1990, "noughties": 2000}
CARRY_NOTHING = frozenset(_words(
    """a an the i i'm i've im ive me my mine we us you your it its he she they them this that these those there here
    is are was were am be been do does did have has had can could would will should may might shall let lets let's
    please thanks thank hi hello hey ok okay yes yeah well so then now just only really very quite rather also too
    maybe perhaps instead again actually some something anything everything any all of for with in on at by from
    about as to up out what what's which who when where how give show tell find get list recommend recommendation
    recommendations suggest suggestion suggestions want wanna need looking look try watch see pick choose good great
    nice best better fantastic awesome cool interesting else other others another one ones thing things stuff kind
    kinds sort sorts type types genre genres both either category categories made released came era year years time
    title titles result results item items yet already and or but & than most much many few if feel feeling mood
    tonight bit lot lots make plus version preferably ideally today into similar surprise"""
))  # fmt: skip
ABBREVIATED = frozenset(_words("dr mr mrs ms st vs no nr jr sr"))  # their full stop ends no sentence
JOINS = frozenset(_words("and & or but because"))
WANTS = frozenset(
    _words("recommend suggest show give watch find pick choose surprise something anything any what next")
)
SOME = frozenset(_words("some many most few several half part"))
POINTS = frozenset(_words("it this that these those them both one ones"))  # at something that was not named
OPENS = frozenset(_words("a an some something anything want give show only just but instead rather"))  # ends a "not"

_NUMBER = r"(?:\d{1,3}|" + "|".join(NUMBERS) + r")\b(?!['’]?s\b)"
_DO_NOT = r"(?:do|did|does)(?:n['’]?t| not)"
_NOT = (
    rf"(?:i )?(?:{_DO_NOT}|would not|wouldn['’]?t|never)(?: really| much)? (?:liked?|loved?|want|enjoy(?:ed)?|show|"
    r"need|care for|recommend|give|suggest|find|see|watch)(?: me)?|not (?:at all )?like|(?:nothing|less) like|unlike|"
    r"(?:something |anything |much )?better than|"
    r"(?:not|no|never) (?:a |an )?(?:big |great |huge )?fans? of|can(?:['’]?t|not) stand|"
    r"(?:tired|sick|bored) (?:of|with)|fed up with|had it with|(?<!get )(?<!not )enough(?: of)?|done with|"
    r"(?:is|are|was|were)n['’]?t|none of|stop (?:recommending|suggesting|showing|giving|finding)(?: me)?|"
    r"but not(?! (?:too|so|very)\b)|(?:everything|anything|all) but|not(?! (?:too|so|very)\b)|"
    r"no more|no|without|except(?: for)?|(?:apart|aside) from|other than|"
    r"neither(?: (?:really )?(?:liked?|loved?|enjoy(?:ed)?))?|nor|"
    r"hate[ds]?|dislike[ds]?|skip|exclude|ignore|hide|leave out|avoid"
)
_KINDS = r"(?:but )?not (?:too|so|very)|nothing(?! better than)|less|fewer|too (?:many|much)(?! times)"
_SIMILAR = r"(?:something |anything |more |much )?(?:like|similar to|in the (?:vein|style|spirit) of)"
_LIKE = (
    rf"{_SIMILAR}|"
    r"(?:can(?:['’]?t|not| not)|never) get enough of|nothing better than|"
    r"liked|loved?|enjoy(?:ed)?|adore[ds]?|watched|saw|seen|likes|(?:big |great |huge )?fans? of|"
    r"favou?rites?(?: is| are)?|prefer|such as|add|include"
)
_REMOVE = r"forget(?: about)?|remove|delete|drop|take (?:out|away)"
_UNSEEN = (
    r"(?:have not|haven['’]?t|never|not)(?: yet| ever)? (?:seen|watched)|never saw|"
    r"(?:i )?(?:did not|didn['’]?t) (?:see|watch)"
)
Mode = Literal["remove", "unseen", "not", "kinds", "instead", "like"]
ACTS: dict[Mode, Act] = {
    "remove": "forget", "unseen": "forget", "not": "not", "kinds": "not", "instead": "not", "like": "like",
}  # fmt: skip
_MODES: dict[Mode, str] = {
    "remove": _REMOVE,  # what shall count no more, filters as well
    "unseen": _UNSEEN,
    "not": _NOT,
    "kinds": _KINDS,  # "less scary" asks for no title
    "instead": r"instead of|rather than",  # a comma ends it: "instead of comedy, drama"
    "like": _LIKE,
}
EXCEPT = re.compile(r"(?:except|unless|besides|(?:apart|aside) from|other than)(?: for)?\b", re.I)
SIMILAR = re.compile(rf"{_SIMILAR}\b", re.I)
MODES = [(mode, re.compile(rf"(?:{words})\b", re.I)) for mode, words in _MODES.items()]
UNCLEAR = re.compile(  # a "not" before a "not" is no "not", but no "like" either
    rf"{_DO_NOT}(?: really| even)? (?:{_REMOVE}|hate|dislike|mind|skip|exclude|ignore|hide|leave out|avoid)\b|"
    rf"{_DO_NOT}(?: really)? (?:think|believe|remember|know|suppose)\b|not (?:so |quite )?sure\b|"
    r"(?:i )?(?:wish|thought|expected|hoped?(?! for))\b|not enough\b|hate[sd]? (?:it )?(?:when|if|how)\b|"
    r"not (?:only|just|necessarily)\b",
    re.I,
)
_SO = r"(?: (?:so|very|really|just|too|quite|rather|that|at all))*"
_WORSE = r"(?:bad|awful|boring|terrible|horrible|dull|stupid|overrated|disappointing|rubbish)\b"
_BAD = rf"{_SO} {_WORSE}"
AGAINST = re.compile(
    rf"(?:was|is|were|are)(?:(?:n['’]?t| not)\b(?!{_BAD}| (?:only|just)\b)|{_BAD})|bored me\b|suck(?:s|ed)?\b|{_WORSE}",
    re.I,
)
OPINION = re.compile(r"lik|lov|enjoy|ador|care|hate|stand|fan|tired|sick|bored")  # of a mode's words
POINTER = re.compile(r"(?:it|that|this|they|both)\s+", re.I)
REFUSED = re.compile(  # "horror? no thanks", "Fargo - no", read from the end of what is refused
    rf"\s*[?:–-]?\s*(?:(?:no|nope|nah)(?: (?:thanks|thank you|way))?\b(?=\s*(?:$|[.!?,;]))|[{FROWNS}])", re.I
)
PRAISE = re.compile(
    rf"(?:(?:was|is|were|are)(?:n['’]?t| not| never)|not){_BAD}(?: at all\b)?|"
    r"(?:is|was|are|were) (?:(?:also|still|one of|among) )*(?:my|our) (?:[\w-]+ ){0,2}favou?rites?\b",
    re.I,
)
_ORDINAL = rf"(?:{'|'.join(ORDINALS)}|\d{{1,3}}(?:st|nd|rd|th))"
ASIDE = re.compile(  # "I'd like a comedy", "no, a comedy", "I saw Heat last night"
    r"(?:i )?(?:would|i['’]d) (?:really )?(?:like|love)\b|i['’]d\b|no(?: thanks| thank you)?(?=\s*,)|at last\b|"
    r"no (?:idea|clue|preference|matter|problem)s?\b|my [\w-]+ and (?:i|me)\b|(?:me|i) and my [\w-]+|"
    rf"(?:for )?(?:the )?{_ORDINAL} (?:time|night|evening|day|week|weekend|month|year|summer|winter)\b",
    re.I,
)
_COMMANDS: dict[Command, str] = {
    "undo": r"undo(?: (?:that|it|this))?|(?:i )?(?:take|bring) (?:that|it) back|go back|back",
    "yes": r"yes|yeah|yep|sure|correct|exactly",
    "cancel": r"no|nope|never ?mind|cancel|forget (?:it|that)|none|neither(?: (?:one|of (?:them|these|those)))?",
    "reset": r"reset|restart|start (?:over|again|afresh)|(?:start )?(?:a )?new search|clear(?: all| everything)?|"
    r"(?:forget|delete|erase|remove) (?:everything|all|it all)",
    "history": r"(?:show |list |what(?:['’]s| is) )?(?:me )?(?:my |the )?(?:history|likes|profile|state)|"
    r"what do you know(?: about me)?|"
    r"(?:what|which (?:films|movies|ones|items)) (?:did|have) i (?:like|exclude|say|tell|told)d?(?: you)?(?: so far)?",
    "taste": r"what do i like|what am i (?:into|in the mood for)|"
    r"(?:show |describe |sum up |summari[sz]e |what(?:['’]s| is|['’]re| are) )?(?:me )?(?:my )(?:tastes?|interests?)",
    "help": r"help(?: me)?|what can (?:you do|i (?:say|ask))|commands",
    "quit": r"quit|exit|bye|goodbye|q",
}
CORRECTS = re.compile(r"(?:no,? )?(?:i|we) (?:actually |really )?meant?\b(?! to (?!say))(?: to say\b)?(?!,)", re.I)
COMMANDS = [(command, re.compile(words, re.I)) for command, words in _COMMANDS.items()]
LIFTS = (
    (("year",), re.compile(r"(?:from |of )?any (?:years?|time|decade|era|age)\b", re.I)),
    (("category",), re.compile(r"(?:of )?any (?:categor(?:y|ies)|genres?|kind|sort|type)\b", re.I)),
    (
        ("category", "year"),
        re.compile(r"(?:no|without|clear|reset|remove|drop|lift|delete|forget)(?: all)?(?: the| my)? filters?\b", re.I),
    ),
)
_ON = r"(?:(?:but|ok|okay|yes|please|maybe),? )?(?:i(?:['’]?d| would)? )?"
GOES_ON: tuple[tuple[Literal["and", "or"], re.Pattern[str]], ...] = (  # a message that adds to the filters there are
    ("or", re.compile(rf"{_ON}(?:or|(?:and )?(?:also|add|include))\b(?! (?:now|then)\b)", re.I)),
    ("or", re.compile(r".*\b(?:too|as well|also)(?: please)?[\s.!]*$", re.I)),
    ("and", re.compile(rf"{_ON}(?:and|plus|with)\b(?! (?:now|then)\b)", re.I)),
)
FILTER = re.compile(r"filters?\b", re.I)
COUNT = re.compile(
    r"-n\s*=?\s*(?P<length>\d{1,9})\b|"
    r"(?:(?:the )?(?:top|(?P<next>next)|best|(?P<side>first|last))(?! one\b)|"
    r"(?:give|show|get|list|find)(?: me)?(?: just| only)?|"
    r"(?<!the )(?:only|just)|(?:no|not) (?:more|fewer|less) than|at (?:most|least))"
    rf"\s+(?P<number>{_NUMBER})",
    re.I,
)
JUDGED = re.compile(r"\s+(?:is|was|are|were)(?:n['’]?t)?\b", re.I)  # of "the first two were great"
ORDINAL = re.compile(
    rf"(?P<the>the )?(?P<nth>{_ORDINAL})\b(?P<one> one\b)?|(?:numbers?|nr\.?|no\.|#)\s*(?P<number>\d{{1,3}})\b", re.I
)
BEHIND_PLACE = re.compile(  # what may follow a place in the list: "the first or the second", "the third on the list"
    r"(?:and|or|but|please|too|instead|again|only|is|was|are|were)\b|&|"
    r"(?:of|on|in|from) (?:(?:the|this|your) list|these|those)\b|(?:best|most)(?!\s*\w)",
    re.I,
)
COUNTED = re.compile(r"more\b(?! than\b)|good\b|great\b", re.I)  # besides things and categories: "5 more"
SEQUEL = re.compile(  # a title behind which this stands is another title: "Toy Story 2", "Rocky part II"
    r"(?:#?\d+|ii|iii|iv|vi|vii|viii|ix|"
    r"(?:part|chapter|episode|vol\.?|volume|number|nr\.?|no\.) (?:\d+|[ivx]+|" + "|".join(NUMBERS) + r"))\b"
    r"(?! (?:times|(?:second|minute|hour|day|week|month|year|decade|star)s?)\b)",
    re.I,
)
MORE = re.compile(r"more\b|next\b|go on\b|keep going\b|continue\b|another\b|else\b", re.I)
WHY = re.compile(r"why\b", re.I)
ASKS = re.compile(
    r"(?:what|which) (?:year|genre|(?:kind|type|sort) of (?:film|movie))s? (?:is|was|are|were|do|does|did)\b|"
    r"when (?:is|was|were|did)\b|who (?:is|was|are|directed|made|played|plays|stars|starred|wrote)\b|"
    r"tell me (?:more )?about\b|how (?:long|old|many)\b|(?:have|did) (?:i|you)\b|should (?:i|we) (?:watch|see)\b|"
    r"do you (?:like|love|hate|think|agree|remember|watch)\b|what do you think\b|"
    rf"what(?:['’]?s| is| was| are| were) (?:(?:the )?(?:{_ORDINAL}|{_NUMBER})|(?:number|nr\.?|no\.|#) ?\d)|"
    r"which (?:(?:one|ones|of (?:the|these|those|them)(?: \w+)?) )?(?:is|was|are|were)\b(?! (?:like|similar|there)\b)|"
    r"compare\b|(?:what(?:['’]?s| is) )?(?:the )?difference between\b|explain\b|"
    r"(?:is|was|are|were)(?:n['’]?t\b|"
    r" (?!there\b|(?:any|some)(?:thing)?\b|(?:it|that|this) (?:possible|ok|okay)\b))",
    re.I,
)
HAVE = re.compile(r"(?:do|have) you (?:have|got|know)\s+", re.I)  # "do you have Heat?", unlike "... any westerns?"
COMPARES = re.compile(r"(?:more|less|better|worse)\s+than\b|(?:to|over)\b", re.I)  # what follows is no liking
_SOMEBODY = (
    r"(?:my|our|his|her|their) (?!fav|taste)[\w-]+(?: and (?:my |our )?(?!i\b|me\b)[\w-]+)?|s?he|they|"
    r"every(?:one|body)|some(?:one|body)|nobody|no one|(?:most |many |some |other )?people|"
    r"(?:the )?(?:critics|kids|children|others)|(?:a|some) friends?(?: of mine)?"
)
OTHERS = re.compile(  # "my wife loved Titanic": what somebody else likes is no liking of one's own
    rf"(?:{_SOMEBODY})(?: (?:really|also|always|just|all|both|absolutely|totally|used to|would|does|did|do|is|are|not|"
    r"never|(?:do|does|did|would|ca|can)n['’]?t|cannot|a))* "
    r"(?:(?:like|love|adore|dislike|prefer)[sd]?|enjoy(?:s|ed)?|hate[sd]?|watched|saw|seen|stand|into|"
    r"(?:big |huge )?fans? of|recommend(?:s|ed)?)\b",
    re.I,
)
SENTENCE_ENDS = frozenset(".!?;")
YEAR = r"(?:18|19|20)\d\d"
_YEAR, _DECADE = (
    rf"({YEAR}|\(\s*{YEAR}\s*\))",
    rf"(early |mid[ -]|late )?['’]?(\d\d['’]?s|(?:18|19|20)\d0['’]?s|{'|'.join(DECADES)})",
)
_END = r"(?!\w|['’]s\b)"
RANGE = re.compile(
    rf"(from |between |in )?(?:the )?(?:{_YEAR}|{_DECADE})\s*(-|–|\.\.|to|and|until|till|through)\s*"
    rf"(?:the )?(?:{_YEAR}|{_DECADE}|(?:today|now|present)){_END}",
    re.I,
)
BOUND = re.compile(
    rf"(before|until|up to|older than|earlier than|after|since|newer than|later than|from)(?: the)? "
    rf"(?:{_YEAR}|{_DECADE})( onwards?| on\b)?{_END}",
    re.I,
)
SPAN = re.compile(rf"(?:(?:from|in|of) )?(?:the )?(?:{_YEAR}|{_DECADE}){_END}", re.I)
OPEN_END = re.compile(
    r"\s+(?:or|and) (?:(?P<later>later|newer|more recent|onwards?|up)|earlier|older)\b(?! than\b)", re.I
)
TOKEN = re.compile(
    r'["“«](?P<quote>[^"”»]*)["”»]|(?P<dated>\(\s*\d{4}\s*\))|(?P<word>[^\s,;!?()"“”«»]+)|(?P<stop>[,;!?()])'
)


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

    @property
    def changes(self) -> bool:
        """Whether it asks for another list."""
        return bool(self.mentions) or self.filters

    @property
    def filters(self) -> bool:
        """Whether it names any, to be set or to be taken away."""
        return bool(self.only or self.without or self.years or self.lift or self.dropped)


class Vocabulary:
    """The words that a catalog gives the grammar."""

    def __init__(self, catalog: Catalog, things: tuple[str, ...] = ("items", "item")):
        self.catalog = catalog
        known = (plain(word) for word in (*things, "items", "titles", "results"))
        self.things = frozenset({"ones", *(form for word in known for form in _forms(word))})
        self.names = frozenset(spellings(tuple(catalog.title))[0])
        self.categories = {
            name: plain(name).split() for name in sorted({n for names in catalog.categories for n in names})
        }
        self.category = lru_cache(maxsize=4096)(self._category)

    def _category(self, phrase: str) -> str | None:
        """The category that a phrase names: "comedies", "sci fi", "science fiction", "romantic", "noir", "commedy"."""
        words = plain(phrase).split()
        rules: tuple[Callable[[list[str]], bool], ...] = (
            lambda own: own == words,
            lambda own: "".join(own) == "".join(words),  # "scifi"
            lambda own: len(own) == len(words) and all(map(_same_word, own, words)),
            lambda own: len(own) == len(words) > 1 and all(w.startswith(o) for o, w in zip(own, words, strict=True)),
            lambda own: len(own) > len(words) == 1 and words[0] in own and words[0] not in self.things,
            lambda own: len(own) == len(words) == 1 and _related(own[0], words[0]),
        )
        for rule in rules:
            if len(fitting := [name for name, own in self.categories.items() if rule(own)]) == 1:
                return fitting[0]
        return None


def parse(message: str, vocabulary: Vocabulary) -> Query:
    """Reads one message of at most `MAX_MESSAGE` characters."""
    text = one_line(message, MAX_MESSAGE)
    bare = re.sub(r"^please\s+|[\s.!?]+$|,?\s+please[\s.!?]*$", "", text, flags=re.I)
    if text.strip() == "?":
        return Query("help")
    for command, pattern in COMMANDS:
        if pattern.fullmatch(bare):
            return Query(command)
    return _Reader(text, vocabulary).read()


@dataclass(frozen=True)
class _Token:
    kind: str  # word, quote, dated, stop
    text: str
    start: int
    end: int


class _Reader:
    """One pass over a message."""

    def __init__(self, text: str, vocabulary: Vocabulary):
        self.text, self.vocabulary = text, vocabulary
        self.tokens = list(_tokens(text))
        self.title_end = lru_cache(maxsize=None)(self._title_end)
        self.at = 0
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

    def read(self) -> Query:
        steps = (
            self._refused, self._quote, self._stop, self._lift, self._long_title, self._others, self._question,
            self._compares, self._why, self._count, self._years, self._ordinal, self._against, self._aside,
            self._corrects, self._unclear, self._mode, self._more, self._categories, self._filter,
            self._short_title, self._nothing, self._other,
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
            wants=self.wants, corrects=self.corrects,
        )  # fmt: skip
        if self.more and query.command == "ask" and not query.changes and not query.unknown:
            return Query("more", n=self.n)
        return query

    # Each step takes tokens and says so, or leaves everything as it was.

    def _quote(self) -> bool:
        if self._now.kind != "quote":
            return False
        self._mention(self._now.text, self.at + 1, exact=False)
        return True

    def _stop(self) -> bool:
        if self._now.kind == "word":
            return False
        if self._now.kind == "dated":
            of_kind = self.at in (0, self.described) or self._describes(self.at + 1)
            if of_kind and self._match(SPAN):  # "a comedy (1990)"
                return False
            self._not_understood(self._now.text)
            self.at += 1
            return True
        if self._now.text != "," or self.mode == "instead":
            self._end_mode()
            self.listing = True
            self._end_list()
        else:
            self.listing, self.joined, self.fresh = self.at == self.ended, self.joined or ",", False
        self.at += 1
        return True

    def _lift(self) -> bool:
        for what, pattern in LIFTS:
            if self._take(pattern):
                self.lift += what
                return True
        return False

    def _long_title(self) -> bool:
        """Two words or more that are a title to the letter, wherever they stand."""
        return self._title(2)

    def _question(self) -> bool:
        """A sentence that asks about a film, which nothing here answers: what it names is not liked by it."""
        begins = self.at == 0 or self.tokens[self.at - 1].text in SENTENCE_ENDS
        if not begins or not (self._match(ASKS) or self._asks_for_title()):
            return False
        end = self.at
        while end < len(self.tokens) and self.tokens[end].text not in SENTENCE_ENDS:
            end += 1
        self._not_understood(self._between(self.at, end))
        self.at = end
        return True

    def _asks_for_title(self) -> bool:
        """ "Do you have Heat?" """
        found = self._match(HAVE)
        return found is not None and self._names(sum(word.start < found.end() for word in self.tokens))

    def _others(self) -> bool:
        """What somebody else likes, up to the end of the clause or of its list of titles."""
        if not self._match(OTHERS):
            return False
        end = self.at + 1
        while end < len(self.tokens) and self.tokens[end].text.casefold() not in (*SENTENCE_ENDS, "but", "i", "we"):
            if self.tokens[end].text == "," and not self._names(end + 1):
                break
            end += 1
        while self.tokens[end - 1].text.casefold() in JOINS:
            end -= 1
        self.others.append(self._between(self.at, end))
        self.at = end
        self._end_mode()
        self._end_list()
        return True

    def _compares(self) -> bool:
        """ "Fargo more than Heat", "I prefer comedies to dramas": what follows is neither liked nor unwanted."""
        behind = self.at and (self.at in (self.ended, self.described) or self.tokens[self.at - 1].text in ("is", "was"))
        found = behind and self._match(COMPARES)
        if not found or (found[0].casefold() in ("to", "over") and not self.prefers):
            return False
        end = self._clause_end(self.at + 1)
        self._not_understood(self._between(self.at, end))
        self.at = end
        return True

    def _short_title(self) -> bool:
        """One word that is a title to the letter, where a title is expected or it is written like a name."""
        if self._describes(self.at + 1):
            return False
        capital = self._now.text[:1].isupper() and (self._named or self._alone(self.at + 1))
        if self._now.text.casefold() in CARRY_NOTHING and not (self.fresh or capital):  # "Show me something"
            return False
        return (self.explicit or self._named or (self.listing and self._ends(self.at + 1))) and self._title(1)

    def _why(self) -> bool:
        if not self._take(WHY):
            return False
        self.command, self.listing = "why", True
        return True

    def _count(self) -> bool:
        found = self._match(COUNT)
        if found and found["number"] and self._cuts_title(found):  # "show me 12 Angry Men"
            found = None
        if found and self._expected and self._now.text.casefold() in ("only", "just"):  # "I liked only 2"
            found = None
        if found and found["side"] and (self._expected or JUDGED.match(self.text, found.end())):
            n = min(_number(found["number"]), MAX_MENTIONS + 1)
            self._places(range(1, n + 1) if found["side"].casefold() == "first" else range(-n, 0), found.end())
            return True
        if found:
            self._counts(found["length"] or found["number"])
            self._skip_to(found.end())
            self.more = self.more or bool(found["next"])
            return True
        if not re.fullmatch(_NUMBER, self._now.text, re.I):
            return False
        if self._only_places or self._is_place():
            self._places([_number(self._now.text)], self._now.end)
            return True
        if not self._counted(self.at + 1):
            return False
        self._counts(self._now.text)
        self.at += 1
        return True

    def _counts(self, number: str) -> None:
        """Notes how many are wanted; a list has one length: "5 comedies and 3 dramas"."""
        if self.n not in (None, _number(number)):
            self._not_understood(number)
            return
        self.n = _number(number)

    def _years(self) -> bool:
        if self._names_year():
            return False
        for pattern, meaning in ((RANGE, _range), (BOUND, _bound), (SPAN, _span)):
            found = self._match(pattern)
            if found and not self._cuts_title(found) and (years := meaning(found)):
                end = found.end()
                if None not in years and (tail := OPEN_END.match(self.text, end)):
                    years = (years[0], None) if tail["later"] else (None, years[1])
                    end = tail.end()
                self._spanned(years, self.text[self._now.start : end])
                self._skip_to(end)
                return True
        return False

    def _names_year(self) -> bool:
        """Whether a bare year stands where the mode asks for a title: "I liked 1984"."""
        before = self.tokens[self.at - 1].text.casefold() if self.at else ""
        asked = self.explicit and self.mode == "like" and (self.fresh or (self.listing and before in ("and", "&")))
        return asked and self._alone(self.at + 1) and re.fullmatch(YEAR, self._now.text) is not None

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

    def _ordinal(self) -> bool:
        found = self._match(ORDINAL)
        if not found or not (found["number"] or found["one"] or self._ends_place(found)):
            return False
        nth = (found["nth"] or found["number"]).casefold()
        self._places([ORDINALS.get(nth) or int(re.sub(r"\D", "", nth))], found.end())
        return True

    def _corrects(self) -> bool:
        """ "No, I meant Heat": of what was said before this message."""
        found = self._match(CORRECTS)
        if not found:
            return False
        if self.mentions or self.only or self.without or self.spans:  # "I liked Heat, no, I meant the old one"
            end = self._clause_end(self.at + 1)
            self._not_understood(self._between(self.at, end))
            self.at = end
        else:
            self._skip_to(found.end())
            self._end_mode()
            self.corrects = self.explicit = self.fresh = self.listing = True
        return True

    def _unclear(self) -> bool:
        """ "Don't skip Fargo": up to the end of the clause nobody can tell what is wanted."""
        if not self._match(UNCLEAR):
            return False
        end = self._clause_end(self.at + 1)
        self._not_understood(self._between(self.at, end))
        self.at = end
        return True

    def _mode(self) -> bool:
        before, start = self.tokens[self.at - 1].text if self.at else "", self._now.start
        compares = self.act == "not" and self._match(SIMILAR)  # "no films like Titanic", "I want no horror like Alien"
        stays = compares and ((self.fresh and not self.negated) or self._is_thing(before))
        if self._exception(before):
            return True
        for mode, pattern in MODES:
            if self._take(pattern):
                mode = "not" if stays else mode
                self._end_mode()
                self.mode, self.explicit, self.fresh, self.listing = mode, mode != "kinds", True, mode != "kinds"
                words = self.text[start : self.tokens[self.at - 1].end].casefold()
                self.opinion, self.prefers = OPINION.search(words) is not None, words == "prefer"
                self.similar = SIMILAR.match(words) is not None
                self._end_list()
                return True
        return False

    def _exception(self, before: str) -> bool:
        """ "Nothing except comedies" wants them; "no romance except Titanic" nobody can tell."""
        behind = self.act == "not" and (self.fresh or self.negated or self._is_thing(before))
        if not behind or not (found := self._match(EXCEPT)):
            return False
        if self.negated:
            end = self._clause_end(self.at + 1)
            self._not_understood(self._between(self.at, end))
            self.at = end
        else:
            self._skip_to(found.end())
        self._end_mode()
        return True

    def _against(self) -> bool:
        """ "Fargo was boring", "horror is not for me": a verdict on the titles or categories just named."""
        pointer = self._match(POINTER)
        verdict = pointer and self.mentions and AGAINST.match(self.text, pointer.end())
        if verdict:  # "I saw Fargo, but it was boring"
            self._judge("not", 1)
            self._skip_to(verdict.end())
            return True
        if self.at != self.ended and not self._behind_kinds:
            return False
        if self._take(PRAISE):
            return True
        kinds = self._behind_kinds
        if not self._take(AGAINST):
            return False
        if kinds:
            self._against_kinds(self.kinds)
        else:
            self._judge("not", len(self.mentions) - self.listed)
        return True

    def _refused(self) -> bool:
        """ "Horror? No.": of what was named last alone."""
        found = self.at and REFUSED.match(self.text, self.tokens[self.at - 1].end)
        if not found or not (self.at == self.ended or self._behind_kinds):
            return False
        if self._behind_kinds:
            self._against_kinds(self.kinds[-1:])
        else:
            self._judge("not", 1)
        self._skip_to(found.end())
        return True

    def _aside(self) -> bool:
        """What says nothing about what somebody liked: "I'd like" asks, "no," answers, "last night" tells when."""
        return self._take(ASIDE) is not None

    def _more(self) -> bool:
        if not self._take(MORE):
            return False
        self.more, self.listing = True, False
        if self.negated:  # "less action, more drama"
            self._end_mode()
        return True

    def _categories(self) -> bool:
        for length in (3, 2, 1):
            words = self.tokens[self.at : self.at + length]
            if len(words) < length or any(word.kind != "word" or word.text in ("&", "or") for word in words):
                continue
            phrase = self.text[words[0].start : words[-1].end]
            if phrase.casefold() in CARRY_NOTHING or not (name := self.vocabulary.category(phrase)):
                continue
            if self.negated == "category" and words[0].text.casefold() in ("a", "an") and self.joined != "or":
                self._end_mode()  # "not a comedy, a drama"
                self.unsure = not self.joined or self._or_a_category()  # "I don't want a comedy, a drama or a western"
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
        return self.mode == "remove" and bool(self.negated) and self._take(FILTER) is not None

    def _nothing(self) -> bool:
        """Words that carry nothing, but may end a list of titles, or a "not"."""
        word = self._now.text.casefold()
        if self._is_thing(word):
            self.described = self.at + 1
        elif word not in CARRY_NOTHING:
            return False
        if word in OPENS and (self.negated or word == "but"):
            self._end_mode()
        if word in POINTS and self.fresh and self.act == "not" and self._alone(self.at + 1):
            self.negated, self.joined = "title", ""  # "I hated it, show me a drama"
        if word in POINTS and self.fresh and self.opinion and self._ends(self._behind_thing(self.at + 1)):
            many = word in ("them", "these", "those", "both")  # "I saw Fargo and hated it"
            self._judge(self.act, len(self.mentions) - self.named if many else 1)
        if word in ("them", "these", "those") and self._points_at_list(self.at + 1):
            self.mentions.append(Reference("not" if self.mode == "remove" else self.act, None))
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

    def _other(self) -> bool:
        """A run of words: a title that is not written to the letter, or not understood."""
        if self.at == self.described:  # of "no horror after all" the mode has been about horror
            self.explicit = False
        end = self._run_end(self.at)
        if self.explicit or self._now.text[:1].isupper():  # "Blade Runner 2049"
            end = self._sequel(self._between(self.at, end), end) or end
        ends = sorted({self._run_end(self.at, named=True), *self._longer_ends(end), end}, reverse=True)
        if self._title_behind(end):
            ends.remove(end)  # "original" of "the original Star Wars" names no film
        for stop in ends:
            alone = self.listing and self._alone(stop)
            if stop - self.at == 1 and (self._describes(stop) or self._match(ORDINAL)):
                continue
            if (self.explicit or self._named or stop - self.at > 1 or alone) and self._mention(
                self._between(self.at, stop), stop, exact=True, only_if_found=stop != end
            ):
                return True
        if end < len(self.tokens) and self.tokens[end].kind == "dated":
            end += 1  # its year, not one that is asked for
        self._not_understood(self._between(self.at, end))
        self.at = end
        return True

    # What the steps are made of.

    @property
    def _now(self) -> _Token:
        return self.tokens[self.at]

    @property
    def act(self) -> Act:
        return ACTS[self.mode]

    @property
    def _named(self) -> bool:
        """Whether the word is written like a name within a sentence."""
        before = self.tokens[self.at - 1] if self.at else None
        inside = before is not None and (before.kind == "word" or before.text == ",")
        return inside and self._now.text[:1].isupper()

    @property
    def _apart(self) -> bool:
        """Whether a comma parts what comes from the title or the years that a "not" was about: "not Fargo, war"."""
        return self.negated in ("title", "year") and self.joined == ","

    @property
    def _expected(self) -> bool:
        """Whether a mode, or "why", asks for what stands here."""
        return self.listing and (self.explicit or self.command == "why")

    def _counted(self, at: int) -> bool:
        """Whether a number before token `at` says how many are wanted."""
        follows = self.tokens[at] if at < len(self.tokens) else None
        return follows is not None and (self._is_thing(follows.text) or bool(COUNTED.match(self.text, follows.start)))

    def _is_place(self) -> bool:
        """Whether a bare number is a place in the list: "I've seen 1, 2 and 4"."""
        text, end = self._now.text, self._now.end
        begins = self.at == 0 or self.tokens[self.at - 1].kind == "stop"
        judged = begins and JUDGED.match(self.text, end)  # "1 was great, 2 was boring"
        asked = (self._expected or (self.explicit and self.fresh)) and self._alone(self.at + 1)
        return bool(asked or judged) and text.isdecimal() and text not in self.vocabulary.names

    @property
    def _only_places(self) -> bool:
        """Whether the message is nothing but places in the list: "2", "1 3", "2, 3 and 5"."""
        words = [word for token in self.tokens if (word := token.text.casefold()) not in (",", "and", "or", "&")]
        titles = {word for word in words if word in self.vocabulary.names and not re.fullmatch(r"\d\d?", word)}
        return not titles and all(re.fullmatch(_NUMBER, word) for word in words)

    def _ends_place(self, found: re.Match[str]) -> bool:
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

    def _places(self, places: Sequence[int], end: int) -> None:
        """Notes places of the list, whose words end at `end`."""
        text = self.text[self._now.start : end]
        self._skip_to(end)
        if len(self.mentions) + len(places) > MAX_MENTIONS:
            self._not_understood(text)
            return
        act: Act = "not" if self.mode == "remove" else self.act  # what stands in a list was never liked or left out
        self.mentions.extend(Reference(act, place) for place in places)
        self._listed()

    @property
    def _behind_kinds(self) -> bool:
        """Whether a category that is wanted has come last."""
        return bool(self.kinds) and self.at == self.described

    def _judge(self, act: Act, last: int) -> None:
        """Says what becomes of the titles that were named last."""
        first = len(self.mentions) - last if last else len(self.mentions)
        self.mentions[max(first, 0) :] = [replace(mention, act=act) for mention in self.mentions[max(first, 0) :]]

    def _against_kinds(self, names: Sequence[str]) -> None:
        """Leaves out categories that were taken as wanted."""
        self.only = [left for group in self.only if (left := [name for name in group if name not in names])]
        self.without += names
        self.kinds = []

    def _end_list(self) -> None:
        """What comes now is another list than what was named before."""
        if len(self.mentions) > self.listed:
            self.named = self.listed
        self.listed, self.kinds = len(self.mentions), []

    def _end_mode(self) -> None:
        self.mode, self.explicit, self.negated, self.unsure, self.similar = "like", False, "", False, False

    def _or_a_category(self) -> bool:
        """Whether the sentence goes on with "or" and a category."""
        for at in range(self.at, len(self.tokens) - 1):
            if self.tokens[at].kind != "word" and self.tokens[at].text != ",":
                break
            ends = range(at + 2, min(at + 4, len(self.tokens)) + 1)
            if self.tokens[at].text.casefold() == "or" and any(
                self.vocabulary.category(self._between(at + 1, end)) for end in ends
            ):
                return True
        return False

    def _clause_end(self, at: int) -> int:
        while at < len(self.tokens) and self.tokens[at].kind == "word" and self.tokens[at].text.casefold() != "but":
            at += 1
        return at

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return pattern.match(self.text, self._now.start)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if found := self._match(pattern):
            self._skip_to(found.end())
        return found

    def _skip_to(self, position: int) -> None:
        while self.at < len(self.tokens) and self.tokens[self.at].start < position:
            self.at += 1

    def _between(self, first: int, end: int) -> str:
        return self.text[self.tokens[first].start : self.tokens[end - 1].end]

    def _is_thing(self, word: str) -> bool:
        return plain(word) in self.vocabulary.things or self.vocabulary.category(word) is not None

    def _alone(self, end: int) -> bool:
        """Whether the words before `end` are a part of a list or all there is."""
        follows = self.tokens[end] if end < len(self.tokens) else None
        return follows is None or follows.kind != "word" or follows.text.casefold() in ("and", "&", "or", "but")

    def _ends(self, end: int) -> bool:
        """The same, where a year, a verdict, or words that carry nothing may follow: "Fargo was great"."""
        while end < len(self.tokens) and not self._alone(end):
            word = self.tokens[end]
            if REFUSED.match(self.text, self.tokens[end - 1].end) or any(
                pattern.match(self.text, word.start) for pattern in (AGAINST, PRAISE, ASIDE)
            ):
                return True
            if word.text.casefold() not in CARRY_NOTHING and not re.fullmatch(YEAR, word.text):
                return False
            end += 1
        return True

    def _points_at_list(self, end: int) -> bool:
        """Whether "these", before `end`, are what is shown: "I don't like any of these films"."""
        asked = self.explicit and self.fresh and self.mode != "unseen" and not self.mentions
        words = [token.text.casefold() for token in self.tokens[max(self.at - 2, 0) : self.at]]
        some = words[1:] == ["of"] and (words[0] in SOME or re.fullmatch(_NUMBER, words[0]))  # "only one of these"
        return asked and not some and self._ends(self._behind_thing(end))

    def _behind_thing(self, at: int) -> int:
        """Where "that film" ends, whose thing, if any, is token `at`."""
        return at + (at < len(self.tokens) and plain(self.tokens[at].text) in self.vocabulary.things)

    def _describes(self, end: int) -> bool:
        """Whether the words before `end` say of what kind something shall be: "dark" of "I love dark comedies"."""
        kind = end < len(self.tokens) and self.tokens[end].kind == "word" and self._is_thing(self.tokens[end].text)
        return kind and not self._now.text[:1].isupper()

    def _title(self, least: int) -> bool:
        """Takes the longest run of tokens that is a title of at least `least` words, to the letter."""
        if not (end := self.title_end(self.at, least)):
            return False
        title = self._between(self.at, end)
        same: tuple[int, ...] = ()
        if further := self._sequel(title, end):
            same, end = look_up(title, self.vocabulary.catalog).items, further
        self._mention(title := self._between(self.at, end), end, exact=False, other_than=same)
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
            if not re.fullmatch(r"#?\d{1,3}", number) or self._counted(at + 1) or self.title_end(at, 2):
                break
            self.at = at
            self._mention(f"{name} {number}", at + 1, exact=False)

    def _sequel(self, title: str, end: int) -> int:
        """Where the number ends that makes a title, which ends at `end`, another one; 0 for none."""
        if end == len(self.tokens) or self._is_year_of(title, self.tokens[end].text) or self.title_end(end, 2):
            return 0
        start = self.tokens[end].start
        found = SEQUEL.match(self.text, start)
        if not found or RANGE.match(self.text, start) or OPEN_END.match(self.text, found.end()):
            return 0
        further = next((at + 1 for at in range(end, len(self.tokens)) if self.tokens[at].end == found.end()), 0)
        if not further or self._counted(further):  # "like Fargo 5 comedies"
            return 0
        subtitle = self.text[found.end() :].startswith(": ") and further < len(self.tokens)
        return self._run_end(further, named=True) if subtitle else further

    def _names(self, at: int) -> bool:
        """Whether a title begins at a token, and no word of a request."""
        if at == len(self.tokens):
            return False
        return self.title_end(at, 2 if self.tokens[at].text.casefold() in CARRY_NOTHING else 1) > 0

    def _title_end(self, first: int, least: int) -> int:
        """Where the longest run of tokens from `first` ends that is such a title; 0 for none."""
        if self.tokens[first].kind != "word":
            return 0
        for end in range(min(len(self.tokens), first + LONGEST_NAME), first, -1):
            key = plain(self._between(first, end))
            if self.tokens[end - 1].kind == "word" and len(key.split()) >= least and key in self.vocabulary.names:
                while end - 1 > first and plain(self._between(first, end - 1)) == key:
                    end -= 1  # "Heat, a" is Heat, too
                return end
        return 0

    def _cuts_title(self, found: re.Match[str]) -> bool:
        """Whether it ends within a title of two words or more: "in 2001" of "Hal in 2001: A Space Odyssey"."""
        at = self.at + 1
        while at < len(self.tokens) and self.tokens[at].start < found.end():
            if (end := self.title_end(at, 2)) and self.tokens[end - 1].end > found.end():
                return True
            at += 1
        return False

    def _title_behind(self, end: int) -> int:
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

    def _mention(
        self, text: str, end: int, *, exact: bool, only_if_found: bool = False, other_than: tuple[int, ...] = ()
    ) -> bool:
        """Notes a title that ends before token `end`; its year in parentheses belongs to it.

        Args:
            exact: a name of one title's part only is not enough where no mode word asks for a title.
            other_than: what it cannot mean, however alike.
        """
        if end < len(self.tokens) and self.tokens[end].kind == "dated":
            text, end = f"{text} {self.tokens[end].text}", end + 1
        elif end < len(self.tokens) and self._is_year_of(text, self.tokens[end].text):
            text, end = f"{text} ({self.tokens[end].text})", end + 1
        elif not self.similar and (year := self._from_year(text, end)):  # "I liked Fargo from 1996"
            text, end = f"{text} ({year})", end + 2
        if len(self.mentions) >= MAX_MENTIONS:
            self._not_understood(text)
            self.at = end
            return True
        found = look_up(text, self.vocabulary.catalog)
        if re.fullmatch(r"#?\d{1,3}", text) and text not in self.vocabulary.names:  # "2" is no "Jaws 2"
            found = Found(())
        if other_than:
            found = Found(tuple(i for i in found.items if i not in other_than), found.near or other_than[:3])
        if not found.items and (only_if_found or (exact and not self.explicit)):
            return False
        unsure = len(self.tokens) == 1 and len(found.items) == 1 and self._part(text, found.items[0])
        self.mentions.append(Mention(self.act, text, found.items[:MAX_OPTIONS], found.near, unsure))
        self.at = end
        self._listed()
        return True

    def _part(self, word: str, item: int) -> bool:
        """Whether a word in small letters is one of a title's words, and no title itself."""
        key = plain(word)
        parts = plain(self.vocabulary.catalog.title[item]).split()
        return word.islower() and key in parts and key not in self.vocabulary.names

    def _from_year(self, name: str, at: int) -> str:
        """The year of "from 1996" at a token, where it is the named title's own."""
        words = [token.text for token in self.tokens[at : at + 2]]
        return words[1] if len(words) == 2 and words[0] == "from" and self._is_year_of(name, words[1]) else ""

    def _is_year_of(self, name: str, text: str) -> bool:
        """Whether a bare number behind a name is its year: "Heat 1995"."""
        if not re.fullmatch(YEAR, text):
            return False
        found = look_up(f"{name} ({text})", self.vocabulary.catalog).items
        return any(self.vocabulary.catalog.year[item] == int(text) for item in found)

    def _listed(self) -> None:
        self.listing, self.joined, self.fresh, self.ended = False, "", False, self.at
        if self.act == "not":
            self.negated = self.negated or "title"

    def _run_end(self, first: int, named: bool = False) -> int:
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

    def _longer_ends(self, end: int) -> list[int]:
        """Ends of longer runs, joined by "and" or a comma, or ended by a title, longest first: "Beuty and the Beast" is
        one title, and "Retrun of the Pink Panther" not "The Pink Panther"."""
        ends: list[int] = []
        for _ in range(2):
            joined = end + 1 < len(self.tokens) and self.tokens[end].text.casefold() in ("and", "&", ",")
            if not (first := end + 1 if joined else self._title_behind(end)):
                break
            ends.extend({end := self._run_end(first), self.title_end(first, 2) or end})
        return sorted(ends, reverse=True)

    def _not_understood(self, text: str) -> None:
        self.unknown.append(text)
        self._end_list()


def _tokens(text: str) -> Iterator[_Token]:
    for found in TOKEN.finditer(text):
        kind = found.lastgroup or ""
        start, end = found.span(kind)
        if kind != "word":
            yield _Token(kind, found[kind], start, end)
            continue
        kept = found[kind].rstrip(".:…")
        if kept in ("+", "/"):  # "Heat + Fargo"
            yield _Token("word", "&" if kept == "+" else "or", start, start + 1)
        elif plain(kept) or kept == "&" or kept.startswith("#") or kept[0:1] in {*FROWNS}:
            yield _Token("word", kept, start, start + len(kept))
        if len(kept) < len(found[kind]) and found[kind].endswith(".") and kept.casefold() not in ABBREVIATED:
            yield _Token("stop", ".", start + len(kept), end)


def _same_word(own: str, word: str) -> bool:
    """`own` in the singular or plural, or with a slip."""
    return word in _forms(own) or (len(own) > 4 and own[0] == word[:1] and fuzz.ratio(own, word) >= ALIKE)


def _forms(word: str) -> set[str]:
    """Its singular and plural, whichever it is, among forms that nobody writes."""
    forms = {word, word + "s", word + "es", word.removesuffix("s"), word.removesuffix("es")}
    return forms | {re.sub("y$", "ies", word), re.sub("ies$", "y", word)}


def _related(own: str, word: str) -> bool:
    """ "romantic" and "romance", "animated" and "animation": five letters or more in common, and short endings."""
    shared = next((i for i, (a, b) in enumerate(zip(own, word, strict=False)) if a != b), min(len(own), len(word)))
    return shared >= 5 and len(own) - shared <= 3 and len(word) - shared <= 4


def _number(text: str) -> int:
    return NUMBERS.get(text.casefold()) or int(text)


def _range(found: re.Match[str]) -> Years | None:
    word, year, part, decade, to, last_year, last_part, last_decade = found.groups()
    first = _only(year) if year else _decade(part, decade)
    if not last_year and not last_decade:  # "the 90s and now a comedy" is no range
        return None if to.casefold() == "and" and (word or "").casefold() != "between " else (first[0], None)
    last = _only(last_year) if last_year else _decade(last_part, last_decade)
    return min(first[0], last[0]), max(first[1], last[1])


def _bound(found: re.Match[str]) -> Years | None:
    word, year, part, decade, onwards = found.groups()
    years = _only(year) if year else _decade(part, decade)
    word = word.casefold()
    if word in ("before", "older than", "earlier than"):
        return None, years[0] - 1
    if word in ("until", "up to"):
        return None, years[1]
    if word in ("after", "newer than", "later than"):
        return years[1] + 1, None
    return (years[0], None) if word == "since" or onwards else years


def _span(found: re.Match[str]) -> Years | None:
    year, part, decade = found.groups()
    return _only(year) if year else _decade(part, decade)


def _only(year: str) -> tuple[int, int]:
    """`1990` or `(1990)`."""
    return int(year.strip("( )")), int(year.strip("( )"))


def _decade(part: str | None, decade: str) -> tuple[int, int]:
    """`90s`, `1990s` or `nineties`, whole or its early (0 to 3), mid (4 to 6) or late (7 to 9) years."""
    digits = re.sub(r"\D", "", decade)
    first = int(digits) if len(digits) == 4 else DECADES[decade.casefold()] if not digits else 1900 + int(digits)
    if len(digits) == 2 and int(digits) < 20:
        first += 100
    begin, end = {"earl": (0, 3), "mid": (4, 6), "late": (7, 9)}.get((part or "").casefold().strip(" -y")[:4], (0, 9))
    return first + begin, first + end
