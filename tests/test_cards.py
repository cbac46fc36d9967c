"""Cards from elsewhere: whatever one says, a command answers, or says in words what is wrong."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Served
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmrec import cli, config
from llmrec.errors import AdapterError
from llmrec.model import adapter, transfer
from llmrec.model.load import base_model, load_tokenizer, tokenizer_digest
from llmrec.tasks.template import Template

ROOT = Path(__file__).parent.parent
GONE = object()  # no value: the key is not there
ODD = [None, True, 0, -1.5, 10**400, math.nan, math.inf, "", "x", "\ud800", [], [None], {}, {"x": None}, GONE]


@pytest.fixture(scope="module")
def project(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the adapter of one domain, `shop`, that fits."""
    root = tmp_path_factory.mktemp("cards")
    folder = root / "adapters" / "shop"
    shutil.copytree(served.adapters["movies"], folder)
    (folder / "prompts").mkdir()
    shutil.copy(ROOT / "prompts" / "next_item.yaml", folder / "prompts")
    shutil.copytree(ROOT / "prompts", root / "prompts")
    recipe = {
        "domain": "shop", "base_model": str(served.base), "data": {"path": "none"}, "tasks": {"next_item": {}},
        "lora": {"rank": 8, "alpha": 8},  # as the weights are
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    base = base_model(str(served.base))
    card = adapter.read_json(folder / adapter.CARD) | {
        "format": 1, "domain": "shop", "base_model": base.name, "base_digest": base.digest,
        "tokenizer": tokenizer_digest(load_tokenizer(base.folder)), "catalog": "47444416760a",
        "items": ["00236a1d4c90"], "prior_weight": 4.0, "prior_weights_tried": [], "licence": "free",
        "trained": "2026-11-24T20:34:13Z",
        "prompts": {"next_item": Template.load(folder / "prompts" / "next_item.yaml").digest},
        "validation": {"users": 30, "ndcg@10": 0.5, "mean": 0.5}, "review_sentiment": {"labels": ["good", "bad"]},
        "recipe": config.load_section(config.Recipe, folder / "recipe.yaml").model_dump(mode="json"),
        "init_from": {"domain": "other", "sources": {"interactions of none": {"method": "time"}}},
    }  # fmt: skip
    adapter.write_json(folder / adapter.CARD, card)
    return root


def places(values: dict[str, Any], deep: int = 3) -> list[tuple[str, ...]]:
    """Every key of a mapping and of those in it."""
    found: list[tuple[str, ...]] = []
    for key, value in values.items():
        found.append((key,))
        if isinstance(value, dict) and deep > 1:
            found += [(key, *rest) for rest in places(value, deep - 1)]
    return found


def changed(values: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    values = copy.deepcopy(values)
    *above, last = place
    inner = values
    for key in above:
        inner = inner[key]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return values


def answered(*args: str) -> Any:
    """What a command prints; it ends well, or in one line and with status 2."""
    result = CliRunner().invoke(cli.app, ["adapters", *args])
    assert result.exception is None or isinstance(result.exception, SystemExit), (args, result.exception)
    assert result.exit_code in (0, 2), result.output
    assert result.exit_code == 0 or result.output.strip()
    assert len(result.stderr.splitlines()) <= 1, result.stderr
    return result


def answers(root: Path, card: Any, place: Path) -> None:
    """Every command that reads cards answers, and JSON is JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_PROJECT", str(root))
        folder, out, copied = root / "adapters" / "shop", place / "out", place / "copied"
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(copied, ignore_errors=True)
        shutil.rmtree(root / "adapters" / config.VERSIONS, ignore_errors=True)
        kept = (folder / adapter.CARD).read_bytes()
        try:
            (folder / adapter.CARD).write_bytes(card if isinstance(card, bytes) else json.dumps(card).encode())
            answered("list")
            json.loads(answered("list", "--json").stdout, parse_constant=pytest.fail)
            fits = answered("verify", "shop").exit_code == 0
            assert (answered("export", "shop", str(out)).exit_code == 0) >= fits
            shutil.copytree(folder, copied)
        finally:
            (folder / adapter.CARD).write_bytes(kept)
        for source in (copied, out):
            if source.exists():
                assert (answered("import", str(source)).exit_code == 0) == fits


def test_a_card_that_fits_is_read_everywhere(project: Path, tmp_path: Path) -> None:
    card = adapter.read_json(project / "adapters" / "shop" / adapter.CARD)
    answers(project, card, tmp_path)
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("recipe",), None),
        (("recipe", "tasks"), None),
        (("recipe", "split"), 10**400),
        (("prior_weight",), math.nan),
        (("validation", "mean"), math.nan),
        (("validation", "mean"), 10**400),
        (("base_model",), "\ud800"),
        (("licence",), "\ud800"),
        (("prompts", "next_item"), "\ud800"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_a_card_may_not_say(project: Path, tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    answers(project, changed(adapter.read_json(project / "adapters" / "shop" / adapter.CARD), place, value), tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"[" * 100_000, b"\xff", b'{"a": 1' + b"0" * 5000 + b"}"], ids=len
)
def test_what_is_no_card(project: Path, tmp_path: Path, content: bytes) -> None:
    answers(project, content, tmp_path)
    assert not (tmp_path / "out").exists()


@settings(max_examples=10)  # each asks six commands
@given(data=st.data())
def test_whatever_a_card_says_commands_answer(
    project: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    card = adapter.read_json(project / "adapters" / "shop" / adapter.CARD)
    place = data.draw(st.sampled_from(places(card)))
    answers(project, changed(card, place, data.draw(st.sampled_from(ODD))), tmp_path_factory.mktemp("odd"))


def test_a_version_is_not_promoted_over_a_card_that_says_nothing_of_its_tasks(
    project: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(project))
    folder, better = project / "adapters" / "shop", tmp_path / "better"
    card = adapter.read_json(folder / adapter.CARD)
    shutil.copytree(folder, better)
    shutil.copy(served.adapters["books"] / adapter.WEIGHTS, better)
    adapter.write_json(better / adapter.CARD, card | {"weights": adapter.weights_digest(better)})
    digest = answered("add", "shop", str(better)).stdout.strip().partition("@")[2]
    adapter.write_json(folder / adapter.CARD, card | {"recipe": None})
    try:
        said = answered("promote", "shop", digest)
    finally:
        adapter.write_json(folder / adapter.CARD, card)
    assert said.exit_code == 2 and "'recipe' cannot be read" in said.stderr and "rollback" in said.stderr


@pytest.mark.parametrize("cut", [None, 3, [], {"method": "leave_one_out"}])
def test_a_split_that_nobody_can_read_is_another_split(cut: Any, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="under another split"):
        transfer.agree({"reviews of x": cut}, {"reviews of x": {"method": "time"}}, tmp_path)


def test_texts_that_another_split_drew_are_another_split_where_both_say_which_they_were(tmp_path: Path) -> None:
    recipe = {
        "domain": "x",
        "tasks": {"review_sentiment": {"data": {"path": "x.csv"}}, "item_class": {"data": {"path": "x.csv"}}},
    }

    def sources(**texts: str) -> transfer.Sources:
        return transfer.sources({"recipe": recipe, **{task: {"split": digest} for task, digest in texts.items()}})

    old = sources(review_sentiment="a", item_class="b")
    for fine in (old, sources(), sources(review_sentiment="a"), sources(item_class="b")):
        transfer.agree(old, fine, tmp_path)
        transfer.agree(fine, old, tmp_path)
    with pytest.raises(AdapterError, match=r"texts of item_class=b.*texts of item_class=c"):
        transfer.agree(old, sources(review_sentiment="a", item_class="c"), tmp_path)
    # A chain says what any of it has learned from; what a card says may be anything.
    later = {"recipe": recipe, "item_class": {"split": "b"}, "init_from": {"sources": sources(review_sentiment="a")}}
    assert transfer.sources(later) == old
    both = transfer.joined(sources(review_sentiment="a"), sources(item_class="b"))
    assert both == old and transfer.joined({}, old) == old == transfer.joined(old, {})
    assert transfer.sources({"recipe": recipe, "init_from": {"sources": {"reviews of x.csv": [1]}}}) == sources()
