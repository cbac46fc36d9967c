"""What every way of balancing tasks and of settling their conflicts is worth: several seeds on one small budget.

    python scripts/study_mixture.py --out /tmp/mixture                            # all options, three seeds
    python scripts/study_mixture.py --out /tmp/mixture --options static dwa       # some of them
    python scripts/study_mixture.py --out /tmp/small fit.epochs=2 tasks.next_item.examples=400

Films to be listed (MovieLens 100K) and reviews of clothes to be judged, one adapter of the upper layers.  All options
of a seed learn from the same rows and are asked, after the last step, what the same validation users and reviews say:
the nats of the film that was watched next and of the label that was given, which tell more after minutes of training
than a rank does, and macro-F1 of the labels.  Killed at any moment, the same command goes on; a finished run is not
repeated.  Activations below the adapter are computed once for runs with equal rows, in OUT/activations; they may be
deleted afterwards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from scipy.special import log_softmax
from scipy.stats import t as student

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from llmrec import config  # noqa: E402
from llmrec.choices.search import score  # noqa: E402
from llmrec.data.split import Query  # noqa: E402
from llmrec.engine.hf import HFEngine  # noqa: E402
from llmrec.errors import LlmrecError, RecipeError  # noqa: E402
from llmrec.learning import Learner, learners  # noqa: E402
from llmrec.learning.next_item import NextItem  # noqa: E402
from llmrec.learning.reviews import ReviewSentiment  # noqa: E402
from llmrec.metrics.classification import macro_f1  # noqa: E402
from llmrec.model import adapter, own  # noqa: E402
from llmrec.model.activations import check_split, drop  # noqa: E402
from llmrec.model.encode import Encoder  # noqa: E402
from llmrec.model.fit import fit  # noqa: E402
from llmrec.model.load import base_model, compute_dtype, load_model, load_tokenizer  # noqa: E402
from llmrec.model.rows import Row  # noqa: E402
from llmrec.recommender import Recommender  # noqa: E402
from llmrec.train import accelerator_for  # noqa: E402

REVIEWS = "tasks.review_sentiment"
BUDGET = (  # minutes a run on two cores; any of it may be set otherwise on the command line
    "tasks.next_item.examples=30", f"{REVIEWS}.examples=1200", "lora.rank=32", "lora.alpha=32", "lora.first_layer=25",
    "fit.precision=float32", "fit.cache=disk", "fit.batch_tokens=1024", "fit.micro_batch_tokens=1024", "fit.epochs=1",
    "fit.learning_rate=1.0e-3", "fit.valid_users=120",
)  # fmt: skip
ALONE = {"next_item alone": "next_item", "review_sentiment alone": "review_sentiment"}
OPTIONS: dict[str, tuple[str, ...]] = {
    "static": (),
    **{name: () for name in ALONE},
    "reviews at weight 0.3": (f"{REVIEWS}.weight=0.3",),
    "reviews at weight 3": (f"{REVIEWS}.weight=3",),
    "reviews fade to 0.1": (f"{REVIEWS}.weight_end=0.1",),
    "reviews from half on": (f"{REVIEWS}.start=HALF",),
    "reviews by 15,000 tokens": (f"{REVIEWS}.tokens=15000",),
    "reviews as frequent as they are": (f"{REVIEWS}.balance=0",),
    "reviews at rate 0.3": (f"{REVIEWS}.learning_rate=0.3",),
    "steps apart": ("mixture.step=apart",),
    "temperature 3": ("mixture.temperature=3",),
    "uncertainty": ("mixture.balance=uncertainty",),
    "dwa": ("mixture.balance=dwa",),
    "pcgrad": ("mixture.conflict=pcgrad",),
    "penalty": ("mixture.conflict=penalty",),
    # As many trained parameters as `static`: 16 + 2 * 8 ranks.
    "own parts": ("lora.rank=16", "lora.alpha=16", "lora.own=8"),
}
METRIC = "log_p"  # nothing is chosen by it: the last weights are measured
METRICS = ("next_item nats", "review_sentiment nats", "macro_f1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the budget, e.g. fit.epochs=1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS), metavar="OPTION")
    asked = parser.parse_intermixed_args()
    try:
        study(asked.out, asked.seeds, asked.options, asked.overrides)
    except LlmrecError as error:
        sys.exit(f"error: {error}")


def study(out: Path, seeds: Sequence[int], options: Sequence[str], overrides: Sequence[str]) -> None:
    """All runs, seed by seed, and the table of those that are done after each."""
    done: dict[str, dict[int, dict[str, Any]]] = {option: {} for option in options}
    for seed in seeds:
        for option in options:
            wanted = recipe(option, seed, overrides)
            done[option][seed] = run(wanted, out / f"{option.replace(' ', '_')}-{seed}", out / "activations")
            (out / "table.md").write_text(table(done), encoding="utf-8")
    print(table(done))


def recipe(option: str, seed: int, overrides: Sequence[str]) -> config.Recipe:
    """The movies' recipe with the fashion's task, the budget, the overrides and the option on top."""
    films, clothes = (
        config.read_yaml(ROOT / "adapters" / name / "recipe.yaml") for name in ("movies", "fashion-sentiment")
    )
    values = {**films, "domain": "study", "tasks": {"next_item": {}, **clothes["tasks"]}, "licence": ""}
    epochs = config.section(config.Recipe, json.loads(json.dumps(values)), (*BUDGET, *overrides)).fit.epochs
    own = tuple(text.replace("HALF", str(epochs / 2)) for text in OPTIONS[option])
    fixed = (f"fit.seed={seed}", f"fit.valid_every={epochs}")
    found = config.section(config.Recipe, values, (*BUDGET, *overrides, *fixed, *own))
    if option in ALONE:
        found = found.model_copy(update={"tasks": {ALONE[option]: found.tasks[ALONE[option]]}})
    return found


def run(asked: config.Recipe, folder: Path, cache: Path) -> dict[str, Any]:
    """One training, or what it came to: metrics after the last step, mean losses and weights at the end, seconds."""
    settings = asked.model_dump(mode="json")
    if (folder / "result.json").is_file():
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        same(folder, result["recipe"], settings)
        return result
    begin(folder, settings)
    print(f"{folder.name} …", flush=True)
    base = base_model(asked.base_model)
    set_seed(asked.fit.seed)
    accelerator = accelerator_for(asked)
    dtype = compute_dtype(asked.fit.precision, accelerator.device)
    encoder = Encoder(load_tokenizer(base.folder))
    model = load_model(base, dtype=dtype, device=accelerator.device)
    model = adapter.attach(model, asked.lora, base_name=asked.base_model)
    own.add(model, asked.lora, asked.tasks)
    learned = learners(asked, encoder, HFEngine(model, encoder.tokenizer))
    rows = [row for one in learned.values() for row in one.rows(0)]
    check_split(model.get_base_model().get_decoder(), asked.lora.first_layer, rows[0].tokens.tolist())
    shared = cache / digest(rows, base.digest, asked.lora.first_layer, dtype)
    share(shared, folder)
    state = fit(
        model, [rows], {name: one.trie for name, one in learned.items()}, asked.fit, folder, tasks=asked.tasks,
        mixture=asked.mixture, first_layer=asked.lora.first_layer, validate=lambda: measured(learned),
        metric=METRIC, accelerator=accelerator,
    )  # fmt: skip
    share(folder, shared)
    last = next(entry for entry in reversed(state.log) if "loss" in entry)
    metrics = next(entry for entry in reversed(state.log) if METRIC in entry)
    result = {"recipe": settings, "metrics": metrics, "last": last, "steps": state.step, "seconds": state.seconds}
    adapter.write_json(folder / "result.json", result)
    drop(folder)
    for best in folder.glob("best-*"):
        best.unlink()
    for left in folder.glob("checkpoint-*"):
        shutil.rmtree(left)
    return result


def measured(learned: Mapping[str, Learner]) -> dict[str, float]:
    """METRICS of the tasks in `learned` on their validation examples, and the mean log p, higher is better."""
    found: dict[str, float] = {}
    for one in learned.values():
        if isinstance(one, NextItem):
            found["next_item nats"] = chosen_nats(one.recommender, one.asked)
        elif isinstance(one, ReviewSentiment):
            true = one.asked["label"].to_numpy()
            log_p = one.log_p(one.asked)
            found["review_sentiment nats"] = float(-log_softmax(log_p, axis=1)[np.arange(len(true)), true].mean())
            found["macro_f1"] = macro_f1(log_p, true)
    return found | {METRIC: -sum(value for name, value in found.items() if name.endswith("nats"))}


def chosen_nats(model: Recommender, asked: Sequence[Query]) -> float:
    """Nats of what was chosen next, out of the whole catalog."""
    model.engine.forget()
    prompts = model.prompts([query.history for query in asked])
    found = score(model.engine, prompts, model.listing.choices, [[query.target] for query in asked])
    model.engine.forget()
    return float(-np.concatenate(found).mean())


def digest(rows: Sequence[Row], base: str, first_layer: int, dtype: torch.dtype) -> str:
    """Of all that activations depend on."""
    found = hashlib.sha256(f"{base} {first_layer} {dtype} {[len(row.tokens) for row in rows]}".encode())
    for row in rows:
        found.update(row.tokens.tobytes())
    return found.hexdigest()[:12]


def begin(folder: Path, settings: Any) -> None:
    """Notes what a run in `folder` is made with, so that it goes on with nothing else.  Raises: RecipeError."""
    note = folder / "made-with.json"
    if note.is_file():
        return same(folder, json.loads(note.read_text(encoding="utf-8")), settings)
    folder.mkdir(parents=True, exist_ok=True)
    adapter.write_json(note, settings)


def same(folder: Path, theirs: Any, ours: Any) -> None:
    """Raises RecipeError where what lies in `folder` was made with other settings than `ours`."""
    if theirs != ours:
        raise RecipeError(f"{folder}: made with other settings; name another --out, or delete it")


def share(source: Path, target: Path) -> None:
    """The activations in `source` under the same names in `target`, without a copy; which rows are there is kept with
    them, so that one run computes what another left out."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("activations-*")):  # .bin before the .sums that vouches for it, whenever killed
        if not (target / file.name).exists():
            os.link(file, target / file.name)


