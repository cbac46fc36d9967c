"""Exact search against scoring every item by itself: the top 20 of real users, with and without mask and prior.

    python scripts/check_exact.py movies --users 100

The check shares nothing with the engine's tree: each item's tokens run as a row of their own behind the history's keys
and values, and log p is summed over full softmaxes of a plain prefix tree.  Ends with status 1 on any difference over
1e-3 nats or any order that differs where scores lie further apart than that.
"""

from __future__ import annotations

import argparse
import copy
import sys
from typing import Any

import numpy as np
import torch
from rich.progress import track

from llmrec import config
from llmrec.choices import bonus as terms
from llmrec.choices.search import rank
from llmrec.data.split import queries
from llmrec.engine import Prompt
from llmrec.model.head import token_rows
from llmrec.recommender import Recommender

GAP = 1e-3  # nats


@torch.no_grad()
def every_item(model: Recommender, prompt: Prompt, chunk: int = 48) -> np.ndarray:
    """(items,) log p, one row per item."""
    engine: Any = model.engine
    lines = [line.tolist() for line in model.listing.lines]
    following: dict[tuple[int, ...], set[int]] = {}
    for line in lines:
        for depth in range(len(line)):
            following.setdefault(tuple(line[:depth]), set()).add(line[depth])
    result = np.zeros(len(lines))
    with engine._active(prompt.adapter):
        first = engine.decoder(input_ids=torch.tensor([prompt.tokens]), use_cache=True)
        for start in range(0, len(lines), chunk):
            part = lines[start : start + chunk]
            ids = torch.zeros((len(part), max(map(len, part))), dtype=torch.long)
            for i, line in enumerate(part):
                ids[i, : len(line)] = torch.tensor(line)
            past = copy.deepcopy(first.past_key_values)
            past.batch_repeat_interleave(len(part))
            states = engine.decoder(input_ids=ids, past_key_values=past, use_cache=True).last_hidden_state
            before = first.last_hidden_state[:, -1:].expand(len(part), 1, -1)
            states = torch.cat([before, states], 1)
            for i, line in enumerate(part):
                for depth, token in enumerate(line):
                    children = sorted(following[tuple(line[:depth])])
                    if len(children) > 1:
                        scores = states[i, depth] @ token_rows(engine.head, torch.tensor(children)).T
                        result[start + i] += float(torch.log_softmax(scores, 0)[children.index(token)])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--base", action="store_true", help="the base model without an adapter")
    args = parser.parse_args()
    recipe = config.load_recipe(args.domain, ("fit.precision=float32",))
    model = Recommender.load(recipe, None if args.base else args.domain, device="cpu")
    asked = queries(model.dataset, model.catalog, "test", baskets=recipe.split.baskets, max_targets=1)[: args.users]
    prompts = model.prompts([query.history for query in asked])
    worst, wrong, lists = 0.0, 0, 0
    weight = model.prior_weight or 1.0
    for query, prompt in track(list(zip(asked, prompts, strict=True)), description="users"):
        log_p = every_item(model, prompt)
        prior = terms.mix(model.prior.p(query.history), model.prior.popularity, weight, recipe.prior.floor)
        mask = terms.mask(len(log_p), query.history)
        for term in (np.zeros_like(mask), mask, prior, terms.combine(mask, prior)):
            found = rank(model.engine, [prompt], model.listing.choices, term, 20)[0]
            total = log_p + term
            order = np.lexsort((np.arange(len(total)), -total))[:20]
            worst = max(worst, float(np.abs(found.score - total[order]).max()))
            for mine, theirs in zip(found.items, order, strict=True):
                wrong += int(mine != theirs and abs(total[mine] - total[theirs]) > GAP)
            lists += 1
    print(f"{lists} lists of 20 for {len(asked)} users: {wrong} places differ; largest difference {worst:.1e} nats")
    sys.exit(wrong > 0 or worst > GAP)


if __name__ == "__main__":
    main()
