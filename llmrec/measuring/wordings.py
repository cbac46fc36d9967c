"""What wordings of a task are measured on without training again: validation data, the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec import config
from llmrec.choices.search import listed
from llmrec.data.pairs import Example, of_split
from llmrec.data.sample import at_most
from llmrec.data.split import of_users
from llmrec.engine import Engine, Prompt
from llmrec.errors import DataError, PromptError, did_you_mean
from llmrec.measuring import interest as interests
from llmrec.measuring.after_list import Person, World, in_blocks
from llmrec.measuring.suites import adapter_of, check_cut, check_unseen
from llmrec.measuring.texts import KINDS, Explanations
from llmrec.metrics import interest as interest_metrics
from llmrec.metrics.ranking import by_user, ndcg, ranks
from llmrec.metrics.significance import Statistic
from llmrec.progress import Bar
from llmrec.tasks import OF_REVIEWS
from llmrec.tasks.next_item import named
from llmrec.tasks.template import Template
from llmrec.writing import log_p_of

if TYPE_CHECKING:  # it imports torch
    from llmrec.follow_up import FollowUp
    from llmrec.model.encode import Encoder
    from llmrec.recommender import Recommender

CUTOFF = 10  # of next_item's lists
FIRST = 3  # interests that count


@dataclass(frozen=True)
class Trial:
    """One task of an adapter, its validation data, and its measure."""

    metric: str
    units: str
    """What is asked about, in the plural: users or reviews."""
    count: int
    trained: Template
    ask: Callable[[Template, int], Statistic]
    """A prompt file and one of its wordings → the metric over some of the `count` units."""


def trial(task: str, recipe: config.Recipe, edited: Template, settings: config.Wordings, *, prior: bool) -> Trial:
    """The domain's adapter ready to answer `edited`'s wordings.

    Args:
        prior: `next_item` only: with the card's weight of its prior, as people are served.
    Raises: AdapterError where it has not learned the task; PromptError where `edited` asks for other choices; DataError
        where there is nothing to validate on.
    """
    if task not in TRIALS:
        raise PromptError(f"{task}: its wordings cannot be measured{did_you_mean(task, TRIALS)}")
    return TRIALS[task](recipe, edited, settings, prior)


def _next_item(recipe: config.Recipe, edited: Template, settings: config.Wordings, prior: bool) -> Trial:
    model = _unseen(recipe, edited)
    asked = of_users(model.queries("valid"), settings.users, settings.seed)
    if not asked:
        raise DataError(f"{recipe.domain}: no validation interactions; prepare it with other shares")
    users, targets = [query.user_id for query in asked], [query.target for query in asked]

    def ask(template: Template, wording: int) -> Statistic:
        with Bar(f"wording {wording}", total=len(asked), transient=True) as bar:
            lists = replace(model, template=template).rank(
                [query.history for query in asked], CUTOFF, prior=prior, wording=wording,
                progress=bar.done,
            )  # fmt: skip
        return _mean(by_user(ndcg(ranks(listed(lists, CUTOFF), targets), CUTOFF), users))

    return Trial(f"ndcg@{CUTOFF}", "users", len(set(users)), model.template, ask)


def _interest(recipe: config.Recipe, edited: Template, settings: config.Wordings, prior: bool) -> Trial:
    world, task = _after_list(recipe, edited)
    people, true = interests.asked_of(world, list(task.categories), "valid")
    kept = at_most(range(len(people)), settings.users, settings.seed)
    histories, true = [people[i].history for i in kept], true[kept]

    def ask(template: Template, wording: int) -> Statistic:
        worded = replace(task, template=template)
        log_p = in_blocks(lambda some: worded.log_p(some, wording), histories, f"wording {wording}")
        return _mean(interest_metrics.ndcg(np.exp(np.asarray(log_p, np.float64)), true, FIRST))

    return Trial(f"interest ndcg@{FIRST}", "users", len(kept), task.template, ask)


def _text(recipe: config.Recipe, edited: Template, settings: config.Wordings, prior: bool) -> Trial:
    """How probable the replies that the data gives are, token by token, as validation of the training has it: nothing
    has to be written, and all wordings are asked about the same replies."""
    world, task = _after_list(recipe, edited)
    model = task.recommender
    kind = KINDS[edited.task](world, model.listing.identifiers)
    able = [(one, facts) for one in world.people("valid") if (facts := kind.facts(one)) is not None]
    if not able:
        raise DataError(f"{recipe.domain}: there is nothing to say of anybody; do its items have categories?")
    rng = np.random.default_rng(settings.seed)
    asked: list[tuple[Person, list[int]]] = []
    for person, facts in at_most(able, settings.users, settings.seed):
        reply = int(rng.integers(len(task.template.replies)))
        parts = task.template.reply_parts(facts | {"domain": named(recipe)}, reply)
        asked.append((person, task.encoded(parts)))

    explains = isinstance(kind, Explanations)

    def ask(template: Template, wording: int) -> Statistic:
        worded = replace(task, template=template)

        def prompts(some: Sequence[Person]) -> list[Prompt]:
            about = [{"item": task.item_slot(person.after[0])} for person in some] if explains else None
            return worded.prompts([person.history for person in some], about, wording)

        return _token_p(model.engine, model.encoder, prompts, asked, wording)

    return Trial("p of a token", "users", len(asked), task.template, ask)


def _grounded(recipe: config.Recipe, edited: Template, settings: config.Wordings, prior: bool) -> Trial:
    """As `_text`, of replies that people wrote."""
    from llmrec.grounded import Writer, examples, source

    writer = Writer.load(recipe, edited.task, recipe.domain)
    asking = writer.asking
    pairs = source(recipe, edited.task)
    check_unseen(writer.card, edited.task, "texts", pairs.digest, recipe.domain, recipe.domain)
    found = of_split(examples(pairs, edited.task), "valid", settings.users, settings.seed)
    if not found:
        raise DataError(f"{recipe.domain}: no texts of {edited.task} to validate on; prepare it with other shares")
    asked = [(example, asking.reply(example.text)) for example in found]

    def ask(template: Template, wording: int) -> Statistic:
        worded = replace(asking, template=template)

        def prompts(some: Sequence[Example]) -> list[Prompt]:
            return [Prompt(worded.header(example, wording), writer.adapter) for example in some]

        return _token_p(writer.engine, asking.encoder, prompts, asked, wording)

    return Trial("p of a token", "texts", len(asked), asking.template, ask)


def _review(recipe: config.Recipe, edited: Template, settings: config.Wordings, prior: bool) -> Trial:
    from llmrec.judge import Judge, edited_task, source
    from llmrec.learning import LEARNERS
    from llmrec.learning.reviews import labelled, pairs, sampled_rows

    judge = Judge.load(recipe, recipe.domain, task=edited.task)
    reviews = source(recipe, edited.task)
    check_unseen(judge.card, edited.task, "reviews", reviews.digest, recipe.domain, recipe.domain)
    edited_task(judge, edited)
    asked = sampled_rows(labelled(reviews.part("valid"), judge.template, judge.labels), settings.users, settings.seed)
    true = asked["label"].to_numpy()
    learner: Any = LEARNERS[edited.task]

    def ask(template: Template, wording: int) -> Statistic:
        worded = replace(judge, task=replace(judge.task, template=template))
        p = np.asarray(in_blocks(lambda some: worded.p(some, wording), pairs(asked), f"wording {wording}"))
        return lambda draw: learner.measured(p[draw], true[draw])

    return Trial(learner.metric, "reviews", len(asked), judge.template, ask)


TRIALS: dict[str, Callable[[config.Recipe, Template, config.Wordings, bool], Trial]] = {
    "next_item": _next_item,
    "interest": _interest,
    **dict.fromkeys(KINDS, _text),
    **dict.fromkeys(OF_REVIEWS, _review),
    **dict.fromkeys(config.OF_PAIRS, _grounded),
}


def recommender(recipe: config.Recipe, edited: Template) -> Recommender:
    """With the domain's adapter.  Raises: PromptError where a list of `edited` names items otherwise."""
    from llmrec.recommender import Recommender

    model = Recommender.load(recipe, recipe.domain)
    if edited.reply == "list" and edited.line != model.template.line:
        raise PromptError(f"{edited.path}: line: names items otherwise than the adapter knows them; train again first")
    return model


