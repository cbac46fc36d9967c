"""Train one domain's adapter: recipe → rows → fit → adapter folder with card, curve and the wordings used."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed

from llmrec import config, prepare
from llmrec.engine.hf import HFEngine
from llmrec.errors import RecipeError
from llmrec.learning import Learner, learners
from llmrec.learning.next_item import as_learned
from llmrec.locks import locked
from llmrec.model import adapter as adapters
from llmrec.model import own, store, transfer
from llmrec.model.activations import check_split, drop
from llmrec.model.checkpoint import Progressed
from llmrec.model.encode import Encoder
from llmrec.model.fit import METRIC, fit
from llmrec.model.load import BaseModel, base_model, compute_dtype, load_model, load_tokenizer, tokenizer_digest
from llmrec.model.rows import Row
from llmrec.model.speed import better_precision, gflops
from llmrec.tasks.template import Template

LOG = logging.getLogger("llmrec")
NEWCOMERS = ("new_share", "new_trust")  # settings of items that no training sees
LEAST = 1e-3  # a metric of 0, as few users give, hides no other
WAIT = timedelta(hours=12)  # for the one process that fits the teacher, or ranks validation users


def train(recipe: config.Recipe, *, out: Path | None = None, resume: bool = True) -> Path:
    """Train the adapter of `recipe` and write it to `out` (default: the folder of its domain).

    A run that was interrupted goes on from its last checkpoint; `resume=False` starts over.  Several processes, started
    by `torchrun` or `accelerate launch`, share every step; LLMREC_HOME must be one folder for all of them.

    Returns: the adapter's folder, complete; with `lora.own` the folder that holds an adapter for each task, each a
    domain of its own, `<domain>-<task>`.
    """
    apart = {task: own.folded(recipe, task) for task in recipe.tasks} if recipe.lora.own else {}
    if out is None:
        beside = config.adapter_folder(recipe.domain)
        out = beside.parent if apart else beside
    places = {task: out / made.domain if apart else out for task, made in (apart or {"": recipe}).items()}
    accelerator = accelerator_for(recipe)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    if accelerator.is_main_process:
        for place in places.values():
            store.check_place(place)
        if recipe.fit.precision == "auto" and recipe.fit.epochs:
            hint(accelerator.device.type, dtype)
    base = base_model(recipe.base_model)
    start = transfer.start(recipe, base)
    if start and not recipe.fit.epochs:  # of whatever shape, it stays as it is
        recipe = as_learned(recipe, recipe.init_from).model_copy(update={"lora": transfer.recipe_of(start.card).lora})
    set_seed(recipe.fit.seed)
    encoder = Encoder(load_tokenizer(base.folder))
    model = load_model(base, dtype=dtype, device=accelerator.device, quantize=recipe.fit.quantize)
    model = adapters.attach(model, recipe.lora, base_name=recipe.base_model)
    own.add(model, recipe.lora, recipe.tasks)
    if start:
        transfer.put(start, model)
    templates = wordings(recipe)
    learned = learners(recipe, encoder, HFEngine(model, encoder.tokenizer))
    seen = _seen(recipe, start)  # of the data as it is now, not of what there is in some hours
    texts = {name: {"split": one.split} for name, one in learned.items()}
    if start:
        today = transfer.sources({"recipe": recipe.model_dump(mode="json"), **texts})
        transfer.agree(transfer.sources(start.card), today, start.folder)
    run = run_folder(recipe, base, *learned.values(), dtype=dtype)
    alone = locked(
        run.with_name(f".{run.name}.lock"), RecipeError, doing="trains the same recipe on the same data"
    )  # fmt: skip
    with alone if accelerator.is_main_process else nullcontext():
        if not resume and accelerator.is_main_process:
            shutil.rmtree(run, ignore_errors=True)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:  # now: what is edited while it trains was not trained on
            adapters.copy_prompts(config.project() / "prompts", templates, run)
        prompts = {name: template.digest for name, template in templates.items()}
        made_of = {task: (made, [*wordings(made)]) for task, made in (apart or {"": recipe}).items()}
        if edited := [name for name, template in wordings(recipe).items() if template.digest != prompts[name]]:
            raise RecipeError(f"prompts/{edited[0]}.yaml was edited meanwhile; the same command trains on what is new")
        variants = [_rows(learned, number, recipe.fit) for number in range(recipe.fit.variants)]
        if recipe.fit.cache != "none" and variants[0]:
            check_split(model.get_base_model().get_decoder(), recipe.lora.first_layer, variants[0][0].tokens.tolist())
        with accelerator.main_process_first():
            teachers = {name: found for name, one in learned.items() if (found := one.teacher(run))}
        validated = {name: one for name, one in learned.items() if one.validates and recipe.fit.valid_users}
        metric = main_metric(validated)
        state = fit(
            model, variants, {name: one.trie for name, one in learned.items()}, recipe.fit, run,
            tasks=recipe.tasks, mixture=recipe.mixture, first_layer=recipe.lora.first_layer,
            validate=(lambda: validation(validated)) if validated else None, metric=metric,
            teachers=teachers, share=recipe.teacher.share, accelerator=accelerator,
        )  # fmt: skip
        if accelerator.is_main_process:
            known: dict[str, Any] = {"init_from": start.note} if start else {}
            known |= seen
            known["licence"] = transfer.licence(recipe.licence, start)
            known["tokenizer"] = tokenizer_digest(encoder.tokenizer)
            result = _Trained(recipe, base, model, learned, state, metric, run, known, prompts, texts, accelerator)
            for task, (made, read) in made_of.items():
                with store.rewritten(places[task]) as folder:
                    result.write(folder, made, read, task)
            drop(run)
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:  # alone, a process group would be somebody else's: vLLM's in the same process
        accelerator.end_training()
    return out


@dataclass(frozen=True)
class _Trained:
    """What a training has come to, for the adapters that are made of it."""

    recipe: config.Recipe
    base: BaseModel
    model: Any
    learned: dict[str, Learner]
    state: Progressed
    metric: str
    run: Path
    known: dict[str, Any]
    """Of the cards of all adapters."""
    prompts: dict[str, str]
    """Digests of the wordings that it read, by name."""
    texts: dict[str, Any]
    """How the texts of each task were split."""
    accelerator: Accelerator

    def write(self, folder: Path, made: config.Recipe, read: Sequence[str], task: str) -> None:
        """The adapter that `made` describes and that reads these wordings: of all tasks, or of `task` alone where each
        has a part of its own."""
        adapters.forget(folder)
        fitted: dict[str, Any] = {}
        for name in [task] if task else made.tasks:  # what others have learned is not all in it
            fitted |= self.learned[name].finish(folder)
        fitted |= self.known | {"prompts": {name: self.prompts[name] for name in read}}
        lora = self.recipe.lora
        digest = own.fold(self.model, task, lora, folder) if task else adapters.save(self.model, folder)
        adapters.copy_prompts(self.run / "prompts", fitted["prompts"], folder)
        curve(self.state, self.metric, folder / "curve.png", title=f"{made.domain}: {self.base.name}")
        shutil.copyfile(self.run / "log.jsonl", folder / "log.jsonl")
        card = _card(made, self.base, self.state, self.metric, digest, fitted, self.accelerator)
        if task:
            shown = {"users", self.learned[task].metric}  # the rest was measured with the parts of other tasks
            card["validation"] = {key: value for key, value in card["validation"].items() if key in shown}
            card["part_of"] = own.note(self.recipe, self.texts)
            own.write_recipe(made, self.recipe, folder)
        adapters.write_json(folder / adapters.CARD, card)


def main_metric(validated: Mapping[str, Learner]) -> str:
    """What decides which weights are best: the only task's own metric, or the geometric mean over tasks of theirs."""
    metrics = [one.metric for one in validated.values()]
    return metrics[0] if len(metrics) == 1 else "mean" if metrics else METRIC


