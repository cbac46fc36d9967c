"""What is wrong or doubtful in a prompt file, for any task: its slots are filled with placeholders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import meta, nodes

from llmrec.errors import PromptError
from llmrec.tasks.next_item import Domain, named
from llmrec.tasks.template import ENVIRONMENT, OPENS, Message, Template

FEW = 3  # fewer wordings to train on than this tie the adapter to them


@dataclass(frozen=True)
class Finding:
    """Something to mend (`grave`) or to consider."""

    where: str
    says: str
    grave: bool = False


@dataclass(frozen=True)
class Length:
    """How long one wording is for a domain."""

    wording: int
    tokens: int
    """Of the system and user turns with control tokens, slots other than `domain` holding one character."""
    room: int
    """Tokens of the window that are left."""


class Sample:
    """Stands for any slot: one character of text, a list of one, a mapping of every key."""

    def __str__(self) -> str:
        return "…"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: Any) -> Sample:
        return self

    def __iter__(self) -> Iterator[Any]:
        yield self

    def __lt__(self, other: Any) -> bool:
        return False

    __gt__ = __le__ = __ge__ = __lt__  # `if user.age > 30` compares with whatever stands there


def lint(template: Template) -> list[Finding]:
    """What can be said without a domain."""
    return [*_wordings(template), *_slots(template), *_replies(template)]


def lengths(
    template: Template,
    domain: Domain,
    count: Callable[[Sequence[Message]], int],
    *,
    window_tokens: int,
    longest_line: int,
) -> tuple[list[Length], list[Finding]]:
    """Tokens of every wording, and those that leave no room in the window.

    Args:
        count: tokens of the turns before the reply.
        longest_line: tokens that a line of a list may have.
    """
    measured: list[Length] = []
    findings: list[Finding] = []
    for i in template.wordings():
        try:
            tokens = count(rendered(template, domain, i))
        except PromptError as error:
            where, _, says = str(error).removeprefix(f"{template.path}: ").partition(": ")
            findings.append(Finding(where, says, grave=True))
            continue
        room = window_tokens - tokens
        measured.append(Length(i, tokens, room))
        where, window = f"user.{i}", f"the {window_tokens} of fit.window_tokens"
        if room < (longest_line if template.reply == "list" else 1):
            says = f"{tokens} tokens leave no room in {window} ({domain.noun}); shorten it, or raise the setting"
            findings.append(Finding(where, says, grave=True))
        elif room < window_tokens / 2:
            findings.append(Finding(where, f"{tokens} tokens take more than half of {window} ({domain.noun})"))
    return measured, findings


def rendered(template: Template, domain: Domain, wording: int) -> tuple[Message, ...]:
    """The turns with the domain's words and placeholders.  Raises: PromptError."""
    return template.render({name: Sample() for name in template.slots} | {"domain": named(domain)}, wording)


def _wordings(template: Template) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for i, wording in enumerate(template.user):
        words = " ".join(re.findall(r"\{[{%].*?[%}]\}|\w+", wording.text.casefold()))
        if not wording.text.strip():
            yield Finding(f"user.{i}", "an empty wording", grave=True)
        elif words in first:
            yield Finding(f"user.{i}", f"says the same as wording {first[words]}", grave=True)
        first.setdefault(words, i)
    if not template.wordings(held_out=True):
        yield Finding("user", "no wording is held out: nothing measures whether the adapter copes with another one")
    if template.user[0].held_out:
        yield Finding("user.0", "held out, yet it is the one that answers: put a trained wording first", grave=True)
    if (trained := len(template.wordings(held_out=False))) < FEW:
        yield Finding("user", f"{trained} to train on: the adapter will depend on {'it' if trained == 1 else 'them'}")


def _slots(template: Template) -> Iterator[Finding]:
    texts = [template.system, *(wording.text for wording in template.user)]
    used = {name for text in texts for name in _names(text)}
    for name in sorted(set(template.slots) - used):
        yield Finding("slots", f"'{name}' is never used")
    told = {name for text in template.replies for name in _names(text)}
    for name in sorted(set(template.facts) - told):
        yield Finding("facts", f"'{name}' is never told")
    if template.reply == "list" and "item" not in _names(template.line):
        yield Finding("line", "does not print the item: all items read alike", grave=True)


def _replies(template: Template) -> Iterator[Finding]:
    for i, text in enumerate(template.replies):
        if template.replies.index(text) < i:
            yield Finding(f"replies.{i}", f"says the same as reply {template.replies.index(text)}", grave=True)
        plain = "".join(data.data for data in ENVIRONMENT.parse(text).find_all(nodes.TemplateData))
        for mark in OPENS.values():
            if mark in plain:
                yield Finding(f"replies.{i}", f"{mark!r} opens a name; take another character", grave=True)


def _names(text: str) -> set[str]:
    return set(meta.find_undeclared_variables(ENVIRONMENT.parse(text)))
