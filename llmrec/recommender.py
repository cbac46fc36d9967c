"""A domain ready to answer: its catalog as choices, its prompts, an engine, and the bonus terms of its card."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from llmrec import config, prepare
from llmrec.baselines import Prior
from llmrec.baselines.teacher import Teacher
from llmrec.baselines.transitions import Transitions
from llmrec.choices import bonus as terms
from llmrec.choices.identifiers import identifiers
from llmrec.choices.search import Choices, Ranking, merged, rank
from llmrec.choices.search import score as log_p_of
from llmrec.choices.trie import ChoiceTrie
from llmrec.codes import Coding, of_adapter
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import Query, queries
from llmrec.engine import Engine, Prompt
from llmrec.errors import AdapterError
from llmrec.model import adapter as adapters
from llmrec.model.encode import Encoder
from llmrec.opened import Opened
from llmrec.tasks import next_item
from llmrec.tasks.template import Template

LOG = logging.getLogger("llmrec")


@dataclass(frozen=True)
class Listing:
    """A catalog as the model reads and chooses it: positions of the catalog are the choices."""

    identifiers: list[str]
    names: list[np.ndarray]  # tokens of each identifier as a line, newline included
    lines: list[np.ndarray]  # those of each item's line in a list, with its code before the identifier, if it has one
    codes: Sequence[str]  # of each item, or none
    choices: Choices

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Tokens of the longest line, and of the longest identifier as a line."""
        return max(map(len, self.lines)), max(map(len, self.names))

    @cached_property
    def named(self) -> Choices:
        """The items as texts name them: without codes."""
        if not self.codes:
            return self.choices
        known = len(self.choices.trie)
        return _choices(self.names[:known], self.names[known:], self.choices.new_share, self.choices.trust)

    @classmethod
    def build(
        cls,
        catalog: Catalog,
        template: Template,
        encoder: Encoder,
        max_tokens: int,
        trained: Sequence[str] | None = None,
        new_share: float = 0.0,
        coding: Coding | None = None,
        *,
        trust: float = 1.0,
        of_base: bool = False,
    ) -> Listing:
        """Every item as one line, worded by the template's `line`.  With `trained` (digests from a card) the other
        items are newcomers with a trie of their own, and together `new_share` of the probability, with `trust` in what
        the model says of them; `of_base`: the base model is asked, which has learned no codes.

        Raises: AdapterError where trained items have left the catalog or changed their titles; ChoiceError where two
        lines cannot be told apart.
        """
        rows = zip(catalog.title, catalog.year, catalog.categories, strict=True)
        titles = [
            template.line_text({"title": title, "year": year, "categories": names}) for title, year, names in rows
        ]
        texts, names = identifiers(titles, catalog.year, encoder.lines, max_tokens=max_tokens + len(encoder.newline))
        codes, lines = (coding(texts) if coding else ()), names
        if codes:
            coded = [f"{code} {text}" for code, text in zip(codes, texts, strict=True)]
            lines = [np.asarray(ids, np.int32) for ids in encoder.lines(coded)]
        if trained is None:
            return cls(texts, names, lines, codes, _choices(lines, [], 0.0, 1.0))
        known = set(trained)
        old = [text_digest in known for text_digest in map(adapters.item_digest, texts)]
        if sum(old) < len(known):
            raise AdapterError(
                f"{len(known) - sum(old)} of {len(known)} items that the adapter was trained on are not in the catalog "
                "under their old titles; keep them (exclude them when asking) or train again"
            )
        first_new = old.index(False) if False in old else len(old)
        if any(old[first_new:]):
            raise AdapterError("new items must stand behind the trained ones in the catalog; append them at its end")
        newcomers = (names if of_base else lines)[first_new:]
        return cls(texts, names, lines, codes, _choices(lines[:first_new], newcomers, new_share, trust))


def _choices(known: Sequence[np.ndarray], newcomers: Sequence[np.ndarray], new_share: float, trust: float) -> Choices:
    """What is known in one trie; newcomers, if any, in one of their own with `new_share` of all."""
    if not newcomers:
        return Choices(ChoiceTrie.build(known))
    return Choices(ChoiceTrie.build(known), ChoiceTrie.build(newcomers), new_share, trust)


def _cut_as_learned(recipe: config.Recipe, card: dict[str, Any], adapter: str | None) -> config.Recipe:
    """With titles cut as the adapter has learned them: the recipe may have changed since."""
    if adapter is None or "items" not in card:
        return recipe
    made = card.get("recipe", {})
    learned = config.section(config.Identifier, made.get("identifier", {}), source=f"{adapters.CARD} of {adapter}")
    window = made.get("fit", {}).get("window_tokens", recipe.fit.window_tokens)
    if window != recipe.fit.window_tokens:
        LOG.warning(
            "%s was trained with fit.window_tokens=%s and reads %s here; set that in the recipe, or train it again",
            adapter, window, recipe.fit.window_tokens,
        )  # fmt: skip
    if learned.max_tokens == recipe.identifier.max_tokens:
        return recipe
    LOG.warning(
        "%s: titles have at most %d tokens, as it was trained; identifier.max_tokens=%d waits for the next training",
        adapter, learned.max_tokens, recipe.identifier.max_tokens,
    )  # fmt: skip
    identifier = recipe.identifier.model_copy(update={"max_tokens": learned.max_tokens})
    return recipe.model_copy(update={"identifier": identifier})


