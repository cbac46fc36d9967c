"""The teacher of the next item: an ensemble of SASRec models and item-item transitions, as probabilities.

It is fitted on the training events alone, so what it expects at a line is no more than those events can tell; soft
targets say of every line how all items compare, where what happened names one.  Beside an adapter it may stay as the
prior of the scores (`prior.kind`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmrec import config
from llmrec.baselines.sasrec import SASRec
from llmrec.baselines.transitions import Transitions
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import Query, histories
from llmrec.errors import AdapterError, RecipeError
from llmrec.files import whole
from llmrec.model.adapter import item_digest
from llmrec.progress import Bar

SETTINGS = "settings"  # of the file's metadata
ITEMS = "items"  # the tensor that says which they are


class Teacher:
    """(1 - transitions) · the members' mean probability + transitions · that of the item-item transitions."""

    def __init__(self, members: Sequence[SASRec], transitions: Transitions, share: float, repeats: str) -> None:
        self.members, self.transitions, self.share, self.repeats = members, transitions, share, repeats

    @classmethod
    def fit(
        cls, recipe: config.Recipe, dataset: Dataset, catalog: Catalog, valid: Sequence[Query], folder: Path
    ) -> Teacher:
        """Members that are not in `folder` yet are trained, which takes minutes, and kept there."""
        members = []
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(recipe.teacher.members):
            file = folder / f"teacher-{seed}.safetensors"
            if file.is_file():
                member = SASRec(len(catalog), recipe.sasrec)
                member.load_state_dict(load_file(file))
            else:
                with Bar(f"teacher {seed + 1}/{recipe.teacher.members}", things="epochs") as bar:
                    member = SASRec.fit(
                        histories(dataset, catalog), len(catalog), valid, recipe.sasrec,
                        baskets=recipe.split.baskets, repeats=recipe.split.repeats, seed=seed, tick=bar.at,
                    ).cpu()  # fmt: skip
                with whole(file) as partial:
                    save_file(member.state_dict(), partial)
            members.append(member.eval())
        transitions = Transitions.fit(dataset, catalog, recipe.prior)
        return cls(members, transitions, recipe.teacher.transitions, recipe.split.repeats)

    @classmethod
    def load(cls, file: Path, recipe: config.Recipe, dataset: Dataset, catalog: Catalog) -> Teacher:
        """What `save` wrote; `catalog` holds the items that it knows, in any order, before all others.

        Raises: AdapterError.
        """
        saved = read(file)
        known = saved.members[0].items
        there = {item: place for place, item in enumerate(_digests(catalog.item_id[:known]).tolist())}
        # Of an adapter from before items were written down the number is all that can be compared.
        order = range(known) if saved.items is None else [there.get(item, -1) for item in saved.items.tolist()]
        if known > len(catalog) or min(order) < 0:
            raise AdapterError(
                f"{file}: knows items that are not the first {known} of the catalog; restore the catalog or train again"
            )
        for member in saved.members:
            member.reorder(order)
        transitions = Transitions.fit(dataset, catalog, recipe.prior)
        return cls(saved.members, transitions, saved.share, recipe.split.repeats)

    def to(self, device: torch.device) -> Teacher:
        """The same, with members that compute there."""
        for member in self.members:
            member.to(device)
        return self

    def save(self, file: Path, catalog: Catalog) -> None:
        """The members' weights, how they are mixed, and which items they know, as safetensors: a recipe may change, the
        weight of a prior was fitted for this one; and so may the order of a catalog."""
        tensors = {
            f"{number}.{name}": tensor.contiguous()
            for number, member in enumerate(self.members)
            for name, tensor in member.state_dict().items()
        }
        tensors[ITEMS] = _digests(catalog.item_id[: self.members[0].items])
        settings = {"transitions": self.share, "sasrec": self.shape.model_dump(mode="json")}
        with whole(file) as partial:
            save_file(tensors, partial, {SETTINGS: json.dumps(settings)})

    @property
    def shape(self) -> config.SASRec:
        """Of all members."""
        return self.members[0].settings

    @property
    def popularity(self) -> np.ndarray:
        """(items,) float64 shares of the training interactions."""
        return self.transitions.popularity

    def p(self, history: Sequence[int]) -> np.ndarray:
        """(items,) float64 probabilities of what comes next after one history."""
        return self.expects([history])[0].double().numpy()

    def expects(self, histories: Sequence[Sequence[int]]) -> Tensor:
        """(histories, items) float32 probabilities of what comes next; nothing for items that cannot come again, even
        where those are all, and what the transitions say alone for items that the members do not know."""
        p = torch.from_numpy(self.transitions.scores(histories)) * self.share
        for member in self.members:
            known = [[item for item in history if item < member.items] for history in histories]
            p[:, : member.items] += (
                torch.from_numpy(member.scores(known)).softmax(1) * (1 - self.share) / len(self.members)
            )
        if self.repeats == "exclude":
            for row, history in zip(p, histories, strict=True):
                row[np.asarray(history, np.int64)] = 0
        return p / p.sum(1, keepdim=True).clamp(min=1e-30)


@dataclass(frozen=True)
class Saved:
    """What a teacher's file holds."""

    members: list[SASRec]
    share: float
    items: Tensor | None
    """(items,) digests, in the members' order; None in files from before they were written down."""


def read(file: Path) -> Saved:
    """No more memory is taken than the file has bytes, whatever it says.  Raises: AdapterError."""
    try:
        with safe_open(file, "pt") as stored:
            settings = json.loads((stored.metadata() or {}).get(SETTINGS, "null"))
        shape = config.SASRec.model_validate(settings["sasrec"])
        share = config.Teacher.model_validate({"transitions": settings["transitions"]}).transitions
        tensors = load_file(file)
        items = tensors.pop(ITEMS, None)
        members = []
        for number in range(len({name.partition(".")[0] for name in tensors})):
            mine = {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{number}.")}
            with torch.device("meta"):
                member = SASRec(len(mine["bias"]), shape)
            member.load_state_dict(mine, assign=True)
            members.append(member.float().eval())
        known = members[0].items
        if (
            not known
            or any(member.items != known for member in members)
            or items is not None
            and items.shape != (known,)
        ):
            raise ValueError("its members do not know the same items")
        if not all(bool(tensor.isfinite().all()) for member in members for tensor in member.state_dict().values()):
            raise ValueError("its weights hold values that are not finite")
    except (OSError, SafetensorError, LookupError, RuntimeError, TypeError, ValueError, RecipeError) as error:
        why = str(error).partition("\n")[0]
        raise AdapterError(f"{file}: not a teacher that training saved ({why}); restore it or train again") from None
    return Saved(members, share, items)


def _digests(items: Sequence[str]) -> Tensor:
    """(items,) int64: 48 bits of SHA-256 of each item's id."""
    return torch.tensor([int(item_digest(item), 16) for item in items], dtype=torch.int64)