def table(done: dict[str, dict[int, dict[str, Any]]]) -> str:
    """Means over seeds with 95% t-intervals, and paired differences to `static`; an option that repeats rows takes more
    steps."""
    columns = [text for metric in METRICS for text in (metric, "against static")]
    lines = [f"| option | seeds | {' | '.join(columns)} | steps | minutes |", "| --- " * (len(columns) + 4) + "|"]
    static = done.get("static", {})
    for option, runs in done.items():
        if not runs:
            continue
        cells = []
        for metric in METRICS:
            values = {seed: found["metrics"][metric] for seed, found in runs.items() if metric in found["metrics"]}
            both = [seed for seed in values if seed in static and option != "static"]
            differences = [values[seed] - static[seed]["metrics"][metric] for seed in both]
            cells += [interval([*values.values()]), interval(differences, signed=True)]
        minutes = np.mean([found["seconds"] for found in runs.values()]) / 60
        steps = np.mean([found["steps"] for found in runs.values()])
        lines.append(f"| {option} | {len(runs)} | {' | '.join(cells)} | {steps:.0f} | {minutes:.1f} |")
    return "\n".join(lines) + "\n"


def interval(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean and 95% t-interval; of one value the value alone, of none nothing."""
    if not values:
        return ""
    sign = "+" if signed else ""
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:{sign}.3f}"
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return f"{mean:{sign}.3f} [{mean - half:.3f}, {mean + half:.3f}]"


if __name__ == "__main__":
    main()