def validation(validated: Mapping[str, Learner]) -> dict[str, float]:
    """The metrics of every task, and the geometric mean of what each maximises where there are several: a tenth more of
    any counts alike, whatever its scale."""
    found: dict[str, float] = {}
    for one in validated.values():
        found |= one.validate()
    if len(validated) > 1:
        values = [max(found[one.metric], LEAST) for one in validated.values()]
        found["mean"] = float(np.exp(np.mean(np.log(values))))
    return found


def wordings(recipe: config.Recipe) -> dict[str, Template]:
    """Today's prompt files that the recipe's tasks read, by name: one after a list reads the list's, too."""
    own = {name: Template.today(name) for name in recipe.tasks}
    before = {template.follows for template in own.values() if template.follows} - {*own}
    return own | {name: Template.today(name) for name in sorted(before)}


def run_folder(recipe: config.Recipe, base: BaseModel, *learned: Learner, dtype: torch.dtype = torch.float32) -> Path:
    """Where checkpoints lie: the name holds everything that the weights depend on, so that nothing else is resumed.

    Args:
        dtype: what is computed in; `fit.precision: auto` means another on another machine.
    """
    unread = {"checkpoint_minutes", "precision", "cache", "gradient_checkpointing"}
    if not recipe.lora.dropout:  # what is dropped differs from one cut of a step to another
        unread.add("micro_batch_tokens")
    settings = recipe.model_dump(
        mode="json", exclude={"fit": unread, "prior": {"kind"}} | dict.fromkeys(("licence", "serve", *NEWCOMERS), True)
    )
    settings["fit"]["precision"] = str(dtype)
    settings["best"] = "geometric mean, a file for each step"  # what a resumed run goes on to compare
    settings["cut"] = "before the tasks' factors"  # what a resumed run's moments were made of
    meanings = [template.meaning for template in wordings(recipe).values()]
    start = adapters.weights_digest(transfer.find(recipe.init_from)) if recipe.init_from else None
    text = json.dumps([settings, meanings, base.digest, start, *(one.digest for one in learned)], sort_keys=True)
    return config.home() / "runs" / f"{recipe.domain}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def curve(state: Progressed, metric: str, file: Path, *, title: str) -> None:
    """Loss (of each task) and validation metric over epochs, as a picture (where the extra `train` is installed)."""
    if not find_spec("matplotlib"):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = dict.fromkeys(key for entry in state.log for key in entry)
    figure, left = pyplot.subplots(figsize=(7, 4))
    for key in [key for key in keys if key.startswith("loss/")] or ["loss"]:
        losses = [(entry["epoch"], entry[key]) for entry in state.log if key in entry]
        epochs, nats = zip(*losses, strict=True) if losses else ((), ())
        left.plot(epochs, nats, label=key.partition("/")[2], color=None if "/" in key else "tab:blue")
    if len(left.lines) > 1:
        left.legend(frameon=False)
    left.set(xlabel="epoch", title=title)
    left.set_ylabel("training loss, nats per choice")
    metrics = [(entry["epoch"], entry[metric]) for entry in state.log if metric in entry]
    right = left.twinx()
    right.plot(*zip(*metrics, strict=True), "o-", color="tab:orange") if metrics else None
    right.set_ylabel(f"validation {metric}", color="tab:orange")
    right.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _rows(learned: Mapping[str, Learner], variant: int, settings: config.Fit) -> list[Row]:
    """What every task learns from.  Raises: RecipeError where one has nothing, and would answer untrained."""
    found: list[Row] = []
    for name, one in learned.items():
        if not (mine := one.rows(variant)) and settings.epochs:
            raise RecipeError(f"{name}: nothing to train on; `llmrec prepare` says what its data holds")
        found += mine
    return found


