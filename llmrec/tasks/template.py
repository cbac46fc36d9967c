"""Prompt files: wording as data, rendered in a sandbox.

A template may print slots, choose with `if`, repeat over a list, and use a few filters.  It may not call, assign,
define, import or compute, so what it costs is bounded by what it is given.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml
from jinja2 import meta, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from llmrec.config import NOT_YAML, Section, prompt_file
from llmrec.errors import PromptError, did_you_mean

MAX_FILE_BYTES = 100_000
MAX_ENTRIES = 100  # of each list
MAX_RENDERED = 100_000  # characters of all messages together
MAX_DEPTH = 50  # of an expression; Python's own compiler gives up not far above

ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.List, nodes.Tuple,
    nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.If, nodes.CondExpr, nodes.For, nodes.Filter, nodes.Test,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Concat, nodes.Keyword,
)  # fmt: skip
FILTERS = ("capitalize", "default", "first", "join", "last", "length", "lower", "title", "trim", "upper")
TESTS = ("defined", "none", "string", "number", "undefined")


OPENS = {"item": "[", "category": "<"}  # the last character before a name in a reply, by kind
NAMED = re.compile("\x11(.*?)\x12(.*?)\x13", re.DOTALL)  # as `Name` prints itself; no text from outside holds these


class Name(str):
    """An item or a category where a reply mentions it: text to a template's eyes, a part of its own when printed."""

    kind: str

    @classmethod
    def of(cls, kind: str, text: str) -> Name:
        """`kind`: item or category."""
        name = cls(text)
        name.kind = kind
        return name

    @property
    def text(self) -> str:
        """What it spells, and nothing more."""
        return self[:]

    def __str__(self) -> str:
        return f"\x11{self.kind}\x12{self[:]}\x13"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Wording(Section):
    """One phrasing of what the user asks."""

    model_config = ConfigDict(strict=True)

    text: str
    """The turn, with slots."""
    held_out: bool = False
    """Never trained on: measures robustness to wording."""


