"""init_from: training that starts from another adapter, what is refused, and the curves of scripts/transfer.py."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file, save_file

from llmrec import config
from llmrec.errors import AdapterError, RecipeError
from llmrec.model import adapter, store, transfer
from llmrec.model.load import base_model, load_model
from llmrec.train import run_folder, train

ROOT = Path(__file__).parent.parent
WORDS = ("Sun", "Rain")
sys.path.insert(0, str(ROOT / "scripts"))  # where it stands when it is run
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "transfer.py"))
sys.path.pop(0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a base model and two domains of reviews, one of them trained."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "prompts", root / "prompts")
    tiny.model(len(tiny.tokenizer("gpt2"))).save_pretrained(root / "base")
    tiny.tokenizer("gpt2").save_pretrained(root / "base")
    for name, licence in (("books", "CC0"), ("films", "research")):
        lines = ["review,rating", *(f"{name} {WORDS[i % 2]} {i},{(1, 5)[i % 2]}" for i in range(60))]
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n")
        recipe = {
            "domain": name, "base_model": str(root / "base"), "licence": licence,
            "tasks": {"review_sentiment": {"data": {"path": str(root / f"{name}.csv")}}},
            "lora": {"rank": 8, "alpha": 16, "first_layer": 1},
            "fit": {"batch_tokens": 480, "epochs": 2, "learning_rate": 0.01, "valid_users": 0, "precision": "float32"},
        }  # fmt: skip
        (root / "adapters" / name).mkdir(parents=True)
        (root / "adapters" / name / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_PROJECT", str(root))
        patch.setenv("LLMREC_HOME", str(tmp_path_factory.mktemp("training")))
        train(config.load_recipe("books"))
    return root


@pytest.fixture(autouse=True)
def here(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(world))


def recipe(*overrides: str) -> config.Recipe:
    return config.load_recipe("films", ("init_from=books", *overrides))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(5, 25)[None]).logits


def test_texts_that_are_split_anew_are_no_start(world: Path, tmp_path: Path) -> None:
    """One more puts others on each side: what was learned from may be asked."""
    text = (world / "books.csv").read_text()
    asked = config.load_recipe("books", ("init_from=books", "fit.epochs=0.1"))
    (world / "books.csv").write_text(text + "a book more,5\n")
    try:
        with pytest.raises(AdapterError, match="under another split .*texts of review_sentiment="):
            train(asked, out=tmp_path / "more")
    finally:
        (world / "books.csv").write_text(text)
    train(asked, out=tmp_path / "same")


def test_it_answers_as_the_other_adapter_before_the_first_step(world: Path) -> None:
    asked = recipe()
    base = base_model(asked.base_model)
    model = adapter.attach(load_model(base, dtype=torch.float32), asked.lora, base_name="tiny")
    fresh = logits(model)
    start = transfer.start(asked, base)
    assert start is not None
    transfer.put(start, model)
    theirs = logits(adapter.load(load_model(base, dtype=torch.float32), {"books": world / "adapters" / "books"}))
    assert torch.allclose(logits(model.eval()), theirs, atol=1e-5)
    assert not torch.allclose(fresh, theirs, atol=1e-2)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert trainable and all(p.dtype == torch.float32 for p in trainable)


def test_more_may_be_trained_than_the_other_adapter_updates(world: Path, tmp_path: Path) -> None:
    asked = recipe(
        "lora.first_layer=0", "lora.targets=[q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head]"
    )
    base = base_model(asked.base_model)
    model = adapter.attach(load_model(base, dtype=torch.float32), asked.lora, base_name="tiny")
    start = transfer.start(asked, base)
    assert start is not None
    transfer.put(start, model)
    theirs = logits(adapter.load(load_model(base, dtype=torch.float32), {"books": world / "adapters" / "books"}))
    assert torch.allclose(logits(model.eval()), theirs, atol=1e-5)
    folder = train(asked, out=tmp_path / "films")
    before, after = (load_file(place / adapter.WEIGHTS) for place in (world / "adapters" / "books", folder))
    assert before.keys() < after.keys()
    assert all(after[name].any() for name in after)  # what began as nothing has learned


def test_the_card_says_where_it_started_and_terms_are_carried(world: Path, tmp_path: Path) -> None:
    """One step too small for float16 leaves the other's weights; a chain of three keeps all that was learned from."""
    digest = store.keep("books", world / "adapters" / "books")
    asked = recipe(f"init_from=books@{digest}", "fit.learning_rate=1e-12", "fit.epochs=0.1")
    folder = train(asked, out=tmp_path / "films")
    card = json.loads((folder / "card.json").read_text())
    before, after = (load_file(place / adapter.WEIGHTS) for place in (world / "adapters" / "books", folder))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    texts = json.loads((world / "adapters" / "books" / "card.json").read_text())["review_sentiment"]["split"]
    cut = {"valid": 0.1, "test": 0.1, "seed": 0, "texts of review_sentiment": texts}
    assert card["init_from"] == {
        "domain": "books", "weights": digest, "licence": "CC0", "sources": {f"reviews of {world / 'books.csv'}": cut}
    }  # fmt: skip
    assert card["licence"] == "research; started from weights of: CC0"
    assert set(transfer.sources(card)) == {f"reviews of {world / name}" for name in ("books.csv", "films.csv")}
    again = transfer.start(recipe(f"init_from={folder}"), base_model(asked.base_model))
    assert again is not None and again.note["weights"] == card["weights"]
    split = f"tasks={{review_sentiment: {{data: {{path: {world / 'books.csv'}, seed: 1}}}}}}"
    with pytest.raises(AdapterError, match="seed=0, .*; here .* seed=1"):  # what it started from counts, too
        transfer.start(recipe(f"init_from={folder}", split), base_model(asked.base_model))


