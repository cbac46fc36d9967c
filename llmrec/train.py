"""Train one domain's adapter: recipe → rows → fit → adapter folder with card, curve and the wordings used."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from llmrec import config, prepare
from llmrec.baselines.teacher import Teacher
from llmrec.choices import bonus as terms
from llmrec.choices.search import listed, log_p_all
from llmrec.data.catalog import Catalog
from llmrec.data.split import Query, histories, queries
from llmrec.engine.hf import HFEngine
from llmrec.metrics.ranking import hr, ndcg, ranks
from llmrec.model import adapter as adapters
from llmrec.model import rows
from llmrec.model.encode import Encoder
from llmrec.model.fit import METRIC, Progressed, check_split, fit
from llmrec.model.load import BaseModel, base_model, compute_dtype, load_model, load_tokenizer, tokenizer_digest
from llmrec.recommender import Listing, Recommender
from llmrec.tasks import next_item
from llmrec.tasks.template import Template

PRIOR_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # tried on validation users


def train(recipe: config.Recipe, *, out: Path | None = None, resume: bool = True) -> Path:
    """Train the adapter of `recipe` and write it to `out` (default: beside the recipe).

    A run that was interrupted goes on from its last checkpoint; `resume=False` starts over.

    Returns: the adapter's folder, complete.
    """
    out = out or config.adapter_folder(recipe.domain)
    dataset = prepare.load(recipe)
    catalog = Catalog.of(dataset)
    base = base_model(recipe.base_model)
    run = run_folder(recipe, base, catalog)
    if not resume:
        shutil.rmtree(run, ignore_errors=True)
    accelerator = _accelerator(recipe)
    set_seed(recipe.fit.seed)
    encoder = Encoder(load_tokenizer(base.folder))
    template = Template.load(config.project() / "prompts" / "next_item.yaml")
    listing = Listing.build(catalog, template, encoder, recipe.identifier.max_tokens)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    model = load_model(base, dtype=dtype, device=accelerator.device, quantize=recipe.fit.quantize)
    model = adapters.attach(model, recipe.lora, base_name=recipe.base_model)
    recommender = Recommender(
        recipe=recipe, dataset=dataset, catalog=catalog, listing=listing, encoder=encoder, template=template,
        engine=HFEngine(model, encoder.tokenizer), adapter="default",
    )  # fmt: skip
    variants = training_rows(recommender)
    if recipe.fit.cache != "none":
        check_split(model.get_base_model().get_decoder(), recipe.lora.first_layer, variants[0][0].tokens.tolist())
    asked = sampled(queries(dataset, catalog, "valid", baskets=recipe.split.baskets, max_targets=1), recipe)
    expects = None
    if recipe.teacher.share:
        with accelerator.main_process_first():
            expects = teacher(recommender, run)
    state = fit(
        model, variants, listing.choices.trie, recipe.fit, run,
        first_layer=recipe.lora.first_layer,
        validate=(lambda: validation(recommender, asked)) if asked else None,
        teacher=expects, share=recipe.teacher.share,
        accelerator=accelerator,
    )  # fmt: skip
    if accelerator.is_main_process:
        weight, fitted = fit_prior_weight(recommender, asked)
        digest = adapters.save(model, out)
        adapters.copy_prompts(config.project() / "prompts", recipe.tasks, out)
        curve(state, out / "curve.png", title=f"{recipe.domain}: {base.name}")
        shutil.copyfile(run / "log.jsonl", out / "log.jsonl")
        card = _card(recommender, base, state, digest, weight, fitted, accelerator)
        adapters.write_json(out / adapters.CARD, card)
    accelerator.wait_for_everyone()
    return out


def run_folder(recipe: config.Recipe, base: BaseModel, catalog: Catalog) -> Path:
    """Where checkpoints lie: the name holds everything that the weights depend on, so that nothing else is resumed."""
    settings = recipe.model_dump(mode="json", exclude={"fit": {"checkpoint_minutes"}, "licence": True})
    wordings = [Template.load(config.project() / "prompts" / f"{name}.yaml").meaning for name in recipe.tasks]
    text = json.dumps([settings, wordings, base.digest, catalog.digest], sort_keys=True)
    return config.home() / "runs" / f"{recipe.domain}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def training_rows(recommender: Recommender) -> list[list[rows.Row]]:
    """The training histories as token rows, in `fit.variants` different cuts and wordings."""
    recipe, lines = recommender.recipe, recommender.listing.lines
    settings = recipe.fit
    wordings = recommender.template.wordings(held_out=False)
    variants = []
    for variant in range(settings.variants):
        rng = np.random.default_rng((settings.seed, variant))
        made: list[rows.Row] = []
        for history in histories(recommender.dataset, recommender.catalog, "train"):
            if len(history.items) == 0:
                continue
            wording = wordings[int(rng.integers(len(wordings)))]
            header = recommender.encoder.header(
                next_item.conversation(recommender.template, recipe, (), wording=wording).messages
            )
            items = rows.shuffled_ties(history.items, history.timestamps, rng)
            if settings.supervision == "last":
                made += rows.last_rows(header, lines, items, window_tokens=settings.window_tokens)
                continue
            room = settings.window_tokens - len(header)
            first = int(rng.integers(room // 3, room + 1))
            made += rows.dense_rows(
                header, lines, items, window_tokens=settings.window_tokens, overlap=settings.overlap, first_tokens=first
            )
        variants.append(made)
    return variants


def teacher(recommender: Recommender, run: Path) -> Callable[[Sequence[rows.Row]], Tensor]:
    """What the recipe's teacher expects at all targets of some rows, (targets, items)."""
    recipe, dataset, catalog = recommender.recipe, recommender.dataset, recommender.catalog
    valid = queries(dataset, catalog, "valid", baskets=recipe.split.baskets, max_targets=recipe.split.max_targets)
    fitted = Teacher.fit(recipe, dataset, catalog, valid, run)

    def expects(part: Sequence[rows.Row]) -> Tensor:
        lines = [np.concatenate([row.context, row.choices]) for row in part]
        return fitted.p([
            line[: len(row.context) + k] for row, line in zip(part, lines, strict=True) for k in range(len(row.choices))
        ])  # fmt: skip

    return expects


