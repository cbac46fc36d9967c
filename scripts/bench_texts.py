"""How far copied sentences get on explained pairs: the table of docs/sources.md.

    python scripts/bench_texts.py /data/xrec-google/tst.jsonl

Takes JSON lines with iid, item_summary and explanation (XRec's); a fifth of them, chosen by `--seed`, is asked for, the
others are copied from.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from llmrec import config
from llmrec.baselines.sentences import copied, typical
from llmrec.data import sources
from llmrec.metrics import significance, text
from llmrec.metrics.report import written_markdown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", help="JSON lines with uid, iid, title, item_summary, explanation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    columns = {"user_id": "uid", "item_id": "iid", "review": "explanation", "about": "item_summary"}
    pairs, _ = sources.read_pairs(config.ReviewSource(path=args.pairs, columns=columns), Path)
    pairs = pairs.iloc[np.argsort(pd.factorize(pairs["user_id"])[0], kind="stable")]
    place = np.random.default_rng(args.seed).permutation(len(pairs))
    asked, train = pairs.iloc[place[: len(pairs) // 5]], pairs.iloc[place[len(pairs) // 5 :]]
    started = time.monotonic()
    [everyones] = typical(train["review"], [None] * len(train)).values()
    by_item = typical(train["review"], train["item_id"])
    fit = time.monotonic() - started
    writers = {
        "most typical of all": [" ".join(everyones)] * len(asked),
        "item's most typical": copied(by_item, asked["item_id"].tolist(), " ".join(everyones)),
        "item_summary": asked["about"].tolist(),
    }
    found = {name: text.measured(replies, references=asked["review"].tolist()) for name, replies in writers.items()}
    metrics, differences = significance.compared(
        {name: values for name, (values, _) in found.items()}, [("item's most typical", "most typical of all")]
    )
    results = {
        "suite": Path(args.pairs).name,
        "task": "explanation",
        "settings": {"split": f"test (seed {args.seed})"},
        "data": {"asked": len(asked), "train": len(train)},
        "writers": {
            name: {"metrics": metrics[name], "corpus": corpus, "seconds": {"fit": fit, "write": 0.0}}
            for name, (_, corpus) in found.items()
        },
        "differences": differences,
    }
    print(written_markdown(results))


if __name__ == "__main__":
    main()
