"""Versions of adapters: hostile folders and archives are refused with every reason, swaps are whole, proof is asked."""
# ruff: noqa: F811 - fixtures of another file are imported by name

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCardData
from safetensors.torch import load_file, save_file
from test_train import here, trained, world  # noqa: F401
from typer.testing import CliRunner

from llmrec import adapters, cli, config, prepare, serve
from llmrec.engine.serving import base_name
from llmrec.engine.vllm import VLLMEngine
from llmrec.errors import AdapterError, EngineError, RecipeError
from llmrec.evaluate import evaluate
from llmrec.model import adapter, pack, store, verify
from llmrec.model.load import base_model
from llmrec.recommender import Recommender


@pytest.fixture
def project(world: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, so that each test may change what is served."""
    root = tmp_path / "project"
    shutil.copytree(world / "prompts", root / "prompts")
    shutil.copytree(trained, root / "adapters" / "films")
    monkeypatch.setenv("LLMREC_PROJECT", str(root))
    return root


def other(project: Path, change: float = 1.01) -> Path:
    """A second adapter that fits: slightly different weights."""
    folder = project.parent / f"other-{change}"
    shutil.copytree(project / "adapters" / "films", folder)
    tensors = load_file(folder / adapter.WEIGHTS)
    rewrite(folder, {name: tensor * change for name, tensor in tensors.items()})
    return folder


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / adapter.WEIGHTS)
    edit(folder, "card.json", weights=adapter.weights_digest(folder))


def edit(folder: Path, name: str, **values: Any) -> None:
    adapter.write_json(folder / name, adapter.read_json(folder / name) | values)


def run(*args: str) -> Any:
    return CliRunner().invoke(cli.app, ["adapters", *args])


def test_a_trained_adapter_fits(project: Path) -> None:
    prepare.prepare(config.load_recipe("films"))
    found = adapters.checked("films")
    assert (found.problems, found.notes) == ([], [])
    assert run("verify", "films").exit_code == 0


def biases(folder: Path) -> None:
    edit(folder, "adapter_config.json", bias="all")


def pickles(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")


def links(folder: Path) -> None:
    (folder / "curve.png").unlink()
    (folder / "curve.png").symlink_to("/etc/passwd")


def linked_prompts(folder: Path) -> None:
    shutil.rmtree(folder / "prompts")
    (folder / "prompts").symlink_to("/etc")


def garbage(folder: Path) -> None:
    (folder / adapter.WEIGHTS).write_bytes(b"\xff" * 100)
    edit(folder, "card.json", weights=adapter.weights_digest(folder))


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, change(load_file(folder / adapter.WEIGHTS)))


def settings(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "adapter_config.json", **values)


def card(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "card.json", **values)


def first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return tensors(lambda all_: all_ | {min(all_): change(all_[min(all_)]).contiguous()})


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickle": (pickles, "adapter_model.bin' does not belong"),
    "link": (links, "'curve.png' is a link"),
    "linked folder": (linked_prompts, "'prompts' is a link"),
    "missing": (lambda folder: (folder / "card.json").unlink(), "card.json is missing"),
    "large": (lambda folder: (folder / "LICENSE").write_bytes(b" " * 1_000_001), "at most 1,000,000"),
    "many": (
        lambda folder: [(folder / "prompts" / f"p{i}.yaml").write_text("") for i in range(70)], "more than 64 files",
    ),
    "not safetensors": (garbage, "not a safetensors file"),
    "bias": (biases, "biases are trained"),
    "saved modules": (settings(modules_to_save=["lm_head"]), "modules_to_save is set"),
    "token indices": (settings(trainable_token_indices=[1]), "trainable_token_indices is set"),
    "dora": (settings(use_dora=True), "use_dora is set"),
    "odd rank": (settings(r=12), "rank 12 is not one of"),
    "unknown key": (settings(layer_replication=[[0, 1]]), "'layer_replication' is set"),
    "embeddings": (settings(target_modules=["embed_tokens"]), "'embed_tokens' cannot be served"),
    "alpha": (settings(lora_alpha=float("nan")), "lora_alpha nan"),
    "rescaled": (settings(use_rslora=True), "use_rslora, of which no recipe knows"),
    "scale": (settings(lora_alpha=640), "lora_alpha 640, by card.json 16; restore both"),
    "other rank": (settings(r=16), "expected: another base or rank than r=16"),
    "other targets": (settings(target_modules=["q_proj"]), "not among target_modules"),
    "half": (tensors(lambda all_: {k: v for k, v in all_.items() if k != min(all_)}), "only lora_B is there"),
    "another base": (first(lambda tensor: tensor[:, :-1]), "expected: another base"),
    "stranger": (tensors(lambda all_: all_ | {"x": torch.ones(1)}), "'x' is no LoRA update"),
    "vocabulary": (
        tensors(lambda all_: all_ | {
            "base_model.model.lm_head.lora_A.weight": torch.zeros(8, 32),
            "base_model.model.lm_head.lora_B.weight": torch.zeros(7, 8),
        }), "another vocabulary size",
    ),
    "not finite": (first(lambda tensor: tensor * float("nan")), "not finite"),
    "integers": (first(lambda tensor: tensor.to(torch.int32)), "torch.int32 is not served"),
    "weights of another card": (card(weights="0" * 12), "is not what card.json describes"),
    "base digest": (card(base_digest="0" * 12), "trained on base"),
    "tokenizer digest": (card(tokenizer="0" * 12), "trained with tokenizer 000000000000"),
    "catalog": (card(catalog="0" * 12, items=["0" * 12]), "items that the adapter was trained on are not in"),
    "prompts": (card(prompts={"next_item": "0" * 12}), "edited after training"),
    "prompt missing": (card(prompts={"next_item": "0" * 12, "../x": "1"}), "prompt '../x' is only in card.json"),
    "path as a name": (card(domain="../../films"), "is no name"),
    "format": (card(format=9), "format 9 is unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_what_would_not_serve_is_refused_with_the_reason(name: str, project: Path) -> None:
    prepare.prepare(config.load_recipe("films"))
    spoil, reason = SPOILED[name]
    folder = other(project)
    spoil(folder)
    found = adapters.inspect(folder, "films")
    assert any(reason in problem for problem in found.problems), found.problems
    with pytest.raises(AdapterError):
        adapters.add("films", folder)
    assert store.versions("films") == []


def test_a_folder_of_something_else_is_told_in_ten_lines(tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    for i in range(100):
        (folder / f"{i}.txt").touch()
    done = run("verify", str(folder))
    lines = done.stdout.splitlines()
    assert done.exit_code == cli.MISTAKE and len(lines) <= 10
    assert "… and 59 more of this kind" in lines and sum("is missing" in line for line in lines) == 3


def test_every_problem_at_once(project: Path) -> None:
    folder = other(project)
    settings(r=12, use_dora=True)(folder)
    done = run("verify", str(folder), "--domain", "films", "--json")
    problems = json.loads(done.stdout)["problems"]
    assert done.exit_code == cli.MISTAKE
    assert any("rank 12" in problem for problem in problems) and any("use_dora" in problem for problem in problems)


def test_promote_and_roll_back(project: Path) -> None:
    old = store.served("films")
    digest = adapters.add("films", other(project))
    assert store.served("films") == old and store.versions("films") == [digest]
    recipe = (project / "adapters" / "films" / "recipe.yaml").read_text()
    with pytest.raises(AdapterError, match="no results given"):
        adapters.promote("films", digest, ())
    assert adapters.promote("films", digest[:5], (), force=True) == (digest, None)
    assert store.served("films") == digest and set(store.versions("films")) == {old, digest}
    assert (project / "adapters" / "films" / "recipe.yaml").read_text() == recipe
    adapter.check(project / "adapters" / "films")
    third = adapters.add("films", other(project, 1.02))
    adapters.promote("films", third, (), force=True)
    assert [store.back("films"), store.back("films")] == [digest, old] and store.served("films") == old
    with pytest.raises(AdapterError, match="nothing was served before"):
        store.back("films")
    with pytest.raises(AdapterError, match="is served"):
        store.remove("films", str(old))
    (store.kept("films") / f".{third}.removed" / "left").mkdir(parents=True)  # by a removal that was killed
    assert run("remove", "films", third[:6]).stdout == f"films@{third}: removed\n"
    assert set(store.versions("films")) == {old, digest}
    rows = json.loads(run("list", "--json").stdout)
    assert [(row["digest"], row["served"]) for row in rows if row["served"]] == [(old, True)] and len(rows) == 2
    assert not list(store.kept("films").glob(".new-*"))


def test_what_a_version_has_not_learned_is_said_and_not_served(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    tasks = adapter.read_json(project / "adapters" / "films" / adapter.CARD)["recipe"]["tasks"]
    folder, whole, old = other(project), other(project, 1.02), store.served("films")
    card = adapter.read_json(folder / adapter.CARD)
    others = card["recipe"] | {"tasks": {"interest": tasks["next_item"]}}
    adapter.write_json(folder / adapter.CARD, card | {"recipe": others})
    digest = adapters.add("films", folder)
    listed = ", ".join(config.load_recipe("films").tasks)
    assert f"{folder}: not trained on {listed}, which the recipe of films lists" in caplog.text
    with pytest.raises(AdapterError, match=f"{digest} was not trained on {', '.join(tasks)}, .*--force serves it"):
        adapters.promote("films", digest, ())
    assert store.served("films") == old
    caplog.clear()
    adapters.promote("films", digest, (), force=True)
    assert store.served("films") == digest
    assert f"films is served without {', '.join(tasks)} now; `llmrec adapters rollback films` undoes it" in caplog.text
    store.back("films")
    caplog.clear()
    adapters.promote("films", adapters.add("films", whole), (), force=True)
    assert not caplog.text


def test_a_version_is_ranked_by_its_name(project: Path) -> None:
    digest = adapters.add("films", other(project, 0.0))
    prepare.prepare(recipe := config.load_recipe("films"))
    plain = Recommender.load(recipe, None).rank([[0, 2]], 5, prior=False)[0]
    version = Recommender.load(recipe, f"films@{digest}").rank([[0, 2]], 5, prior=False)[0]
    assert version.items.tolist() == plain.items.tolist()  # an update times zero is the base model
    assert config.adapter_folder(f"films@{digest[:4]}") == store.kept("films") / digest
    for name in ("films@../../films", f"films@{digest[:3]}", "films@", "films@.writing"):
        with pytest.raises(RecipeError, match="films: no version"):
            config.adapter_folder(name)
    (store.kept("films") / f"{digest[:4]}00").mkdir()
    with pytest.raises(RecipeError, match="films: 2 versions begin with"):
        config.adapter_folder(f"films@{digest[:4]}")


def test_a_recipe_is_not_asked_for_by_version(project: Path) -> None:
    with pytest.raises(RecipeError, match=r"films@0000: recipes are of domains; .*--adapter films@0000"):
        config.load_recipe("films@0000")


def test_a_version_is_served_as_itself(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "build", lambda: ("vllm", "0"))
    digest, now = adapters.add("films", other(project, 0.5)), str(store.served("films"))

    def lora_modules(*asked: str) -> list[str]:
        words, _ = serve.command(asked, ("fit.precision=bf16",))
        return [word.partition("=")[0] for word in words[words.index("--lora-modules") + 1 :]]

    words, _ = serve.command(("films",), ("fit.precision=bf16", "serve.tensor_parallel=2", "serve.data_parallel=3"))
    given = {option: words[words.index(f"--{option}") + 1] for option in ("hf-overrides", "tensor-parallel-size")}
    assert given == {"hf-overrides": '{"head_dtype": "float32"}', "tensor-parallel-size": "2"}
    assert words[words.index("--data-parallel-size") + 1] == "3"
    assert lora_modules("films") == [f"films-{now}"]
    assert lora_modules(str(project / "adapters" / "films" / "recipe.yaml")) == [f"films-{now}"]
    assert lora_modules(f"films@{digest[:4]}") == [f"films-{digest}"]
    assert lora_modules("films", f"films@{digest}") == [f"films-{now}", f"films-{digest}"]
    store.serve("films", digest)
    assert lora_modules("films", f"films@{digest}") == [f"films-{digest}"]  # one adapter, once


def test_without_vllm_everything_else_works(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not there
    monkeypatch.setattr(serve, "build", lambda: None)
    with pytest.raises(EngineError, match="vLLM is not installed; .*make vllm"):
        VLLMEngine(project / "base")
    with pytest.raises(EngineError, match="vLLM is not installed"):
        serve.command(("films",))
    user = prepare.load(config.load_recipe("films")).interactions["user_id"].iloc[0]
    asked = ["recommend", "films", "--user", user, "-n", "3", "--json"]
    failed = CliRunner().invoke(cli.app, [*asked, "--engine", "vllm"])
    assert failed.exit_code == 2 and "vLLM is not installed" in failed.stderr
    found = CliRunner().invoke(cli.app, asked)
    assert found.exit_code == 0 and len(json.loads(found.stdout)["items"]) == 3


def test_what_is_no_adapters_stays_in_the_domain(project: Path) -> None:
    folder = project / "adapters" / "films"
    digest = adapters.add("films", other(project, 0.5))
    (folder / "more").mkdir()
    for file in ("events.csv", "more/items.csv"):
        (folder / file).write_text("mine")
    store.serve("films", digest)
    first = store.back("films")
    assert not verify.files(store.kept("films") / first)  # a version is an adapter and nothing else
    assert (folder / "events.csv").read_text() == (folder / "more" / "items.csv").read_text() == "mine"


def test_the_card_that_was_served_comes_back(project: Path) -> None:
    """The same weights with another prior are the same version, with a newer card."""
    folder = project / "adapters" / "films"
    store.lasting(folder)
    digest = adapters.add("films", other(project, 0.5))
    with store.rewritten(folder) as copy:
        adapter.write_json(copy / adapter.CARD, adapter.read_json(copy / adapter.CARD) | {"prior_weight": 4.0})
    before = adapter.read_json(folder / adapter.CARD)
    store.serve("films", digest)
    store.back("films")
    assert adapter.read_json(folder / adapter.CARD) == before
    assert adapter.read_json(folder / adapter.CARD)["prior_weight"] == 4.0


def test_what_was_fitted_anew_is_rolled_back(project: Path) -> None:
    """`llmrec train films init_from=films fit.epochs=0`: equal weights under another card."""
    folder = project / "adapters" / "films"
    first = str(store.served("films"))
    second = adapters.add("films", other(project, 0.5))
    store.serve("films", second)
    before = adapter.read_json(folder / adapter.CARD)
    for weight in (4.0, 8.0):
        with store.rewritten(folder) as copy:
            adapter.write_json(copy / adapter.CARD, before | {"prior_weight": weight})
    assert store.back("films") == second
    assert adapter.read_json(folder / adapter.CARD)["prior_weight"] == 4.0
    assert store.back("films") == first and store.served("films") == first
    store.serve("films", second)
    with store.rewritten(folder) as copy:  # the same training once more, of which nothing is new but its time
        adapter.write_json(copy / adapter.CARD, adapter.read_json(copy / adapter.CARD) | {"trained": "2030-01-01"})
    assert store.back("films") == first


def test_a_recipe_may_be_edited_while_an_adapter_is_written(project: Path) -> None:
    recipe = project / "adapters" / "films" / "recipe.yaml"
    with store.rewritten(recipe.parent) as copy:
        recipe.write_text(recipe.read_text() + "noun: movies\n")
        (copy / "curve.png").write_bytes(b"new")
    assert "noun: movies" in recipe.read_text() and (recipe.parent / "curve.png").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("key", "value"),
    [("task_type", "SEQ_CLS"), ("lora_alpha", 10**400), ("lora_alpha", "8"), ("lora_dropout", {"a": 1}),
     ("lora_dropout", 1.5)],
)  # fmt: skip
def test_settings_that_would_break_loading_are_found(project: Path, key: str, value: Any) -> None:
    file = project / "adapters" / "films" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    assert any(key in problem for problem in verify.content(file.parent))


def test_readers_see_whole_folders(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    store.exchange(a, b)
    assert [(folder / "name").read_text() for folder in (a, b)] == ["b", "a"]
    seen: list[str] = []
    missed: list[OSError] = []

    def read() -> None:
        while not missed and (len(seen) < 1000 or len({*seen}) < 2):
            try:
                seen.append((b / "name").read_text())
            except OSError as error:
                missed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():
        store.exchange(a, b)
    assert not missed and {*seen} == {"a", "b"}


def results(folder: Path, weights: str | None, ranks: list[int], *, questions: str = "q") -> Path:
    folder.mkdir()
    values = {
        "settings": {"cutoffs": [10]},
        "splits": {"s": {"data": {"questions": questions}, "adapter": {"weights": weights}}},
    }
    (folder / "results.json").write_text(json.dumps(values))
    rows = {
        "user_id": [f"u{i}" for i in range(len(ranks))],
        "split": "s",
        "ranker": "llm",
        "target": "t",
        "rank": ranks,
    }
    pd.DataFrame(rows).to_parquet(folder / "records.parquet")
    return folder


def test_equal_weights_with_another_card_are_kept_as_they_are_now(project: Path, tmp_path: Path) -> None:
    folder = other(project)
    digest = adapters.add("films", folder)
    card = adapter.read_json(folder / adapter.CARD)
    adapter.write_json(folder / adapter.CARD, card | {"prior_weight": 0.75})
    assert adapters.add("films", folder) == digest and store.versions("films") == [digest]
    assert adapter.read_json(store.kept("films") / digest / adapter.CARD)["prior_weight"] == 0.75
    assert {path.name for path in store.kept("films").iterdir()} == {digest, ".lock"}


def test_what_somebody_else_fitted_takes_no_kept_version_s_place(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = other(project)
    digest = adapters.add("films", folder)
    card = adapter.read_json(folder / adapter.CARD)
    adapter.write_json(folder / adapter.CARD, card | {"trained": "2027-01-01T00:00:00Z"})
    assert adapters.import_(folder, "films") == ("films", digest) and not caplog.text
    adapter.write_json(folder / adapter.CARD, card | {"prior_weight": 99.0})
    with pytest.raises(AdapterError, match="films keeps these weights with another card .* `llmrec adapters add films"):
        adapters.import_(folder, "films")
    assert adapter.read_json(store.kept("films") / digest / adapter.CARD).get("prior_weight") == card.get(
        "prior_weight"
    )
    adapters.add("films", folder)
    assert "replaces the kept version of equal weights" in caplog.text
    caplog.clear()
    (store.kept("films") / digest / adapter.CARD).write_text("{")  # damaged: whoever has it whole repairs it
    assert adapters.import_(folder, "films") == ("films", digest) and not caplog.text
    assert adapter.read_json(store.kept("films") / digest / adapter.CARD)["prior_weight"] == 99.0


def test_a_rollback_that_is_killed_is_one_to_the_same(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, digest = store.served("films"), adapters.add("films", other(project))
    store.serve("films", digest)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.back("films")
    assert store.served("films") == digest
    assert store.back("films") == old == store.served("films") and store.history("films") == [old]
    with pytest.raises(AdapterError, match="nothing was served before"):
        store.back("films")


def test_a_rollback_of_a_fit_anew_that_is_killed_loses_no_card(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "adapters" / "films"
    before = adapter.read_json(folder / adapter.CARD)
    with store.rewritten(folder) as copy:
        adapter.write_json(copy / adapter.CARD, before | {"prior_weight": 99.0})
    with monkeypatch.context() as patch:
        patch.setattr(store, "_put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.back("films")
    store.back("films")
    assert adapter.read_json(folder / adapter.CARD) == before


def test_promotion_needs_a_better_candidate(project: Path, tmp_path: Path) -> None:
    old, digest = store.served("films"), adapters.add("films", other(project))
    current = results(tmp_path / "current", old, [5] * 40)
    same = results(tmp_path / "same", digest, [1, 0] * 20)
    better = results(tmp_path / "better", digest, [1] * 30 + [5] * 10)
    elsewhere = results(tmp_path / "elsewhere", digest, [1] * 40, questions="other")
    with pytest.raises(AdapterError, match=r"not shown to be better: llm, 40 users: ndcg@10 0\.5000 against 0\.3869"):
        adapters.promote("films", digest, [current, same])
    with pytest.raises(AdapterError, match="share no split"):
        adapters.promote("films", digest, [current, elsewhere])
    few = [results(tmp_path / f"few-{name}", name, [rank] * 9) for name, rank in ((old, 5), (digest, 1))]
    with pytest.raises(AdapterError, match="9 users tell nothing; evaluate both on 30 or more"):
        adapters.promote("films", digest, few)
    with pytest.raises(AdapterError, match="no results of version"):
        adapters.promote("films", digest, [current])
    edit(elsewhere, "results.json", task="review_sentiment")
    with pytest.raises(
        AdapterError, match="it measures review_sentiment, and versions are compared by lists; leave out --results"
    ):
        adapters.promote("films", digest, [current, elsewhere])
    assert store.served("films") == old
    done = run("promote", "films", digest, "--results", str(better), str(current))
    assert done.exit_code == 0 and "is served: llm, 40 users" in done.stdout and store.served("films") == digest


def test_real_results_of_two_versions_are_compared(project: Path, tmp_path: Path) -> None:
    """An update taken away predicts worse than what was trained, and the records say so."""
    digest = adapters.add("films", other(project, 0.0))
    suite = tmp_path / "suite.yaml"
    suite.write_text("domain: films\nrankers: [llm]\nsamples: 100\n")
    for name in ("films", f"films@{digest}"):
        evaluate(str(suite), (f"splits=[{{method: leave_one_out, adapter: {name}}}]",), out=tmp_path / name)
    found = adapters.compare([tmp_path / "films", tmp_path / f"films@{digest}"], digest, str(store.served("films")))
    assert found.users == 30 and found.candidate < found.current
    with pytest.raises(AdapterError, match="not shown to be better"):
        adapters.promote("films", digest, [tmp_path / "films", tmp_path / f"films@{digest}"])


def test_export_is_the_same_each_time_and_comes_back(project: Path, tmp_path: Path) -> None:
    one, two = (adapters.export("films", tmp_path / f"{name}.tar.gz").read_bytes() for name in ("one", "two"))
    assert one == two
    folder = adapters.export("films", tmp_path / "folder")
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert front["library_name"] == "peft" and front["base_model"] == "base" and "next_item" in front["tags"]
    assert isinstance(ModelCardData(**front).metrics, list)
    name = front["metrics"][0]
    value = adapter.read_json(folder / adapter.CARD)["validation"][name]
    assert value > 0 and f"| {name} | {value} |" in (folder / "README.md").read_text()
    for source in (tmp_path / "one.tar.gz", folder):
        assert adapters.import_(source) == ("films", store.served("films"))
    again = adapters.export(f"films@{store.served('films')}", tmp_path / "again.tar.gz")
    assert again.read_bytes() == one
    with pytest.raises(AdapterError, match="exists"):
        adapters.export("films", folder)
    for name in ("x.zip", "x.ZIP", "x.tgz", "x.tar", "x.gz"):
        with pytest.raises(AdapterError, match=r"no such archive is written; end it in .tar.gz, or name a folder"):
            adapters.export("films", tmp_path / name)
        assert not (tmp_path / name).exists()
    assert adapters.export("films", tmp_path / "v1.2").is_dir()
    shutil.copytree(folder, tmp_path / "torn")
    (tmp_path / "torn" / adapter.CARD).unlink()
    with pytest.raises(AdapterError, match="torn: .*card.json"):
        adapters.import_(tmp_path / "torn")
    (project / "adapters" / "films").rename(project / "adapters" / "renamed")
    with pytest.raises(AdapterError, match="copy it to adapters/films/recipe.yaml"):
        adapters.import_(folder)


def entry(name: str, content: bytes = b"{}", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


@pytest.mark.parametrize(
    "hostile",
    [
        entry("../../escaped.json"),
        entry("/tmp/escaped.json"),
        entry("films/../../card.json"),
        entry("../card.json"),
        entry("films/curve.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("films/curve.png", b"", type=tarfile.LNKTYPE, linkname="films/card.json"),
        entry("films/curve.png", b"", type=tarfile.FIFOTYPE),
        entry("films/run.py"),
        entry("films/LICENSE", b" " * 1_000_001),
        entry("films/card.json"),
        entry("second/card.json"),
    ],
    ids=lambda pair: f"{pair[0].name}-{pair[0].type.decode()}",
)
def test_archives_write_nothing_outside(hostile: tuple[tarfile.TarInfo, bytes], tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for info, content in (entry("films/card.json"), hostile):
            tar.addfile(info, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AdapterError, match="nothing was imported"), pack.unpacked(archive):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_archives_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn.tar.gz").write_bytes(gzip.compress(os.urandom(1000))[:500])
    with pytest.raises(AdapterError, match=r"not a whole \.tar\.gz"), pack.unpacked(tmp_path / "torn.tar.gz"):
        pass
    monkeypatch.setattr(pack, "MAX_BYTES", 100_000)
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as tar:
        tar.addfile(entry("x/log.jsonl")[0].__class__("x/LICENSE"), io.BytesIO())
        tar.addfile(*[(info, io.BytesIO(content)) for info, content in [entry("x/log.jsonl", b" " * 200_000)]][0])
    with pytest.raises(AdapterError, match="more than 100,000 bytes"), pack.unpacked(tmp_path / "bomb.tar.gz"):
        pass


SERVED: list[str] = []  # names of base models that `server` lists


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """A server that knows vLLM's three paths, refuses a name twice, and remembers what it was asked to do."""
    asked: list[tuple[str, dict[str, str]]] = []
    loaded: set[str] = set()

    def answer(path: str, name: str) -> tuple[int, str]:
        if path == "/v1/unload_lora_adapter":
            if name not in loaded:
                said = {"error": {"message": f"The lora adapter '{name}' cannot be found.", "code": 404}}
                return 404, json.dumps(said)
            loaded.remove(name)
            return 200, "ok"
        if path != "/v1/load_lora_adapter":
            return 404, '{"detail":"Not Found"}'
        if name in loaded:
            return 400, f"The lora adapter '{name}' has already been loaded"
        loaded.add(name)
        return 200, "ok"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.end_headers()
            adapters = [{"id": name, "parent": "base"} for name in loaded]
            self.wfile.write(json.dumps({"data": [*({"id": name} for name in SERVED), *adapters]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))  # before the answer: whoever has it may look at once
            status, said = answer(self.path, body["lora_name"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: Any) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_running_server_is_told(project: Path, server: tuple[str, list[tuple[str, dict[str, str]]]]) -> None:
    url, asked = server
    digest = str(store.served("films"))
    assert adapters.load("films", url) == adapters.load("films", url) == f"films-{digest}"
    assert adapters.unload("films", url) == f"films-{digest}"
    path = str((store.kept("films") / digest).resolve())
    assert asked[0] == ("/v1/load_lora_adapter", {"lora_name": f"films-{digest}", "lora_path": path})
    assert asked[-1] == ("/v1/unload_lora_adapter", {"lora_name": f"films-{digest}"})
    assert adapters.load(f"films@{digest[:4]}", url) == adapters.unload(f"films@{digest[:4]}", url) == f"films-{digest}"
    with pytest.raises(AdapterError, match=f"404: The lora adapter 'films-{digest}' cannot be found.$"):
        adapters.unload("films", url)
    with pytest.raises(AdapterError, match="404: .*Not Found.*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        adapters.unload("films", f"{url}/wrong")
    with pytest.raises(AdapterError, match="no answer"):
        adapters.unload("films", "http://127.0.0.1:1")


def test_a_domain_without_an_adapter_is_not_unloaded(
    project: Path, server: tuple[str, list[tuple[str, dict[str, str]]]]
) -> None:
    url, asked = server
    (project / "adapters" / "books").mkdir()
    with pytest.raises(AdapterError, match="books has no adapter"):
        adapters.unload("books", url)
    assert not asked


def test_a_server_with_other_weights_takes_nothing_in(
    project: Path, server: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url, asked = server
    recipe = config.load_recipe("films")
    ours = base_name(base_model(recipe.base_model), recipe.serve)
    monkeypatch.setitem(globals(), "SERVED", ["base-0123456789ab", "base-0123456789ab-float32"])
    with pytest.raises(AdapterError, match=f"serves base-0123456789ab, .*not {ours}; start `llmrec serve`"):
        adapters.load("films", url)
    assert not asked and store.versions("films") == []
    monkeypatch.setitem(globals(), "SERVED", ["a-name-of-its-own"])
    adapters.load("films", url)
    assert "does not say which weights it serves" in caplog.text
    caplog.clear()
    monkeypatch.setitem(globals(), "SERVED", [ours])
    adapters.load("films", f"{url}/v1")
    assert not caplog.text and {path for path, _ in asked} == {"/v1/load_lora_adapter"}


@pytest.mark.parametrize("url", ["ftp://x", "http://127.0.0.1:1"])
def test_nothing_is_kept_for_a_server_that_is_not_there(project: Path, url: str) -> None:
    with pytest.raises(AdapterError, match="http"):
        adapters.load("films", url)
    assert store.versions("films") == []


def test_a_new_training_takes_the_place_of_a_whole_one_that_is_kept(project: Path, tmp_path: Path) -> None:
    folder, old = project / "adapters" / "films", str(store.served("films"))
    with pytest.raises(KeyError), store.rewritten(folder) as copy:
        (copy / "card.json").unlink()
        raise KeyError
    assert store.served("films") == old and store.versions("films") == []
    with store.rewritten(folder) as copy:
        for file in other(project, 1.03).iterdir():
            if file.is_file():
                (copy / file.name).write_bytes(file.read_bytes())
    assert store.served("films") != old and store.versions("films") == [old] and (folder / "recipe.yaml").is_file()
    assert store.back("films") == old == store.served("films")
    with store.rewritten(tmp_path / "elsewhere") as copy:
        (copy / "card.json").write_text("{}")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["card.json"]
    assert not list(folder.parent.glob(".new-*"))


def test_a_damaged_adapter_is_rolled_back_from(project: Path) -> None:
    folder, old = project / "adapters" / "films", str(store.served("films"))
    adapters.promote("films", adapters.add("films", other(project)), (), force=True)
    weights = bytearray((folder / adapter.WEIGHTS).read_bytes())
    weights[-8:] = b"damaged!"
    (folder / adapter.WEIGHTS).write_bytes(weights)
    assert store.back("films") == old == store.served("films")
    adapter.check(folder)
    adapters.promote("films", adapters.add("films", other(project, 1.02)), (), force=True)
    (folder / adapter.CARD).write_text("{")  # torn
    [row] = [row for row in json.loads(run("list", "--json").stdout) if row["served"]]
    assert "card.json" in row["problem"]
    assert store.back("films") == old == store.served("films")
    adapter.check(folder)


def test_a_damaged_version_is_replaced_and_never_served(project: Path) -> None:
    folder, old = project / "adapters" / "films", str(store.served("films"))
    whole = other(project)
    new = adapters.add("films", whole)
    damaged = store.kept("films") / new / adapter.WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-8])
    assert adapters.add("films", whole) == new
    adapter.check(store.kept("films") / new)
    adapters.promote("films", new, (), force=True)
    kept = store.kept("films") / old / adapter.WEIGHTS
    kept.write_bytes(kept.read_bytes()[:-8])
    with pytest.raises(AdapterError, match="nothing was served before.*promote films VERSION --force"):
        store.back("films")
    assert store.served("films") == new
    adapter.check(folder)
    more = other(project, 1.02)
    third = adapters.add("films", more)
    shutil.rmtree(store.kept("films") / third)
    shutil.copytree(store.kept("films") / new, store.kept("films") / third)  # whole, and another
    assert adapters.add("films", more) == third
    assert adapter.weights_digest(store.kept("films") / third) == third


def test_what_is_served_and_damaged_is_replaced_by_force(project: Path) -> None:
    folder, good = project / "adapters" / "films", adapters.add("films", other(project))
    (folder / adapter.CARD).write_text("{")  # torn, and nothing was served before
    with pytest.raises(AdapterError, match="promote films VERSION --force"):
        store.back("films")
    with pytest.raises(AdapterError, match="card.json"):
        adapters.promote("films", good, ())
    assert adapters.promote("films", good, (), force=True) == (good, None) and store.served("films") == good
    weights = (folder / adapter.WEIGHTS).read_bytes()
    (folder / adapter.WEIGHTS).write_bytes(weights[:-8] + b"damaged!")
    with pytest.raises(AdapterError, match="is served already"):
        adapters.promote("films", good, ())
    assert adapters.promote("films", good, (), force=True) == (good, None)  # the copy of it that was kept
    assert (folder / adapter.WEIGHTS).read_bytes() == weights


def test_a_damaged_version_stands_in_nobodys_way(project: Path) -> None:
    old = str(store.served("films"))
    adapters.promote("films", adapters.add("films", other(project)), (), force=True)
    damaged = adapters.add("films", other(project, 1.02))
    (store.kept("films") / damaged / adapter.CARD).write_text("{")
    assert store.back("films") == old == store.served("films") and store.history("films")[-1] == old
    assert store.versions("films")[0] == damaged
    listed = run("list")
    assert listed.exit_code == 0 and old in listed.stdout and "damaged" in listed.stdout, listed.output
    rows = json.loads(run("list", "--json").stdout)
    assert [row["digest"] for row in rows if "problem" in row] == [damaged]


def test_a_server_reads_weights_that_nothing_replaces(project: Path, tmp_path: Path) -> None:
    folder, old = project / "adapters" / "films", str(store.served("films"))
    kept = store.lasting(folder)
    assert kept == (store.kept("films") / old).resolve() and adapter.weights_digest(kept) == old
    with store.rewritten(folder) as copy:
        for file in other(project, 1.04).iterdir():
            if file.is_file():
                (copy / file.name).write_bytes(file.read_bytes())
    assert store.served("films") != old and adapter.weights_digest(kept) == old
    assert store.lasting(tmp_path) == tmp_path.resolve()  # nothing promotes what lies elsewhere


def test_a_folder_that_could_not_be_replaced_later_is_refused_at_once(project: Path, tmp_path: Path) -> None:
    store.check_place(tmp_path / "Films.2")  # nothing is kept of what lies elsewhere
    with pytest.raises(RecipeError, match=r"'Films\.2': use 1 to 64 of a-z"):
        store.check_place(project / "adapters" / "Films.2")
    assert not (project / "adapters" / "Films.2").exists()


def test_what_a_training_no_longer_writes_is_gone(project: Path) -> None:
    folder = project / "adapters" / "films"
    (folder / adapter.TEACHER).write_bytes(b"x")
    adapter.forget(folder)
    assert not (folder / "prompts").exists() and not (folder / adapter.TEACHER).exists()
    assert (folder / adapter.WEIGHTS).is_file() and (folder / "recipe.yaml").is_file()


def test_sparse_files_are_refused_unread(tmp_path: Path) -> None:
    entries = 100_000
    sparse = f"{entries}\n" + "0\n0\n" * entries
    body = sparse.encode() + b"\0" * (-len(sparse) % 512)
    archive = tmp_path / "sparse.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info, content = entry("films/LICENSE", body)
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "0",
                            "GNU.sparse.name": "films/LICENSE"}  # fmt: skip
        tar.addfile(info, io.BytesIO(content))
    with pytest.raises(AdapterError, match="a sparse file"), pack.unpacked(archive):
        pass


def test_what_a_foreign_adapter_says_does_not_steer_the_terminal(project: Path) -> None:
    card = project / "adapters" / "films" / "card.json"
    values = json.loads(card.read_text())
    values["base_model"], values["validation"] = "\x1b]0;owned\x07base", {"\x1b[2Jowned": 0.5}
    card.write_text(json.dumps(values))
    assert "\x1b" in run("list", "--json").stdout.encode().decode("unicode_escape")
    shown = run("list").output + run("verify", "films").output
    assert "owned" in shown and "\x1b" not in shown and "\x07" not in shown


def test_headers_and_nesting_have_limits(project: Path, tmp_path: Path) -> None:
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "card.json").write_text("[" * 200_000)
    with pytest.raises(AdapterError, match="card.json"):
        adapter.read_json(tmp_path / "nested" / "card.json")
    for name, headers, size in (("long", 1, 1_000_000), ("chained", 3000, 10)):
        file = tmp_path / f"{name}.tar.gz"
        with gzip.open(file, "wb") as out:
            for _ in range(headers):
                header = tarfile.TarInfo("././@LongLink")
                header.type, header.size = tarfile.GNUTYPE_LONGNAME, size
                out.write(header.tobuf(tarfile.GNU_FORMAT) + b"a" * size + b"\0" * (-size % 512))
        with pytest.raises(AdapterError, match="a header of 1,000,000 bytes|not a whole"), pack.unpacked(file):
            pass