def sampled(asked: Sequence[Query], recipe: config.Recipe) -> list[Query]:
    """A fixed random sample of `fit.valid_users` queries."""
    rng = np.random.default_rng(recipe.fit.seed)
    chosen = rng.permutation(len(asked))[: recipe.fit.valid_users]
    return [asked[i] for i in np.sort(chosen)]


def validation(recommender: Recommender, asked: Sequence[Query]) -> dict[str, float]:
    """HR@10 and NDCG@10 of the model alone over the whole catalog."""
    recommender.engine.forget()
    lists = recommender.rank([query.history for query in asked], 10, prior=False)
    recommender.engine.forget()
    found = ranks(listed(lists, 10), [query.target for query in asked])
    return {"hr@10": float(hr(found, 10).mean()), METRIC: float(ndcg(found, 10).mean())}


def fit_prior_weight(recommender: Recommender, asked: Sequence[Query]) -> tuple[float, list[dict[str, float]]]:
    """The weight of the transition prior with the best NDCG@10 on `asked`, and the metric of every weight tried.

    The whole distribution of each query is computed once, then every weight is exact arithmetic.
    """
    recommender.engine.forget()
    prompts = recommender.prompts([query.history for query in asked])
    found: dict[float, list[float]] = {weight: [] for weight in PRIOR_WEIGHTS}
    whole = log_p_all(recommender.engine, prompts, recommender.listing.choices) if prompts else ()
    for query, log_p in zip(asked, whole, strict=True):
        p = recommender.prior.p(query.history)
        seen = query.history if recommender.recipe.split.repeats == "exclude" else ()
        for weight in PRIOR_WEIGHTS:
            prior = terms.mix(p, recommender.prior.popularity, weight, recommender.recipe.prior.floor)
            score = log_p + prior + terms.mask(len(log_p), seen)
            better = int((score > score[query.target]).sum())
            found[weight].append(float(ndcg(np.array([better + 1]), 10)[0]))
    table = [{"weight": weight, METRIC: float(np.mean(values or [0.0]))} for weight, values in found.items()]
    return max(table, key=lambda row: row[METRIC])["weight"], table


def curve(state: Progressed, file: Path, *, title: str) -> None:
    """Loss and validation metric over epochs, as a picture (where the extra `train` is installed)."""
    if not find_spec("matplotlib"):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    losses = [(entry["epoch"], entry["loss"]) for entry in state.log if "loss" in entry]
    metrics = [(entry["epoch"], entry[METRIC]) for entry in state.log if METRIC in entry]
    figure, left = pyplot.subplots(figsize=(7, 4))
    left.plot(*zip(*losses, strict=True), color="tab:blue") if losses else None
    left.set(xlabel="epoch", title=title)
    left.set_ylabel("training loss, nats per item", color="tab:blue")
    right = left.twinx()
    right.plot(*zip(*metrics, strict=True), "o-", color="tab:orange") if metrics else None
    right.set_ylabel(f"validation {METRIC}, whole catalog", color="tab:orange")
    right.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _card(
    recommender: Recommender,
    base: BaseModel,
    state: Progressed,
    digest: str,
    weight: float,
    fitted: list[dict[str, float]],
    accelerator: Accelerator,
) -> dict[str, Any]:
    recipe = recommender.recipe
    losses = [entry["loss"] for entry in state.log if "loss" in entry]
    return {
        "format": 1,
        "domain": recipe.domain,
        "weights": digest,
        "base_model": base.name,
        "base_digest": base.digest,
        "tokenizer": tokenizer_digest(recommender.encoder.tokenizer),
        "catalog": recommender.catalog.digest,
        "items": adapters.item_digests(recommender.listing.identifiers),
        "prompts": {name: Template.load(config.project() / "prompts" / f"{name}.yaml").digest for name in recipe.tasks},
        "prior_weight": weight,
        "prior_weights_tried": fitted,
        "loss": {"next_item": losses[-1] if losses else None},
        "validation": {"users": recipe.fit.valid_users, METRIC: state.best if np.isfinite(state.best) else None},
        "steps": state.step,
        "seconds": round(state.seconds),
        "device": f"{accelerator.num_processes} × {_device_name(accelerator)}",
        "trained": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "licence": recipe.licence,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "recipe": recipe.model_dump(mode="json"),
    }


def _device_name(accelerator: Accelerator) -> str:
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _accelerator(recipe: config.Recipe) -> Accelerator:
    cpu = not torch.cuda.is_available()
    dtype = compute_dtype(recipe.fit.precision, "cpu" if cpu else "cuda")
    return Accelerator(cpu=cpu, mixed_precision="bf16" if dtype == torch.bfloat16 else "no")
