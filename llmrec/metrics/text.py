"""How good texts are: beside a reference, among themselves, and against what is true of their input.

Values per reply come as (replies,) float64, NaN where a reply has nothing to be judged by, so that intervals can be
taken over replies.  Shares lie between 0 and 1.  ROUGE and BLEU need the extra `text`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.errors import LlmrecError

ROUGE = ("rouge1", "rouge2", "rougeL")
MAX_WORDS = 1000  # words of a text that are compared: the longest common subsequence takes time with their square
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def words(text: str) -> list[str]:
    """Runs of letters and digits of any script, in lower case; what lies between them parts them."""
    return _WORD.findall(text.lower())


def rouge(replies: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    """F1 of common words, common pairs of words and the longest common subsequence, per reply: rouge1, rouge2, rougeL.

    Words are those of `words`, not stemmed, the first 1,000 of a text; for ASCII these are rouge-score's own.  An empty
    reply has 0, NaN where the reference is empty.  Raises: LlmrecError without the extra `text`.
    """
    assert len(replies) == len(references), f"{len(replies)} replies, {len(references)} references"
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise _without("ROUGE", "rouge-score") from None
    scorer = RougeScorer(list(ROUGE), tokenizer=_Words())
    found = {kind: np.full(len(replies), np.nan) for kind in ROUGE}
    for i, (reply, reference) in enumerate(zip(replies, references, strict=True)):
        if words(reference):
            for kind, score in scorer.score(reference, reply).items():
                found[kind][i] = score.fmeasure
    return found


def bleu(replies: Sequence[str], references: Sequence[str], order: int = 4) -> float:
    """Corpus BLEU up to `order` words, between 0 and 1: sacrebleu's with its tokenisation 13a, case counts, smoothed
    exponentially.  Pairs with an empty reference are left out; NaN without any.  Raises: LlmrecError without the extra
    `text`."""
    assert len(replies) == len(references), f"{len(replies)} replies, {len(references)} references"
    pairs = [pair for pair in zip(replies, references, strict=True) if pair[1].strip()]
    if not pairs:
        return np.nan
    said, wanted = zip(*pairs, strict=True)
    return float(_bleu(max_ngram_order=order).corpus_score(list(said), [list(wanted)]).score) / 100


def sentence_bleu(replies: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """BLEU of each reply by itself, for intervals; only the orders that the reply is long enough for count.  The mean
    is not the corpus BLEU.  An empty reply has 0, NaN where the reference is empty.  Raises: as `bleu`."""
    assert len(replies) == len(references), f"{len(replies)} replies, {len(references)} references"
    metric = _bleu(effective_order=True)
    return np.array([
        metric.sentence_score(reply, [reference]).score / 100 if reference.strip() else np.nan
        for reply, reference in zip(replies, references, strict=True)
    ], np.float64)  # fmt: skip


def distinct(replies: Iterable[str], n: int) -> float:
    """Different runs of `n` words as a share of all such runs in all replies; NaN where there are none.  It falls with
    the number of replies: compare equal numbers only."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for reply in replies:
        runs = _runs(words(reply), n)
        seen.update(runs)
        total += len(runs)
    return len(seen) / total if total else np.nan


