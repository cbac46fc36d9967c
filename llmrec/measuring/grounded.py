"""Suites of the grounded tasks: what several writers say to the same people, beside what somebody wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from llmrec import config
from llmrec.baselines.sentences import copied, explanation, nearest, summary, typical
from llmrec.data.pairs import Example, Pairs, of_split
from llmrec.measuring.after_list import in_blocks
from llmrec.measuring.replies import Scored, check, reported
from llmrec.measuring.suites import check_same, check_unseen, depends_on
from llmrec.metrics.llm_judge import LLMJudge
from llmrec.metrics.text import faithfulness, measured
from llmrec.parts import Parts
from llmrec.tasks.grounded import EXPLANATION
from llmrec.tasks.saved import read_card
from llmrec.tasks.template import Template

if TYPE_CHECKING:  # it imports torch
    from llmrec.grounded import Writer

FORMAT = 2  # of the parts; goes up where the same settings give other replies
MODELS = ("base", "llm", "llm+consensus")  # writers that are the language model
FEW = 3  # features or items that a template names
NOTES = (
    "A fact is an item's title (capitals count) or a number; it is true where the input says it. What a model writes "
    "loses the sentences that name another one, so its `faithful` is no achievement. backed is the share "
    "of the features that a reply names which stand in the input or in the reference: what else a reply says may be "
    "so, but nothing here shows it. match is the share of the reference's features that a reply names."
)

Writing = Callable[[Sequence[Example]], list[str]]


def measure(settings: config.Grounded, parts: Parts) -> tuple[dict[str, Any], pd.DataFrame]:
    """See `llmrec.evaluate.Measure.run`: one record per example and writer, with reply, reference and metrics."""
    from llmrec.grounded import examples, facts, source

    judge = LLMJudge.of(settings)
    recipe = config.load_recipe(settings.domain)
    pairs = source(recipe, settings.task)
    texts = examples(pairs, settings.task)
    train = of_split(texts, "train", 0, settings.seed)
    asked = of_split(texts, settings.split, settings.examples, settings.seed)
    check(settings, judge, len(asked))
    adapter = settings.adapter or recipe.domain
    card = _card(recipe, adapter, settings, pairs) if {"llm", "llm+consensus"} & {*settings.writers} else {}

    loaded: dict[str | None, Writer] = {}

    def model(name: str | None, *, consensus: bool = False) -> Writing:
        from llmrec.engine import start as engines
        from llmrec.grounded import Writer

        load = partial(Writer.load, recipe, settings.task, name, engine=settings.engine)
        writer = engines.alone(loaded, name, load)
        if name:
            check_same(writer.card, card.get("weights"), name)
        write = writer.consensus if consensus else writer.write
        return lambda some: in_blocks(write, some, settings.task)

    makers: dict[str, Callable[[], Writing]] = {
        "template": lambda: _template(settings.task, pairs),
        "typical": lambda: _copy(train, own=False),
        "copy": lambda: _copy(train, own=True),
        "nearest": lambda: _nearest(train),
        "base": lambda: model(None),
        "llm": lambda: model(adapter),
        "llm+consensus": lambda: model(adapter, consensus=True),
    }
    wording = Template.today(settings.task).digest

    def made_from(name: str) -> dict[str, Any]:
        found = {
            "format": FORMAT, "writer": name, "task": settings.task, "texts": pairs.digest, "split": settings.split,
            "asked": settings.examples, "seed": settings.seed,
        }  # fmt: skip
        if name in MODELS:
            mine = {"prompts": {settings.task: wording}} if name == "base" else card
            found |= {key: mine.get(key) for key in ("weights", "prompts")}
            found |= {"engine": settings.engine, "max_tokens": recipe.tasks[settings.task].max_tokens}
            found |= depends_on(recipe)
        return found

    replies, seconds = parts.answers(
        settings.writers, makers, asked, what="write", made_from=made_from, table=_stored, read=_replies
    )

    references = [example.text for example in asked]
    names = facts(pairs)
    known = [example.told for example in asked]
    wanted = [pairs.features.named(text) for text in references]
    backing = [{*pairs.features.named(text), *more} for text, more in zip(known, wanted, strict=True)]
    scored: dict[str, Scored] = {}
    for name, written in replies.items():
        values, corpus = measured(
            written, references=references, named=[names.facts(text) for text in written],
            true=[names.facts(text) for text in known], features=list(pairs.features.idf), wanted=wanted,
        )  # fmt: skip
        values["backed"] = faithfulness([pairs.features.named(text) for text in written], backing).per_reply
        scored[name] = values, corpus
    found, records = reported(
        replies, scored, seconds, about=[{"user_id": one.user_id, "item_id": one.item_id} for one in asked],
        known=known, references=references, judge=judge, parts=parts, notes=[_split(pairs, settings.task), NOTES],
        settings=settings,
    )  # fmt: skip
    return {
        "data": {"digest": pairs.digest, "train": len(train), "asked": len(asked)},
        "adapter": {"name": adapter, "weights": card.get("weights"), **card[settings.task]} if card else None,
        **found,
    }, records


def _split(pairs: Pairs, task: str) -> str:
    """How the texts are split, for the table."""
    if pairs.timed and task == EXPLANATION:
        return "A person's last text is asked for; known is what is older, and no text of test stands in training."
    return "Whole people are asked: nobody of them, and no text of test, stands in training."


def _card(recipe: config.Recipe, adapter: str, settings: config.Grounded, pairs: Pairs) -> dict[str, Any]:
    card = read_card(config.adapter_folder(adapter))
    check_unseen(card, settings.task, "texts", pairs.digest, adapter, recipe.domain)
    return card


def _stored(replies: Sequence[str]) -> pa.Table:
    return pa.table({"reply": pa.array(replies, pa.string())})


def _replies(part: pa.Table) -> list[str]:
    return part["reply"].to_pylist()


def _template(task: str, pairs: Pairs) -> Writing:
    """What the input itself names, filled in."""

    def said(example: Example) -> str:
        if task == EXPLANATION:
            return explanation(example.item.title, pairs.features.named(example.item.about)[:FEW])
        counts = Counter(name for item in example.earlier for name in pairs.features.named(item.about))
        return summary([name for name, _ in counts.most_common(FEW)], [item.title for item in example.earlier[-FEW:]])

    return lambda asked: [said(example) for example in asked]


def _copy(train: Sequence[Example], *, own: bool) -> Writing:
    """The most typical sentence of the item's training texts, where `own` and there are some; else of all."""
    texts = [example.text for example in train]
    [everyones] = typical(texts, [None] * len(texts)).values()
    by_item = typical(texts, [example.item_id for example in train]) if own else {}
    return lambda asked: copied(by_item, [example.item_id for example in asked], " ".join(everyones))


def _nearest(train: Sequence[Example]) -> Writing:
    known = [example.told for example in train]
    return lambda asked: [train[i].text for i in nearest(known, [example.told for example in asked])]
