"""The results of a suite as tables and a picture; nothing is computed here."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def main_cutoff(cutoffs: Sequence[int]) -> int:
    """The cutoff that tables and charts show: 10 where it was measured, else the largest."""
    return 10 if 10 in cutoffs else max(cutoffs)


def markdown(results: Mapping[str, Any]) -> str:
    """Tables of a suite's results: one line per ranker, then the paired differences."""
    cutoffs = results["settings"]["cutoffs"]
    k = main_cutoff(cutoffs)
    others = [f"hr@{cutoff}" for cutoff in cutoffs if cutoff != k]
    blocks = [
        f"# {results['suite']}\n\nWhole catalog; means over users with 95% bootstrap intervals; popularity is the mean "
        "percentile of what is recommended (0.5: as random lists); seconds to fit and to rank all queries."
    ]
    for label, split in results["splits"].items():
        head = ["ranker", f"ndcg@{k}", f"hr@{k}", f"mrr@{k}", *others, f"coverage@{k}", f"popularity@{k}", "seconds"]
        lines = []
        for name, measured in split["rankers"].items():
            metrics, seconds = measured["metrics"], measured["seconds"]
            lines.append([
                name,
                *(_interval(metrics[f"{metric}@{k}"]) for metric in ("ndcg", "hr", "mrr")),
                *(_number(metrics[metric]["mean"]) for metric in others),
                _number(measured["coverage"][f"coverage@{k}"]),
                _number(metrics[f"popularity@{k}"]["mean"]),
                f"{seconds['fit']:.1f} + {seconds['rank']:.1f}" if seconds else "elsewhere",
            ])  # fmt: skip
        asked = f"{split['users']:,} users, {split['queries']:,} queries, {split['data']['items']:,} items"
        blocks.append(f"## {label}\n\n{asked}\n\n{_grid(head, lines)}")
        shown = [d for d in split["differences"] if d["metric"] in (f"ndcg@{k}", f"hr@{k}")]
        if shown:
            blocks.append(_differences(shown))
        pairs = [f"{d['a']} and {d['b']}" for d in shown if d["metric"] == f"ndcg@{k}" and not d["excludes_zero"]]
        if pairs:
            more = "; ask more of them" if results["settings"].get("users") else ""
            blocks.append(
                f"**No winner** between {', '.join(pairs)}: with {split['users']:,} users the interval of the "
                f"difference in ndcg@{k} holds 0, so these numbers do not say which ranks better{more}."
            )
        if len(split.get("slices", ())) > 1:
            blocks.append(_slices(split["slices"], f"ndcg@{k}"))
    return "\n\n".join(blocks) + "\n"


def judged_markdown(results: Mapping[str, Any]) -> str:
    """Tables of judged reviews: one line per judge, then the paired differences."""
    asked = ", ".join(f"{count:,} {label}" for label, count in results["data"]["asked"].items())
    shots = (
        f"; base-few after {results['settings']['shots']} labelled reviews" if "base-few" in results["judges"] else ""
    )
    head = (
        f"# {results['suite']}\n\nReviews of the split {results['settings']['split']} ({asked}), with 95% bootstrap "
        f"intervals over reviews; {results['data']['train']:,} training reviews; auc is the mean over labels, ece the "
        f"expected calibration error (less is better){shots}; seconds to fit or load, and to judge."
    )
    return _whole(head, _measured("judge", "judge", results["judges"]), _differences(results["differences"]))


def written_markdown(results: Mapping[str, Any]) -> str:
    """Tables of written replies: per reply, over all replies, then the paired differences.

    Of `results`: suite; task; settings.split; data.asked and, where known, data.train, numbers of examples; notes, what
    a reader has to know before the numbers, may be left out; writers, by name, each
    with metrics (name → mean, low, high over replies; null where nothing could be judged), corpus (name → a number over
    all replies, or null) and seconds (fit, write); differences (a, b, metric, mean, low, high, excludes_zero).
    `llmrec.metrics.text.measured` and `significance.compared` make metrics, corpus and differences.
    """
    writers, data = results["writers"], results["data"]
    first = next(iter(writers.values()))
    match = "match is the share of wanted features that a reply names, " if "match" in first["metrics"] else ""
    notes = [
        f"# {results['suite']}\n\n{data['asked']:,} replies of {results['task']} on the split "
        f"{results['settings']['split']}, with 95% bootstrap intervals over replies; "
        + (f"{data['train']:,} training examples; " if "train" in data else "")
        + f"{match}faithful the share of true facts among those that a reply names; seconds to fit or load, and to "
        "write.",
        *results.get("notes", ()),
    ]
    lines = [
        [name, *(_number(measured["corpus"][one]) for one in first["corpus"])] for name, measured in writers.items()
    ]
    everything = (
        "Over all replies together: distinct-n is the share of different runs of n words, coverage of known features "
        "that are named at all, silent of replies that name no fact and so cannot be unfaithful.\n\n"
        + _grid(["writer", *first["corpus"]], lines)
    )
    return _whole(*notes, _measured("writer", "write", writers), everything, _differences(results["differences"]))


