"""evaluate: everything that a suite sets side by side, on the same users or reviews, with intervals.

A task joins with a function in `llmrec/measuring/` and a line in MEASURES.  A finished folder holds records.parquet,
table.md, for rankings chart.png and, written last, results.json.  The answers of each that is measured are first a part
of their own: see `llmrec.parts`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.text import Text

from llmrec import config
from llmrec.errors import RecipeError, did_you_mean
from llmrec.measuring import grounded, interest, ranking, reviews, texts
from llmrec.measuring.suites import PARTS, RECORDS, RESULTS, load_suite_as, results_folder, suite_path, versions
from llmrec.metrics import report
from llmrec.parts import Parts, atomically, write_table, write_text
from llmrec.screen import ENDLESS, screen

FORMAT = 1


@dataclass(frozen=True)
class Measure:
    """How suites of one task are measured."""

    settings: type[config.Section]
    names: str
    """The setting that names what is measured side by side; results hold an entry for each under the same key."""
    run: Callable[[Any, Parts], tuple[dict[str, Any], pd.DataFrame]]
    """Settings, and the parts of an earlier run → what results.json says beside what all suites say, and one record per
    example and name.

    Raises: RecipeError for a name that nothing stands for; AdapterError where an adapter is missing, has not learned
    the task or may have seen the answers; DataError; LlmrecError where a package is missing.
    """
    table: Callable[[Mapping[str, Any]], str]
    """Results → Markdown."""
    chart: Callable[[Mapping[str, Any], Path], None] | None = None
    """Results, and the file that the picture goes to."""


MEASURES = {
    "next_item": Measure(config.Suite, "rankers", ranking.measure, report.markdown, report.chart),
    "interest": Measure(config.Predicted, "predictors", interest.measure, report.interest_markdown),
    "interest_summary": Measure(config.Written, "writers", texts.measure, report.written_markdown),
    "explanation": Measure(config.Written, "writers", texts.measure, report.written_markdown),
    "grounded_explanation": Measure(config.Grounded, "writers", grounded.measure, report.written_markdown),
    "grounded_summary": Measure(config.Grounded, "writers", grounded.measure, report.written_markdown),
    "review_sentiment": Measure(config.Judged, "judges", reviews.measure, report.judged_markdown),
    "item_class": Measure(config.Judged, "judges", reviews.measure, report.judged_markdown),
}


def task_of(suite: str) -> str:
    """What the suite of this name or path asks for.  Raises: RecipeError naming the nearest task there is."""
    task = config.read_yaml(suite_path(suite)).get("task", config.Suite.model_fields["task"].default)
    if task not in MEASURES:
        raise RecipeError(f"{suite_path(suite)}: task: nothing measures '{task}'{did_you_mean(str(task), MEASURES)}")
    return str(task)


def print_page(folder: Path, console: Console | None = None) -> None:
    """The tables of a finished folder: fitted to a terminal, elsewhere Markdown as the file has it."""
    console = console or screen()
    page = (folder / "table.md").read_text(encoding="utf-8")
    narrow = console.is_terminal and console.width < ENDLESS
    console.print(Text(report.fitted(page, console.width) if narrow else page), soft_wrap=True)


def evaluate(suite: str, overrides: tuple[str, ...] = (), *, out: Path | None = None, force: bool = False) -> Path:
    """Measures a suite (a name in `eval/`, or a path), whatever its task, and returns the folder of results.

    Args:
        overrides: `key=value`, e.g. `users=100`.
        out: where results go; by default see `results_folder`.
        force: measure everything again, whatever parts an earlier run has left in `out`.
    Raises: RecipeError; else as `Measure.run`.
    """
    task = task_of(suite)
    how = MEASURES[task]
    name, settings = load_suite_as(how.settings, suite, overrides)
    measured = getattr(settings, how.names)
    known = {*measured}
    given = {word.partition("=")[0]: word for word in overrides}
    if how.names in given and "compare" not in given:  # of the suite's own pairs those of what is left are compared
        whole = load_suite_as(how.settings, suite, tuple(word for key, word in given.items() if key != how.names))[1]
        known |= {*getattr(whole, how.names)}
    for one in sorted({one for pair in settings.compare for one in pair} - known):
        raise RecipeError(
            f"suite {name}: '{one}' is compared but not among the {how.names}; add it to them"
            f"{did_you_mean(one, measured)}"
        )
    left = tuple(pair for pair in settings.compare if {*pair} <= {*measured})
    settings = settings.model_copy(update={"compare": left})
    out = out or results_folder(name, settings)
    parts = Parts(out / PARTS, force)
    parts.begin()
    found, records = how.run(settings, parts)
    results = {
        "format": FORMAT,
        "suite": name,
        "task": task,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
        **found,
    }
    (out / RESULTS).unlink(missing_ok=True)
    write_table(pa.Table.from_pandas(records, preserve_index=False), out / RECORDS)
    write_text(how.table(results), out / "table.md")
    if how.chart and find_spec("matplotlib"):  # an extra: no picture is better than no results
        atomically(out / "chart.png", partial(how.chart, results))
    write_text(json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n", out / RESULTS)
    return out


def write_questions(suite: str, overrides: tuple[str, ...], folder: Path) -> list[Path]:
    """A suite's questions, and what may be learned from, for rankers of other programs; the folder of each protocol.

    Raises: RecipeError where the suite asks for no lists; DataError.
    """
    if task_of(suite) != ranking.TASK:
        raise RecipeError(f"suite {suite}: asks for no lists of items, and only those can come from elsewhere")
    _, settings = load_suite_as(config.Suite, suite, overrides)
    return ranking.write_questions(settings, folder)
