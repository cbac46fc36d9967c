"""A recipe's base model with an adapter, or alone: checked before anything heavy is loaded, and ready to start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from llmrec import config
from llmrec.engine import Engine
from llmrec.engine import start as engines
from llmrec.errors import AdapterError, EngineError
from llmrec.model import adapter as adapters
from llmrec.model.encode import Encoder
from llmrec.model.load import BaseModel, base_model, load_tokenizer
from llmrec.tasks.saved import read_card, saved_prompts, warn
from llmrec.tasks.template import Template


@dataclass(frozen=True)
class Opened:
    """What every verb needs before it asks; `folder` and `card` are empty for the base model as it is."""

    recipe: config.Recipe
    adapter: str | None
    engine: str
    folder: Path | None
    card: dict[str, Any]
    base: BaseModel
    encoder: Encoder

    @classmethod
    def of(cls, recipe: config.Recipe, adapter: str | None, engine: str = "hf") -> Opened:
        """
        Args:
            adapter: its name; `None`: the base model as it is.
            engine: `hf`, `vllm`, or the address of a vLLM server.
        Raises: EngineError for another engine; AdapterError where the adapter is missing, broken or of another base.
        """
        if not config.is_engine(engine):
            raise EngineError(f"engine '{engine}': use {config.ENGINES}")
        folder = config.adapter_folder(adapter) if adapter else None
        if folder:
            adapters.check(folder)
        card = read_card(folder)
        base = base_model(recipe.base_model)
        if folder:
            adapters.check_base(card, folder, base.digest, base.name)
        return cls(recipe, adapter, engine, folder, card, base, Encoder(load_tokenizer(base.folder)))

    @cached_property
    def saved(self) -> dict[str, Template]:
        """The wordings that the adapter was trained on, by task; says so where `prompts/` has others today."""
        if not self.folder:
            return {}
        found = saved_prompts(self.folder, self.card)
        warn(config.adapter_name(self.folder), found)
        return found

    def wording(self, task: str) -> Template:
        """As the adapter learned it; without one, as `prompts/` has it.  Raises: AdapterError where it did not."""
        if self.folder is None:
            return Template.today(task)
        if task not in self.saved:
            raise AdapterError(f"{self.folder}: not trained on {task} (only {', '.join(self.saved)})")
        return self.saved[task]

    def start(self, device: str | None = None) -> Engine:
        """The engine, with the adapter loaded.  Raises: EngineError, AdapterError."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        folders = {self.adapter: self.folder} if self.adapter and self.folder else {}
        engine = engines.start(self.engine, self.base, self.encoder.tokenizer, folders, self.recipe, device=device)
        if self.folder and adapters.weights_digest(self.folder) != self.card.get("weights"):
            raise AdapterError(f"{self.folder}: another version took its place while it was being loaded; begin again")
        return engine
