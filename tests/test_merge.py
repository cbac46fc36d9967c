"""adapters merge: the sum of updates, what its card says, and what does not go together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_transfer import world  # noqa: F401
from typer.testing import CliRunner

from llmrec import adapters, cli, config
from llmrec.errors import AdapterError, RecipeError
from llmrec.model import adapter, merge, transfer, verify
from llmrec.model.load import base_model, load_model
from llmrec.tasks.saved import read_card
from llmrec.tasks.template import Template
from llmrec.train import train

Updates = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def films(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Another adapter of the base: other data, rank and layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_PROJECT", str(world))
        patch.setenv("LLMREC_HOME", str(tmp_path_factory.mktemp("training")))
        shape = ("lora.rank=16", "lora.alpha=8", "lora.first_layer=0", "lora.targets=[q_proj, down_proj, lm_head]")
        return train(config.load_recipe("films", shape), out=tmp_path_factory.mktemp("films"))


@pytest.fixture(autouse=True)
def here(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("LLMREC_PROJECT", str(world))


def updates(folder: Path) -> Updates:
    """What the adapter adds to each weight."""
    shape = json.loads((folder / "adapter_config.json").read_text())
    tensors = {name: tensor.float() for name, tensor in load_file(folder / adapter.WEIGHTS).items()}
    layers = {name.rpartition(".lora_")[0] for name in tensors}
    scale = shape["lora_alpha"] / shape["r"]
    return {
        layer: scale * tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"] for layer in layers
    }  # fmt: skip


def test_updates_are_summed_and_the_card_says_of_what(world: Path, films: Path, tmp_path: Path) -> None:  # noqa: F811
    books = world / "adapters" / "books"
    out = tmp_path / "both"
    words = ["adapters", "merge", "books=0.7", f"{films}=-0.5", "--out", str(out), "--rank", "32"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    a, b, both = updates(books), updates(films), updates(out)
    assert both.keys() == a.keys() | b.keys() and a.keys() - b.keys() and b.keys() - a.keys()
    for layer, update in both.items():
        wanted = 0.7 * a.get(layer, torch.zeros(1)) - 0.5 * b.get(layer, torch.zeros(1))
        assert torch.allclose(update, wanted, atol=2e-3), layer
    base = base_model(config.load_recipe("books").base_model)
    assert verify.files(out) + verify.content(out) + verify.fit(out, base.folder) == []
    card = adapter.read_json(out / adapter.CARD)
    assert card["domain"] == "books" and card["recipe"]["lora"]["rank"] == 32 and card["validation"] == {}
    assert card["licence"] == "CC0; research" and [part["share"] for part in card["merged"]] == [0.7, -0.5]
    assert set(transfer.sources(card)) == {f"reviews of {world / name}" for name in ("books.csv", "films.csv")}
    adapter.load(load_model(base, dtype=torch.float32), {"both": out})


def test_a_training_of_no_epochs_fits_the_sum_anew(world: Path, films: Path, tmp_path: Path) -> None:  # noqa: F811
    adapters.merge(["books=0.5", f"{films}=0.5"], tmp_path / "both", rank=16)
    asked = config.load_recipe("books", (f"init_from={tmp_path / 'both'}", "fit.epochs=0", "fit.valid_users=10"))
    folder = train(asked, out=tmp_path / "fitted")
    assert train(asked, out=folder) == folder and len((folder / "log.jsonl").read_text().splitlines()) == 1
    assert {k for k, v in updates(folder).items() if v.any()} == updates(tmp_path / "both").keys()
    for layer, update in updates(tmp_path / "both").items():
        assert torch.equal(updates(folder)[layer], update), layer
    card, before = (read_card(one) for one in (folder, tmp_path / "both"))
    assert card["steps"] == 0 and card["validation"]["macro_f1"] >= 0 and before["validation"] == {}
    assert card["review_sentiment"]["temperature"] != before["review_sentiment"]["temperature"]
    assert card["init_from"]["weights"] == before["weights"] and (folder / "curve.png").is_file()
    with pytest.raises(RecipeError, match="fit.epochs: 0 learns nothing"):
        config.load_recipe("books", ("fit.epochs=0",))


def test_what_lists_stand_on_comes_from_the_adapter_that_has_learned_them() -> None:
    """Whichever is named first; else the card would tell of lists without data, and nobody could read it."""
    shipped = {name: Path(__file__).parent.parent / "adapters" / name for name in ("fashion", "movies")}
    parts = [merge.Part(folder, read_card(folder), 0.5) for folder in shipped.values()]
    cards = [merge.merged_card(order) for order in (parts, parts[::-1])]
    for card in cards:
        assert card["recipe"]["data"]["path"] == "asset:movielens-100k"
        assert card["recipe"]["prior"] == parts[1].card["recipe"]["prior"]
        assert "interactions of asset:movielens-100k" in transfer.sources(card)
    assert [card["recipe"]["noun"] for card in cards] == ["clothes", "films"]


def test_wordings_are_compared_by_what_they_mean(world: Path, films: Path, tmp_path: Path) -> None:  # noqa: F811
    """Not by comments, which a prompt file may have gained between two trainings."""
    copy = tmp_path / "copy"
    shutil.copytree(films, copy)
    file = copy / "prompts" / "review_sentiment.yaml"
    before = file.read_text()
    for text, merges in ((f"# A comment.\n{before}", True), (before.replace("You read", "You judge"), False)):
        file.write_text(text)
        card = adapter.read_json(copy / adapter.CARD)
        adapter.write_json(copy / adapter.CARD, card | {"prompts": {"review_sentiment": Template.load(file).digest}})
        if merges:
            adapters.merge(["books=0.5", f"{copy}=0.5"], tmp_path / "out")
        else:
            with pytest.raises(AdapterError, match="another wording of review_sentiment"):
                adapters.merge(["books=0.5", f"{copy}=0.5"], tmp_path / "other")


def test_ranks_add_up_where_none_is_asked_for(world: Path, films: Path, tmp_path: Path) -> None:  # noqa: F811
    """Twice the same, half and half, is the same; a card that lists its tasks without settings is read, too."""
    out = tmp_path / "same"
    copy = tmp_path / "copy"
    shutil.copytree(world / "adapters" / "books", copy)
    card = adapter.read_json(copy / adapter.CARD)
    adapter.write_json(copy / adapter.CARD, card | {"recipe": card["recipe"] | {"tasks": ["review_sentiment"]}})
    adapters.merge(["books=0.5", f"{copy}=0.5"], out)
    before, after = updates(copy), updates(out)
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 16
    assert all(torch.allclose(after[layer], before[layer], atol=1e-3) for layer in before)
    adapters.merge(["books=0.5", f"{films}=0.5"], tmp_path / "wide")  # 8 + 16, and the next that is served
    assert json.loads((tmp_path / "wide" / "adapter_config.json").read_text())["r"] == 32
    other, wide = updates(films), updates(tmp_path / "wide")
    for layer, update in wide.items():
        wanted = 0.5 * before.get(layer, torch.zeros(1)) + 0.5 * other.get(layer, torch.zeros(1))
        assert torch.allclose(update, wanted, atol=1e-3) and update.abs().max() > 3e-3, layer


def test_what_does_not_go_together_is_refused(world: Path, films: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "out"
    for shares, reason in (
        (["books"], "NAME=SHARE"),
        ([], "at least two"),
        (["books=1"], "name 2 to 8"),
        (["books=0.5", f"{films}=nan"], "no share is 0"),
        (["books=0.5", "films=0.5"], "card.json is missing"),
    ):
        with pytest.raises(AdapterError, match=reason):
            adapters.merge(shares, out)
        assert not out.exists()
    with pytest.raises(AdapterError, match="rank 24 cannot be served; set --rank"):
        adapters.merge(["books=0.5", f"{films}=0.5"], out, rank=24)
    with pytest.raises(AdapterError, match="something already"):
        adapters.merge(["books=0.5", f"{films}=0.5"], world)
