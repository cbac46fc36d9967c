"""review: what a text says of the thing it is about, or what that is, with probabilities that mean what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec import config
from llmrec.data.records import one_line
from llmrec.data.reviews import broader
from llmrec.errors import DataError, PromptError, did_you_mean
from llmrec.screen import screen
from llmrec.tasks import OF_REVIEWS

MAX_LINES = 100_000  # of one file
MAX_FILE_BYTES = 100_000_000
FEW = 6  # labels that fit beside each other
BEGINNING = 60  # characters of a text that tell which one it is


@dataclass(frozen=True)
class Judgement:
    """One text, its most probable label, and the probability of each."""

    text: str
    label: str
    p: dict[str, float]
    broad: dict[str, float] | None = None
    """Of labels with several levels the probability of each broad one, the sum of those below it."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: stable keys."""
        found = asdict(self)
        return found if self.broad else {key: value for key, value in found.items() if key != "broad"}


def review(
    domain: str,
    texts: Sequence[str],
    *,
    task: str = "review_sentiment",
    overrides: tuple[str, ...] = (),
    adapter: str | None = None,
    base: bool = False,
    engine: str = "hf",
) -> list[Judgement]:
    """What each text says (or, with the task `item_class`, is about); by default with the domain's adapter.

    Raises: PromptError for a task that reads no reviews; DataError for an empty text; else as `Judge.load`.
    """
    if task not in OF_REVIEWS:
        raise PromptError(f"--task {task}: reads no reviews{did_you_mean(task, OF_REVIEWS)}")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(f"review {number}: empty; give its text")
    recipe = config.load_recipe(domain, overrides)
    name = config.adapter_asked(recipe, adapter, base)
    from llmrec.judge import Judge

    judge = Judge.load(recipe, name, task=task, engine=engine)
    groups, group = broader(judge.labels, 1)
    found = []
    for text, p in zip(texts, judge.p([(text, None) for text in texts]), strict=True):
        broad = np.bincount(group, p, len(groups)).tolist() if len(groups) < len(judge.labels) else None
        found.append(
            Judgement(
                text, judge.labels[int(p.argmax())], dict(zip(judge.labels, p.tolist(), strict=True)),
                dict(zip(groups, broad, strict=True)) if broad else None,
            )
        )  # fmt: skip
    return found


def read_lines(path: Path) -> list[str]:
    """One text a line; empty lines are left out.  Raises: DataError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes; split it")
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; convert it, e.g. `iconv -f latin1 -t utf-8`") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not 0 < len(lines) <= MAX_LINES:
        raise DataError(f"{path}: {len(lines):,} texts; 1 to {MAX_LINES:,} can be taken")
    return lines


def print_table(found: Sequence[Judgement], console: Console | None = None) -> None:
    """A row per text: every label where there are few, else the broad one, the label, and what else it may be.  Names
    and numbers are never cut: what has no room goes on in the next line."""
    console = console or screen(highlight=False)
    table = Table(box=None, pad_edge=False)
    names = list(found[0].p)
    few = len(names) <= FEW
    shown = names if few else [one.label for one in found]
    if found[0].broad:
        table.add_column(
            "about", no_wrap=True, min_width=max(len(name) for one in found for name in one.broad or ()) + 5
        )
    table.add_column("label", no_wrap=True, min_width=max(map(len, shown)))
    for name in names if few else ["p"]:
        table.add_column(name, no_wrap=True, min_width=max(len(name), 6), justify="right")
    if not few:
        table.add_column("or", overflow="fold")
    table.add_column("text", overflow="fold")
    for one in found:
        cells = [Text(one.label, "bold"), *(f"{p:.1%}" for p in (one.p.values() if few else [one.p[one.label]]))]
        if one.broad:
            [(broad, p)] = _best(one.broad, 1)
            cells.insert(0, Text(f"{broad} {p:.0%}"))
        if not few:
            cells.append(Text("\n".join(f"{name} {p:.0%}" for name, p in _best(one.p, 3)[1:])))
        begun = one_line(one.text, BEGINNING)
        table.add_row(*cells, Text(begun if begun == one_line(one.text, BEGINNING + 2) else f"{begun}…"))
    console.print(table)


def _best(p: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    return sorted(p.items(), key=lambda one: -one[1])[:count]
