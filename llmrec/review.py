"""review: what a text says of the thing it is about, with probabilities that mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec import config
from llmrec.data.records import one_line
from llmrec.engine import Engine
from llmrec.engine import start as engines
from llmrec.errors import AdapterError, DataError, RecipeError
from llmrec.metrics.classification import tempered
from llmrec.model import adapter as adapters
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model, load_tokenizer
from llmrec.sentiment import TASK, Sentiment
from llmrec.tasks.saved import saved_prompts
from llmrec.tasks.template import Template

MAX_LINES = 100_000  # of one file
MAX_FILE_BYTES = 100_000_000


@dataclass(frozen=True)
class Judgement:
    """One text, its most probable label, and the probability of each."""

    text: str
    label: str
    p: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Judge:
    """A domain's sentiment, an engine, and the temperature of the card."""

    sentiment: Sentiment
    engine: Engine
    adapter: str | None
    temperature: float

    @classmethod
    def load(cls, recipe: config.Recipe, adapter: str | None, *, engine: str = "hf") -> Judge:
        """With a trained adapter (`None`: the base model as it is, not calibrated).

        Args:
            engine: `hf`, `vllm`, or the address of a vLLM server.
        Raises: EngineError; AdapterError where the adapter is missing, of another base, or not trained on this task.
        """
        if TASK not in recipe.tasks:
            raise RecipeError(f"{recipe.domain}: its recipe does not list {TASK} among its tasks")
        folder = config.adapter_folder(adapter) if adapter else None
        if folder:
            adapters.check(folder)  # before anything heavy is loaded
        card = adapters.read_json(folder / adapters.CARD) if folder else {}
        base = base_model(recipe.base_model)
        template = Template.load(config.project() / "prompts" / f"{TASK}.yaml")
        if folder:
            adapters.check_base(card, folder, base.digest, base.name)
            saved = saved_prompts(folder, card)
            if TASK not in saved or not isinstance(card.get(TASK), dict):
                raise AdapterError(f"{folder}: not trained on {TASK} (only {', '.join(saved)})")
            template = saved[TASK]
        encoder = Encoder(load_tokenizer(base.folder))
        sentiment = Sentiment.build(recipe, template, encoder)
        if folder and [label.text for label in sentiment.labels] != card[TASK].get("labels"):
            raise AdapterError(f"{folder}: trained to tell other labels apart than its recipe names; train again")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        folders = {adapter: folder} if adapter and folder else {}
        started = engines.start(engine, base, encoder.tokenizer, folders, recipe, device=device)
        temperature = card[TASK].get("temperature") if folder else 1.0
        if not (isinstance(temperature, int | float) and 0 < temperature < 1000):
            raise AdapterError(f"{folder}: the card names no temperature for {TASK}; restore it or train again")
        return cls(sentiment, started, adapter, float(temperature))

    def p(self, reviews: Sequence[tuple[str, str | None]], wording: int = 0) -> np.ndarray:
        """(reviews, labels) calibrated probabilities for pairs of text and headline."""
        return tempered(self.sentiment.log_p(self.engine, reviews, self.adapter, wording), self.temperature)


def review(
    domain: str, texts: Sequence[str], *, overrides: tuple[str, ...] = (), base: bool = False, engine: str = "hf"
) -> list[Judgement]:
    """What each text says; the adapter is the domain's, or with `base` none.  Raises: DataError for an empty text."""
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(f"review {number}: empty; give its text")
    recipe = config.load_recipe(domain, overrides)
    judge = Judge.load(recipe, None if base else recipe.domain, engine=engine)
    p = judge.p([(text, None) for text in texts])
    names = [label.text for label in judge.sentiment.labels]
    return [
        Judgement(text, names[int(row.argmax())], dict(zip(names, row.tolist(), strict=True)))
        for text, row in zip(texts, p, strict=True)
    ]


def read_lines(path: Path) -> list[str]:
    """One text a line; empty lines are left out.  Raises: DataError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes; split it")
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; convert it, e.g. `iconv -f latin1 -t utf-8`") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not 0 < len(lines) <= MAX_LINES:
        raise DataError(f"{path}: {len(lines):,} texts; 1 to {MAX_LINES:,} can be taken")
    return lines


def print_table(found: Sequence[Judgement], console: Console | None = None) -> None:
    """One line per text."""
    console = console or Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    longest = max(len(name) for name in found[0].p)
    table.add_column("label", no_wrap=True, min_width=longest)
    for name in found[0].p:
        table.add_column(name, no_wrap=True, min_width=max(len(name), 6), justify="right")
    table.add_column("text", no_wrap=True)
    for one in found:
        table.add_row(Text(one.label, "bold"), *(f"{p:.1%}" for p in one.p.values()), Text(one_line(one.text, 60)))
    console.print(table)
