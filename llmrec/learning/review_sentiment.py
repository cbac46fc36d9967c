"""review_sentiment as training sees it: a rated text is a row, the labels are the closed set, macro-F1 the measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from llmrec import assets, config
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.reviews import Reviews
from llmrec.engine.hf import HFEngine
from llmrec.errors import DataError, RecipeError
from llmrec.metrics.classification import ece, fit_temperature, macro_f1, tempered
from llmrec.model.encode import Encoder
from llmrec.model.rows import Row, choice_row
from llmrec.sentiment import TASK, Sentiment
from llmrec.tasks.review_sentiment import label_of
from llmrec.tasks.template import Label, Template


class ReviewSentiment:
    """See `llmrec.learning.Learner`."""

    metric = "macro_f1"

    def __init__(self, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        self.recipe, self.encoder, self.engine = recipe, encoder, engine
        template = Template.load(config.project() / "prompts" / f"{TASK}.yaml")
        self.sentiment = Sentiment.build(recipe, template, encoder)
        self.trie: ChoiceTrie = self.sentiment.choices.trie
        reviews = source(recipe)
        self.digest = reviews.digest
        self.train, self.valid = (labelled(reviews.part(name), self.sentiment.labels) for name in ("train", "valid"))
        self.validates = len(self.valid) > 0
        self._asked = sampled(self.valid, recipe.fit.valid_users, recipe.fit.seed)

    def rows(self, variant: int) -> list[Row]:
        settings = self.recipe.tasks[TASK]
        wordings = self.sentiment.template.wordings(held_out=False)
        rng = np.random.default_rng((self.recipe.fit.seed, variant))
        true = self.train["label"].to_numpy()
        chosen, weights = balanced(true, len(self.sentiment.labels), settings, self.recipe.fit.seed)
        made = []
        for example in chosen.tolist():
            one = self.train.iloc[example]
            header = self.sentiment.header(one["review"], _text(one["headline"]), int(rng.choice(wordings)))
            label = int(true[example])
            made.append(choice_row(header, self.sentiment.lines[label], label, task=TASK, weight=float(weights[label])))
        return made

    def teacher(self, run: Path) -> Callable[[Sequence[Row]], Tensor] | None:
        return None

    def validate(self) -> dict[str, float]:
        log_p = self._log_p(self._asked)
        return {self.metric: macro_f1(log_p, self._asked["label"].to_numpy())}

    def finish(self, out: Path) -> dict[str, Any]:
        """The temperature fitted on validation reviews, and the calibration error there before and after."""
        true = self._asked["label"].to_numpy()
        log_p = self._log_p(self._asked)
        temperature = fit_temperature(log_p, true)
        return {
            TASK: {
                "reviews": self.digest,
                "labels": [label.text for label in self.sentiment.labels],
                "temperature": temperature,
                "valid": len(true),
                "ece_before": ece(tempered(log_p, 1.0), true),
                "ece_after": ece(tempered(log_p, temperature), true),
            }
        }

    def _log_p(self, reviews: pd.DataFrame) -> np.ndarray:
        self.engine.forget()
        found = self.sentiment.log_p(self.engine, pairs(reviews), "default")
        self.engine.forget()
        return found


def source(recipe: config.Recipe) -> Reviews:
    """The reviews that the recipe's task names.  Raises: RecipeError, DataError, AssetError."""
    settings = recipe.tasks.get(TASK)
    if settings is None or settings.data is None:
        raise RecipeError(f"{recipe.domain}: tasks.{TASK}.data: say where the reviews are")
    return Reviews.read(settings.data, assets.resolve)


def labelled(reviews: pd.DataFrame, labels: Sequence[Label]) -> pd.DataFrame:
    """The reviews whose rating means one of `labels`, with its number as `label`.  Raises: DataError for none."""
    label = [label_of(rating, labels) for rating in reviews["rating"]]
    known = np.array([one is not None for one in label], bool)
    if not known.any():
        raise DataError(f"no rating means one of {', '.join(label.text for label in labels)}; map columns.rating")
    return reviews[known].assign(label=[one for one in label if one is not None]).reset_index(drop=True)


def balanced(true: np.ndarray, labels: int, settings: config.Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which training examples are taken, ascending, and what an example of each label weighs, (labels,).

    Labels shall count for count^(1 - balance).  The sample comes as near as it can without taking an example twice;
    weights do the rest, so that the mean weight is 1.
    """
    count = np.bincount(true, minlength=labels).astype(float)
    wanted = np.where(count > 0, np.maximum(count, 1) ** (1 - settings.balance), 0.0)
    wanted /= wanted.sum()
    size = min(settings.examples or len(true), len(true))
    take = count.copy()
    if size < len(true):
        take = np.zeros(labels)
        while (left := size - take.sum()) >= 1:  # what a rare label lacks goes to the others
            open_ = (take < count) & (wanted > 0)
            more = np.floor(left * wanted * open_ / (wanted * open_).sum())
            more = np.maximum(more, (np.arange(labels) == np.argmax(wanted * open_)) * 1.0)
            take = np.minimum(count, take + more)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(true))
    chosen = [order[true[order] == label][: int(take[label])] for label in range(labels)]
    weights = np.divide(wanted * take.sum(), take, out=np.zeros(labels), where=take > 0)
    return np.sort(np.concatenate(chosen)), weights


def sampled(reviews: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """A fixed random sample of `size` reviews, in order; 0 keeps all."""
    if not size or size >= len(reviews):
        return reviews
    return reviews.iloc[np.sort(np.random.default_rng(seed).permutation(len(reviews))[:size])].reset_index(drop=True)


def pairs(reviews: pd.DataFrame) -> list[tuple[str, str | None]]:
    """Text and headline of each review."""
    return [(text, _text(headline)) for text, headline in zip(reviews["review"], reviews["headline"], strict=True)]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