class Label(Section):
    """One reply of a choice, and the ratings that mean it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=True)  # `highest: .inf` is everything above

    text: str
    """What the model says."""
    lowest: float
    """Lowest rating that means it."""
    highest: float
    """Highest rating that means it."""


class Template(Section):
    """What a prompt file holds.  Make one with `Template.load`: it checks everything but the values."""

    model_config = ConfigDict(strict=True)

    task: str
    """Name of the task: the file's name."""
    version: int = Field(ge=1)
    """Raised with every change of meaning."""
    follows: Literal["", "next_item"] = ""
    """`next_item`: a turn after that task's list, on the same person; `system` is the list's."""
    slots: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
    """Every name that `system` and `user` may use."""
    system: str = ""
    """The system turn; none where empty."""
    user: tuple[Wording, ...] = Field(min_length=1, max_length=MAX_ENTRIES)
    """The user's turn, in one or more wordings."""
    reply: Literal["list", "text", "choice"]
    """`list`: lines of items, each a choice; `choice`: one entry of `choices`; `text`: free."""
    line: str = "{{ item.title }}"
    """What names an item in a list, and is predicted; `item` has title, year and categories.  Cut to the recipe's
    `identifier.max_tokens` and made unique; changing it needs a new training."""
    choices: Literal["", "catalog", "categories", "labels"] = ""
    """The closed set that a choice comes from."""
    facts: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
    """Every name that `replies` may use."""
    replies: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
    """What a text should be, in one or more wordings, filled from the data: what training teaches.  A printed item or
    category becomes a name, which an answer chooses from those that are true of the person."""
    labels: tuple[Label, ...] = ()
    """The closed set itself, where `choices: labels`."""

    _path: Path = PrivateAttr(Path("."))
    _digest: str = PrivateAttr("")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: Any) -> Any:
        """YAML has lists only; tuples keep a loaded template unchangeable."""
        # `metrics`, which nothing reads, stands in files saved with adapters, and their digests hold it.
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "metrics"}

    @classmethod
    def load(cls, path: Path, task: str = "") -> Template:
        """The prompt file of `task`, by default the one that the file is named after.

        Raises: PromptError with every problem of the file at once.
        """
        content = _read(path)
        try:
            values = yaml.safe_load(content)
        except NOT_YAML as error:
            raise PromptError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise PromptError(f"{path}: a mapping is expected, not {type(values).__name__}")
        try:
            template = cls.model_validate(values)
        except ValidationError as error:
            raise PromptError("; ".join(_explain(path, problem) for problem in error.errors())) from None
        template._path = path
        template._digest = hashlib.sha256(content).hexdigest()[:12]
        if problems := list(template._problems(task or path.stem)):
            raise PromptError("; ".join(f"{path}: {problem}" for problem in problems))
        return template

    @classmethod
    def today(cls, task: str) -> Template:
        """As `prompts/` has it.  Raises: PromptError."""
        return cls.load(prompt_file(task))

    @property
    def path(self) -> Path:
        """The file it was loaded from."""
        return self._path

    @property
    def digest(self) -> str:
        """First 12 hex digits of the file's SHA-256."""
        return self._digest

    @property
    def meaning(self) -> dict[str, Any]:
        """What a model reads or learns of the file: all but comments, layout, version and slots."""
        unread = {"version", "slots", "facts"}
        unread |= {name for name in ("labels", "follows", "replies") if not getattr(self, name)}
        return self.model_dump(mode="json", exclude=unread)

    def wordings(self, held_out: bool | None = None) -> list[int]:
        """Indexes into `user`: all, or only those (not) held out."""
        return [i for i, wording in enumerate(self.user) if held_out is None or wording.held_out == held_out]

    def render(self, slots: Mapping[str, Any], wording: int = 0) -> tuple[Message, ...]:
        """The messages before the reply.

        Args:
            slots: plain data (text, numbers, lists, mappings) for at least the declared slots.
        Raises: PromptError for a slot without a value or a wording that is not there.
        """
        if not 0 <= wording < len(self.user):
            raise PromptError(f"{self._path}: no wording {wording}; there are 0 to {len(self.user) - 1}")
        if missing := sorted(set(self.slots) - set(slots)):
            raise PromptError(
                f"{self._path}: slots: '{self.task}' fills no {', '.join(missing)} ({', '.join(sorted(slots))})"
            )
        declared = {name: slots[name] for name in self.slots}
        system, user = self._fill("system", declared), self._fill(f"user.{wording}.text", declared)
        if len(system) + len(user) > MAX_RENDERED:
            raise PromptError(f"{self._path}: more than {MAX_RENDERED:,} characters when filled in")
        turns = (Message("system", system), Message("user", user))
        return tuple(turn for turn in turns if turn.role != "system" or turn.content)

    def reply_parts(self, facts: Mapping[str, Any], wording: int = 0) -> list[str | Name]:
        """The reply that training teaches, as plain texts and names, none of them empty.

        Args:
            facts: plain data and `Name`s for at least the declared facts.
        Raises: PromptError for a fact without a value.
        """
        if missing := sorted(set(self.facts) - set(facts)):
            raise PromptError(
                f"{self._path}: facts: '{self.task}' knows no {', '.join(missing)} ({', '.join(sorted(facts))})"
            )
        text = " ".join(self._fill(f"replies.{wording}", {name: facts[name] for name in self.facts}).split())
        pieces = NAMED.split(text)
        parts: list[str | Name] = []
        for place in range(0, len(pieces), 3):
            parts += [pieces[place]] if pieces[place] else []
            parts += [Name.of(*pieces[place + 1 : place + 3])] if place + 2 < len(pieces) else []
        return parts

    def line_text(self, item: Mapping[str, Any]) -> str:
        """An item (title, year, categories) as the text of one line; line breaks become spaces."""
        return " ".join(self._fill("line", {"item": item}).splitlines())

    @cached_property
    def _parts(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Place in the file → its text and the names it may use."""
        parts = {f"user.{i}.text": (wording.text, self.slots) for i, wording in enumerate(self.user)}
        return {
            "system": (self.system, self.slots),
            **parts,
            "line": (self.line, ("item",)),
            **{f"replies.{i}": (text, self.facts) for i, text in enumerate(self.replies)},
        }

    @cached_property
    def _compiled(self) -> dict[str, jinja2.Template]:
        return {place: ENVIRONMENT.from_string(text) for place, (text, _) in self._parts.items()}

    def _problems(self, task: str) -> Iterator[str]:
        if self.task != task:
            yield f"task: '{self.task}' must be the file's name, '{task}'"
        if not self.wordings(held_out=False):
            yield "user: every wording is held out; leave at least one to train on"
        if (self.choices == "labels") != bool(self.labels):
            yield "labels: stand where `choices: labels`, and only there"
        if self.labels and len({label.text for label in self.labels}) < max(2, len(self.labels)):
            yield "labels: two or more with different texts are needed"
        if self.follows and self.system.strip():
            yield f"system: a turn after the list of {self.follows} has that one's; leave it out"
        if self.replies and self.reply != "text":
            yield "replies: stand where `reply: text`, and only there"
        if sum(len(text) for text, _ in self._parts.values()) > MAX_FILE_BYTES:  # YAML can name one text many times
            yield f"more than {MAX_FILE_BYTES:,} characters in all"
            return
        for place, (text, names) in self._parts.items():
            yield from (f"{place}: {problem}" for problem in _check(text, names))

    def _fill(self, place: str, slots: Mapping[str, Any]) -> str:
        pieces, size = [], 0
        try:
            for piece in self._compiled[place].generate(slots):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_RENDERED:
                    raise PromptError(f"{self._path}: {place}: more than {MAX_RENDERED:,} characters when filled in")
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise PromptError(f"{self._path}: {place}: {error}") from None
        return "".join(pieces)


class _Missing(jinja2.StrictUndefined):
    """A key that a slot lacks: an error that names what is there."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if isinstance(self._undefined_obj, Mapping):
            hint = did_you_mean(str(self._undefined_name), map(str, self._undefined_obj))
            return f"unknown '{self._undefined_name}'{hint}"
        return super()._undefined_message


class _Environment(ImmutableSandboxedEnvironment):
    """Slots are plain data: a name leads to a key of a mapping or a place in a list, never to a Python attribute."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, LoopContext):  # loop.first, loop.last, …
            return super().getattr(obj, argument)
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)

    getattr = getitem  # type: ignore[assignment]  # our templates see mappings: a.b and a['b'] are one


def _join(values: Any, separator: str = "") -> str:
    """Jinja's `join` of a list, refused before it gets long."""
    if isinstance(values, (jinja2.Undefined, str)):
        raise TypeError(f"join: a list is expected, not {str(values)[:40]!r}")
    texts = [str(value) for value in values]
    if sum(map(len, texts)) + len(texts) * len(separator) > MAX_RENDERED:
        raise ValueError(f"join: more than {MAX_RENDERED:,} characters")
    return separator.join(texts)


def _environment() -> _Environment:
    environment = _Environment(undefined=_Missing, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    environment.globals.clear()  # range, lipsum, cycler, …
    environment.filters = {name: environment.filters[name] for name in FILTERS} | {"join": _join}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment


ENVIRONMENT = _environment()


def _check(text: str, names: tuple[str, ...]) -> Iterator[str]:
    """What stands in `text` that may not."""
    try:
        tree = ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        yield f"line {error.lineno}: {error.message}"
        return
    except (RecursionError, ValueError) as error:  # ValueError: a number with thousands of digits
        yield f"cannot be read: {error}"
        return
    if refused := sorted(set(_refused(tree, ()))):
        yield f"{', '.join(refused)}: not in a prompt file; there are slots, if, for and filters ({', '.join(FILTERS)})"
        return
    for name in sorted(meta.find_undeclared_variables(tree) - set(names)):
        yield f"unknown slot '{name}'{did_you_mean(name, names)}"
    try:
        ENVIRONMENT.from_string(text)
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError) as error:
        yield f"{error}"


def _refused(node: nodes.Node, above: tuple[nodes.Node, ...]) -> Iterator[str]:
    """Names of the constructs below `node` that a prompt file may not use."""
    if len(above) > MAX_DEPTH:
        yield "deep nesting"
        return
    if not isinstance(node, ALLOWED):
        yield type(node).__name__.lower()
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        yield f"filter {node.name}{did_you_mean(node.name, FILTERS).partition(' (')[0]}"
    if isinstance(node, nodes.Test) and node.name not in TESTS:
        yield f"test {node.name}"
    if isinstance(node, nodes.For) and (node.recursive or any(isinstance(outer, nodes.For) for outer in above)):
        yield "for within for"
    for child in node.iter_child_nodes():
        yield from _refused(child, (*above, node))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PromptError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise PromptError(f"{path}: no such prompt file{did_you_mean(path.stem, known)}") from None
    except OSError as error:
        raise PromptError(f"{path}: cannot be read: {error.strerror or error}") from None


def _explain(path: Path, problem: Any) -> str:
    *parents, leaf = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        kinds: dict[str, type[Section]] = {"user": Wording, "labels": Label}
        known = kinds[parents[0]].model_fields if parents else Template.model_fields
        return f"{path}: {'.'.join([*parents, f'unknown key {leaf!r}'])}{did_you_mean(leaf, known)}"
    return f"{path}: {'.'.join([*parents, leaf])}: {problem['msg']}"
