"""llmrec conflicts: cosines of tasks whose texts say the opposite, and of tasks that agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_transfer import world  # noqa: F401
from typer.testing import CliRunner

from llmrec import cli, config
from llmrec.conflicts import compared, conflicts, groups, sampled_batches
from llmrec.errors import RecipeError
from llmrec.model.adapter import weights_digest
from llmrec.model.rows import choice_row


@pytest.fixture(autouse=True)
def here(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("LLMREC_PROJECT", str(world))


def both(world: Path, tmp_path: Path) -> tuple[str, ...]:  # noqa: F811
    """Overrides of `books` that add films to be listed."""
    events = ["user_id,item_id,timestamp", *(f"u{i % 9},i{(i // 9 + i) % 8},{i}" for i in range(90))]
    (tmp_path / "events.csv").write_text("\n".join(events) + "\n")
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"i{i},Red {i} Sun\n" for i in range(8)))
    tasks = f"{{next_item: {{}}, review_sentiment: {{data: {{path: {world / 'books.csv'}}}}}}}"
    return (
        f"tasks={tasks}", f"data={{path: {tmp_path / 'events.csv'}, items: {tmp_path / 'items.csv'}}}",
        "fit.window_tokens=120", "fit.micro_batch_tokens=300", "fit.batch_tokens=1500",
    )  # fmt: skip


def test_groups_hold_every_parameter_once() -> None:
    names = [f"model.layers.{layer}.{block}.lora_A" for layer in (2, 10) for block in ("self_attn.q", "mlp.up")]
    found = groups({name: torch.zeros(2, 3) for name in ["lm_head.lora_A", *names]})
    assert list(found) == ["all", "layer 02 attention", "layer 02 mlp", "layer 10 attention", "layer 10 mlp", "head"]
    assert found["head"].tolist() == list(range(6)) and found["layer 02 mlp"].tolist() == list(range(12, 18))
    assert sorted(torch.cat([found[name] for name in list(found)[1:]]).tolist()) == found["all"].tolist()


def test_cosines_by_hand() -> None:
    places = {"all": torch.arange(4), "low": torch.arange(2), "high": torch.arange(2, 4)}
    now = torch.tensor([[1.0, 0, 1, 0], [-1, 0, 0, 0]])
    angles, lengths = compared(now, torch.tensor([[1.0, 0, 0, 1], [1, 0, 0, 0]]), places)
    assert angles[0] == pytest.approx(np.array([[0.5, -np.sqrt(0.5)], [-np.sqrt(0.5), -1]]))
    assert angles[1] == pytest.approx(np.array([[1, -1], [-1, -1]]))
    assert angles[2, 0, 0] == 0 and np.isnan(angles[2][[0, 1, 1], [1, 0, 1]]).all()  # nothing there, nothing said
    assert lengths == pytest.approx(np.array([[np.sqrt(2), 1], [1, 1], [1, 0]]))
    assert np.isnan(np.diagonal(compared(now, None, places)[0][0])).all()


def test_the_report_of_a_trained_and_a_fresh_adapter(world: Path, tmp_path: Path) -> None:  # noqa: F811
    overrides = both(world, tmp_path)
    words = ["conflicts", "books", *overrides, "--batches", "2", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(cli.app, [*words, "--adapter", "books"])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "conflicts.json").read_text())
    assert report == json.loads(done.stdout) and (tmp_path / "out" / "conflicts.png").stat().st_size > 5000
    assert report["weights"] == weights_digest(world / "adapters" / "books") and report["batches"] == 2
    assert report["groups"] == ["all", *(f"layer 0{i} {kind}" for i in (1, 2) for kind in ("attention", "mlp"))]
    assert len(report["cosines"]) == 3 * 5 and all(-1.001 <= one["mean"] <= 1.001 for one in report["cosines"])
    assert all(norm > 0 for norms in report["norms"].values() for norm in norms.values())
    recipe = config.load_recipe("books", overrides)
    fresh = conflicts(recipe, adapter=None, batches=2, out=tmp_path / "fresh")
    again = conflicts(recipe, adapter=None, batches=2, out=tmp_path / "fresh")
    assert fresh == again and fresh.weights is None
    whole = fresh.of("next_item", "next_item", "all")
    assert whole is not None and whole.mean > 0.1  # two batches of one task pull alike
    assert whole.mean != next(one["mean"] for one in report["cosines"] if one["a"] == one["b"] == "next_item")


def test_one_task_or_too_few_rows_is_a_mistake(world: Path) -> None:  # noqa: F811
    with pytest.raises(RecipeError, match="has one task"):
        conflicts(config.load_recipe("books"), adapter=None, batches=1, out=world)
    recipe = config.section(config.Recipe, {"domain": "x", "data": {"path": "x"}, "tasks": ["next_item", "other"]})
    lengths = {"next_item": [500, 400, 100, 90], "other": [30] * 40}
    rows = [
        choice_row([1] * n, np.array([3, 4]), 0, task=task) for task, lengths in lengths.items() for n in lengths
    ]  # fmt: skip
    found = sampled_batches(
        rows, recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"batch_tokens": 400})}), 3
    )
    assert len({row for batch in found for row in batch}) == sum(map(len, found))
    for batch in found:
        tasks = [rows[row].task for row in batch]
        assert tasks.count("next_item") >= 1 and tasks.count("other") == 200 // 32
    with pytest.raises(RecipeError, match="next_item: its training rows fill 4 batches of 50 tokens, not 5"):
        sampled_batches(rows, recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"batch_tokens": 100})}), 5)