class NameFinder:
    """Finds names (features, categories, titles) in text: whole words, the longest first, none inside another.

    Args:
        names: what to look for; names without a letter or digit are never found, of names that read alike the first is.
        cased: whether capitals must agree, which keeps the film "Heat" apart from heat.
    """

    def __init__(self, names: Iterable[str], *, cased: bool = False):
        self._cased = cased
        self._names: dict[tuple[str, ...], str] = {}
        for name in names:
            if key := tuple(self._words(name)):
                self._names.setdefault(key, name)
        self._lengths = sorted({len(key) for key in self._names}, reverse=True)

    def found(self, text: str) -> list[str]:
        """The names in `text`, each once, in order, spelled as given."""
        return list(dict.fromkeys(name for _, _, name in self._spans(text)))

    def facts(self, text: str) -> list[str]:
        """The names in `text`, then the numbers outside of them (digits; '1,682' is '1682'), each once."""
        spans = self._spans(text)
        rest, at = [], 0
        for start, end, _ in spans:
            rest.append(text[at:start])
            at = end
        numbers = [number.replace(",", "") for number in _NUMBER.findall("\n".join([*rest, text[at:]]))]
        return list(dict.fromkeys([*(name for _, _, name in spans), *numbers]))

    def _spans(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, name) in characters."""
        places = [match.span() for match in _WORD.finditer(text)]
        said = [text[start:end] if self._cased else text[start:end].lower() for start, end in places]
        spans, at = [], 0
        while at < len(said):
            for length in self._lengths:
                key = tuple(said[at : at + length])
                if key in self._names:
                    spans.append((places[at][0], places[at + len(key) - 1][1], self._names[key]))
                    at += len(key)
                    break
            else:
                at += 1
        return spans

    def _words(self, text: str) -> list[str]:
        return _WORD.findall(text if self._cased else text.lower())


def coverage(named: Iterable[Collection[str]], features: Collection[str]) -> float:
    """Share of `features` that at least one reply names; `named` holds what each does.  NaN without features."""
    known = set(features)
    return len(known & set().union(*named)) / len(known) if known else np.nan


def feature_match(named: Sequence[Collection[str]], wanted: Sequence[Collection[str]]) -> np.ndarray:
    """Share of the features `wanted` of each reply that it names; with one wanted feature, whether it does."""
    assert len(named) == len(wanted), f"{len(named)} replies, {len(wanted)} sets of wanted features"
    return np.array([_share(set(one), set(other)) for one, other in zip(wanted, named, strict=True)], np.float64)


@dataclass(frozen=True)
class Faithfulness:
    """How much of what replies name is true of their input."""

    micro: float
    """True facts as a share of all facts named, NaN where none is."""
    per_reply: np.ndarray
    """(replies,) the same of each reply; NaN for those that name nothing."""
    silent: float
    """Share of replies that name nothing: they cannot be wrong, so `micro` says nothing about them."""


def faithfulness(named: Sequence[Collection[str]], true: Sequence[Collection[str]]) -> Faithfulness:
    """Compares the facts each reply names with those that are true of its input; equal strings are equal facts, and a
    fact that a reply repeats counts once."""
    assert len(named) == len(true), f"{len(named)} replies, {len(true)} sets of true facts"
    said, right = [set(one) for one in named], [set(one) for one in true]
    hits = sum(len(one & other) for one, other in zip(said, right, strict=True))
    total = sum(map(len, said))
    return Faithfulness(
        micro=hits / total if total else np.nan,
        per_reply=np.array([_share(one, other) for one, other in zip(said, right, strict=True)], np.float64),
        silent=sum(not one for one in said) / len(said) if said else np.nan,
    )


def measured(
    replies: Sequence[str],
    *,
    references: Sequence[str] | None = None,
    named: Sequence[Collection[str]] | None = None,
    true: Sequence[Collection[str]] | None = None,
    features: Collection[str] | None = None,
    wanted: Sequence[Collection[str]] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float | None]]:
    """Every metric that can be had from what is given.

    Args:
        references: a text per reply: rouge1, rouge2, rougeL and sentence_bleu per reply, bleu over all.
        named, true: facts that each reply names, and that are true of its input: faithful per reply; faithful and
            silent over all.
        features: all known features: coverage over all, found in the replies as whole words.
        wanted: features that each reply should name: match per reply.
    Returns: name → (replies,) values; name → number over all replies, None for NaN.  distinct1 and distinct2 are always
        among the latter.
    Raises: LlmrecError where references are given without the extra `text`.
    """
    per_reply: dict[str, np.ndarray] = {}
    corpus: dict[str, float] = {}
    if references is not None:
        per_reply |= rouge(replies, references)
        per_reply["sentence_bleu"] = sentence_bleu(replies, references)
        corpus["bleu"] = bleu(replies, references)
    corpus |= {"distinct1": distinct(replies, 1), "distinct2": distinct(replies, 2)}
    if features is not None:
        finder = NameFinder(features)
        corpus["coverage"] = coverage([finder.found(reply) for reply in replies], features)
    if wanted is not None:
        finder = NameFinder({feature for one in wanted for feature in one})
        per_reply["match"] = feature_match([finder.found(reply) for reply in replies], wanted)
    if named is not None and true is not None:
        found = faithfulness(named, true)
        per_reply["faithful"] = found.per_reply
        corpus |= {"faithful": found.micro, "silent": found.silent}
    return per_reply, {name: None if np.isnan(value) else value for name, value in corpus.items()}


class _Words:
    """rouge-score's interface of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)[:MAX_WORDS]


def _bleu(**settings: Any) -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise _without("BLEU", "sacrebleu") from None
    return BLEU(**settings)


def _without(what: str, package: str) -> LlmrecError:
    return LlmrecError(f"{what} needs {package}: pip install -e '.[text]'")


def _runs(said: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(said[start:] for start in range(n)), strict=False))


def _share(of: set[str], among: set[str]) -> float:
    return len(of & among) / len(of) if of else np.nan
