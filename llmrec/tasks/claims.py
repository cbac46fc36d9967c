"""What the sentences of a reply claim, read back by way of the replies that a prompt file teaches.

A model that has learned replies writes their sentences, and every name in them is one that may stand there.  But which
sentence it takes is a claim, too: "often chooses <Comedy>" of somebody who never did, "Lately more <Drama>" where there
is less.  So replies are filled in once from placeholders, in all ways that the facts can turn out: a sentence of the
model with the same words then says which facts it takes for granted, and a task says whether they hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmrec.tasks.template import Name, Template

ENDS = re.compile(r"[.!?؟।۔።][\"'”’»)\]]*(?=\s|$)|[。！？｡．][」』”’）]*")

Parts = Sequence[str | Name]
Form = tuple[str, ...]
"""A sentence without its names: texts, and the kinds of names between them."""


@dataclass(frozen=True)
class Claim:
    """What a sentence takes for granted."""

    names: Mapping[str, Sequence[str]]
    """Of each fact that it names, what it is said to be."""
    flags: Mapping[str, bool]
    """The facts that are true or false, of the replies in which this sentence stands."""


Readings = Mapping[Form, Sequence[tuple[Sequence[str], Mapping[str, bool]]]]
"""Of each sentence that replies can say: the fact behind each of its names, and the flags, in every way that leads to
it."""


def placeholder(kind: str, fact: str, number: int = 0) -> Name:
    """Stands for the name of a fact, or for one of its names."""
    return Name.of(kind, f"{fact} {number}")


def sentences(parts: Parts) -> list[list[str | Name]]:
    """The whole sentences, each with the space before it; what is behind the last is left out."""
    found: list[list[str | Name]] = []
    open_: list[str | Name] = []
    for place, part in enumerate(parts):
        begin = 0
        for end in () if isinstance(part, Name) else (one.end() for one in ENDS.finditer(part)):
            if end < len(part) or place == len(parts) - 1:  # "St." before a name ends nothing
                found.append([*open_, part[begin:end]])
                open_, begin = [], end
        if rest := part[begin:] if begin else part:
            open_.append(rest)
    return found


def readings(template: Template, variants: Iterable[Mapping[str, Any]], domain: Mapping[str, Any]) -> Readings:
    """Every sentence of the template's replies.

    Args:
        variants: facts in all ways that they can turn out, their names placeholders.
        domain: the fact of that name.
    Raises: PromptError.
    """
    found: dict[Form, list[tuple[Sequence[str], Mapping[str, bool]]]] = {}
    for facts in variants:
        flags = {name: value for name, value in facts.items() if isinstance(value, bool)}
        for wording in range(len(template.replies)):
            for sentence in sentences(template.reply_parts({**facts, "domain": domain}, wording)):
                places = [name.text.split(" ")[0] for name in sentence if isinstance(name, Name)]
                found.setdefault(_form(sentence), []).append((places, flags))
    return found


def read(sentence: Parts, known: Readings) -> list[Claim]:
    """The ways to read a sentence; none where no reply says it, so that nobody knows what it claims."""
    names = [part.text for part in sentence if isinstance(part, Name)]
    found = []
    for places, flags in known.get(_form(sentence), ()):
        of: dict[str, list[str]] = {}
        for place, name in zip(places, names, strict=True):
            of.setdefault(place, []).append(name)
        found.append(Claim(of, flags))
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
