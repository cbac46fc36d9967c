"""What suites of written replies report, once the replies are there and each is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from llmrec import config
from llmrec.metrics.llm_judge import OPINIONS, LLMJudge, Opinions
from llmrec.metrics.significance import bootstrap, compared, difference
from llmrec.metrics.text import rouge, sentence_bleu
from llmrec.parts import Parts, Seconds, digest

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
    parts: Parts,
    notes: Sequence[str],
    settings: config.Written | config.Grounded,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """What results say of the writers, and one record per example and writer.

    Args:
        texts: writer → its replies, one for each example.
        about: what the records say of an example.
        known: what the judge is told of an example.
        parts: where what the judge answers is kept.
        notes: for the table; the judge adds its own.
    """
    values = {name: dict(mine) for name, (mine, _) in scored.items()}
    pairs = [(a, b) for a, b in settings.compare if a in texts and b in texts]
    preferred: list[dict[str, Any]] = []
    said: list[str] = []
    if judge:
        judge.check(len(known), compared=bool(pairs))
        marks, better = _opinions(judge, parts, known, texts, references, pairs)
        for name, mark in marks.items():
            values[name]["mark"] = mark
        for (a, b), wins in better.items():
            gap = bootstrap(wins - 0.5, seed=settings.seed, samples=settings.samples)
            preferred.append(difference(a, b, "preferred", gap))
        said = [OPINIONS, *_unanswered(marks, better)]
    metrics, differences = compared(values, pairs, seed=settings.seed, samples=settings.samples)
    records = [
        {"writer": name, **about[i], "reply": reply, "reference": references[i],
         **{metric: value[i] for metric, value in values[name].items()}}
        for name, replies in texts.items()
        for i, reply in enumerate(replies)
    ]  # fmt: skip
    return {
        "judge": judge.about if judge else None,
        "notes": [*notes, *said],
        "writers": {
            name: {"metrics": metrics[name], "corpus": corpus, "seconds": seconds[name]}
            for name, (_, corpus) in scored.items()
        },
        "differences": differences + preferred,
    }, pd.DataFrame(records)


def _opinions(
    judge: LLMJudge,
    parts: Parts,
    known: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    references: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]:
    """(replies,) marks of each writer, and of each pair whether a's replies are better than b's.  Every answer costs:
    each is kept, and only what was not answered is asked again."""

    def once(name: str, ask: Callable[..., Opinions], *told: Sequence[str]) -> np.ndarray:
        made_from = {"judge": judge.about, "told": digest([list(one) for one in told])}
        before = parts.kept(f"judge/{name}", made_from, _answers)
        values, final = before or Opinions(np.full(len(known), np.nan), np.zeros(len(known), bool))
        if len(left := np.flatnonzero(~final)):
            more = ask(*([one[i] for i in left] for one in told))
            values, final = values.copy(), final.copy()
            values[left], final[left] = more
            parts.put(f"judge/{name}", made_from, pa.table({"value": values, "final": final}))
        return values

    marks = {name: once(name, judge.rate, known, mine, references) for name, mine in texts.items()}
    better = {(a, b): once(f"{a}-or-{b}", judge.prefer, known, texts[a], texts[b]) for a, b in pairs}
    return marks, better


def _answers(part: pa.Table) -> Opinions:
    return Opinions(part["value"].to_numpy(), part["final"].to_numpy())


def _unanswered(marks: Mapping[str, np.ndarray], better: Mapping[tuple[str, str], np.ndarray]) -> list[str]:
    """Of which replies there is no opinion, so that means are over the others."""
    missing = {name: np.isnan(mark) for name, mark in marks.items()}
    missing |= {f"{a} or {b}": np.isnan(wins) for (a, b), wins in better.items()}
    told = [f"{name}: {gone.sum()} of {len(gone)}" for name, gone in missing.items() if gone.any()]
    return [f"Without an opinion, and in no mean of it: {', '.join(told)}."] if told else []
