"""Tasks of one review as training sees them: a labelled text is a row, the labels are the closed set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from llmrec import config
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.sample import at_most
from llmrec.engine.hf import HFEngine
from llmrec.judge import ReviewTask, Said, source
from llmrec.metrics.classification import accuracy, ece, fit_temperature, macro_f1, tempered
from llmrec.model.encode import Encoder
from llmrec.model.rows import Row, choice_row
from llmrec.tasks import OF_REVIEWS
from llmrec.tasks.template import Template

PUT_BACK = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of what the balance has shifted; most first, which breaks ties


class ReviewLearner:
    """See `llmrec.learning.Learner`."""

    task: ClassVar[str]
    metric: ClassVar[str]
    measured: ClassVar[Callable[[np.ndarray, np.ndarray], float]]
    """log p (examples, labels) and true labels (examples,) → the metric."""

    def __init__(self, recipe: config.Recipe, encoder: Encoder, engine: HFEngine | None):
        self.recipe, self.encoder, self.engine = recipe, encoder, engine
        reviews = source(recipe, self.task)
        template = Template.today(self.task)
        self.asking = ReviewTask.build(recipe, template, encoder, reviews.categories)
        self.trie: ChoiceTrie = self.asking.choices.trie
        self.digest, self.split = reviews.digest, reviews.split_digest
        self.train, self.valid = (
            labelled(reviews.part(part), template, self.asking.labels) for part in ("train", "valid")
        )
        self.validates = len(self.valid) > 0
        self.shift = shift(self.train["label"].to_numpy(), len(self.asking.labels), recipe.tasks[self.task].balance)
        asked = recipe.fit.valid_users
        self.asked = sampled_rows(self.valid, asked, recipe.fit.seed) if asked else self.valid[:0]

    def rows(self, variant: int) -> list[Row]:
        settings = self.recipe.tasks[self.task]
        wordings = self.asking.template.wordings(held_out=False)
        rng = np.random.default_rng((self.recipe.fit.seed, variant))
        true = self.train["label"].to_numpy()
        chosen, weights = balanced(true, len(self.asking.labels), settings, self.recipe.fit.seed)
        said = pairs(self.train.iloc[chosen])
        made = []
        for (text, headline), label in zip(said, true[chosen].tolist(), strict=True):
            header = self.asking.header(text, headline, int(rng.choice(wordings)))
            line = self.asking.lines[label]
            made.append(choice_row(header, line, label, task=self.task, weight=float(weights[label])))
        return made

    def teacher(self, run: Path) -> Callable[[Sequence[Row]], Tensor] | None:
        return None

    def validate(self) -> dict[str, float]:
        log_p, true, _ = self._judged()
        return {self.metric: type(self).measured(log_p, true)}

    def finish(self, out: Path) -> dict[str, Any]:
        """What is put back of the balance of the examples, the temperature fitted on validation reviews, and the
        calibration error there before and after it."""
        log_p, true, shift = self._judged()
        temperature = fit_temperature(log_p, true)
        return {
            self.task: {
                "reviews": self.digest,
                "split": self.split,
                "labels": list(self.asking.labels),
                "shift": shift.tolist(),
                "temperature": temperature,
                "valid": len(true),
                "ece_before": ece(tempered(log_p, 1.0), true) if len(true) else None,
                "ece_after": ece(tempered(log_p, temperature), true) if len(true) else None,
            }
        }

    def log_p(self, reviews: pd.DataFrame) -> np.ndarray:
        """(reviews, labels) nats, with all that the balance of the examples has shifted put back; not normalised."""
        self.engine.forget()
        found = self.asking.log_p(self.engine, pairs(reviews), "default")
        self.engine.forget()
        return found + self.shift

    def _judged(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log p of the validation reviews, (reviews, labels), with part of `shift` put back; their labels; the part."""
        true = self.asked["label"].to_numpy()
        learned = self.log_p(self.asked) - self.shift
        shift = self.shift * share_put_back(learned, self.shift, true, type(self).measured)
        return learned + shift, true, shift


class ReviewSentiment(ReviewLearner):
    """How the writer likes it; labels are far from even, and each shall be found."""

    task, metric, measured = "review_sentiment", "macro_f1", macro_f1


class ItemClass(ReviewLearner):
    """What the text is about; classes with two reviews make a mean over classes a lottery."""

    task, metric, measured = "item_class", "class_accuracy", accuracy


MEASURED = {one.task: one.measured for one in (ReviewSentiment, ItemClass)}
"""What validation maximises, by task."""


def labelled(reviews: pd.DataFrame, template: Template, labels: Sequence[str]) -> pd.DataFrame:
    """The reviews that have one of `labels`, with its number as `label`.  Raises: DataError where none has."""
    label = OF_REVIEWS[template.task].true(template, reviews, labels)
    return reviews[label >= 0].assign(label=label[label >= 0]).reset_index(drop=True)


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


def shift(true: np.ndarray, labels: int, balance: float) -> np.ndarray:
    """(labels,) nats to add to the log p of a model that learned from `balanced` examples.

    There a label counts for count^(1 - balance); where it is asked, for its count: the correction for a prior that is
    known on both sides (Elkan 2001; Saerens, Latinne and Decaestecker 2002).  Labels without an example count as one.
    """
    count = np.maximum(np.bincount(true, minlength=labels), 1)
    return balance * np.log(count / count.sum())


def share_put_back(
    log_p: np.ndarray, shift: np.ndarray, true: np.ndarray, measured: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    """The share of `shift` with which labels are measured best on validation; the largest of those that tie, else 1.

    All of it makes every label as probable as it is, which finds the most right ones; a mean over labels, as macro-F1
    is, asks for rare labels sooner than that.
    """
    if not len(true):
        return 1.0
    return max(PUT_BACK, key=lambda share: measured(log_p + share * shift, true))


def sampled_rows(table: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """A fixed random sample, in order; 0 keeps all."""
    return table.iloc[at_most(range(len(table)), most, seed)].reset_index(drop=True)


def pairs(reviews: pd.DataFrame) -> list[Said]:
    """Text and headline of each review."""
    return [(text, _text(headline)) for text, headline in zip(reviews["review"], reviews["headline"], strict=True)]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
