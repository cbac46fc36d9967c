"""Learning curves with and without another adapter to start from: what `init_from` is worth at how much data.

    python scripts/transfer.py books --init-from movies --out /data/transfer
    python scripts/transfer.py books fit.epochs=1 --init-from movies --shares 0.01 0.1 --seeds 0 1 --out /data/transfer

A share is one of the domain's training examples, a sample of its own for each seed: reviews, or histories.  0 is what
the base model, and the adapter, answer without any training.  Both curves of a seed learn from the same rows in as many
steps (those of `fit.epochs`, but at least --steps) and keep the last weights; nothing is chosen on validation data.
What is measured of the answers to --asked test examples is the metric of the task's suite (see scripts/joint.py).

The table holds every run that lies in OUT: shares that cost more can get fewer seeds, by a second command.  Killed at
any moment, the same command goes on; a finished run is not repeated.  Writes transfer.md, transfer.png and, last,
transfer.json.  Activations below the adapter are computed once for both curves, in OUT/activations; they may be deleted
afterwards.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from joint import MEASURES, METRIC, Asked, Loaded, checked, statistic
from matplotlib import pyplot
from study_mixture import begin, digest, interval, same, share

from llmrec import config
from llmrec.data.split import histories
from llmrec.engine.hf import HFEngine
from llmrec.errors import LlmrecError, RecipeError
from llmrec.learning import learners
from llmrec.learning.next_item import NextItem
from llmrec.learning.reviews import ReviewSentiment
from llmrec.model import adapter, transfer
from llmrec.model.activations import check_split, drop
from llmrec.model.encode import Encoder
from llmrec.model.fit import fit
from llmrec.model.load import base_model, load_model, load_tokenizer
from llmrec.model.plan import Plan
from llmrec.parts import write_table, write_text

FORMAT = 1
CURVES = {"without": "from nothing", "with": "from {start}"}
SAMPLES = 2000


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", help="domain, or path of a recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of its recipe, before the options")
    parser.add_argument(
        "--init-from", required=True, help="domain, domain@version or folder of the adapter to start from"
    )
    parser.add_argument("--task", help="of the recipe's; by default its only one")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.01, 0.1, 1], help="of the training examples")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30, help="fewest optimiser steps of a run")
    parser.add_argument("--asked", type=int, default=400, help="test reviews or users, the same for all runs; 0: all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_intermixed_args(words)
    try:
        recipe = config.load_recipe(args.domain, tuple(args.overrides))
        task = args.task or next(iter(recipe.tasks))
        if task not in recipe.tasks or (not args.task and len(recipe.tasks) > 1):
            raise RecipeError(f"{args.domain}: name one of its tasks with --task: {', '.join(recipe.tasks)}")
        recipe = recipe.model_copy(update={"tasks": {task: recipe.tasks[task]}, "init_from": args.init_from})
        checked([task])
        study = Study(recipe, task, args.steps, args.asked, args.out)
        for seed in args.seeds:
            for part in args.shares:
                for curve in CURVES:
                    if part or seed == args.seeds[0]:  # without training there is nothing random
                        study.run(part, seed, curve)
            study.report()
    except LlmrecError as error:
        raise SystemExit(f"error: {error}") from None
    print((args.out / "transfer.md").read_text(encoding="utf-8"))


class Study:
    """All runs of one recipe with one task, which names the adapter to start from."""

    def __init__(self, recipe: config.Recipe, task: str, steps: int, asked: int, out: Path):
        if recipe.fit.cache == "memory":
            raise RecipeError("fit.cache=memory: both curves share what is computed once; set fit.cache=disk")
        if recipe.lora.own:
            raise RecipeError("lora.own: one task shares with nobody; set lora.own=0")
        self.recipe, self.task, self.steps, self.out = recipe, task, steps, out
        self.asked = Asked(recipe, "test", asked, 0)
        self.base = base_model(recipe.base_model)
        found = transfer.start(recipe, self.base)
        assert found is not None
        self.start = found
        self.encoder = Encoder(load_tokenizer(self.base.folder))
        self.all = available(recipe, task, self.encoder)
        self.made_from = {
            "format": FORMAT, "steps": steps, "asked": asked, "start": str(self.start.card["weights"]),
            "base": self.base.digest, "examples": self.all,
            "recipe": recipe.model_dump(mode="json", exclude={"init_from", "licence"}),
        }  # fmt: skip

    def run(self, part: float, seed: int, curve: str) -> None:
        """One training and the answers after it, in a folder of its own, unless it lies there."""
        folder = self.out / f"{part:g}-{seed}-{curve}"
        if (folder / "result.json").is_file():
            self.result(folder)
            return
        begin(folder, self.made_from)
        examples = math.ceil(part * self.all)
        print(f"{folder.name}: {examples:,} of {self.all:,} examples …", flush=True)
        sample = {"examples": examples} | ({} if examples else {"balance": 0.0})  # no balance to put back
        asked = self.recipe.model_copy(update={
            "fit": self.recipe.fit.model_copy(update={"seed": seed, "valid_users": 0, "variants": 1}),
            "tasks": {self.task: self.recipe.tasks[self.task].model_copy(update=sample)},
        })  # fmt: skip
        set_seed(seed)
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        model = load_model(self.base, dtype=torch.float32, device=accelerator.device)
        model = adapter.attach(model, asked.lora, base_name=asked.base_model)
        if curve == "with":
            transfer.put(self.start, model)
        engine = HFEngine(model, self.encoder.tokenizer)
        result: dict[str, Any] = {"share": part, "examples": examples, "seed": seed, "curve": curve}
        if examples:
            result |= self.fitted(model, engine, asked, folder, accelerator)
        model.eval()
        records = MEASURES[self.task](Loaded(asked, self.encoder, engine), self.asked)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(pa.Table.from_pandas(records, preserve_index=False), folder / "records.parquet")
        result |= {"value": statistic(records)(np.arange(len(records))), "made_from": self.made_from}
        adapter.write_json(folder / "result.json", result)

    def fitted(
        self, model: Any, engine: HFEngine, asked: config.Recipe, folder: Path, accelerator: Accelerator
    ) -> dict[str, Any]:
        """Trains `model`.  Returns: steps, seconds and the last mean loss."""
        learner = learners(asked, self.encoder, engine)[self.task]
        rows = learner.rows(0)
        teacher = learner.teacher(folder)
        once = Plan([rows], asked.fit.model_copy(update={"epochs": 1.0}), asked.tasks).steps
        settings = asked.fit.model_copy(update={"epochs": max(asked.fit.epochs, self.steps / once)})
        shared = self.out / "activations" / digest(rows, self.base.digest, asked.lora.first_layer, torch.float32)
        if settings.cache != "none":
            check_split(model.get_base_model().get_decoder(), asked.lora.first_layer, rows[0].tokens.tolist())
            share(shared, folder)
        state = fit(
            model, [rows], {self.task: learner.trie}, settings, folder, tasks=asked.tasks, mixture=asked.mixture,
            first_layer=asked.lora.first_layer, teachers={self.task: teacher} if teacher else None,
            share=asked.teacher.share, accelerator=accelerator,
        )  # fmt: skip
        if settings.cache != "none":
            share(folder, shared)
        drop(folder)
        for left in folder.glob("checkpoint-*"):
            shutil.rmtree(left)
        loss = next(entry["loss"] for entry in reversed(state.log) if "loss" in entry)
        return {"steps": state.step, "seconds": round(state.seconds), "loss": loss}

    def result(self, folder: Path) -> dict[str, Any]:
        """What a finished run found.  Raises: RecipeError where it was made otherwise."""
        found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        same(folder, found.pop("made_from"), self.made_from)
        return found

    def report(self) -> None:
        """Table, picture and results of all runs so far."""
        runs = [(file.parent, self.result(file.parent)) for file in sorted(self.out.glob("*/result.json"))]
        records = {(one["share"], one["seed"], one["curve"]): pd.read_parquet(folder / "records.parquet")
                   for folder, one in runs}  # fmt: skip
        start = str(self.start.card["domain"])
        results = {
            "format": FORMAT, "domain": self.recipe.domain, "task": self.task, "metric": METRIC[self.task],
            "start": {"domain": start, "weights": self.made_from["start"]}, "available": self.all,
            "asked": len(next(iter(records.values()))), "steps": self.steps,
            "lora": self.recipe.lora.model_dump(mode="json"), "fit": self.recipe.fit.model_dump(mode="json"),
            "runs": sorted((one for _, one in runs), key=lambda one: (one["share"], one["seed"], one["curve"])),
            "points": points(records),
        }  # fmt: skip
        write_text(markdown(results), self.out / "transfer.md")
        picture(results, self.out / "transfer.png")
        write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", self.out / "transfer.json")


def available(recipe: config.Recipe, task: str, encoder: Encoder) -> int:
    """The training examples that are there: what the task's `examples` allows of them, reviews or histories."""
    [one] = learners(recipe, encoder).values()
    if isinstance(one, ReviewSentiment):
        count = len(one.train)
    else:
        model = one.recommender if isinstance(one, NextItem) else one.follow_up.recommender
        count = sum(len(found.items) > 0 for found in histories(model.dataset, model.catalog, "train"))
    return min(recipe.tasks[task].examples or count, count)


