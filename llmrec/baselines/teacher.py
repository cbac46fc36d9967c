"""The teacher of the next item: an ensemble of SASRec models and item-item transitions, as probabilities.

It is fitted on the training events alone, so what it expects at a line is no more than those events can tell; soft
targets say of every line how all items compare, where what happened names one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmrec import config
from llmrec.baselines.sasrec import SASRec
from llmrec.baselines.transitions import Transitions
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.split import Query, histories


class Teacher:
    """(1 - transitions) · the members' mean probability + transitions · that of the item-item transitions."""

    def __init__(self, members: Sequence[SASRec], transitions: Transitions, share: float, repeats: str) -> None:
        self.members, self.transitions, self.share, self.repeats = members, transitions, share, repeats

    @classmethod
    def fit(
        cls, recipe: config.Recipe, dataset: Dataset, catalog: Catalog, valid: Sequence[Query], folder: Path
    ) -> Teacher:
        """Members that are not in `folder` yet are trained and kept there."""
        members = []
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(recipe.teacher.members):
            file = folder / f"teacher-{seed}.safetensors"
            if file.is_file():
                member = SASRec(len(catalog), recipe.sasrec)
                member.load_state_dict(load_file(file))
            else:
                member = SASRec.fit(
                    histories(dataset, catalog), len(catalog), valid, recipe.sasrec,
                    baskets=recipe.split.baskets, repeats=recipe.split.repeats, seed=seed,
                ).cpu()  # fmt: skip
                save_file(member.state_dict(), file.with_suffix(".writing"))
                file.with_suffix(".writing").rename(file)
            members.append(member.eval())
        transitions = Transitions.fit(dataset, catalog, recipe.prior)
        return cls(members, transitions, recipe.teacher.transitions, recipe.split.repeats)

    def p(self, histories: Sequence[Sequence[int]]) -> Tensor:
        """(histories, items) float32 probabilities of what comes next; nothing for items that cannot come again."""
        p = torch.stack([torch.from_numpy(member.scores(histories)).softmax(1) for member in self.members]).mean(0)
        p = torch.lerp(p, torch.from_numpy(self.transitions.scores(histories)), self.share)
        if self.repeats == "exclude":
            for row, history in zip(p, histories, strict=True):
                row[np.asarray(history, np.int64)] = 0
        return p / p.sum(1, keepdim=True)
