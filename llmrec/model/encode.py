"""The one place that makes tokens: messages and list lines → token ids.

A row is the concatenation of separately encoded parts, never re-tokenised text: BPE merges `)\\n`, SentencePiece adds
`▁`, templates trim newlines.  User text never becomes control tokens, whatever it spells.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np

from llmrec.engine import Prompt
from llmrec.errors import LlmrecError
from llmrec.tasks.template import Message

MAX_TEXT = 100_000  # characters of one message or title; more is an error, not a silent cut
TOGETHER = 10_000  # texts of one call to the tokenizer, whose answers are many times what is kept of them
DAY = {"date_string": "1 Jan 2025", "strftime_now": date(2025, 1, 1).strftime}
"""The date that some chat templates say: always the same, for an adapter knows the prompts that it was trained on."""


class Encoder:
    """Tokens of one base model."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        added = {token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        added |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self.control = frozenset(added.values())
        """Ids that user text must never become.  (Added tokens of pure white space carry no command.)"""
        self._spelled = re.compile("|".join(re.escape(s) for s in sorted(added, key=len, reverse=True)) or r"(?!)")
        self.newline = tuple(self._after("a", "\n"))
        self._separator = self._raw("\n")
        self._header = lru_cache(maxsize=1024)(self._render_header)
        self._turn = lru_cache(maxsize=1024)(self._render_turn)

    @property
    def end(self) -> int:
        """The token that ends a reply.  Raises: LlmrecError where the base model has none."""
        if self.tokenizer.eos_token_id is None:
            raise LlmrecError("this base model's tokenizer has no end token, so it cannot write texts; take another")
        return int(self.tokenizer.eos_token_id)

    def text(self, text: str) -> list[int]:
        """User text as ordinary tokens.  Raises: LlmrecError over 100,000 characters."""
        return self.texts([text])[0]

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Many at once: one call to the tokenizer for those that spell no control token."""
        for text in texts:
            if len(text) > MAX_TEXT:
                raise LlmrecError(f"text of {len(text)} characters: at most {MAX_TEXT} are taken; shorten it")
        plain = [i for i, text in enumerate(texts) if not self._spelled.search(text)]
        encoded = self._batch([texts[i] for i in plain])
        result: list[list[int]] = [[] for _ in texts]
        for i, ids in zip(plain, encoded, strict=True):
            result[i] = ids if self.control.isdisjoint(ids) else self._harmless(texts[i])
        for i in set(range(len(texts))) - set(plain):
            result[i] = self._harmless(texts[i])
        return result

    def clip(self, text: str, max_tokens: int) -> str:
        """The longest beginning of `text` that stays within `max_tokens`, cut between characters."""
        text = text[:MAX_TEXT]
        if len(self.text(text)) <= max_tokens:
            return text
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            fits, too_long = (middle, too_long) if len(self.text(text[:middle])) <= max_tokens else (fits, middle)
        return text[:fits].rstrip()

    def lines(self, titles: Sequence[str]) -> list[list[int]]:
        """Tokens of each title as a line of a list: encoded after a newline, cut, and ended by the newline tokens, so
        that no line is the beginning of another."""
        cut = len(self._separator)
        encoded = self.texts(["\n" + title for title in titles])
        joined = [i for i, ids in enumerate(encoded) if ids[:cut] != self._separator]
        for i, ids in zip(joined, self.texts([titles[i] for i in joined]), strict=True):
            encoded[i] = self._separator + ids
        return [ids[cut:] + list(self.newline) for ids in encoded]

    def header(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Everything up to and including the opening of the assistant's turn."""
        return self._header(tuple((m.role, m.content) for m in messages))

    def turn(self, before: Sequence[Message], message: Message) -> tuple[int, ...]:
        """From the end of the assistant's reply to `before`, through `message`, to the opening of the next reply."""
        return self._turn(tuple((m.role, m.content) for m in before), (message.role, message.content))

    def list_prompt(
        self,
        messages: Sequence[Message],
        lines: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        step: int = 0,
        block: int = 0,
        behind: int = 0,
        adapter: str | None = None,
    ) -> Prompt:
        """Header and history lines (oldest first; as `lines()` gives them); the oldest lines are dropped until it fits.

        Args:
            step: where lines are dropped at all, they are dropped by about so many tokens at a time (at most half of
                the room): prompts of a growing history then begin alike until so many tokens are added.
            block: where it is not 0, up to a tenth of the lines' tokens are left out, oldest first, so that the prompt
                ends `behind` tokens behind a whole number of blocks, or else as few more as possible.
        Raises: LlmrecError where even the header does not fit.
        """
        header = self.header(messages)
        if len(header) > max_tokens:
            raise LlmrecError(f"the instruction alone takes {len(header)} of {max_tokens} tokens; shorten its wording")
        room = max_tokens - len(header)
        first, excess = 0, sum(map(len, lines)) - room
        if excess > 0:
            step = max(1, min(step, room // 2))
            excess = step * math.ceil(excess / step)
        while excess > 0 and first < len(lines):
            excess -= len(lines[first])
            first += 1
        if block:
            first += _beyond(list(map(len, lines[first:])), len(header) - behind, block)
        # Plain ints, whatever the lines hold: they go to other processes, as JSON too.
        return Prompt(header + tuple(int(token) for line in lines[first:] for token in line), adapter)

    def _render_header(self, messages: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
        return tuple(id for _, ids in self._pieces(messages) for id in ids)

    def _render_turn(self, before: tuple[tuple[str, str], ...], message: tuple[str, str]) -> tuple[int, ...]:
        pieces = self._pieces((*before, ("assistant", ""), message))
        reply = [which for which, _ in pieces].index(len(before))  # some templates move the system's text behind it
        return tuple(id for _, ids in pieces[reply + 1 :] for id in ids)

    def _pieces(self, messages: tuple[tuple[str, str], ...]) -> list[tuple[int | None, list[int]]]:
        """The chat template rendered over marks, then cut at them: control parts (None) may spell control tokens, the
        texts of the messages (by their place) may not."""
        mark = secrets.token_hex(8)
        turns = [{"role": role, "content": f"{mark}x{i}x"} for i, (role, _) in enumerate(messages)]
        pieces = re.split(rf"{mark}x(\d+)x", self._render(turns))
        return [
            (int(piece), self.text(messages[int(piece)][1].strip())) if place % 2 else (None, self._raw(piece))
            for place, piece in enumerate(pieces)
            if piece
        ]

    def _render(self, turns: list[dict[str, str]]) -> str:
        if not self.tokenizer.chat_template:
            bos = self.tokenizer.bos_token or ""
            return bos + "".join(f"{turn['content']}\n\n" for turn in turns)
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False, **DAY}
        try:
            return self.tokenizer.apply_chat_template(turns, **options)
        except Exception:  # templates without a system role raise an error of their own: the user's turn takes its text
            if turns[0]["role"] != "system" or len(turns) < 2:
                raise
            merged = turns[0]["content"] + "\n\n" + turns[1]["content"]
            return self.tokenizer.apply_chat_template([{"role": "user", "content": merged}, *turns[2:]], **options)

    def _raw(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _after(self, before: str, text: str) -> list[int]:
        return self._raw(before + text)[len(self._raw(before)) :]

    def _batch(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = []
        for first in range(0, len(texts), TOGETHER):
            found += self.tokenizer(
                texts[first : first + TOGETHER], add_special_tokens=False, split_special_tokens=True,
                return_attention_mask=False, return_token_type_ids=False,
            )["input_ids"]  # fmt: skip
        return found

    def _harmless(self, text: str) -> list[int]:
        """Text that spells control tokens, cut inside every spelling and encoded piece by piece."""
        pieces, rest = [], text
        while found := self._spelled.search(rest):
            cut = found.start() + 1
            pieces.append(rest[:cut])
            rest = rest[cut:]
        ids = [id for part in self._batch([*pieces, rest]) for id in part]
        if self.control.isdisjoint(ids):
            return ids
        # A normaliser turned something else into a control spelling: single characters cannot spell one.
        return [id for part in self._batch(list(text)) for id in part if id not in self.control]


def _beyond(lengths: Sequence[int], before: int, block: int) -> int:
    """How many of the oldest lines, of so many tokens each, to leave out so that the rest, with `before` tokens before
    it, ends with a block, or as little as possible behind one."""
    left_out = np.cumsum([0, *lengths])
    few = left_out[left_out * 10 <= left_out[-1]]
    return int(((before + left_out[-1] - few) % block).argmin())  # the first of equals, which leaves out least