@dataclass
class Recommender:
    """Ranks a domain's catalog for histories of catalog positions."""

    recipe: config.Recipe
    dataset: Dataset
    catalog: Catalog
    listing: Listing
    encoder: Encoder
    template: Template
    engine: Engine
    adapter: str | None
    prior_weight: float = 0.0
    card: dict[str, Any] = field(default_factory=dict)
    of_base: bool = False
    """Whether the base model places newcomers: what training does to titles that it never sees is an accident, and what
    the base has read of them is worth more (docs/results.md)."""

    @classmethod
    def load(
        cls, recipe: config.Recipe, adapter: str | None, *, engine: str = "hf", device: str | None = None
    ) -> Recommender:
        """The domain of `recipe` with a trained adapter (`None`: the base model as it is).

        Args:
            engine: `hf`, `vllm`, or the address of a vLLM server.
        Raises: AdapterError where the adapter is missing or belongs to another base, catalog or wording; EngineError.
        """
        dataset = prepare.load(recipe)
        catalog = Catalog.of(dataset)
        opened = Opened.of(recipe, adapter, engine)
        template = _wording(opened)
        card, encoder = opened.card, opened.encoder
        if prior := card.get("recipe", {}).get("prior"):  # as it was when its weight was fitted
            recipe = recipe.model_copy(update={"prior": config.section(config.Prior, prior)})
        recipe = _cut_as_learned(recipe, card, adapter)
        of_base = adapter is not None and not (engine == "vllm" and recipe.serve.merge)  # merged weights have no base
        listing = Listing.build(
            catalog, template, encoder, recipe.identifier.max_tokens, card.get("items"), recipe.new_share,
            of_adapter(card, catalog), trust=recipe.new_trust, of_base=of_base,
        )  # fmt: skip
        return cls(
            recipe=recipe, dataset=dataset, catalog=catalog, listing=listing, encoder=encoder, template=template,
            engine=opened.start(device), adapter=adapter, prior_weight=float(card.get("prior_weight", 0.0)), card=card,
            of_base=of_base,
        )  # fmt: skip

    @cached_property
    def prior(self) -> Prior:
        """What the card's weight was fitted for: the adapter's teacher, or item-item transitions, counted here."""
        if self.adapter and "teacher" in self.card:
            file = config.adapter_folder(self.adapter) / adapters.TEACHER
            if problem := adapters.teacher_problem(file.parent, self.card):
                raise AdapterError(f"{file.parent}: {problem}")
            return Teacher.load(file, self.recipe, self.dataset, self.catalog)
        return Transitions.fit(self.dataset, self.catalog, self.recipe.prior)

    def queries(self, split: str, most: int | None = None) -> list[Query]:
        """What each user is asked in `split`, at most `most` times, by default the recipe's `split.max_targets`."""
        settings = self.recipe.split
        most = settings.max_targets if most is None else most
        return queries(self.dataset, self.catalog, split, baskets=settings.baskets, max_targets=most)

    def prompts(self, histories: Sequence[Sequence[int]], wording: int = 0) -> list[Prompt]:
        """One prompt per history (catalog positions, oldest first); what does not fit falls off at the old end."""
        return self._prompts(histories, wording)

    def _prompts(self, histories: Sequence[Sequence[int]], wording: int, *, of_base: bool = False) -> list[Prompt]:
        lines = self.listing.names if of_base else self.listing.lines
        messages = next_item.messages(self.template, self.recipe, wording)
        return [
            self.encoder.list_prompt(
                messages,
                [lines[item] for item in history],
                max_tokens=self.recipe.fit.window_tokens - self.listing.longest[of_base],
                step=self.recipe.window_step,
                block=self.recipe.window_block,
                behind=self._behind,
                adapter=None if of_base else self.adapter,
            )
            for history in histories
        ]

    @cached_property
    def _behind(self) -> int:
        """Tokens of a prompt behind its last whole block.

        None make a question about a path the cheapest.  But the prompt alone is then read again from its last block on,
        where one token behind it would do: for each part of a root that takes many requests.
        """
        # A tree of one choice decides nothing.
        roots = (trie.children(0) for trie, _, _ in self.listing.choices.parts() if len(trie) > 1)
        widest = (self.engine or Engine).widest  # training rows are also made without an engine, to be shown
        return int(max(map(len, roots), default=0) > widest)

    def rank(
        self,
        histories: Sequence[Sequence[int]],
        n: int,
        *,
        exclude: Sequence[Sequence[int]] | None = None,
        allowed: np.ndarray | None = None,
        candidates: Sequence[Sequence[int] | None] | None = None,
        prior: bool = True,
        wording: int = 0,
        progress: Any = None,
    ) -> list[Ranking]:
        """The true top `n` of the whole catalog for each history.

        Args:
            exclude: positions that may not be offered, per history, beside the history's own items.
            allowed: (items,) bool; false items may not be offered to anyone.
            candidates: the only positions that may be offered, per history; None allows all.
            prior: add the card's weight of its prior.
        Raises: AdapterError where the adapter has not learned next_item.
        """
        self._check_ranks()
        items = len(self.catalog)
        offered = None if allowed is None else terms.only(items, np.flatnonzero(allowed))

        def bonus(i: int) -> np.ndarray | terms.Except:
            seen = histories[i] if self.recipe.split.repeats == "exclude" else ()
            hidden = [*seen, *(exclude[i] if exclude else ())]
            mine = candidates[i] if candidates else None
            if mine is None and not (prior and self.prior_weight):
                return terms.without(items, hidden, offered)
            parts = [terms.mask(items, hidden)]
            if offered is not None:
                parts.append(offered)
            if mine is not None:
                parts.append(terms.only(items, mine))
            if prior and self.prior_weight:
                parts.append(self._expected(histories[i]))
            return terms.combine(*parts)

        asked = self.prompts(histories, wording), self.listing.choices, bonus, n
        if not self._base_is_asked:
            return rank(self.engine, *asked, progress=progress)
        known = rank(self.engine, *asked, part=0, progress=progress)
        least = [float(one.score[-1]) if len(one.score) == n else -np.inf for one in known]
        base = self._prompts(histories, wording, of_base=True)
        new = rank(self.engine, base, *asked[1:], part=1, least=least)
        return [merged(*pair, n) for pair in zip(known, new, strict=True)]

    def score(
        self, histories: Sequence[Sequence[int]], items: Sequence[Sequence[int]], *, prior: bool = True
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per history log p and score of its `items` (catalog positions), each (items,) float32 nats.

        Nothing is masked: an item of the history has a number, too.
        """
        self._check_ranks()
        found = []
        for i, log_p in enumerate(self._log_p(histories, items)):
            bonus = self._expected(histories[i])[list(items[i])] if prior and self.prior_weight else 0
            found.append((log_p, (log_p + bonus).astype(np.float32)))
        return found

    @property
    def _base_is_asked(self) -> bool:
        return self.of_base and self.listing.choices.new is not None

    def _log_p(self, histories: Sequence[Sequence[int]], items: Sequence[Sequence[int]]) -> list[np.ndarray]:
        choices = self.listing.choices
        if not self._base_is_asked:
            return log_p_of(self.engine, self.prompts(histories), choices, items)
        new = [np.asarray(some, np.int64) >= len(choices.trie) for some in items]
        found = [np.empty(len(some), np.float32) for some in items]
        for prompts, mine in (
            (self.prompts(histories), [~one for one in new]),
            (self._prompts(histories, 0, of_base=True), new),
        ):
            wanted = [np.asarray(some, np.int64)[those].tolist() for some, those in zip(items, mine, strict=True)]
            for i, log_p in enumerate(log_p_of(self.engine, prompts, choices, wanted)):
                found[i][mine[i]] = log_p
        return found

    def _check_ranks(self) -> None:
        """Raises: AdapterError for an adapter that has read lists, but never learned to continue them."""
        tasks = self.card.get("recipe", {}).get("tasks", {})
        if tasks and "next_item" not in tasks:
            raise AdapterError(
                f"{self.adapter}: not trained on next_item (only {', '.join(tasks)}), so it cannot rank a catalog; "
                f"name next_item among the recipe's tasks and run `llmrec train {self.recipe.domain}`, name another "
                "adapter, or give --base"
            )

    def _expected(self, history: Sequence[int]) -> np.ndarray:
        """(items,) float32: the bonus of the card's weight of its prior."""
        return terms.mix(
            self.prior.p(history), self.prior.popularity, self.prior_weight, self.recipe.prior.floor,
            known=len(self.listing.choices.trie),
        )  # fmt: skip


def _wording(opened: Opened) -> Template:
    """The list's wording."""
    folder = opened.folder
    if folder and "next_item" not in opened.saved:
        raise AdapterError(
            f"{folder}: not trained on next_item, and without its wording (only {', '.join(opened.saved)}); it cannot "
            "read a history: name an adapter that can, or train it again with a task of histories"
        )
    return opened.wording("next_item")
