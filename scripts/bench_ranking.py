"""Exact search beside the usual constrained beam search: one model, the same users, one run.

    python scripts/bench_ranking.py movies --users 24

The peer is transformers' `generate` with 20 beams over the same identifiers (`prefix_allowed_tokens_fn`, renormalised
logits, no length penalty), one user at a time as published decoders of title and semantic-id recommenders run it.  Also
measured: reading the histories alone, so that the cost of a list is a multiple of what any model must pay, and the
search with the adapter's prior, as it is served.  Beam search
takes so long that it may be given fewer of the users (`--beam-users`); NDCG@10 is on those.  CPU seconds are what to
compare on a machine that is busy with other work.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from llmrec import config
from llmrec.choices.search import listed
from llmrec.data.split import Query
from llmrec.engine import Prompt
from llmrec.metrics.ranking import ndcg, ranks
from llmrec.metrics.significance import paired
from llmrec.recommender import Recommender


class Beams:
    """transformers' beam search held to the identifiers of the catalog."""

    def __init__(self, model: Recommender, width: int):
        self.engine: Any = model.engine
        self.width = width
        self.item = {tuple(line.tolist()): i for i, line in enumerate(model.listing.lines)}
        self.next: dict[tuple[int, ...], set[int]] = {}
        for line in self.item:
            for depth in range(len(line)):
                self.next.setdefault(line[:depth], set()).add(line[depth])
        self.longest = max(map(len, self.item))
        self.end = model.encoder.newline[-1]

    def rank(self, prompt: Prompt, n: int) -> np.ndarray:
        """(n,) positions, -1 where beams ended in nothing."""
        length = len(prompt.tokens)

        def allowed(_: int, ids: torch.Tensor) -> list[int]:
            return sorted(self.next.get(tuple(ids[length:].tolist()), {self.end}))

        with self.engine._active(prompt.adapter):
            out = self.engine.model.generate(
                input_ids=torch.tensor([prompt.tokens], device=self.engine.device), do_sample=False,
                num_beams=self.width, num_return_sequences=self.width, max_new_tokens=self.longest,
                prefix_allowed_tokens_fn=allowed, renormalize_logits=True, length_penalty=0.0,
                eos_token_id=self.end, pad_token_id=self.end,
            )  # fmt: skip
        found = []
        for tokens in out[:, length:].tolist():
            line = tuple(tokens[: tokens.index(self.end) + 1]) if self.end in tokens else ()
            if line in self.item:
                found.append(self.item[line])
        return np.array((found + [-1] * n)[:n])


def quality(lists: np.ndarray, asked: list[Query]) -> float:
    """Mean of `gains`."""
    return float(gains(lists, asked).mean())


def gains(lists: np.ndarray, asked: list[Query]) -> np.ndarray:
    """NDCG@10 of each list after the items of the history are taken out."""
    kept = np.full((len(asked), 10), -1)
    for row, (items, query) in enumerate(zip(lists, asked, strict=True)):
        new = [item for item in items.tolist() if item >= 0 and item not in set(query.history)][:10]
        kept[row, : len(new)] = new
    return ndcg(ranks(kept, [query.target for query in asked]), 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--beam-users", type=int, help="how many of them beam search ranks (default: all)")
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--base", action="store_true", help="the base model without an adapter")
    args = parser.parse_args()
    recipe = config.load_recipe(args.domain)
    model = Recommender.load(recipe, None if args.base else args.domain)
    asked = model.queries("test", 1)
    chosen = np.random.default_rng(0).permutation(len(asked))[: args.users]
    asked = [asked[i] for i in chosen]
    prompts = model.prompts([query.history for query in asked])
    engine: Any = model.engine

    few = min(args.beam_users or len(asked), len(asked))

    def timed(work: Any, users: int = len(asked)) -> tuple[np.ndarray, Any]:
        """(wall, CPU) seconds a user, and what `work` returned."""
        engine.forget()
        start = np.array([time.perf_counter(), time.process_time()])
        result = work()
        return (np.array([time.perf_counter(), time.process_time()]) - start) / users, result

    def prefill() -> None:
        for group in engine.batches(prompts):
            members = [prompts[i] for i in group]
            with torch.no_grad(), engine._active(members[0].adapter):
                engine._prefill(members)

    timed(lambda: model.rank([asked[0].history], 10))  # warm
    read, _ = timed(prefill)
    histories = [query.history for query in asked]
    searches = {"exact search, top 10": False} | ({"the same with its prior": True} if model.prior_weight else {})
    ours = {name: timed(lambda prior=prior: model.rank(histories, 10, prior=prior)) for name, prior in searches.items()}
    beams = Beams(model, args.beams)
    theirs, lists = timed(lambda: [beams.rank(prompt, args.beams) for prompt in prompts[:few]], few)
    valid = float(np.mean([np.mean(row >= 0) for row in lists]))
    print("| | users | seconds a user | CPU seconds a user | NDCG@10 | valid items |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| reading the history alone | {len(asked)} | {read[0]:.3f} | {read[1]:.3f} | | |")
    beamed = gains(np.array(lists), asked[:few])
    for name, (took, found) in ours.items():
        of_few = quality(listed(found[:few], 10), asked[:few])
        print(f"| {name} | {len(asked)} | {took[0]:.3f} | {took[1]:.3f} | {of_few:.4f} | 100% |")
    print(f"| {args.beams} beams | {few} | {theirs[0]:.3f} | {theirs[1]:.3f} | {beamed.mean():.4f} | {valid:.0%} |")
    for name, (took, found) in ours.items():
        faster, multiple = theirs / took, took / read
        more = paired(gains(listed(found[:few], 10), asked[:few]), beamed)
        expansions, waves = np.mean([f.expansions for f in found]), np.mean([f.waves for f in found])
        print(
            f"\n{name}: {faster[0]:.1f} × the users per second of beam search ({faster[1]:.1f} × by CPU seconds), "
            f"NDCG@10 {more.mean:+.4f} [{more.low:+.4f}, {more.high:+.4f}]; {multiple[0]:.2f} × reading the history "
            f"({multiple[1]:.2f} ×), with {expansions:.1f} expansions in {waves:.1f} waves a user"
        )
    print(f"\n{torch.get_num_threads()} threads, {engine.head.weight.dtype}")


if __name__ == "__main__":
    main()