def _seen(recipe: config.Recipe, start: transfer.Start | None) -> dict[str, Any]:
    """Which of a domain's choices this adapter, or what it started from, has learned, for `suites.check_cut`: under a
    split by time until when (`learned_until`), else which it has not (`held_out`, a digest); empty where neither has
    learned from choices."""
    by_time = recipe.split.method == "time"
    key = "learned_until" if by_time else "held_out"
    before = {key: start.card[key]} if start and isinstance(start.card.get(key), int if by_time else str) else {}
    if all(task.data for task in recipe.tasks.values()) or (start and not recipe.fit.epochs):
        return before
    data = prepare.load(recipe)
    if not by_time:  # of what a start learned from the same data it has not seen what was held out then
        same = (
            start and recipe.data and (start.card.get("recipe", {}).get("data") or {}).get("path") == recipe.data.path
        )
        return before if before and same else {key: data.held_out}
    events = data.interactions
    return {key: max(int(events.loc[events["split"] == "train", "timestamp"].max()), before.get(key, 0))}


def _card(
    recipe: config.Recipe,
    base: BaseModel,
    state: Progressed,
    metric: str,
    digest: str,
    fitted: dict[str, Any],
    accelerator: Accelerator,
) -> dict[str, Any]:
    """What must match where the adapter is used, what was measured while training, and all settings."""
    validations = [entry for entry in state.log if metric in entry]
    best = max(validations, key=lambda entry: entry[metric]) if validations else {}
    last: dict[str, float] = {}
    for entry in state.log:  # a task may have no row in the last steps
        last |= entry
    return {
        "format": 1,
        "domain": recipe.domain,
        "weights": digest,
        "base_model": base.name,
        "base_digest": base.digest,
        **fitted,
        "loss": {name: last.get(f"loss/{name}", last.get("loss")) for name in recipe.tasks},
        "validation": {"users": recipe.fit.valid_users}
        | {key: value for key, value in best.items() if key not in ("step", "epoch", "seconds")},
        "steps": state.step,
        "seconds": round(state.seconds),
        "device": f"{accelerator.num_processes} × {_device_name(accelerator)}",
        "trained": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "recipe": recipe.model_dump(mode="json"),
    }


def hint(device: str, dtype: torch.dtype) -> None:
    """Says where another precision trains faster on this processor; a run that was begun goes on in its own."""
    if device != "cpu":
        return
    wide, half = gflops(torch.float32), gflops(torch.bfloat16)
    if name := better_precision(dtype, wide, half):
        LOG.warning(
            "this processor multiplies %.1f × as fast in %s as in what fit.precision=auto takes: a training with "
            "fit.precision=%s is faster, and begins anew", max(wide, half) / min(wide, half), name, name,
        )  # fmt: skip


def _device_name(accelerator: Accelerator) -> str:
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def accelerator_for(recipe: config.Recipe) -> Accelerator:
    """Where and in which precision a recipe trains."""
    cpu = not torch.cuda.is_available()
    dtype = compute_dtype(recipe.fit.precision, "cpu" if cpu else "cuda")
    handlers = [
        InitProcessGroupKwargs(timeout=WAIT),
        DistributedDataParallelKwargs(
            broadcast_buffers=False,  # tries, the same everywhere from the start
            find_unused_parameters=recipe.lora.own > 0,  # a pass is one task's: it leaves the parts of others alone
        ),
    ]
    precision = "bf16" if dtype == torch.bfloat16 else "no"
    AcceleratorState._reset_state()  # kept for the whole process, which may have trained in another precision
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=handlers)
