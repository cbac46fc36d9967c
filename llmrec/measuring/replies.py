"""What suites of written replies report, once the replies are there and each is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from llmrec import config
from llmrec.metrics.llm_judge import OPINIONS, LLMJudge
from llmrec.metrics.significance import compared
from llmrec.metrics.text import rouge, sentence_bleu
from llmrec.parts import Seconds

Scored = tuple[dict[str, np.ndarray], dict[str, float | None]]
"""Metrics of each reply, and of all together: see `llmrec.metrics.text.measured`."""


def check(settings: config.Written | config.Grounded, judge: LLMJudge | None, asked: int) -> None:
    """What would otherwise show after everything has been written.  Raises: LlmrecError without the extra `text`, or
    where the judge would be asked too often about `asked` replies."""
    rouge([], [])
    sentence_bleu([], [])
    if judge:
        judge.check(asked, compared=bool(settings.compare))


def reported(
    texts: Mapping[str, Sequence[str]],
    scored: Mapping[str, Scored],
    seconds: Mapping[str, Seconds],
    *,
    about: Sequence[Mapping[str, Any]],
    known: Sequence[str],
    references: Sequence[str],
    judge: LLMJudge | None,
    notes: Sequence[str],
    settings: config.Written | config.Grounded,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """What results say of the writers, and one record per example and writer.

    Args:
        texts: writer → its replies, one for each example.
        about: what the records say of an example.
        known: what the judge is told of an example.
        notes: for the table; the judge adds its own.
    """
    values = {name: dict(mine) for name, (mine, _) in scored.items()}
    pairs = [(a, b) for a, b in settings.compare if a in texts and b in texts]
    preferred: list[dict[str, Any]] = []
    if judge:
        marks, preferred = judge.opinions(known, texts, references, pairs, settings.seed, settings.samples)
        for name, mark in marks.items():
            values[name]["mark"] = mark
    metrics, differences = compared(values, pairs, seed=settings.seed, samples=settings.samples)
    records = [
        {"writer": name, **about[i], "reply": reply, "reference": references[i],
         **{metric: value[i] for metric, value in values[name].items()}}
        for name, replies in texts.items()
        for i, reply in enumerate(replies)
    ]  # fmt: skip
    return {
        "judge": judge.about if judge else None,
        "notes": [*notes, *([OPINIONS] if judge else [])],
        "writers": {
            name: {"metrics": metrics[name], "corpus": corpus, "seconds": seconds[name]}
            for name, (_, corpus) in scored.items()
        },
        "differences": differences + preferred,
    }, pd.DataFrame(records)