def _unseen(recipe: config.Recipe, edited: Template) -> Recommender:
    """`recommender`, to be asked about validation.  Raises: AdapterError where its adapter may have learned that."""
    protocol = config.Asked(split="valid").of(recipe.split)
    folder = adapter_of(recipe, protocol)
    model = recommender(recipe, edited)
    check_cut(folder, model.dataset, protocol)
    return model


def _after_list(recipe: config.Recipe, edited: Template) -> tuple[World, FollowUp]:
    from llmrec.follow_up import FollowUp

    task = FollowUp.load(_unseen(recipe, edited), edited.task, measured=True)
    settings = config.AfterList(domain=recipe.domain, split="valid")
    model = task.recommender
    return World(settings, recipe, model.dataset, model.catalog, None), task


def _token_p(
    engine: Engine,
    encoder: Encoder,
    prompts: Callable[[list[Any]], list[Prompt]],
    asked: Sequence[tuple[Any, list[int]]],
    wording: int,
) -> Statistic:
    """Geometric mean probability of a token of the reply, per pair of somebody asked about and the reply's tokens."""

    def probable(some: Sequence[tuple[Any, list[int]]]) -> list[float]:
        replies = [reply for _, reply in some]
        log_p = log_p_of(engine, encoder, prompts([one for one, _ in some]), replies)
        return [float(np.exp(one.mean())) for one in log_p]

    return _mean(np.array(in_blocks(probable, asked, f"wording {wording}")))


def _mean(values: np.ndarray) -> Statistic:
    return lambda draw: float(np.nanmean(values[draw]))
