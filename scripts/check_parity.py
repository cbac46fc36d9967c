"""vLLM against the reference engine on the real model: the same top 20 and the same greedy text, user by user.

    python scripts/check_parity.py movies --users 200 --kept parity.jsonl
    python scripts/check_parity.py movies --users 200 --kept bf16.jsonl --bf16 --tokens 0

Both engines compute in float32.  A place of a list may differ only where scores lie within 1e-3 nats; greedy replies
must be equal to the last byte.  With `--bf16` vLLM computes in bf16, and what is asked is whether its lists are as
good: the difference of NDCG@10, paired by user.  With `--kept` each user's outcome is written as soon as it is known,
and the same command goes on from there.  Ends with status 1 on any difference, in bf16 on one whose interval leaves
out 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmrec import config
from llmrec.choices.search import Ranking, listed
from llmrec.metrics.ranking import ndcg, ranks
from llmrec.metrics.significance import FEWEST, paired
from llmrec.recommender import Recommender

N = 20
GAP = 1e-3  # nats
SHOWN = 5  # differences that are printed


def compared(mine: Ranking, theirs: Ranking) -> tuple[float, int]:
    """(largest difference of an item's score, places that differ by more than `GAP`)."""
    known = dict(zip(theirs.items.tolist(), theirs.score.tolist(), strict=True))
    worst, wrong = 0.0, abs(len(mine.items) - len(theirs.items))
    for item, score, there in zip(mine.items.tolist(), mine.score.tolist(), theirs.score.tolist(), strict=False):
        worst = max(worst, abs(score - known.get(item, score)))
        # What the reference does not list at all may only tie with the end of its list.
        wrong += abs(known.get(item, score) - there) > GAP
    return worst, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=32, help="of each greedy reply; 0 leaves replies out")
    parser.add_argument("--bf16", action="store_true", help="vLLM computes in bf16: are its lists as good?")
    parser.add_argument("--batch", type=int, default=4, help="users asked together")
    parser.add_argument("--kept", type=Path, help="file of outcomes, one JSON line a user; goes on after them")
    args = parser.parse_intermixed_args()
    if args.bf16 and args.users < FEWEST:
        parser.error(f"--bf16: fewer than {FEWEST} users show nothing")
    precisions = {"hf": "float32", "vllm": "bf16" if args.bf16 else "float32"}
    models = {
        name: Recommender.load(
            config.load_recipe(args.domain, (*args.overrides, f"fit.precision={precision}")),
            args.domain, engine=name, device="cpu",
        )
        for name, precision in precisions.items()
    }  # fmt: skip
    mine = models["vllm"]
    assert mine.engine.exact != args.bf16 and models["hf"].engine.exact
    asked = mine.queries("test", 1)
    asked = [asked[i] for i in np.random.default_rng(0).permutation(len(asked))[: args.users]]
    of = {"weights": mine.card.get("weights"), "tokens": args.tokens, "vllm": precisions["vllm"]}
    done: list[dict[str, Any]] = []
    if args.kept and args.kept.exists():
        done = [json.loads(line) for line in args.kept.read_text().splitlines()][: len(asked)]
        for query, kept in zip(asked, done, strict=False):
            if kept["user"] != query.user_id or {key: kept.get(key) for key in of} != of:
                sys.exit(f"{args.kept}: of other users, weights or settings; name another file")
    began = time.monotonic()
    for start in range(len(done), len(asked), args.batch):
        part = asked[start : start + args.batch]
        lists, texts = {}, {}
        for name, model in models.items():
            histories = [query.history for query in part]
            lists[name] = model.rank(histories, N)
            texts[name] = [""] * len(part)
            if args.tokens:
                texts[name] = model.engine.generate(model.prompts(histories), max_tokens=args.tokens)
        targets = [query.target for query in part]
        gains = {name: ndcg(ranks(listed(lists[name], N), targets), 10) for name in models}
        for i, query in enumerate(part):
            worst, wrong = compared(lists["vllm"][i], lists["hf"][i])
            outcome = {"user": query.user_id, **of, "nats": worst, "places": wrong}
            outcome["texts"] = [texts["vllm"][i], texts["hf"][i]]
            outcome["ndcg@10"] = [float(gains["vllm"][i]), float(gains["hf"][i])]
            done.append(outcome)
            if args.kept:
                with args.kept.open("a") as file:
                    file.write(json.dumps(outcome) + "\n")
        same = sum(not one["places"] and one["texts"][0] == one["texts"][1] for one in done)
        print(f"{same} of {len(done)} users the same, {time.monotonic() - began:.0f} s", flush=True)
    lists_differ = [one for one in done if one["places"]]
    texts_differ = [one for one in done if one["texts"][0] != one["texts"][1]]
    for one in lists_differ[:SHOWN]:
        print(f"user {one['user']}: {one['places']} of {N} places differ, {one['nats']:.1e} nats")
    for one in texts_differ[:SHOWN]:
        print(f"user {one['user']}: vllm wrote {one['texts'][0]!r}, hf {one['texts'][1]!r}")
    worst = max((one["nats"] for one in done), default=0)
    told = f", {len(done) - len(texts_differ)} with the same greedy {args.tokens} tokens" if args.tokens else ""
    print(
        f"{len(done)} users: {len(done) - len(lists_differ)} with the same top {N} (largest difference of a score "
        f"{worst:.1e} nats){told}; {torch.get_num_threads()} threads"
    )
    gained = np.array([one["ndcg@10"] for one in done])
    difference = paired(gained[:, 0], gained[:, 1])
    print(
        f"NDCG@10, {precisions['vllm']} in vLLM against float32 in hf: {gained[:, 0].mean():.4f} and "
        f"{gained[:, 1].mean():.4f}, {difference.mean:+.4f} [{difference.low:.4f}, {difference.high:.4f}]"
    )
    sys.exit(difference.excludes_zero if args.bf16 else bool(lists_differ or texts_differ))


if __name__ == "__main__":
    main()
