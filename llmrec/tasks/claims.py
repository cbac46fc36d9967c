"""What the sentences of a reply claim, read back by way of the replies that a prompt file teaches.

A model that has learned replies writes their sentences, and every name in them is one that may stand there.  But which
sentence it takes is a claim, too: "often chooses <Comedy>" of somebody who never did, "Lately more <Drama>" where there
is less.  So replies are filled in once from placeholders, in all ways that the facts can turn out: a sentence of the
model with the same words then says which facts it takes for granted, and a task says whether they hold.  What a
sentence leaves unsaid it does not deny.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmrec.errors import PromptError
from llmrec.tasks.template import Name, Template

FULL_WIDTH = "。！？｡．"
ENDS = re.compile(rf"[.!?؟।۔።][\"'”’»)\]]*(?=\s|$)|[{FULL_WIDTH}][」』”’）]*")
LISTED = 4  # names of one fact in a sentence that is known

Parts = Sequence[str | Name]
Form = tuple[str, ...]
"""A sentence without its names: texts, and the kinds of names between them."""


@dataclass(frozen=True)
class Claim:
    """What a sentence takes for granted."""

    names: Mapping[str, Sequence[str]]
    """Of each fact that it names, what it is said to be."""
    given: frozenset[str]
    """The facts without which no reply says it: what is true, or there at all."""


Readings = Mapping[Form, Mapping[tuple[str, ...], frozenset[str]]]
"""Of each sentence that replies can say, the facts behind its names, in every way to read them, and what is given."""


def placeholders(kind: str, fact: str, count: int = 1) -> list[Name]:
    """They stand for the names of a fact."""
    return [Name.of(kind, f"{fact} {number}") for number in range(count)]


def sentences(parts: Parts) -> list[list[str | Name]]:
    """The whole sentences, each with the space before it; what is behind the last is left out."""
    found: list[list[str | Name]] = []
    open_: list[str | Name] = []
    for place, part in enumerate(parts):
        begin = 0
        for end in () if isinstance(part, Name) else ENDS.finditer(part):
            last = place == len(parts) - 1 or end.end() < len(part)
            if last or end.group()[0] in FULL_WIDTH:  # "St." before a name ends nothing
                found.append([*open_, part[begin : end.end()]])
                open_, begin = [], end.end()
        if rest := part[begin:] if begin else part:
            open_.append(rest)
    return found


def readings(template: Template, variants: Iterable[Mapping[str, Any]], domain: Mapping[str, Any]) -> Readings:
    """Every sentence of the template's replies.

    Args:
        variants: facts in all ways that they can turn out, their names placeholders; where a reply cannot be filled
            from some, it says nothing of them.
        domain: the fact of that name.
    """
    found: dict[Form, dict[tuple[str, ...], frozenset[str]]] = {}
    for facts in variants:
        given = frozenset(name for name, value in facts.items() if value)
        for wording in range(len(template.replies)):
            try:
                reply = template.reply_parts({**facts, "domain": domain}, wording)
            except PromptError:
                continue
            for sentence in sentences(reply):
                named = tuple(part.text.split(" ")[0] for part in sentence if isinstance(part, Name))
                ways = found.setdefault(_form(sentence), {})
                ways[named] = ways.get(named, given) & given
    return found


def read(sentence: Parts, known: Readings) -> list[Claim]:
    """The ways to read a sentence; none where no reply says it, so that nobody knows what it claims."""
    names = [part.text for part in sentence if isinstance(part, Name)]
    found = []
    for named, given in known.get(_form(sentence), {}).items():
        of: dict[str, list[str]] = {}
        for fact, name in zip(named, names, strict=True):
            of.setdefault(fact, []).append(name)
        found.append(Claim(of, given))
    return found


def borne_out(parts: Parts, known: Readings, holds: Callable[[Claim], bool]) -> list[str | Name]:
    """The whole sentences of a reply without those that hold in no way to read them."""
    kept = [one for one in sentences(parts) if not (ways := read(one, known)) or any(map(holds, ways))]
    found: list[str | Name] = []
    for part in (part for sentence in kept for part in sentence):
        if found and not isinstance(part, Name) and not isinstance(found[-1], Name):
            part = found.pop() + part
        found.append(part)
    return found


def _form(sentence: Parts) -> Form:
    """Spaces at its ends say nothing."""
    parts = [f"\x11{part.kind}" if isinstance(part, Name) else part for part in sentence]
    if parts and not isinstance(sentence[0], Name):
        parts[0] = parts[0].lstrip()
    return tuple(part for part in parts if part)