def points(records: dict[tuple[float, int, str], pd.DataFrame]) -> list[dict[str, Any]]:
    """For each share the values of its seeds on both curves, and the mean difference: its 95% bootstrap interval over
    test examples, the same draws everywhere."""
    size = len(next(iter(records.values())))
    rng = np.random.default_rng(0)
    draws = [np.arange(size), *(rng.integers(size, size=size) for _ in range(SAMPLES))]
    found = []
    for part in sorted({part for part, *_ in records}):
        seeds = sorted(seed for p, seed, curve in records if p == part and curve == "without")
        seeds = [seed for seed in seeds if (part, seed, "with") in records]
        if not seeds:
            continue
        of = {
            curve: np.array([[statistic(records[part, seed, curve])(draw) for draw in draws] for seed in seeds])
            for curve in CURVES
        }  # (seeds, draws)
        gap = (of["with"] - of["without"]).mean(0)
        low, high = np.quantile(gap[1:], [0.025, 0.975])
        found.append(
            {"share": part, "seeds": seeds, **{curve: of[curve][:, 0].tolist() for curve in CURVES}}
            | {"difference": {"mean": float(gap[0]), "low": float(low), "high": float(high)}}
        )
    return found


def markdown(results: dict[str, Any]) -> str:
    start = results["start"]["domain"]
    head = [
        "share",
        "examples",
        "seeds",
        *(text.format(start=start) for text in CURVES.values()),
        "difference",
        "over seeds",
    ]
    lines = []
    for point in results["points"]:
        gaps = [a - b for a, b in zip(point["with"], point["without"], strict=True)]
        d = point["difference"]
        lines.append([
            f"{100 * point['share']:g}%", f"{math.ceil(point['share'] * results['available']):,}",
            str(len(point["seeds"])),
            *(" ".join(f"{value:.3f}" for value in point[curve]) for curve in CURVES),
            f"{d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]", interval(gaps, signed=True) if gaps[1:] else "",
        ])  # fmt: skip
    grid = "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])
    return (
        f"# {results['domain']}: what it is worth to start from {start}\n\n{results['task']}, {results['metric']} on "
        f"{results['asked']:,} test examples, a value for each seed; at least {results['steps']} steps of "
        f"{results['fit']['batch_tokens']:,} tokens, the last weights. Intervals of 95%: of the mean difference by "
        f"bootstrap over test examples, and over seeds (Student).\n\n{grid}\n"
    )


def picture(results: dict[str, Any], file: Path) -> None:
    """Means of both curves over examples, a dot for each seed."""
    figure, axes = pyplot.subplots(figsize=(7, 4))
    x = [point["share"] * results["available"] for point in results["points"]]
    for curve, text in CURVES.items():
        [line] = axes.plot(
            x, [np.mean(point[curve]) for point in results["points"]],
            label=text.format(start=results["start"]["domain"]),
        )  # fmt: skip
        for at, point in zip(x, results["points"], strict=True):
            axes.plot([at] * len(point[curve]), point[curve], ".", color=line.get_color())
    if any(x):
        axes.set_xscale("symlog", linthresh=min(at for at in x if at))
    axes.set(
        xlabel="training examples", ylabel=f"test {results['metric']}", title=f"{results['domain']}, {results['task']}"
    )
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
