"""Several adapters of one base as one: the weighted sum of their updates, made by PEFT."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from llmrec.errors import AdapterError
from llmrec.model import adapter, transfer
from llmrec.model.load import BaseModel, load_model
from llmrec.tasks.template import Template

MAX_PARTS = 8
# What a card holds for next_item, and its recipe.
LISTED = ("catalog", "items", "codes", "prior_weight", "prior_weights_tried", "teacher")
OF_LISTS = ("data", "split", "identifier", "prior", "teacher", "sasrec", "new_share", "new_trust")


@dataclass(frozen=True)
class Part:
    """One adapter, checked, and what its update is multiplied with."""

    folder: Path
    card: dict[str, Any]
    share: float


def merge(parts: Sequence[Part], base: BaseModel, out: Path, *, rank: int | None = None) -> str:
    """Writes the adapter whose update of each layer is the sum of the parts', times their shares.

    The first part names the domain, and what the parts have in common is taken from it.

    Args:
        rank: of the result, the nearest to the sum that a rank allows (singular value decomposition); by default the
            sum of the parts' ranks, or the next that is served, which loses nothing.
    Returns: the new weights' digest.
    Raises: AdapterError where the parts do not go together or the result cannot be served.
    """
    card = merged_card(parts)
    shapes = [int(adapter.read_json(part.folder / "adapter_config.json")["r"]) for part in parts]
    wanted = rank or next((one for one in adapter.SERVED_RANKS if one >= sum(shapes)), sum(shapes))
    if wanted not in adapter.SERVED_RANKS:
        served = ", ".join(map(str, adapter.SERVED_RANKS))
        raise AdapterError(f"rank {wanted} cannot be served; set --rank to one of {served}")
    if any(adapter.read_json(part.folder / "adapter_config.json").get("use_rslora") for part in parts):
        raise AdapterError("an adapter scaled by rsLoRA cannot be merged with others; train it without")
    model = load_model(base, dtype=torch.float32)
    names = [f"part{number}" for number in range(len(parts))]
    model = adapter.load(model, dict(zip(names, (part.folder for part in parts), strict=True)))
    assert isinstance(model, PeftModel)
    how = {"combination_type": "svd", "svd_rank": rank, "svd_full_matrices": False} if rank else {}
    with adapter.untied():
        model.add_weighted_adapter(
            names, [part.share for part in parts], "default", **({"combination_type": "cat"} | how)
        )
    adapter.widen(model, "default", wanted)  # a narrow layer has fewer singular values than the rank
    model.peft_config["default"].lora_alpha = wanted  # what scales each part is in its weights by now
    model.peft_config["default"].base_model_name_or_path = base.name
    card["weights"] = adapter.save(model, out)
    card["recipe"]["lora"] |= {"rank": wanted, "alpha": wanted, "own": 0}
    (out / "prompts").mkdir(exist_ok=True)
    for part in reversed(parts):  # the first part's last; the same task has the same wording everywhere
        for task in part.card["prompts"]:
            shutil.copyfile(part.folder / "prompts" / f"{task}.yaml", out / "prompts" / f"{task}.yaml")
    if "teacher" in card and (ranks := _ranks(parts)):
        shutil.copyfile(ranks.folder / adapter.TEACHER, out / adapter.TEACHER)
    adapter.write_json(out / adapter.CARD, card)
    return str(card["weights"])


def _ranks(parts: Sequence[Part]) -> Part | None:
    """The part whose catalog and prior the sum takes over."""
    return next((part for part in parts if "next_item" in part.card["prompts"]), None)


def merged_card(parts: Sequence[Part]) -> dict[str, Any]:
    """What is known of the sum without having measured it.  Raises: AdapterError where parts contradict each other."""
    if not 2 <= len(parts) <= MAX_PARTS:
        raise AdapterError(f"{len(parts)} adapters: name 2 to {MAX_PARTS}, each as NAME=SHARE")
    first = parts[0].card
    kept = ("format", "domain", "base_model", "base_digest", "tokenizer", "versions")
    card: dict[str, Any] = {key: first[key] for key in kept if key in first}
    if ranks := _ranks(parts):
        card |= {key: ranks.card[key] for key in LISTED if key in ranks.card}
    if len({json.dumps(part.card.get("codes"), sort_keys=True) for part in parts if "items" in part.card}) > 1:
        raise AdapterError(
            "the adapters read lists with other codes before titles, or one without any, and a sum could read neither; "
            "train one from the other (init_from), which keeps its codes, or merge adapters without"
        )
    prompts: dict[str, str] = {}
    meanings: dict[str, dict[str, Any]] = {}  # comments and layout may differ
    found: transfer.Sources = {}
    tasks: dict[str, Any] = {}
    for part in parts:
        for task, digest in part.card["prompts"].items():
            prompts.setdefault(task, digest)
            meaning = Template.load(part.folder / "prompts" / f"{task}.yaml").meaning
            if meanings.setdefault(task, meaning) != meaning:
                raise AdapterError(
                    f"{part.folder}: trained with another wording of {task} than those before; merge adapters of one "
                    "wording"
                )
            if task in part.card:
                card.setdefault(task, part.card[task])
            if task in (known := transfer.recipe_of(part.card).tasks):
                tasks.setdefault(task, known[task].model_dump(mode="json"))
        transfer.agree(transfer.sources(part.card), found, part.folder)
        found = transfer.joined(found, transfer.sources(part.card))
    shapes = [transfer.recipe_of(part.card).lora for part in parts]
    reach = {  # as far as any of them
        "first_layer": min(shape.first_layer for shape in shapes),
        "targets": [*dict.fromkeys(target for shape in shapes for target in shape.targets)],
    }
    lora = shapes[0].model_dump(mode="json") | reach
    licences = dict.fromkeys(str(part.card["licence"]) for part in parts if part.card.get("licence"))
    lists = {key: ranks.card["recipe"][key] for key in OF_LISTS if key in ranks.card["recipe"]} if ranks else {}
    card |= {
        "prompts": prompts,
        "validation": {},
        "trained": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "licence": "; ".join(licences),
        "recipe": first["recipe"] | lists | {"tasks": tasks, "lora": lora},
        "merged": [transfer.Start(part.folder, part.card).note | {"share": part.share} for part in parts],
    }
    if until := [part.card["learned_until"] for part in parts if isinstance(part.card.get("learned_until"), int)]:
        card["learned_until"] = max(until)
    held_out = {part.card.get("held_out") for part in parts if "items" in part.card}
    if held_out and None not in held_out:
        card["held_out"] = held_out.pop() if len(held_out) == 1 else "not the same"
    transfer.recipe_of(card)  # what cannot be read is not written
    return card