def test_other_weights_are_another_run(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(world / "adapters" / "books", folder)
    base, data = SimpleNamespace(digest="b"), SimpleNamespace(digest="d")
    asked = recipe(f"init_from={folder}")
    before = run_folder(asked, base, data)  # type: ignore[arg-type]
    tensors = load_file(folder / adapter.WEIGHTS)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / adapter.WEIGHTS)
    assert run_folder(asked, base, data) != before  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("lora.rank=16", "set lora.rank=8"),
        ("lora.alpha=8", "scaled by alpha 16"),
        ("lora.first_layer=2", "leaves as it is: .*layers.1.* the first"),
        ("lora.targets=[q_proj, lm_head]", "leaves as it is"),
    ],
)
def test_another_shape_is_refused(override: str, reason: str) -> None:
    asked = recipe(override)
    base = base_model(asked.base_model)
    start = transfer.start(asked, base)
    assert start is not None
    model = adapter.attach(load_model(base, dtype=torch.float32), asked.lora, base_name="tiny")
    with pytest.raises(AdapterError, match=reason):
        transfer.put(start, model)


def test_what_is_no_fitting_adapter_is_refused(world: Path, tmp_path: Path) -> None:
    base = base_model(recipe().base_model)
    with pytest.raises(RecipeError, match="no domain 'boks'"):
        transfer.start(recipe("init_from=boks"), base)
    with pytest.raises(RecipeError, match="no version"):
        transfer.start(recipe("init_from=books@0000"), base)
    with pytest.raises(AdapterError, match="not trained yet.*init_from=null"):
        transfer.start(recipe("init_from=films"), base)
    with pytest.raises(AdapterError, match="no such folder"):
        transfer.start(recipe(f"init_from={tmp_path / 'nowhere'}"), base)
    tiny.model(len(tiny.tokenizer("gpt2")), seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterError, match="trained on other weights"):
        transfer.start(recipe(f"base_model={tmp_path / 'other'}"), base_model(str(tmp_path / "other")))
    folder = tmp_path / "pickled"
    shutil.copytree(world / "adapters" / "books", folder)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(AdapterError, match="'adapter_model.bin' does not belong"):
        transfer.start(recipe(f"init_from={folder}"), base)
    (folder / "adapter_model.bin").unlink()
    tensors = load_file(folder / adapter.WEIGHTS)
    save_file({name: tensor * torch.nan for name, tensor in tensors.items()}, folder / adapter.WEIGHTS)
    with pytest.raises(AdapterError, match="not finite"):
        transfer.start(recipe(f"init_from={folder}"), base)


def curves(world: Path, out: Path, *more: str) -> dict[str, Any]:
    words = ["films", "fit.cache=disk", "--init-from", "books", "--out", str(out), "--asked", "5", "--steps", "3"]
    SCRIPT["main"]([*words, *more])
    return json.loads((out / "transfer.json").read_text())


def test_learning_curves_with_and_without_a_start(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = curves(world, tmp_path, "--shares", "0", "0.1", "--seeds", "0", "1")
    assert few["available"] == 48 and few["metric"] == "macro_f1" and few["asked"] == 5
    assert [(point["share"], point["seeds"]) for point in few["points"]] == [(0, [0]), (0.1, [0, 1])]
    assert {one["examples"] for one in few["runs"]} == {0, 5}
    assert all(one["steps"] >= 3 for one in few["runs"] if one["examples"])
    for point in few["points"]:
        gap = np.mean(point["with"]) - np.mean(point["without"])
        assert point["difference"]["mean"] == pytest.approx(gap)
        assert point["difference"]["low"] <= gap <= point["difference"]["high"]
    rows = {one["curve"]: one for one in few["runs"] if one["share"] == 0}
    assert rows["with"]["value"] != rows["without"]["value"]  # books have taught the same words
    assert (tmp_path / "transfer.png").is_file()
    assert "| 10% | 5 | 2 |" in (tmp_path / "transfer.md").read_text()

    capsys.readouterr()
    all_ = curves(world, tmp_path, "--shares", "1", "--seeds", "0")  # more of it in the same table
    assert "0.1-0-with" not in capsys.readouterr().out
    assert all_["runs"][:6] == few["runs"] and [point["share"] for point in all_["points"]] == [0, 0.1, 1]
    shutil.rmtree(tmp_path / "activations")
    assert curves(world, tmp_path, "--shares", "0.1", "--seeds", "1")["runs"] == all_["runs"]  # nothing is run again
    with pytest.raises(SystemExit, match="made with other settings"):
        curves(world, tmp_path, "--shares", "0.1", "--seeds", "1", "--asked", "6")


def test_curves_say_what_they_need(world: Path, tmp_path: Path) -> None:
    for more, reason in (
        (["--task", "next_item"], "name one of its tasks"),
        (["lora.rank=16"], "set lora.rank=8"),
        (["fit.cache=memory"], "set fit.cache=disk"),
    ):
        with pytest.raises(SystemExit, match=reason):
            SCRIPT["main"](["films", "fit.cache=disk", *more, "--init-from", "books", "--out", str(tmp_path)])
