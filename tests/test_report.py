"""Tables of texts and interests: what was measured stands in them, and what could not be is left empty."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec.evaluate import print_page
from llmrec.metrics import interest, text
from llmrec.metrics.report import fitted, interest_markdown, written_markdown
from llmrec.metrics.significance import compared
from llmrec.screen import screen

ROOT = Path(__file__).parent.parent
REFERENCES = ["The tone is warm", "A sturdy strap", "The sound is clear"]
WRITERS = {"copy": ["The tone is warm", "A strap", ""], "llm": ["A warm tone", "A sturdy strap", "The sound is clear"]}


def cells(table: str, first: str) -> list[str]:
    """The cells of the first line that begins with `first`."""
    line = next(line for line in table.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("path", sorted((ROOT / "eval" / "results").glob("*.md")), ids=lambda path: path.stem)
def test_pages_fit_a_terminal_and_lose_nothing(path: Path, width: int) -> None:
    page = path.read_text(encoding="utf-8")
    shown = fitted(page, width)
    assert all(len(line) <= width for line in shown.splitlines())
    assert {word for word in page.split() if set(word) - set("|-:")} == {word for word in shown.split() if word != "-"}


def test_a_table_without_room_goes_on_below_beside_its_first_column() -> None:
    page = "# t\n\n| who | a | bb |\n| --- | ---: | ---: |\n| x | 1.00 |  |\n| yy |  | 2.0 |\n"
    assert fitted(page, 80).splitlines() == ["# t", "", "who     a   bb", "x    1.00", "yy         2.0"]
    assert fitted(page, 10).splitlines()[2:] == ["who     a", "x    1.00", "yy", "", "who   bb", "x", "yy   2.0"]


def test_a_file_gets_markdown_and_a_terminal_what_fits(tmp_path: Path) -> None:
    page = (ROOT / "eval" / "results" / "fashion-sentiment-all.md").read_text(encoding="utf-8")
    (tmp_path / "table.md").write_text(page, encoding="utf-8")
    file, terminal = io.StringIO(), io.StringIO()
    print_page(tmp_path, Console(width=80, file=file))
    print_page(tmp_path, Console(width=80, file=terminal, force_terminal=True))
    assert file.getvalue().strip() == page.strip()
    assert terminal.getvalue().strip() == fitted(page, 80).strip()


DUMB = {"FORCE_COLOR": "1", "TERM": "dumb"}


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"COLUMNS": "80"}, {"COLUMNS": ""}, DUMB], ids=str)
def test_a_pipe_has_no_width_unless_one_is_named_whatever_its_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment: dict[str, str]
) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "table.md").write_text(page := f"| who | {'long | ' * 60}\n", encoding="utf-8")
    print_page(tmp_path)
    assert capsys.readouterr().out.strip() == page.strip()
    table = Table("who")
    table.add_row(Text("x" * 300, style="bold", no_wrap=True, overflow="ellipsis"))
    screen().print(table)
    said = capsys.readouterr().out
    assert (said.count("x") == 300) == (environment.get("COLUMNS") != "80")
    assert ("\x1b[1m" in said) == (environment == {"FORCE_COLOR": "1"})


def test_written_replies_from_measuring_to_the_table() -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    found = {
        name: text.measured(
            replies, references=REFERENCES, named=[[one] for one in replies], true=[[one] for one in REFERENCES],
            features=["tone", "strap", "sound", "price"], wanted=[["tone"], ["strap"], []],
        )
        for name, replies in WRITERS.items()
    }  # fmt: skip
    metrics, differences = compared({name: values for name, (values, _) in found.items()}, [("llm", "copy")])
    results = {
        "suite": "tones", "task": "explanation", "settings": {"split": "test"}, "data": {"asked": 3, "train": 1200},
        "writers": {
            name: {"metrics": metrics[name], "corpus": corpus, "seconds": {"fit": 0.2, "write": 3.0}}
            for name, (_, corpus) in found.items()
        },
        "differences": differences,
    }  # fmt: skip
    assert results == json.loads(json.dumps(results, allow_nan=False))  # no NaN in files
    table = written_markdown(results)
    assert "3 replies of explanation on the split test" in table and "1,200 training examples" in table
    head, copy = cells(table, "writer"), cells(table, "copy")
    mean = np.mean([1, 2 * (2 / 2) * (2 / 3) / (2 / 2 + 2 / 3), 0])
    assert copy[head.index("rouge1")].startswith(f"{mean:.4f} [") and copy[-1] == "0.2 + 3.0"
    everything = table[table.index("Over all replies") :]
    head, copy, llm = (cells(everything, name) for name in ("writer", "copy", "llm"))
    assert llm[head.index("coverage")] == "0.7500" and copy[head.index("coverage")] == "0.5000"
    assert llm[head.index("faithful")] == "0.6667" and llm[head.index("silent")] == "0.0000"
    gap = [line for line in table.splitlines() if line.startswith("| llm - copy | match")]
    assert gap == ["| llm - copy | match | +0.0000 [+0.0000, +0.0000] | no |"]


def test_what_cannot_be_judged_is_an_empty_cell() -> None:
    values, corpus = text.measured(["!", ""], named=[[], []], true=[["a"], ["b"]])
    assert corpus == {"distinct1": None, "distinct2": None, "faithful": None, "silent": 1.0}
    metrics, differences = compared({"a": values, "b": values}, [("a", "b")])
    results = {
        "suite": "s", "task": "t", "settings": {"split": "valid"}, "data": {"asked": 2, "train": 0},
        "writers": {"a": {"metrics": metrics["a"], "corpus": corpus, "seconds": {"fit": 0, "write": 0}}},
        "differences": differences,
    }  # fmt: skip
    assert cells(written_markdown(results), "a") == ["a", "", "0.0 + 0.0"]
    assert "| a - b | faithful |  | no |" in written_markdown(results)


def test_interests() -> None:
    true = np.array([[1, 0], [1, 1], [0, 0]])
    shares = {"even": np.full((3, 2), 0.5), "seer": np.array([[1, 0], [0.5, 0.5], [1, 0]])}
    values = {name: {m: f(p, true) for m, f in interest.METRICS.items()} for name, p in shares.items()}
    metrics, differences = compared(values, [("seer", "even")])
    results = {
        "suite": "tastes", "settings": {"split": "test"}, "data": {"users": 3, "categories": 2},
        "predictors": {name: {"metrics": metrics[name], "seconds": {"fit": 0, "predict": 1.25}} for name in shares},
        "differences": differences,
    }  # fmt: skip
    table = interest_markdown(results)
    assert "2 categories beside what 3 users" in table
    head, seer = cells(table, "predictor"), cells(table, "seer")
    assert seer[head.index("ndcg@1")].startswith("1.0000 [") and seer[head.index("js_distance")].startswith("0.0000 [")
    gap = next(d for d in differences if d["metric"] == "ndcg@1")
    assert gap["mean"] == pytest.approx(0.25) and len(differences) == len(interest.METRICS)
