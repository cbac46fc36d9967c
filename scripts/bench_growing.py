"""A person who chooses on and on: what a list costs after every new choice, and what a moving window costs in quality.

    python scripts/bench_growing.py movies --users 20 --choices 12 --steps 0 64 128
    python scripts/bench_growing.py movies --users 20 --engine vllm -- serve.kv_gib=0.5 serve.context=2048

A history that is longer than the window loses its oldest lines.  With `window_step=0` they go one by one, so every
prompt begins otherwise and is read anew; with a step the beginning stays for a while, and an engine goes on from what
it has computed.  Only people whose histories are longer than the window are asked: for each, the top 10 after each of
the last `--choices` interactions before the test, one after another, then the test itself: nats of what was chosen next
and NDCG@10, the model alone, paired by user against the first step.  CPU seconds are what to compare on a busy machine.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from llmrec import config
from llmrec.choices.search import listed
from llmrec.data.split import Query
from llmrec.metrics.ranking import ndcg, ranks
from llmrec.metrics.significance import Interval, paired
from llmrec.recommender import Recommender


def long_histories(model: Recommender, users: int, choices: int) -> list[Query]:
    """Random test queries whose histories do not fit, also before the last `choices`."""
    recipe = model.recipe
    asked = model.queries("test", 1)
    lines = model.listing.lines
    longer = [
        query for query in asked
        if sum(len(lines[item]) for item in query.history[:-choices]) > recipe.fit.window_tokens
    ]  # fmt: skip
    chosen = np.random.default_rng(0).permutation(len(longer))[:users]
    return [longer[i] for i in chosen]


def measure(
    model: Recommender, asked: list[Query], choices: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(users,) wall and CPU seconds of a list after a new choice, the first one of each person left out; (users,) nats
    of what was chosen next, and NDCG@10."""
    wall, cpu, nats, gains = [], [], [], []
    step = f"window_step={model.recipe.window_step}"
    for query in track(asked, step, console=Console(stderr=True), transient=True):
        for known in range(len(query.history) - choices, len(query.history) + 1):
            if known == len(query.history) - choices + 1:  # the first list of a person is read whole in any case
                start = time.perf_counter(), time.process_time()
            [found] = model.rank([query.history[:known]], 10, prior=False)
        wall.append((time.perf_counter() - start[0]) / choices)
        cpu.append((time.process_time() - start[1]) / choices)
        [(log_p, _)] = model.score([query.history], [[query.target]], prior=False)
        nats.append(-float(log_p[0]))
        gains.append(float(ndcg(ranks(listed([found], 10), [query.target]), 10)[0]))
    return np.array(wall), np.array(cpu), np.array(nats), np.array(gains)


def shown(interval: Interval) -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("settings", nargs="*", help="key=value of the recipe, behind --")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--choices", type=int, default=12, help="new choices of each person, a list after each")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 64, 128], help="of window_step")
    parser.add_argument("--engine", default="hf")
    args = parser.parse_args()
    recipe = config.load_recipe(args.domain, tuple(args.settings))
    model = Recommender.load(recipe, args.domain, engine=args.engine)
    asked = long_histories(model, args.users, args.choices)
    if not asked:
        raise SystemExit(f"error: nobody has a history longer than fit.window_tokens={recipe.fit.window_tokens}")
    found = {
        step: measure(replace(model, recipe=recipe.model_copy(update={"window_step": step})), asked, args.choices)
        for step in args.steps
    }
    first = found[args.steps[0]]
    head = ["window_step", "seconds a list", "CPU seconds", "of the first", "nats of the next", "against the first",
            "NDCG@10", "against the first"]  # fmt: skip
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for step, (wall, cpu, nats, gains) in found.items():
        line = [f"{step}", f"{wall.mean():.3f}", f"{cpu.mean():.3f}", f"{cpu.mean() / first[1].mean():.2f}",
                f"{nats.mean():.3f}", shown(paired(nats, first[2])),
                f"{gains.mean():.4f}", shown(paired(gains, first[3]))]  # fmt: skip
        print(f"| {' | '.join(line)} |")
    print(f"\n{len(asked)} people, {args.choices} new choices each; {args.engine}, {torch.get_num_threads()} threads.")


if __name__ == "__main__":
    main()
