"""Suites of review_sentiment: every judge on the same reviews, with intervals over reviews."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from llmrec import config
from llmrec.errors import AdapterError, DataError, LlmrecError
from llmrec.evaluate import read_card
from llmrec.metrics.classification import METRICS
from llmrec.parts import Parts, Seconds, array_of, probabilities, timed

FORMAT = 1  # of the parts; goes up where the same settings give other answers
# Settings of a recipe that a model's answers depend on, beside the task's own.
ANSWERS = {"noun": True, "unit": True, "base_model": True, "fit": {"precision"}}

Judging = Callable[[pd.DataFrame], np.ndarray]
"""Labelled reviews → (reviews, labels) probabilities."""


def measure(settings: config.Judged, parts: Parts) -> tuple[dict[str, Any], pd.DataFrame]:
    """See `llmrec.measuring.Measure.run`: one record per review and judge, with the probability of each label."""
    from llmrec.learning import review_sentiment as learned
    from llmrec.tasks.review_sentiment import labels
    from llmrec.tasks.template import Template

    recipe = config.load_recipe(settings.domain)
    reviews = learned.source(recipe)
    template = Template.load(config.project() / "prompts" / f"{learned.TASK}.yaml")
    among = labels(template, recipe.tasks[learned.TASK].labels)
    train, asked = (learned.labelled(reviews.part(part), among) for part in ("train", settings.split))
    asked = learned.sampled(asked, settings.reviews, settings.seed)
    true = asked["label"].to_numpy()
    if "tfidf" in settings.judges and train["label"].nunique() < 2:
        raise DataError(f"{recipe.domain}: all training reviews have one label; nothing can be told apart")
    card = read_card(config.adapter_folder(recipe.domain)) if "llm" in settings.judges else {}
    known = card.get(learned.TASK)
    if "llm" in settings.judges and not (isinstance(known, dict) and known.get("reviews") == reviews.digest):
        raise AdapterError(
            f"{recipe.domain}: no adapter that learned from this split of the reviews (it may have seen the answers); "
            f"run `llmrec train {recipe.domain}`, or leave out the judge llm"
        )

    def tfidf(chosen: np.ndarray) -> Callable[[], Judging]:
        return lambda: _tfidf(train.iloc[chosen], len(among), settings.seed)

    task = recipe.tasks[learned.TASK]
    same = learned.balanced(train["label"].to_numpy(), len(among), task, recipe.fit.seed)[0]
    makers: dict[str, Callable[[], Judging]] = {
        "majority": lambda: _majority(train["label"].to_numpy(), len(among)),
        "tfidf": tfidf(np.arange(len(train))),
        "tfidf-same": tfidf(same),
        "base": lambda: _model(recipe, None),
        "llm": lambda: _model(recipe, recipe.domain),
    }
    found: dict[str, np.ndarray] = {}
    seconds: dict[str, Seconds] = {}
    for one in settings.judges:

        def make(one: str = one) -> tuple[pa.Table, Seconds]:
            p, took = timed(makers[one], asked, "judge")
            return probabilities(p), took

        made_from = {
            "format": FORMAT, "judge": one, "reviews": reviews.digest, "split": settings.split,
            "asked": settings.reviews, "seed": settings.seed,
            "labels": [label.model_dump() for label in among],
            "settings": task.model_dump(mode="json"), "sample": recipe.fit.seed if one == "tfidf-same" else None,
        }  # fmt: skip
        if one in ("llm", "base"):
            mine = card if one == "llm" else {"prompts": {learned.TASK: template.digest}}
            made_from |= {key: mine.get(key) for key in ("weights", "prompts", learned.TASK)}
            made_from |= recipe.model_dump(mode="json", include=ANSWERS)
        found[one], seconds[one] = parts.get(one, made_from, make, array_of)
    records = pd.concat(
        [
            pd.DataFrame({"judge": one, "review": np.arange(len(true)), "true": true})
            .assign(**{label.text: p[:, i].astype(np.float32) for i, label in enumerate(among)})
            for one, p in found.items()
        ],
        ignore_index=True,
    )  # fmt: skip
    return {
        "data": {
            "digest": reviews.digest,
            "train": len(train),
            "asked": {label.text: int((true == i).sum()) for i, label in enumerate(among)},
        },
        "adapter": {"weights": card.get("weights"), "learned_from": int(len(same))} if card else None,
        **compared(found, true, settings, seconds),
    }, records


def compared(
    found: dict[str, np.ndarray], true: np.ndarray, settings: config.Judged, seconds: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Metrics of every judge, and paired differences, with 95% bootstrap intervals: the same draws of reviews for all
    judges."""
    rng = np.random.default_rng(settings.seed)
    draws = [rng.integers(len(true), size=len(true)) for _ in range(settings.samples)]
    value = {one: {m: f(p, true) for m, f in METRICS.items()} for one, p in found.items()}
    drawn = {
        one: {m: np.array([f(p[draw], true[draw]) for draw in draws]) for m, f in METRICS.items()}
        for one, p in found.items()
    }

    def interval(mean: float, values: np.ndarray) -> dict[str, float | None]:
        if np.isnan(mean) or np.isnan(values).all():
            return {"mean": None, "low": None, "high": None}
        low, high = np.nanquantile(values, [0.025, 0.975])
        return {"mean": mean, "low": float(low), "high": float(high)}

    measured = {
        one: {
            "metrics": {m: interval(value[one][m], drawn[one][m]) for m in METRICS},
            "seconds": seconds.get(one),
        }
        for one in found
    }
    differences = []
    for a, b in settings.compare:
        for m in METRICS:
            gap = interval(value[a][m] - value[b][m], drawn[a][m] - drawn[b][m])
            excludes_zero = gap["low"] is not None and gap["high"] is not None and (gap["low"] > 0 or gap["high"] < 0)
            differences.append({"a": a, "b": b, "metric": m, **gap, "excludes_zero": excludes_zero})
    return {"judges": measured, "differences": differences}


def _majority(true: np.ndarray, labels: int) -> Judging:
    """The shares of the training labels, whatever a review says."""
    share = np.bincount(true, minlength=labels) / len(true)
    return lambda asked: np.tile(share, (len(asked), 1))


def _tfidf(train: pd.DataFrame, labels: int, seed: int) -> Judging:
    """Words and pairs of words, weighted, under a logistic regression that counts all labels alike."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        raise LlmrecError("the judge tfidf needs scikit-learn: pip install 'llmrec[baselines]'") from None
    fitted = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, strip_accents="unicode"),
        LogisticRegression(C=3.0, class_weight="balanced", max_iter=2000, random_state=seed),
    ).fit(_texts(train), train["label"])

    def p(asked: pd.DataFrame) -> np.ndarray:
        result = np.zeros((len(asked), labels))
        result[:, fitted.classes_] = fitted.predict_proba(_texts(asked))
        return result

    return p


def _texts(reviews: pd.DataFrame) -> list[str]:
    """Headline and text, whole."""
    return [
        f"{headline}. {text}" for headline, text in zip(reviews["headline"].fillna(""), reviews["review"], strict=True)
    ]


def _model(recipe: config.Recipe, adapter: str | None) -> Judging:
    from llmrec.learning.review_sentiment import pairs
    from llmrec.sentiment import Judge

    loaded = Judge.load(recipe, adapter)
    return lambda asked: loaded.p(pairs(asked))
