"""review: what a text says of the thing it is about, with probabilities that mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec import config
from llmrec.data.records import one_line
from llmrec.errors import DataError
from llmrec.sentiment import Judge

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
    return [
        Judgement(text, judge.labels[int(row.argmax())], dict(zip(judge.labels, row.tolist(), strict=True)))
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
