"""Dense lists against one target per row: training time to the same validation loss, and to the same NDCG@10.

    python scripts/bench_supervision.py movies --tokens 200000
    python scripts/bench_supervision.py movies --tokens 200000 --other lora.first_layer=0         # all layers

Two trainings of one model, LoRA, data, precision and machine that read equally many tokens: every line of a list a
target (`fit.supervision=dense`), and the usual fine-tuning, where a row teaches its last line only (`last`).  Each is
validated at `--points` places by the nats that the items which came next cost, and by NDCG@10 over the whole catalog;
time is training alone, validation left out.  The answer is the time that either takes to the lowest loss that both
reach, and to the highest NDCG@10.  Both run without kept activations, which would help dense lists only.  Interrupted,
the same command goes on.  Settings may differ from the recipe's: `lora.rank=16 fit.precision=bf16`; with `--other`
dense lists stand beside another training than one target per row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import set_seed

from llmrec import config
from llmrec.choices.search import score
from llmrec.engine.hf import HFEngine
from llmrec.learning.next_item import NextItem
from llmrec.model import adapter as adapters
from llmrec.model.encode import Encoder
from llmrec.model.fit import fit
from llmrec.model.load import base_model, load_model, load_tokenizer
from llmrec.train import accelerator_for, run_folder

METRIC = "log_p"  # mean nats of the next item, below zero
LAST = "fit.supervision=last"


class Point(NamedTuple):
    """What a training has reached after some seconds."""

    seconds: float
    nats: float
    ndcg: float


def curve(recipe: config.Recipe, tokens: int, points: int) -> tuple[list[Point], str]:
    """A point for each validation, the first before any training, and what was read."""
    base = base_model(recipe.base_model)
    set_seed(recipe.fit.seed)
    encoder = Encoder(load_tokenizer(base.folder))
    accelerator = accelerator_for(recipe)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    model = adapters.attach(
        load_model(base, dtype=dtype, device=accelerator.device), recipe.lora, base_name=recipe.base_model
    )
    engine = HFEngine(model, encoder.tokenizer)
    task = NextItem(recipe, encoder, engine)
    prompts = task.recommender.prompts([query.history for query in task.asked])
    targets = [[query.target] for query in task.asked]

    def validate() -> dict[str, float]:
        started = time.monotonic()
        engine.forget()
        found = score(engine, prompts, task.recommender.listing.choices, targets)
        metrics = task.validate()
        return {METRIC: float(np.mean(np.concatenate(found))), **metrics, "validating": time.monotonic() - started}

    variants = [task.rows(variant) for variant in range(recipe.fit.variants)]
    an_epoch = sum(len(row.tokens) for row in variants[0])
    epochs = tokens / an_epoch
    settings = recipe.fit.model_copy(update={"epochs": epochs, "valid_every": epochs / points, "patience": 10**9})
    run = run_folder(recipe.model_copy(update={"fit": settings}), base, task, dtype=dtype)
    # Its log holds other metrics, and its time is another where only memory settings differ.
    timed = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:6]
    run = run.with_name(f"{run.name}-{timed}-supervision")
    before = run / "before.json"
    if not before.is_file():
        run.mkdir(parents=True, exist_ok=True)
        before.write_text(json.dumps(validate()))
    state = fit(
        model, variants, {"next_item": task.trie}, settings, run, first_layer=recipe.lora.first_layer,
        validate=validate, metric=METRIC, accelerator=accelerator,
    )  # fmt: skip
    first = json.loads(before.read_text())
    found, validating = [Point(0.0, -first[METRIC], first[task.metric])], 0.0
    for entry in state.log:
        validating += entry.get("validating", 0.0)
        if METRIC in entry:
            seconds = max(entry["seconds"] - validating, 0.1)  # logged in tenths, and training took some
            found.append(Point(seconds, -entry[METRIC], entry[task.metric]))
    seen = epochs * sum(len(row.starts) for row in variants[0])
    return found, f"{state.step} steps, {epochs:.3g} epochs, {seen:,.0f} targets"


def seconds_to(seconds: Sequence[float], values: Sequence[float], low: float) -> float:
    """When `values` first fall to `low`, by straight lines between them; inf where they never do."""
    if values[0] <= low:
        return seconds[0]
    places = list(zip(seconds, values, strict=True))
    for (t0, y0), (t1, y1) in zip(places, places[1:], strict=False):
        if y1 <= low:
            return t0 + (t1 - t0) * (y0 - low) / (y0 - y1)
    return float("inf")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--tokens", type=int, default=200_000, help="tokens of training rows that either reads")
    parser.add_argument("--points", type=int, default=8, help="validations")
    parser.add_argument("--users", type=int, default=64, help="validation users")
    parser.add_argument("--other", nargs="+", metavar="key=value", default=[LAST], help=f"the other training; {LAST}")
    parser.add_argument("--out", type=Path, help="also write both curves as JSON")
    args = parser.parse_args(words)
    other = "last" if args.other == [LAST] else " ".join(args.other)
    told = "one target per row" if args.other == [LAST] else other
    curves: dict[str, list[Point]] = {}
    for name, differs in (("dense", ("fit.supervision=dense",)), (other, args.other)):
        fixed = (*differs, "fit.cache=none", f"fit.valid_users={args.users}")
        recipe = config.load_recipe(args.domain, ("init_from=null", *args.overrides, *fixed))
        curves[name], read = curve(recipe, args.tokens, args.points)
        print(f"\n{name}: {read}\n\n| seconds of training | nats an item | NDCG@10 |\n| --- | --- | --- |")
        print("\n".join(f"| {at.seconds:.1f} | {at.nats:.3f} | {at.ndcg:.3f} |" for at in curves[name]))
    took: dict[str, dict[str, float]] = {}
    for name, sign in (("nats", 1.0), ("ndcg", -1.0)):
        values = {each: [sign * getattr(at, name) for at in points] for each, points in curves.items()}
        common = max(map(min, values.values()))
        took[name] = {
            each: seconds_to([at.seconds for at in points], values[each], common) for each, points in curves.items()
        }
        dense, last = took[name]["dense"], took[name][other]
        took[name]["common"] = sign * common
        print(
            f"\n{sign * common:.3f} {'nats an item' if name == 'nats' else 'NDCG@10'}, which both reach: dense after "
            f"{dense:.1f} s, {told} after {last:.1f} s of training: "
            f"{f'{last / dense:.1f} ×' if dense and last else 'no more than before any'} "
            f"({args.users} validation users, {args.tokens:,} tokens each, {torch.get_num_threads()} threads)"
        )
    if args.out:
        args.out.write_text(json.dumps({"curves": curves, **took}, indent=1))


if __name__ == "__main__":
    main()
