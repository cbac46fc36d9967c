"""Suites of tasks that read one review: every judge on the same reviews, with intervals over reviews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmrec import config
from llmrec.data.reviews import broader
from llmrec.errors import DataError, LlmrecError
from llmrec.measuring.suites import check_same, check_unseen, depends_on
from llmrec.metrics.classification import ece, fit_temperature, metrics, tempered
from llmrec.metrics.significance import Statistic, difference, plain, resampled
from llmrec.parts import Parts, array_of, probabilities
from llmrec.tasks import OF_REVIEWS
from llmrec.tasks.saved import read_card
from llmrec.tasks.template import Template

if TYPE_CHECKING:  # it imports torch
    from llmrec.judge import Said

MODELS = ("base", "base-few", "llm")  # judges that are the language model
FORMAT = 2  # of the parts; goes up where the same settings give other answers

Metric = Callable[[np.ndarray, np.ndarray], float]
"""(examples, labels) log p or p, and true labels (examples,) → a number, more is better."""
Judging = Callable[[pd.DataFrame], np.ndarray]
"""Labelled reviews → (reviews, labels) probabilities."""


def measure(settings: config.Judged, parts: Parts) -> tuple[dict[str, Any], pd.DataFrame]:
    """See `llmrec.evaluate.Measure.run`: one record per review and judge, with the probability of each label."""
    from llmrec.judge import source, told_apart
    from llmrec.learning.reviews import MEASURED, balanced, labelled, pairs, sampled_rows

    recipe = config.load_recipe(settings.domain)
    reviews = source(recipe, settings.task)
    adapter = settings.adapter or recipe.domain
    card = read_card(config.adapter_folder(adapter)) if "llm" in settings.judges else {}
    if "llm" in settings.judges:
        check_unseen(card, settings.task, "reviews", reviews.digest, adapter, recipe.domain)
        recipe = told_apart(recipe, settings.task, card)
    task = recipe.tasks[settings.task]
    seed = recipe.fit.seed
    if card:  # the sample that it has seen, not the one that today's recipe draws
        trained = card.get("recipe", {})
        tasks, seed = trained.get("tasks", {}), trained.get("fit", {}).get("seed", seed)
        learned = tasks.get(settings.task, {}) if isinstance(tasks, dict) else {}
        task = task.model_copy(update={key: learned[key] for key in ("examples", "balance") if key in learned})
    template = Template.today(settings.task)
    labels = OF_REVIEWS[settings.task].labels(template, task.labels, reviews.categories)
    train, valid, asked = (
        labelled(reviews.part(part), template, labels) for part in ("train", "valid", settings.split)
    )
    asked = sampled_rows(asked, settings.reviews, settings.seed)
    same = balanced(train["label"].to_numpy(), len(labels), task, seed)[0]
    shots = few(train["label"].to_numpy(), settings.shots, settings.seed)
    examples = pairs(train.iloc[shots]), train["label"].iloc[shots].tolist()

    groups, group = broader(labels, settings.level)
    train, valid, asked = (part.assign(label=group[part["label"]]) for part in (train, valid, asked))
    aim = MEASURED[settings.task]
    true = asked["label"].to_numpy()

    def model(adapter: str | None, examples: tuple[Sequence[Said], Sequence[int]] = ((), ())) -> Judging:
        return _model(recipe, settings.task, adapter, card.get("weights"), examples, np.eye(len(groups))[group])

    makers: dict[str, Callable[[], Judging]] = {
        "majority": lambda: _majority(train["label"].to_numpy(), len(groups)),
        "tfidf": lambda: _tfidf(train, valid, len(groups), aim, settings.seed),
        "tfidf-same": lambda: _tfidf(train.iloc[same], valid, len(groups), aim, settings.seed),
        "base": lambda: model(None),
        "base-few": lambda: model(None, examples),
        "llm": lambda: model(adapter),
    }

    def made_from(one: str) -> dict[str, Any]:
        found = {
            "format": FORMAT, "judge": one, "task": settings.task, "reviews": reviews.digest, "split": settings.split,
            "asked": settings.reviews, "seed": settings.seed, "labels": list(labels), "level": settings.level,
            "template": template.meaning,
            "settings": task.model_dump(mode="json"), "sample": seed if one == "tfidf-same" else None,
        }  # fmt: skip
        if one in MODELS:
            mine = card if one == "llm" else {"prompts": {settings.task: template.digest}}
            found |= {key: mine.get(key) for key in ("weights", "prompts", settings.task)}
            found |= depends_on(recipe)
            found |= {"shots": settings.shots} if one == "base-few" else {}
        return found

    found, seconds = parts.answers(
        settings.judges, makers, asked, what="judge", made_from=made_from, table=probabilities, read=array_of
    )
    records = pd.concat(
        [
            pd.DataFrame({"judge": one, "review": np.arange(len(true)), "true": true})
            .assign(**{label: p[:, i].astype(np.float32) for i, label in enumerate(groups)})
            for one, p in found.items()
        ],
        ignore_index=True,
    )  # fmt: skip
    return {
        "data": {
            "digest": reviews.digest,
            "train": len(train),
            "asked": {label: int((true == i).sum()) for i, label in enumerate(groups)},
        },
        "adapter": {"name": adapter, "weights": card.get("weights"), "learned_from": int(len(same))} if card else None,
        **compared(found, true, settings, seconds),
    }, records


def few(true: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count,) positions of examples to show: as many of each label as of any other, the commonest first where there
    are more labels than places, in random order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(true))
    common = [label for label in np.argsort(-np.bincount(true), kind="stable") if (true == label).any()]
    queues = [order[true[order] == label].tolist() for label in common]
    taken = [queue[turn] for turn in range(count) for queue in queues if turn < len(queue)][:count]
    return rng.permutation(np.array(taken, np.int64))


def compared(
    found: dict[str, np.ndarray], true: np.ndarray, settings: config.Judged, seconds: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Metrics of every judge, and paired differences, with 95% bootstrap intervals: the same draws of reviews for all
    judges."""
    measured: dict[str, dict[str, Any]] = {one: {"metrics": {}, "seconds": seconds.get(one)} for one in found}
    differences = []
    for metric, f in metrics(next(iter(found.values())).shape[1]).items():

        def statistic(p: np.ndarray, f: Callable[[np.ndarray, np.ndarray], float] = f) -> Statistic:
            return lambda draw: f(p[draw], true[draw])

        intervals, gaps = resampled(
            {one: statistic(p) for one, p in found.items()}, settings.compare, len(true),
            seed=settings.seed, samples=settings.samples, biased=f is ece,
        )  # fmt: skip
        for one, interval in intervals.items():
            measured[one]["metrics"][metric] = plain(interval)
        differences += [difference(a, b, metric, gap) for (a, b), gap in gaps.items()]
    order = {tuple(pair): i for i, pair in enumerate(settings.compare)}
    differences.sort(key=lambda one: order[one["a"], one["b"]])
    return {"judges": measured, "differences": differences}


