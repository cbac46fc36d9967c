"""Text with names from closed sets: a model writes, stops where a name opens, and the name is a choice.

A name is the same line of tokens that a list has (but for its code, where the adapter has some), so what the model
learned of titles in lists holds in sentences, and no reply can name what is not there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from llmrec.choices import bonus as terms
from llmrec.choices.search import Choices, branched, rank
from llmrec.engine import Engine, Node, Prompt
from llmrec.errors import PromptError
from llmrec.model.encode import Encoder
from llmrec.tasks.claims import ENDS
from llmrec.tasks.template import OPENS, Name

KINDS = {mark: kind for kind, mark in OPENS.items()}
MAX_TEXT = 48  # tokens between two names
MAX_REPLY = 128  # tokens; a reply that has as many names nothing more
MAX_NAMES = 8  # in a reply
_JOINERS = "\u200c\u200d"  # that words of Persian and Hindi are spelt with
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer

Reply = TypeVar("Reply")

Allowed = Callable[[int, str, Sequence[str | Name]], Sequence[int]]
"""Which positions a prompt's reply may name next: the prompt's index, the kind of name, and the reply so far."""


@dataclass(frozen=True)
class Names:
    """One kind of names: what they are called, their tokens, and the closed set that they make."""

    texts: Sequence[str]
    lines: Sequence[np.ndarray]
    choices: Choices

    @cached_property
    def place(self) -> dict[str, int]:
        """Of each text, where it stands first."""
        return {text: place for place, text in reversed([*enumerate(self.texts)])}


def encoded(parts: Sequence[str | Name], names: Mapping[str, Names], encoder: Encoder) -> list[int]:
    """Tokens of a whole reply, its end included, as training teaches it.

    Raises: PromptError for a name that is in no set, or a text that holds an opening mark.
    """
    tokens: list[int] = []
    text = ""
    for part in parts:
        if not isinstance(part, Name):
            if found := [mark for mark in KINDS if mark in part]:
                raise PromptError(f"replies: {found[0]!r} opens a name; take another character")
            text += part
            continue
        known = names[part.kind]
        if part.text not in known.place:
            raise PromptError(f"replies: no {part.kind} is called {part.text!r}; print names unchanged")
        tokens += [*encoder.text(text + OPENS[part.kind]), *known.lines[known.place[part.text]].tolist()]
        text = ""
    return [*tokens, *encoder.text(text), encoder.end]


def write(
    engine: Engine,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    names: Mapping[str, Names],
    allowed: Allowed,
) -> list[list[str | Name]]:
    """One reply per prompt, greedy, as plain texts and names, no name twice; it ends with a whole sentence, or is
    empty."""
    prompts = engine.pinned(prompts)
    tokens = [prompt.tokens for prompt in prompts]
    replies: list[list[str | Name]] = [[] for _ in prompts]
    open_ = list(range(len(prompts)))
    while open_:
        asked = [Prompt(tokens[i], prompts[i].adapter) for i in open_]
        texts = engine.generate(asked, max_tokens=MAX_TEXT, stop=tuple(KINDS), keep_stop=True)
        wanting: dict[str, dict[int, list[int]]] = {}
        for i, text in zip(open_, texts, strict=True):
            kind = KINDS.get(text[-1:], "")
            replies[i].append(text.removesuffix(OPENS.get(kind, "")))
            said = {part for part in replies[i] if isinstance(part, Name) and part.kind == kind}
            may = allowed(i, kind, replies[i]) if kind and _names(replies[i]) < MAX_NAMES else ()
            if left := [place for place in may if names[kind].texts[place] not in said]:
                wanting.setdefault(kind, {})[i] = left
                tokens[i] += tuple(encoder.text(text))
        for kind, some in wanting.items():
            known = names[kind]
            bonus = [terms.only(len(known.choices), left) for left in some.values()]
            found = rank(
                engine, [Prompt(tokens[i], prompts[i].adapter) for i in some], known.choices, bonus.__getitem__, 1
            )  # fmt: skip
            for i, ranking in zip(some, found, strict=True):
                place = int(ranking.items[0])
                replies[i].append(Name.of(kind, known.texts[place]))
                tokens[i] += tuple(known.lines[place].tolist())
        open_ = sorted(
            i for some in wanting.values() for i in some if len(tokens[i]) < len(prompts[i].tokens) + MAX_REPLY
        )  # fmt: skip
    return [whole_sentences(sound(reply)) for reply in replies]


def reworded(count: int, wordings: Iterable[int], ask: Callable[[list[int], int], Sequence[Reply]]) -> list[Reply]:
    """A reply to each of `count` questions, asked in the next of `wordings` where nothing is left of what one brought.

    Args:
        ask: the replies to the questions at these places, in one wording.
    """
    found: dict[int, Reply] = {}
    left = list(range(count))
    for wording in wordings:
        if not left:
            break
        found |= zip(left, ask(left, wording), strict=True)
        left = [i for i in left if not found[i]]
    return [found[i] for i in range(count)]


def sound(parts: Sequence[str | Name]) -> Sequence[str | Name]:
    """The parts before the first text that belongs to no sentence: it runs into the name before it, or holds what is
    not printed."""
    for i, part in enumerate(parts):
        if isinstance(part, Name):
            continue
        runs_on = i > 0 and isinstance(parts[i - 1], Name) and part[:1].isalnum() and not _unspaced(part[0])
        if runs_on or "\ufffd" in part or not all(map(_printed, part.rstrip())):
            return parts[:i]
    return parts


def _printed(letter: str) -> bool:
    """Spaces of other widths are, too."""
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"


def _unspaced(letter: str) -> bool:
    """Whether it is of a script that puts no space between a name and what follows."""
    return unicodedata.east_asian_width(letter) in "WFH" or bool(_UNSPACED.match(letter))


def _names(parts: Sequence[str | Name]) -> int:
    return sum(isinstance(part, Name) for part in parts)


def log_p_of(
    engine: Engine, encoder: Encoder, prompts: Sequence[Prompt], replies: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Per prompt the log p of each token of its reply, float32 nats, among the whole vocabulary."""
    everything = np.arange(len(encoder.tokenizer), dtype=np.int32)
    found = []
    for prompt, reply in zip(prompts, replies, strict=True):  # one at a time: each token brings a whole vocabulary
        nodes = [Node(prompt, tuple(reply[:end]), everything) for end in range(len(reply))]
        log_p = branched(engine, nodes)
        found.append(np.array([one[token] for one, token in zip(log_p, reply, strict=True)], np.float32))
    return found


def whole_sentences(parts: Sequence[str | Name]) -> list[str | Name]:
    """The parts up to the end of the last sentence."""
    kept = list(parts)
    while kept:
        last = kept.pop()
        if not isinstance(last, Name) and (ends := [found.end() for found in ENDS.finditer(last)]):
            return [*kept, last[: ends[-1]]]
    return []


def plain(parts: Sequence[str | Name]) -> str:
    """A reply as people read it: titles in quotes."""
    texts = [
        part if not isinstance(part, Name) else f"“{part.text}”" if part.kind == "item" else part.text
        for part in parts
    ]  # fmt: skip
    return "".join(texts).strip()
