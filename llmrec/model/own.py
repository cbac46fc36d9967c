"""Parts of their own: beside the LoRA that all tasks share, a small one for each task on the same layers.

A forward pass is one task's.  What is shared and the task's own part are active in it, so no gradient reaches the part
of another task.  Both updates together are one LoRA, A beside A and B beside B: each task leaves as a plain adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from peft import PeftModel

from llmrec import config
from llmrec.config import Lora, Recipe
from llmrec.model import adapter, transfer

SHARED = "default"


def add(model: PeftModel, lora: Lora, tasks: Iterable[str]) -> None:
    """A fresh part for each task beside the LoRA of `model`, of its layers and scale; none where `lora.own` is 0."""
    if not lora.own:
        return
    shared = model.peft_config[SHARED]
    for task in tasks:
        with adapter.untied():
            model.add_adapter(task, replace(shared, r=lora.own, lora_alpha=lora.alpha * lora.own / lora.rank))
    _all_learn(model)


def use(model: PeftModel, task: str) -> None:
    """From now on the model is that of `task`, in training: what is shared, and the task's part where it has one."""
    if task in model.peft_config:
        model.base_model.set_adapter([SHARED, task])
        _all_learn(model)


def folded(recipe: Recipe, task: str) -> Recipe:
    """What the adapter of one task is of: a domain of its own, `<domain>-<task>`, whose LoRA holds what was shared and
    the task's part.  A task after a history list keeps next_item, whose wording and items it reads.
    """
    reads = {task} if recipe.tasks[task].data else {task, "next_item"}
    rank = served_rank(recipe.lora)
    return recipe.model_copy(update={
        "domain": config.checked_name(f"{recipe.domain}-{task}", "domain"),
        "init_from": None,
        "tasks": {name: own.model_copy(update={"start": 0.0}) for name, own in recipe.tasks.items() if name in reads},
        "lora": recipe.lora.model_copy(update={"rank": rank, "alpha": rank, "own": 0}),
    })  # fmt: skip


def fold(model: PeftModel, task: str, lora: Lora, folder: Path) -> str:
    """Writes what is shared and the part of `task` as one adapter of the shape of `folded`; see `adapter.save`."""
    name, rank = "folded", served_rank(lora)
    with adapter.untied():
        model.add_weighted_adapter([SHARED, task], [1.0, 1.0], name, combination_type="cat")
    adapter.widen(model, name, rank)
    model.peft_config[name].lora_alpha = rank  # each part's scale is in its A by now
    digest = adapter.save(model, folder, name)
    model.delete_adapter(name)
    return digest


def note(recipe: Recipe, texts: dict[str, Any]) -> dict[str, Any]:
    """What a task's card says of the training that it is part of, whose whole data what is shared has seen.

    Args:
        texts: task → as its card, which side its texts lie on.
    """
    shape = {"rank": recipe.lora.rank, "own": recipe.lora.own}
    told = transfer.sources({"recipe": recipe.model_dump(mode="json"), **texts})
    return {"domain": recipe.domain, "tasks": [*recipe.tasks], **shape, "sources": told}


def write_recipe(made: Recipe, recipe: Recipe, folder: Path) -> None:
    """The recipe that makes `folder` a domain; one that is there stays."""
    file = folder / "recipe.yaml"
    if not file.is_file():
        values = yaml.safe_dump(made.model_dump(mode="json", exclude_defaults=True), sort_keys=False, width=100)
        head = f"# Written by `llmrec train {recipe.domain}`: one of its tasks, with what all of them share."
        file.write_text(f"{head}\n{values}", encoding="utf-8")


def served_rank(lora: Lora) -> int:
    """The smallest rank that is served and has room for what is shared and a task's part."""
    return next(rank for rank in adapter.SERVED_RANKS if rank >= lora.rank + lora.own)


def _all_learn(model: Any) -> None:
    """PEFT freezes what is not active; an optimiser and a distributed wrapper want the same parameters at every step,
    and what took no part in a pass gets no gradient from it anyway."""
    model.base_model.set_requires_grad([*model.peft_config])