def _majority(true: np.ndarray, labels: int) -> Judging:
    """The shares of the training labels, whatever a review says."""
    share = np.bincount(true, minlength=labels) / len(true)
    return lambda asked: np.tile(share, (len(asked), 1))


def _tfidf(train: pd.DataFrame, valid: pd.DataFrame, labels: int, aim: Metric, seed: int) -> Judging:
    """Words and pairs of words, weighted, under a logistic regression.  Whether it counts all labels alike or all
    reviews is chosen by `aim` on validation, and one temperature fitted there, as a trained model's is."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise LlmrecError("the judge tfidf needs scikit-learn: pip install -e '.[baselines]'") from None
    if train["label"].nunique() < 2:
        raise DataError("tfidf: all of its training reviews have one label; leave it out, or give it more reviews")
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, strip_accents="unicode")
    try:
        seen = words.fit_transform(_texts(train))
    except ValueError:  # no word stands twice
        raise DataError("tfidf: too few training reviews to learn a word from; leave it out, or give it more") from None

    def log_p(fitted: LogisticRegression, asked: pd.DataFrame) -> np.ndarray:
        result = np.full((len(asked), labels), 1e-12)
        if len(asked):
            result[:, fitted.classes_] = np.maximum(fitted.predict_proba(words.transform(_texts(asked))), 1e-12)
        return np.log(result)

    weighings = [
        LogisticRegression(C=3.0, class_weight=weight, max_iter=2000, random_state=seed).fit(seen, train["label"])
        for weight in ("balanced", None)
    ]
    true = valid["label"].to_numpy()
    best = max(weighings, key=lambda one: aim(log_p(one, valid), true) if len(true) else 0.0)
    temperature = fit_temperature(log_p(best, valid), true)
    return lambda asked: tempered(log_p(best, asked), temperature)


def _texts(reviews: pd.DataFrame) -> list[str]:
    """Headline and text, whole."""
    return [
        f"{headline}. {text}" for headline, text in zip(reviews["headline"].fillna(""), reviews["review"], strict=True)
    ]


def _model(
    recipe: config.Recipe,
    task: str,
    adapter: str | None,
    weights: str | None,
    examples: tuple[Sequence[Said], Sequence[int]],
    groups: np.ndarray,
) -> Judging:
    """The language model after `examples`; `groups`, (labels, groups), sums up what it says of the labels."""
    from llmrec.judge import Judge
    from llmrec.learning.reviews import pairs

    judge = Judge.load(recipe, adapter, task=task)
    if adapter:
        check_same(judge.card, weights, adapter)
    judge = replace(judge, task=judge.task.shown(*examples))
    return lambda asked: judge.p(pairs(asked)) @ groups