def interest_markdown(results: Mapping[str, Any]) -> str:
    """Tables of predicted interests: one line per predictor, then the paired differences.

    Of `results`: suite; settings.split; data.users and data.categories; predictors, by name, each with metrics (name →
    mean, low, high over users) and seconds (fit, predict); differences as in `written_markdown`.
    """
    predictors, data = results["predictors"], results["data"]
    head = (
        f"# {results['suite']}\n\nInterest in {data['categories']:,} categories beside what {data['users']:,} users of "
        f"the split {results['settings']['split']} then chose, with 95% bootstrap intervals over users; js_distance is "
        "the square root of the Jensen-Shannon divergence in nats, cross_entropy in nats (both: less is better); "
        "seconds to fit or load, and to predict."
    )
    return _whole(head, _measured("predictor", "predict", predictors), _differences(results["differences"]))


def fitted(page: str, width: int) -> str:
    """A page of these for a terminal of `width` columns: paragraphs are wrapped, columns stand below each other, and
    what a table has no room for goes on below it, beside its first column again."""
    blocks = page.strip().split("\n\n")
    return "\n\n".join(_parts(one, width) if one.startswith("|") else textwrap.fill(one, width) for one in blocks)


def _parts(table: str, width: int) -> str:
    head, _, *lines = (line[2:-2].split(" | ") for line in table.splitlines())  # as `_grid` writes them
    sizes = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    parts: list[list[int]] = []
    for i, size in enumerate(sizes[1:], 1):
        if not parts or sum(sizes[one] + 2 for one in parts[-1]) + size > width:
            parts.append([0])
        parts[-1].append(i)

    def shown(row: Sequence[str], part: Sequence[int]) -> str:
        return "  ".join([row[0].ljust(sizes[0]), *(row[i].rjust(sizes[i]) for i in part[1:])]).rstrip()

    return "\n\n".join("\n".join(shown(row, part) for row in (head, *lines)) for part in parts)


def chart(results: Mapping[str, Any], file: Path) -> None:
    """Bars of ndcg at the main cutoff, one group per protocol, with intervals, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    metric = f"ndcg@{main_cutoff(results['settings']['cutoffs'])}"
    splits, rankers = results["splits"], results["settings"]["rankers"]
    figure, axes = pyplot.subplots(figsize=(max(5.0, 0.55 * len(splits) * (len(rankers) + 1) + 2), 4))
    place, width = np.arange(len(splits)), 0.8 / len(rankers)
    for i, name in enumerate(rankers):
        found = [split["rankers"][name]["metrics"][metric] for split in splits.values()]
        mean = np.array([value["mean"] for value in found])
        error = np.array([[value["mean"] - value["low"], value["high"] - value["mean"]] for value in found]).T
        axes.bar(place + (i - (len(rankers) - 1) / 2) * width, mean, width, yerr=error, capsize=2, label=name)
    axes.set_xticks(place, list(splits))
    axes.set_ylabel(f"{metric}, whole catalog")
    axes.set_title(results["suite"])
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def _measured(who: str, verb: str, measured: Mapping[str, Any]) -> str:
    """One line for each of what is measured: every metric with its interval, seconds to make it and to `verb`."""
    metrics = list(next(iter(measured.values()))["metrics"])
    lines = [
        [name, *(_interval(one["metrics"][metric]) for metric in metrics),
         f"{one['seconds']['fit']:.1f} + {one['seconds'][verb]:.1f}"]
        for name, one in measured.items()
    ]  # fmt: skip
    return _grid([who, *metrics, "seconds"], lines)


def _whole(*blocks: str) -> str:
    """A page of blocks; empty ones are left out."""
    return "\n\n".join(filter(None, blocks)) + "\n"


def _slices(slices: Mapping[str, Any], metric: str) -> str:
    """A metric among parts of the queries, and the paired differences there."""
    parts = {part: f"{part} ({found['queries']:,})" for part, found in slices.items()}
    lines = [
        [name, *(_interval(found["metrics"][name][metric]) for found in slices.values())]
        for name in next(iter(slices.values()))["metrics"]
    ]
    text = (
        f"By part, {metric} (queries): targets among the fewest items that hold half of the training interactions "
        "(head), among the others (tail), never seen in training (new); users with fewer than ten interactions before "
        "(short), with more (long).\n\n" + _grid(["ranker", *parts.values()], lines)
    )
    pairs = [[gap for gap in found["differences"] if gap["metric"] == metric] for found in slices.values()]
    if pairs[0]:
        lines = [
            [f"{row[0]['a']} - {row[0]['b']}",
             *(f"{_interval(gap, sign='+')}{' *' if gap['excludes_zero'] else ''}" for gap in row)]
            for row in zip(*pairs, strict=True)
        ]  # fmt: skip
        text += "\n\n" + _grid(["paired difference (* excludes 0)", *parts.values()], lines)
    return text


def _differences(differences: Sequence[Mapping[str, Any]]) -> str:
    """Empty where there are none."""
    if not differences:
        return ""
    lines = [
        [f"{d['a']} - {d['b']}", d["metric"], _interval(d, sign="+"), "yes" if d["excludes_zero"] else "no"]
        for d in differences
    ]
    return _grid(["paired difference", "metric", "a - b", "excludes 0"], lines)


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *lines])


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}"


def _interval(value: Mapping[str, Any], sign: str = "") -> str:
    if value["mean"] is None:
        return ""
    return f"{_number(value['mean'], sign)} [{_number(value['low'], sign)}, {_number(value['high'], sign)}]"
