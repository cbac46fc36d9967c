"""The grammar's own words: what begins a request, a verdict or a filter, and what carries nothing."""

from __future__ import annotations

import re
from typing import Literal

from llmrec.dialogue.query import Act, Command


def _words(text: str) -> list[str]:
    return text.split()


FROWNS = "👎🙁☹😞😠😡🤢🤮💩😒"  # of all that is no letter, what says the opposite of a name alone
NUMBERS = {word: i for i, word in enumerate(_words("one two three four five six seven eight nine ten eleven"), 1)}
NUMBERS |= {"dozen": 12, "twelve": 12, "fifteen": 15, "twenty": 20, "fifty": 50, "hundred": 100}
ORDINALS = {
    word: i for i, word in enumerate(_words("first second third fourth fifth sixth seventh eighth ninth tenth"), 1)
}
ORDINALS |= {"last": -1}
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
RELATED = frozenset(_words("sequel sequels prequel prequels remake remakes trilogy franchise"))  # of a film to another
SENTENCE_ENDS = frozenset(".!?;")
ABBREVIATED = frozenset(_words("dr mr mrs ms st vs no nr jr sr"))  # their full stop ends no sentence
JOINS = frozenset(_words("and & or but because"))
WANTS = frozenset(
    _words("recommend suggest show give watch find pick choose surprise something anything any what next")
)
SOME = frozenset(_words("some many most few several half part"))
POINTS = frozenset(_words("it this that these those them both one ones"))  # at something that was not named
OPENS = frozenset(_words("a an some something anything want give show only just but instead rather"))  # ends a "not"
NUMBER = r"(?:\d{1,3}|" + "|".join(NUMBERS) + r")\b(?!['’]?s\b)"
_DO_NOT = r"(?:do|did|does)(?:n['’]?t| not)"
_MUCH = r"(?: (?:really|much|quite|actually|particularly|especially|usually|normally|generally|exactly|even|ever))*"
_NOT = (
    rf"(?:i )?(?:{_DO_NOT}|would not|wouldn['’]?t|never|no longer){_MUCH} (?:liked?|loved?|want|enjoy(?:ed)?|show|"
    r"need|care for|recommend|give|suggest|find|see|watch)(?: me)?|not (?:at all )?like|(?:nothing|less) like|unlike|"
    r"(?:something |anything |much )?better than|"
    rf"(?:not|no|never|no longer|(?:is|are|was|were)n['’]?t){_MUCH} (?:of )?(?:a |an )?(?:big |great |huge )?fans? of|"
    r"(?:not|no longer|(?:is|are|was|were)n['’]?t)(?: really| that| at all)? (?:interested in|into)|"
    r"(?:can(?:['’]?t|not)|could(?:n['’]?t| not)) stand|won['’]?t (?:watch|see)|"
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
_REMOVE = (
    r"forget(?: about)?(?:(?: that)? (?:i|we)(?: (?:said|told you)(?: that)?(?: (?:i|we))?)?(?: have)? "
    r"(?:liked?|loved?|enjoy(?:ed)?|saw|seen|watched))?|remove|delete|drop|take (?:out|away)"
)
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
    r"not (?:only|just|necessarily)\b|(?:not|never)(?: get| got)? (?:tired|sick|bored) of\b|"
    rf"(?:{_REMOVE}) (?:everything|all)(?: (?:of )?(?:them|these|those))? (?:but|except)\b",
    re.I,
)
AVERSE = re.compile(  # no mode of its own, but what follows is no wish: "ban horror", "I hardly liked Fargo"
    r"(?:can['’]?t|can ?not|won['’]?t|(?:have|has|had)n['’]?t|stop|ban|minus|hardly|barely|refuse[sd]?|allergic|"
    r"least fav\w+)(?!\w)",
    re.I,
)
SIGNED = re.compile(r"(?<!\S)[-!](?!n\b|n\d)(?=[^\W\d_])")  # "comedy -romance", "!Fargo", and not "-n 5"
FROWNED = re.compile(  # "👎 horror", and not "Fargo. 👎 Show me comedies", which judges what came before
    rf"(?:^|(?<=[,;]))\s*[{FROWNS}][^\w\s.,;!?\"]*\s*(?=\w)"
    r"(?!(?:i|show|give|what|find|more|another|something|how|from|help|undo|none)\b)",
    re.I,
)
SMILED = re.compile(r"(?:^|[,;])\s*[👍👌❤😍🥰😀😃😊🙂][^\w\s]*\s*(?=\w)")  # what it begins belongs to no "not"
_SO = r"(?: (?:so|very|really|just|too|quite|rather|that|at all))*"
_WORSE = r"(?:bad|awful|boring|terrible|horrible|dull|stupid|overrated|disappointing|rubbish)\b"
_BAD = rf"{_SO} {_WORSE}"
_FINE = r"(?:good|great|nice|fun|funny|interesting|exciting|entertaining|enjoyable)\b"
_ALL_BUT = r" (?:any|every)thing but"
AGAINST = re.compile(
    rf"(?:was|is|were|are)(?:(?:n['’]?t| not)\b(?!{_BAD}| (?:only|just)\b)|{_BAD}|{_ALL_BUT}{_SO} {_FINE})|"
    rf"(?:bore|scare|annoy|disgust)(?:s|d|ed)? (?:me|us)\b|suck(?:s|ed)?\b|{_WORSE}",
    re.I,
)
OPINION = re.compile(r"lik|lov|enjoy|ador|care|hate|stand|fan|tired|sick|bored")  # of a mode's words
POINTER = re.compile(r"(?:it|that|this|they|both)\s+", re.I)
_NAY = r"(?:no|nope|nah)(?: (?:thanks|thank you|way))?\b"
REFUSED = re.compile(  # "horror? no thanks", "Fargo - no", read from the end of what is refused
    rf"\s*[?:–-]?\s*(?:{_NAY}(?=\s*(?:$|[.!?,;]))|[{FROWNS}])|\s*,\s*{_NAY}(?=\s*(?:$|[.!?;]))", re.I
)
PRAISE = re.compile(
    rf"(?:(?:was|is|were|are)(?:n['’]?t| not| never|{_ALL_BUT})|not){_BAD}(?: at all\b)?|"
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
    "all": r"(?:i (?:mean|meant) )?(?:both|all)(?: of (?:them|these|those))?",
    "cancel": r"no|nope|never ?mind|cancel|forget (?:it|that|this)|none|neither(?: (?:one|of (?:them|these|those)))?",
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
RETRACTS = re.compile(  # within one message: "a comedy, no, a drama", "the 80s, no wait, I mean the 90s"
    r"(?:(?:no|nope|sorry|wait|oops)(?:\s*[,!.]\s*| (?=wait\b|sorry\b))|"
    r"(?:no,? )?(?:i|we) (?:actually |really )?meant?\b(?: to say\b)?,?\s*)+",
    re.I,
)
COMMANDS = [(command, re.compile(words, re.I)) for command, words in _COMMANDS.items()]
_OFF = r"(?:no|without|clear|reset|remove|drop|lift|delete|forget)"
_LIFT = rf"{_OFF}(?: about)?(?: the| my| a| any)? "
# "Drop the category comedy" names one.
_FILTER = r"\b(?: (?:filter|limit)s?\b)?(?=\s*(?:$|[.,;!?]|(?:and|but|please)\b))"
LIFTS = (
    (
        ("year",),
        re.compile(rf"(?:from |of )?any (?:years?|time|decade|era|age)\b|{_LIFT}years?{_FILTER}", re.I),
    ),
    (
        ("category",),
        re.compile(
            r"(?:of )?any (?:categor(?:y|ies)|genres?|kind|sort|type)\b|"
            rf"{_LIFT}(?:categor(?:y|ies)|genres?){_FILTER}",
            re.I,
        ),
    ),
    (
        ("category", "year"),
        re.compile(rf"{_OFF}(?: all)?(?: the| my)? filters?\b", re.I),
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
    rf"\s+(?P<number>{NUMBER})",
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
ALL = frozenset(_words("any all every"))  # of "all films but horror"
SPAN_WORDS = frozenset(_words("year years time decade era age"))  # what may be left out of "any year but" is years
ASKS = re.compile(
    r"(?:what|which) (?:year|genre|(?:kind|type|sort) of (?:film|movie))s? (?:is|was|are|were|do|does|did)\b|"
    r"when (?:is|was|were|did)\b|who (?:is|was|are|directed|made|played|plays|stars|starred|wrote)\b|"
    r"tell me (?:more )?about\b|how (?:long|old|many)\b|(?:have|did) (?:i|you)\b|should (?:i|we) (?:watch|see)\b|"
    r"do you (?:like|love|hate|think|agree|remember|watch)\b|what do you think\b|"
    r"(?:would|will|do|did|could|might) (?:i|we) (?:like|love|enjoy|hate|dislike)\b|"
    r"who (?:like|love|hate|enjoy)[sd]?\b|"
    rf"what(?:['’]?s| is| was| are| were) (?:(?:the )?(?:{_ORDINAL}|{NUMBER})|(?:number|nr\.?|no\.|#) ?\d)|"
    r"which (?:(?:one|ones|of (?:the|these|those|them)(?: \w+)?) )?(?:is|was|are|were)\b(?! (?:like|similar|there)\b)|"
    r"compare\b|(?:what(?:['’]?s| is) )?(?:the )?difference between\b|explain\b|"
    r"(?:is|was|are|were)(?:n['’]?t\b|"
    r" (?!there\b|(?:any|some)(?:thing)?\b|(?:it|that|this) (?:possible|ok|okay)\b))",
    re.I,
)
HAVE = re.compile(r"(?:do|have) you (?:have|got|know)\s+", re.I)  # "do you have Heat?", unlike "... any westerns?"
COMPARES = re.compile(  # what follows is no liking
    r"(?:(?:more|less|better|worse)\s+)?than\b|(?P<as>as (?:much|good|bad) as\b)|(?P<prefers>(?:to|over)\b)", re.I
)
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


def to_number(text: str) -> int:
    """What a `NUMBER` says, in digits or as a word."""
    return NUMBERS.get(text.casefold()) or int(text)
