"""The table of tasks learned alone and jointly: the same examples for all adapters, kept, and paired."""

from __future__ import annotations

import argparse
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec import config
from llmrec.errors import AdapterError, DataError
from llmrec.metrics.classification import macro_f1
from llmrec.train import train

SCRIPT = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "joint.py"))


@pytest.fixture(autouse=True)
def here(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(films))


def asked(**changed: Any) -> Any:
    return SCRIPT["Asked"](**{"recipe": config.load_recipe("films"), "split": "test", "users": 6, "seed": 0} | changed)


def test_alone_and_jointly(films_adapter: Path, tmp_path: Path) -> None:
    short = ("tasks=[interest]", "fit.epochs=1", "fit.valid_every=1")
    alone = train(config.load_recipe("films", short), out=tmp_path / "alone")
    folders = {"joint": [films_adapter], "alone": [alone]}
    results = SCRIPT["joint"](asked(), folders, tmp_path / "out", samples=100)
    assert results == json.loads((tmp_path / "out" / "joint.json").read_text())
    tasks = ["next_item", "next_item_p", "interest", "interest_summary", "explanation"]
    assert sorted(results["examples"]) == sorted(tasks) and {*results["examples"].values()} == {6}
    for name, learned in (("joint", {*tasks}), ("alone", {"interest"})):
        found = results["measured"][name]
        assert {task for task in tasks if found[task]["learned"]} == learned
        assert all(0 <= found[task]["low"] <= found[task]["mean"] <= found[task]["high"] <= 1 for task in tasks)
        for task in tasks:
            records = pd.read_parquet(tmp_path / "out" / f"{name}-{task}.parquet")
            whole = np.exp(records["log_p"].mean()) if task == "next_item_p" else records["value"].mean()
            assert found[task]["mean"] == pytest.approx(whole)
    [gap] = results["differences"]
    assert (gap["task"], gap["a"], gap["b"]) == ("interest", "joint", "alone")
    means = [results["measured"][name]["interest"]["mean"] for name in ("joint", "alone")]
    assert gap["mean"] == pytest.approx(means[0] - means[1])
    assert gap["relative"]["mean"] == pytest.approx(means[0] / means[1] - 1)
    for name in ("next_item_p", "interest_summary", "explanation"):  # ten epochs of it against none
        assert results["measured"]["joint"][name]["low"] > results["measured"]["alone"][name]["high"]
    table = (tmp_path / "out" / "joint.md").read_text()
    assert "| joint - alone | interest: interest_p |" in table and "*" in table
    assert "    alone: llmrec train films 'tasks=[interest]' fit.epochs=1.0 fit.valid_every=1.0\n" in table
    fewer = SCRIPT["joint"](
        asked(), folders, tmp_path / "out", samples=100, learned=True, users={"next_item_p": 4, "interest": 6}
    )
    assert fewer["differences"] == results["differences"] and fewer["examples"] == results["examples"] | {
        "next_item_p": 4
    }
    assert [*fewer["measured"]["alone"]] == ["interest"]
    assert "*" not in (tmp_path / "out" / "joint.md").read_text().split("|", 1)[1]


def test_trainings_of_one_name_are_compared_by_their_mean(films_adapter: Path, tmp_path: Path) -> None:
    interest = ("tasks=[interest]", "fit.epochs=1", "fit.valid_users=0")
    alone = [
        train(config.load_recipe("films", (*interest, f"fit.seed={seed}")), out=tmp_path / str(seed)) for seed in (0, 1)
    ]
    results = SCRIPT["joint"](asked(), {"joint": [films_adapter], "alone": alone}, tmp_path / "out", samples=50)
    assert [*results["measured"]] == ["joint", "alone.1", "alone.2"] and [*results["means"]] == ["alone"]
    seeds = [results["measured"][name]["interest"]["mean"] for name in ("alone.1", "alone.2")]
    mean = results["means"]["alone"]["interest"]
    assert seeds[0] != seeds[1] and mean["mean"] == pytest.approx(np.mean(seeds))
    [gap] = results["differences"]
    assert (gap["a"], gap["b"]) == ("joint", "alone")
    assert gap["mean"] == pytest.approx(results["measured"]["joint"]["interest"]["mean"] - np.mean(seeds))
    assert "| alone (mean) |" in (tmp_path / "out" / "joint.md").read_text()
    with pytest.raises(DataError, match="one: trainings of one name differ in the seed alone"):
        SCRIPT["joint"](asked(), {"one": [films_adapter, alone[0]]}, tmp_path / "out")
    with pytest.raises(DataError, match="one: the same weights twice"):
        SCRIPT["joint"](asked(), {"one": [alone[0], alone[0]]}, tmp_path / "out")


def test_how_many_are_asked_of_each_measure() -> None:
    assert [*map(SCRIPT["how_many"], ("400", "next_item_p=0"))] == [("", 400), ("next_item_p", 0)]
    with pytest.raises(argparse.ArgumentTypeError, match="chat: none of next_item, "):
        SCRIPT["how_many"]("chat=3")


def test_a_task_that_is_not_measured_is_refused() -> None:
    SCRIPT["checked"](["next_item", "explanation"])
    with pytest.raises(DataError, match="item_class: not among the tasks measured here"):
        SCRIPT["checked"](["review_sentiment", "item_class"])


def test_labels_are_measured_over_what_is_drawn() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    records = pd.DataFrame({"unit": ["0", "1", "2"], "true": [0, 1, 1], "p0": p[:, 0], "p1": p[:, 1]})
    draw = np.array([0, 1, 1, 2])
    assert SCRIPT["statistic"](records)(draw) == macro_f1(p[draw], records["true"].to_numpy()[draw])
    true = SCRIPT["of_the_true"](records)
    np.testing.assert_allclose(np.exp(true["log_p"]), [0.9, 0.8, 0.3])
    assert SCRIPT["statistic"](true)(draw) == pytest.approx((0.9 * 0.8 * 0.8 * 0.3) ** 0.25)


def test_probabilities_of_lists_are_a_geometric_mean() -> None:
    records = pd.DataFrame({"unit": ["0", "1", "2"], "log_p": np.log([0.5, 0.02, 0.125])})
    assert SCRIPT["statistic"](records)(np.array([0, 0, 1])) == pytest.approx((0.5 * 0.5 * 0.02) ** (1 / 3))


def test_an_adapter_that_may_have_seen_the_answers_is_refused(films_adapter: Path, tmp_path: Path) -> None:
    recipe = config.load_recipe("films", ("split.method=time",))
    with pytest.raises(AdapterError, match="may have seen the answers"):
        SCRIPT["joint"](asked(recipe=recipe), {"joint": [films_adapter]}, tmp_path)
    with pytest.raises(AdapterError, match="no trained adapter"):
        SCRIPT["joint"](asked(), {"none": [tmp_path / "none"]}, tmp_path)
    shutil.copytree(films_adapter, tmp_path / "edited")
    path = tmp_path / "edited" / "prompts" / "interest.yaml"
    path.write_text(path.read_text().replace("What is this person in the mood for?", "What now?"))
    with pytest.raises(AdapterError, match="not the wording it was trained on"):
        SCRIPT["joint"](asked(), {"joint": [tmp_path / "edited"]}, tmp_path)
