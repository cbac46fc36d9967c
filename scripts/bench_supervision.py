"""Dense lists against one target per row: training time to the same validation loss.

    python scripts/bench_supervision.py movies --tokens 200000

Two trainings of one model, LoRA, data, precision and machine that read equally many tokens: every line of a list a
target (`fit.supervision=dense`), and the usual fine-tuning, where a row teaches its last line only (`last`).  Each is
validated at `--points` places by the nats that the items which came next cost; time is training alone, validation left
out.  The answer is the time that either takes to the lowest loss that both reach.  Both run without kept activations,
which would help dense lists only.  Interrupted, the same command goes on.  Settings may differ from the recipe's:
`lora.rank=16 fit.learning_rate=5e-4`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from llmrec import config
from llmrec.choices.search import score
from llmrec.engine.hf import HFEngine
from llmrec.learning.next_item import NextItem
from llmrec.model import adapter as adapters
from llmrec.model.encode import Encoder
from llmrec.model.fit import fit
from llmrec.model.load import base_model, load_model, load_tokenizer
from llmrec.train import run_folder

METRIC = "log_p"  # mean nats of the next item, below zero


def curve(recipe: config.Recipe, tokens: int, points: int) -> tuple[list[tuple[float, float]], str]:
    """((seconds of training, nats an item) at each validation, the first before any training), and what was read."""
    base = base_model(recipe.base_model)
    set_seed(recipe.fit.seed)
    encoder = Encoder(load_tokenizer(base.folder))
    cpu = not torch.cuda.is_available()
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")
    model = adapters.attach(
        load_model(base, dtype=torch.float32, device=accelerator.device), recipe.lora, base_name=recipe.base_model
    )
    engine = HFEngine(model, encoder.tokenizer)
    task = NextItem(recipe, encoder, engine)
    prompts = task.recommender.prompts([query.history for query in task.asked])
    targets = [[query.target] for query in task.asked]

    def validate() -> dict[str, float]:
        started = time.monotonic()
        engine.forget()
        found = score(engine, prompts, task.recommender.listing.choices, targets)
        engine.forget()
        return {METRIC: float(np.mean(np.concatenate(found))), "validating": time.monotonic() - started}

    variants = [task.rows(variant) for variant in range(recipe.fit.variants)]
    an_epoch = sum(len(row.tokens) for row in variants[0])
    epochs = tokens / an_epoch
    settings = recipe.fit.model_copy(update={"epochs": epochs, "valid_every": epochs / points, "patience": 10**9})
    run = run_folder(recipe.model_copy(update={"fit": settings}), base, task)
    before = run / "before.json"
    if not before.is_file():
        run.mkdir(parents=True, exist_ok=True)
        before.write_text(json.dumps(validate()[METRIC]))
    state = fit(
        model, variants, {"next_item": task.trie}, settings, run, first_layer=recipe.lora.first_layer,
        validate=validate, metric=METRIC, accelerator=accelerator,
    )  # fmt: skip
    found, validating = [(0.0, -json.loads(before.read_text()))], 0.0
    for entry in state.log:
        validating += entry.get("validating", 0.0)
        if METRIC in entry:
            seconds = max(entry["seconds"] - validating, 0.1)  # logged in tenths, and training took some
            found.append((seconds, -entry[METRIC]))
    seen = epochs * sum(len(row.starts) for row in variants[0])
    return found, f"{state.step} steps, {epochs:.3g} epochs, {seen:,.0f} targets"


def seconds_to(points: Sequence[tuple[float, float]], nats: float) -> float:
    """When the curve first reaches `nats`, by straight lines between its points; inf where it never does."""
    for (t0, y0), (t1, y1) in zip(points, points[1:], strict=False):
        if y1 <= nats:
            return t0 + (t1 - t0) * (y0 - nats) / (y0 - y1) if y0 > nats else t0
    return float("inf")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--tokens", type=int, default=200_000, help="tokens of training rows that either reads")
    parser.add_argument("--points", type=int, default=8, help="validations")
    parser.add_argument("--users", type=int, default=64, help="validation users")
    parser.add_argument("--out", type=Path, help="also write both curves as JSON")
    args = parser.parse_args(words)
    curves = {}
    for supervision in ("dense", "last"):
        fixed = (
            f"fit.supervision={supervision}",
            "fit.cache=none",
            "fit.precision=float32",
            f"fit.valid_users={args.users}",
        )
        recipe = config.load_recipe(args.domain, ("init_from=null", *args.overrides, *fixed))
        curves[supervision], read = curve(recipe, args.tokens, args.points)
        print(f"\n{supervision}: {read}\n\n| seconds of training | nats an item |\n| --- | --- |")
        print("\n".join(f"| {seconds:.1f} | {nats:.3f} |" for seconds, nats in curves[supervision]))
    reached = {name: min(nats for _, nats in points) for name, points in curves.items()}
    common = max(reached.values())
    took = {name: seconds_to(points, common) for name, points in curves.items()}
    print(
        f"\n{common:.3f} nats an item, which both reach: dense after {took['dense']:.1f} s, one target per row after "
        f"{took['last']:.1f} s of training: {took['last'] / took['dense']:.1f} × ({args.users} validation users, "
        f"{args.tokens:,} tokens each, {torch.get_num_threads()} threads)"
    )
    if args.out:
        args.out.write_text(json.dumps({"curves": curves, "common": common, "seconds": took}, indent=1))


if __name__ == "__main__":
    main()
