"""Training that starts from another adapter's weights, once they are checked like anything from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from llmrec.config import Recipe, adapter_place, section
from llmrec.errors import AdapterError, RecipeError
from llmrec.model import adapter, verify
from llmrec.model.load import BaseModel

Sources = dict[str, dict[str, Any]]
"""By name of the data, how it was split into what is learned and what is asked."""
TEXTS = "texts of "  # before a task's name: digest of which texts lay on which side


@dataclass(frozen=True)
class Start:
    """A checked adapter that a training starts from."""

    folder: Path
    card: dict[str, Any]

    @property
    def note(self) -> dict[str, Any]:
        """What the new adapter's card says of it."""
        known = {key: self.card[key] for key in ("domain", "weights", "licence") if self.card.get(key)}
        return known | {"sources": sources(self.card)}


def find(name: str) -> Path:
    """Folder of the adapter that `init_from` names: a domain, domain@version, or a folder.  Raises: RecipeError,
    AdapterError."""
    place, _ = adapter_place(name)
    if not place.is_dir():
        raise AdapterError(f"{name}: a file; `llmrec adapters import {name}` keeps it as a version and says its name")
    return place


def start(recipe: Recipe, base: BaseModel) -> Start | None:
    """The adapter in the recipe's `init_from`, checked; None where it names none.

    Raises: AdapterError naming every problem of its files, or a training that would give answers away.
    """
    if recipe.init_from is None:
        return None
    folder = find(recipe.init_from)
    if (folder / "recipe.yaml").is_file() and not (folder / adapter.CARD).is_file():
        raise AdapterError(
            f"{folder}: not trained yet, and init_from={recipe.init_from} starts from it; run `llmrec train "
            f"{recipe.init_from}` first, or start from the base model with init_from=null"
        )
    card = checked(folder, base)
    agree(sources(card), sources({"recipe": recipe.model_dump(mode="json")}), folder)
    return Start(folder, card)


def checked(folder: Path, base: BaseModel) -> dict[str, Any]:
    """The card of an adapter of this base, wherever it comes from.  Raises: AdapterError naming every problem."""
    if problems := verify.files(folder) or verify.content(folder):
        raise AdapterError(f"{folder}: {'; '.join(problems)}")
    card = adapter.read_json(folder / adapter.CARD)
    adapter.check_base(card, folder, base.digest, base.name)
    return card


def agree(theirs: Sources, ours: Sources, folder: Path) -> None:
    """Raises AdapterError where the adapter in `folder` learned from the same data under another split.  Which texts
    lie on which side counts where both say it: with one text more others do."""
    for name in sorted(theirs.keys() & ours.keys()):
        if not _alike(theirs[name], ours[name]):
            raise AdapterError(
                f"{folder}: it learned from {name} under another split ({_words(theirs[name])}; here "
                f"{_words(ours[name])}), so it may have seen what is measured here; use one split, or start from the "
                "base model (init_from=null)"
            )


def put(start: Start, model: PeftModel) -> None:
    """The weights of `start` into the fresh LoRA of `model`, which then answers as that adapter does: what updates
    layers that the start leaves as they are begins as nothing.

    Raises: AdapterError where a weight of the start has no place.
    """
    theirs = adapter.read_json(start.folder / "adapter_config.json")
    ours = model.peft_config["default"]
    if theirs.get("r") != ours.r:
        raise AdapterError(f"{start.folder}: its LoRA has rank {theirs.get('r')}; set lora.rank={theirs.get('r')}")
    if theirs.get("lora_alpha") != ours.lora_alpha or theirs.get("use_rslora"):
        scale = "rsLoRA" if theirs.get("use_rslora") else f"alpha {theirs.get('lora_alpha')}"
        raise AdapterError(
            f"{start.folder}: its LoRA is scaled by {scale}, here lora.alpha={ours.lora_alpha}; set that"
        )
    tensors = load_file(start.folder / adapter.WEIGHTS)
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    if homeless := sorted(tensors.keys() - own.keys()):
        raise AdapterError(
            f"{start.folder}: its LoRA updates what this one leaves as it is: {len(homeless)} tensors, "
            f"{homeless[0][:100]!r} the first; lora.first_layer and lora.targets may reach further than in its recipe, "
            "not less far"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise AdapterError(
                f"{start.folder}: {name} has shape {tuple(tensor.shape)}, here {tuple(own[name].shape)}; it is not of "
                "this base model"
            )
    set_peft_model_state_dict(model, own | tensors)


def sources(card: dict[str, Any]) -> Sources:
    """How what an adapter learned from was split, with what it was started from, merged from or a part of.

    Raises: AdapterError.
    """
    found: Sources = {}
    merged = card.get("merged")
    for before in [card.get("init_from"), card.get("part_of"), *(merged if isinstance(merged, list) else ())]:
        if isinstance(before, dict) and isinstance(before.get("sources"), dict):
            found = joined(found, before["sources"])
    read = recipe_of(card)
    if read.data is not None:
        cut = ("method",) if read.split.method == "leave_one_out" else ("method", "valid", "test")
        rated = {} if read.data.min_rating is None else {"min_rating": read.data.min_rating}  # it moves the cut
        found[f"interactions of {read.data.path}"] = {key: getattr(read.split, key) for key in cut} | rated
    for name, task in read.tasks.items():
        if task.data is not None:
            source = f"reviews of {task.data.path}"
            learned = card.get(name)
            digest = learned.get("split") if isinstance(learned, dict) else None
            texts = {f"{TEXTS}{name}": digest} if digest else {}
            cut = task.data.model_dump(include={"valid", "test", "seed"})
            found = joined(found, {source: cut | texts})
    return found


def joined(some: Sources, more: Sources) -> Sources:
    """Both; of one source what either says of its texts, and the cut of `more`."""
    known = {name: some[name] for name in some.keys() & more.keys() if isinstance(some[name], dict)}
    return some | {
        name: {**known[name], **cut} if name in known and isinstance(cut, dict) else cut for name, cut in more.items()
    }


def recipe_of(card: dict[str, Any]) -> Recipe:
    """What a card says that was trained.  Raises: AdapterError."""
    values = card.get("recipe")
    where = f"{adapter.CARD} of {card.get('domain')} ({card.get('weights')}): its recipe cannot be read"
    try:
        return section(Recipe, dict(values) if isinstance(values, dict) else {}, source=where)
    except RecipeError as error:
        raise AdapterError(str(error)) from None


def licence(ours: str, start: Start | None) -> str:
    """The terms of the data, those of the start's with them."""
    theirs = str(start.card.get("licence") or "") if start else ""
    if theirs in ("", ours):
        return ours
    return "; ".join(filter(None, [ours, f"started from weights of: {theirs}"]))


def _alike(theirs: Any, ours: Any) -> bool:
    """Whether two splits of one source, of which some card may say anything, are one as far as both tell."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return False
    told = {key for key in theirs.keys() | ours.keys() if not str(key).startswith(TEXTS)} | theirs.keys() & ours.keys()
    return all(theirs.get(key) == ours.get(key) for key in told)


def _words(cut: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in cut.items()) if isinstance(cut, dict) else str(cut)
