"""The whole way on a small domain and a random model: prepare → train → card → recommend, with what can go wrong."""

from __future__ import annotations

import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import yaml
from conftest import PATIENCE
from safetensors.torch import load_file, save_file
from transformers import PhiConfig, PhiForCausalLM

from llmrec import config, prepare
from llmrec import train as training
from llmrec.baselines.teacher import Teacher
from llmrec.baselines.teacher import read as read_teacher
from llmrec.choices.search import score as log_p_of
from llmrec.data.catalog import Catalog
from llmrec.data.split import histories, queries
from llmrec.engine.hf import HFEngine
from llmrec.engine.start import alone
from llmrec.errors import AdapterError, AssetError, RecipeError
from llmrec.evaluate import evaluate
from llmrec.files import digest
from llmrec.learning import Learner, learners
from llmrec.learning import next_item as next_item_learner
from llmrec.learning.next_item import NextItem, fit_prior_weight, training_rows
from llmrec.measuring import suites
from llmrec.model import adapter, verify
from llmrec.model.encode import Encoder
from llmrec.model.fit import fit
from llmrec.model.load import base_model, load_model, load_tokenizer
from llmrec.model.plan import Plan
from llmrec.opened import Opened
from llmrec.recommend import recommend
from llmrec.recommender import Recommender
from llmrec.train import run_folder, train, validation

ROOT = Path(__file__).parent.parent
FILMS = [
    f"{colour} {thing}" for colour in ("Red", "Blue", "Black") for thing in ("Sun", "Moon", "River", "Road", "Rain")
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with prompts, a base model, a domain of fifteen films, and 30 people who walk through them."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "prompts", root / "prompts")
    base = tiny.base(root / "base")
    rng = np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp"]
    for user in range(30):
        start = int(rng.integers(15))
        rows += [f"u{user},i{(start + 2 * k) % 15},{1000 * user + k}" for k in range(7)]
    (root / "events.csv").write_text("\n".join(rows) + "\n")
    items = ["item_id,title,year", *(f"i{i},{title},{1990 + i}" for i, title in enumerate(FILMS))]
    (root / "items.csv").write_text("\n".join(items) + "\n")
    recipe = {
        "domain": "films", "noun": "films", "unit": "film", "base_model": str(base),
        "data": {"path": str(root / "events.csv"), "items": str(root / "items.csv")},
        "split": {"method": "leave_one_out"},
        "lora": {"rank": 8, "alpha": 16, "first_layer": 1},
        "fit": {
            "window_tokens": 120, "batch_tokens": 480, "micro_batch_tokens": 480, "epochs": 24, "cache": "disk",
            "learning_rate": 0.01, "valid_users": 10, "valid_every": 12, "precision": "float32", "variants": 2,
        },
    }  # fmt: skip
    (root / "adapters" / "films").mkdir(parents=True)
    (root / "adapters" / "films" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return root


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_PROJECT", str(world))
        patch.setenv("LLMREC_HOME", str(tmp_path_factory.mktemp("training")))
        return train(config.load_recipe("films"))


@pytest.fixture(autouse=True)
def here(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(world))


def test_the_folder_explains_itself(trained: Path) -> None:
    card = json.loads((trained / "card.json").read_text())
    assert card["domain"] == "films" and card["recipe"]["lora"]["rank"] == 8 and len(card["items"]) == 15
    assert card["validation"]["ndcg@10"] > 0 and card["prior_weight"] >= 0 and card["loss"]["next_item"] > 0
    for name in (
        "adapter_model.safetensors",
        "adapter_config.json",
        "curve.png",
        "log.jsonl",
        "prompts/next_item.yaml",
    ):
        assert (trained / name).is_file()
    text = "".join(path.read_text() for path in trained.glob("*.json"))
    assert "u1" not in text and "Red Sun" not in text  # nobody's records, no titles


def test_it_learned_the_walk(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < np.log(15) * 0.8  # guessing costs ln 15 nats
    found = recommend("films", history=["Red Sun", "Red River", "Red Rain"], n=15, prior=False)
    assert found.exact and len(found.items) == 12
    assert sum(item.p for item in found.items) < 1


def test_one_adapter_learns_two_tasks(world: Path, tmp_path: Path, home: Path) -> None:
    reviews = ["review,rating", *(f"{('Sun', 'Rain')[i % 2]} {i},{(1, 5)[i % 2]}" for i in range(60))]
    (tmp_path / "reviews.csv").write_text("\n".join(reviews) + "\n")
    tasks = f"tasks={{next_item: {{weight: 2}}, review_sentiment: {{data: {{path: {tmp_path / 'reviews.csv'}}}}}}}"
    overrides = (tasks, "fit.epochs=2", "fit.valid_every=1", "fit.variants=1", "mixture.temperature=2")
    folder = train(config.load_recipe("films", overrides), out=tmp_path / "both")
    [run] = (home / "runs").glob("films-*")  # activations are kept while it trains
    assert [*run.glob("checkpoint-*")] and not [*run.glob("activations-*")]
    card = json.loads((folder / "card.json").read_text())
    assert set(card["loss"]) == set(card["prompts"]) == {"next_item", "review_sentiment"}
    checked = card["validation"]
    assert checked["mean"] == pytest.approx((checked["ndcg@10"] * checked["macro_f1"]) ** 0.5)
    assert len(card["items"]) == 15 and card["review_sentiment"]["temperature"] > 0
    assert config.section(config.Recipe, card["recipe"]).tasks["next_item"].weight == 2
    first = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(2 * first["loss/next_item"] + first["loss/review_sentiment"])


def test_a_teacher_may_stay_as_the_prior(world: Path, home: Path, tmp_path: Path) -> None:
    settings = ("prior.kind=teacher", "teacher.members=2", "sasrec.epochs=2", "sasrec.valid_every=1", "fit.epochs=1")
    recipe = config.load_recipe("films", settings)
    folder = train(recipe, out=world / "adapters" / "walks")
    card = json.loads((folder / "card.json").read_text())
    assert card["teacher"] == digest(folder / adapter.TEACHER)
    assert min(card["prior_weights_tried"], key=lambda tried: tried["nats"])["weight"] == card["prior_weight"]
    assert verify.files(folder) + verify.content(folder) == []

    model = Recommender.load(config.load_recipe("films", ("prior.floor=0.5", "prior.last=1")), "walks")
    assert isinstance(model.prior, Teacher)
    assert model.recipe.prior == recipe.prior  # what its weight was fitted for
    p = model.prior.p([0, 2])
    assert p.sum() == pytest.approx(1, abs=1e-5) and p[[0, 2]].tolist() == [0, 0] and (p > 0).sum() == 13
    others = config.load_recipe("films", ("teacher.transitions=0.9", "sasrec.heads=4"))  # what was fitted stays
    again = Teacher.load(folder / adapter.TEACHER, others, model.dataset, model.catalog)
    assert (again.share, again.shape) == (model.prior.share, model.prior.shape) == (0.3, recipe.sasrec)
    turned = replace(model.dataset, items=model.dataset.items[::-1].reset_index(drop=True))
    catalog = Catalog.of(turned)  # the same films, in another order
    moved = [catalog.position[item] for item in model.catalog.item_id]
    assert moved != sorted(moved)
    there = Teacher.load(folder / adapter.TEACHER, recipe, turned, catalog).p([moved[0], moved[2]])
    np.testing.assert_allclose(there[moved], p, atol=1e-6)
    renamed = replace(catalog, item_id=["other", *catalog.item_id[1:]])
    with pytest.raises(AdapterError, match="knows items that are not the first 15 of the catalog"):
        Teacher.load(folder / adapter.TEACHER, recipe, turned, renamed)
    everything = range(len(model.catalog))
    assert not model.prior.p(everything).any() and not len(model.rank([everything], 3)[0].items)
    kept = model.prior.expects([[0, 2], []])
    known = model.prior.members[0].items
    for member in model.prior.members:  # as if the last film had come after training
        member.items = 14
        member.bias = torch.nn.Parameter(member.bias[:14])
    fewer = model.prior.expects([[0, 2, 14], []])
    assert fewer.shape == kept.shape and known == 15 and 0 < fewer[1, 14] < kept[1].max()

    again.members[0].bias.data[3] = torch.nan
    again.save(tmp_path / adapter.TEACHER, model.catalog)
    with pytest.raises(AdapterError, match="values that are not finite"):
        read_teacher(tmp_path / adapter.TEACHER)

    for damage in (lambda file: file.write_bytes(b"no tensors"), Path.unlink):
        damage(folder / adapter.TEACHER)
        with pytest.raises(AdapterError, match="teacher.safetensors"):
            Recommender.load(config.load_recipe("films"), "walks")
    with pytest.raises(AdapterError, match="not a teacher that training saved"):
        (folder / adapter.TEACHER).write_bytes(b"no tensors")
        Teacher.load(folder / adapter.TEACHER, model.recipe, model.dataset, model.catalog)
    shutil.rmtree(folder)


def test_a_hostile_teacher_takes_no_memory(world: Path, tmp_path: Path) -> None:
    shape = {"dimension": 4096, "heads": 1, "blocks": 64, "length": 10_000}
    settings = {"settings": json.dumps({"transitions": 0.3, "sasrec": shape})}
    save_file({"0.bias": torch.zeros(1)}, tmp_path / "teacher.safetensors", settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AdapterError, match="not a teacher that training saved"):
        read_teacher(tmp_path / "teacher.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; it claims 50 GB


@pytest.mark.parametrize(
    "tensors",
    [{"items": torch.zeros(3, dtype=torch.int64)}, {"0.bias": torch.zeros(0)}],
    ids=["no members", "no items"],
)
def test_a_teacher_of_nothing_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    settings = {"settings": json.dumps({"transitions": 0.3, "sasrec": {}})}
    save_file(tensors, tmp_path / "teacher.safetensors", settings)
    with pytest.raises(AdapterError, match="not a teacher that training saved"):
        read_teacher(tmp_path / "teacher.safetensors")


def test_prompts_may_be_edited_while_it_trains(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained on was copied when it began."""
    (tmp_path / "prompts").mkdir()
    for file in (world / "prompts").glob("*.yaml"):
        shutil.copy(file, tmp_path / "prompts")
    shutil.copytree(world / "adapters" / "films", tmp_path / "adapters" / "films")
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path))
    wording = tmp_path / "prompts" / "next_item.yaml"
    digest_then = digest(wording)

    def edited_meanwhile(*args: Any, **settings: Any) -> Any:
        state = fit(*args, **settings)
        wording.write_text("half an edit: [")
        return state

    monkeypatch.setattr(training, "fit", edited_meanwhile)
    recipe = config.load_recipe("films", ("fit.epochs=0.2", "fit.valid_users=0"))
    folder = train(recipe, out=tmp_path / "out")
    assert adapter.read_json(folder / adapter.CARD)["prompts"] == {"next_item": digest_then}
    assert digest(folder / "prompts" / "next_item.yaml") == digest_then


@pytest.mark.parametrize("tokens", [32, 64])
def test_a_window_that_is_too_small_is_said(world: Path, tmp_path: Path, tokens: int) -> None:
    with pytest.raises(RecipeError, match=f"fit.window_tokens={tokens} cannot hold the instruction"):
        train(config.load_recipe("films", (f"fit.window_tokens={tokens}",)), out=tmp_path / "out")


def test_a_place_that_cannot_be_written_is_said_before_training(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrec.train.base_model", lambda name: pytest.fail("it began"))
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match="a file; name a folder"):
        train(config.load_recipe("films"), out=tmp_path / "file")
    with pytest.raises(OSError, match="File exists|Not a directory"):
        train(config.load_recipe("films"), out=tmp_path / "file" / "out")
    with pytest.raises(AdapterError, match="holds something else than an adapter"):
        train(config.load_recipe("films"), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "here").symlink_to(tmp_path / "there")
    (tmp_path / "there").symlink_to(tmp_path / "here")
    with pytest.raises(AdapterError, match="a link that leads back to itself"):
        train(config.load_recipe("films"), out=tmp_path / "here")


def test_two_processes_train_what_one_does(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line; in some steps a process has no row of a task, in some no row at all."""
    reviews = ["review,rating", *(f"{('Sun', 'Rain')[i % 2]} {i},{(1, 5)[i % 2]}" for i in range(30))]
    (tmp_path / "reviews.csv").write_text("\n".join(reviews) + "\n")
    settings = (
        f"tasks={{next_item: {{}}, review_sentiment: {{data: {{path: {tmp_path / 'reviews.csv'}}}}}}}",
        "lora.targets=[q_proj, v_proj, down_proj, lm_head]", "teacher.share=0.3", "teacher.members=1",
        "sasrec.epochs=1", "fit.batch_tokens=300", "fit.micro_batch_tokens=150", "fit.epochs=1", "fit.valid_every=1",
        "fit.learning_rate=0.001", "fit.variants=1", "fit.checkpoint_minutes=0.0001",
    )  # fmt: skip
    recipe = config.load_recipe("films", settings)
    plan = Plan([[row for task in learned(recipe).values() for row in task.rows(0)]], recipe.fit, recipe.tasks)
    sizes = [len(plan.step(step)[1]) for step in range(plan.steps)]
    assert min(sizes) == 1 and max(sizes) > 3, sizes

    one = train(recipe, out=tmp_path / "one")
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "llmrec", "train", "films", *settings]
    said = finished([*command, "--out", str(tmp_path / "two")])
    assert said.count(str(tmp_path / "two")) == 1  # one voice
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (one, tmp_path / "two"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_allclose(theirs[name].numpy(), tensor.numpy(), atol=2e-4, err_msg=name)
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (one, tmp_path / "two")]
    for mine, other in zip(*(map(json.loads, log) for log in logs), strict=True):
        for key in (mine.keys() | other.keys()) - {"seconds"}:
            assert other[key] == pytest.approx(mine[key], abs=2e-3), key
    assert json.loads((tmp_path / "two" / "card.json").read_text())["device"].startswith("2 ×")


def learned(recipe: config.Recipe) -> dict[str, Learner]:
    base = base_model(recipe.base_model)
    tokenizer = load_tokenizer(base.folder)
    return learners(recipe, Encoder(tokenizer), HFEngine(load_model(base, dtype=torch.float32), tokenizer))


def finished(command: list[str]) -> str:
    """What a command and all it started say, ended together when time is up."""
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = running.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        raise AssertionError(f"still running after {PATIENCE} s: {running.communicate()[0][-3000:]}") from None
    assert running.returncode == 0, said[-3000:]
    return said


def test_the_benchmark_of_supervision_compares_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = runpy.run_path(str(ROOT / "scripts" / "bench_supervision.py"))["main"]
    command = ["films", "--tokens", "8000", "--points", "4", "--users", "20", "--out", str(tmp_path / "curves.json")]
    bench(command)
    found = json.loads((tmp_path / "curves.json").read_text())
    for points in found["curves"].values():
        seconds, nats, gains = zip(*points, strict=True)
        assert 5 <= len(points) <= 7 and np.diff(seconds).min() > -0.11 and min(nats) < nats[0]  # logged in tenths
        assert found["nats"]["common"] >= min(nats) and found["ndcg"]["common"] <= max(gains)
    assert all(0 < found["nats"][each] < np.inf and found["ndcg"][each] < np.inf for each in ("dense", "last"))
    bench(command)  # nothing is trained again
    assert json.loads((tmp_path / "curves.json").read_text()) == found
    assert "which both reach" in capsys.readouterr().out
    bench([*command, "--other", "lora.dropout=0.1"])
    assert [*json.loads((tmp_path / "curves.json").read_text())["curves"]] == ["dense", "lora.dropout=0.1"]


def test_examples_are_a_fixed_sample_of_histories() -> None:
    def targets(*overrides: str, variant: int = 0) -> list[int]:
        model = Recommender.load(config.load_recipe("films", overrides), None)
        return sorted(choice for row in training_rows(model, variant) for choice in row.choices.tolist())

    few = targets("tasks={next_item: {examples: 4}}")
    assert len(few) == 4 * 5 and len(targets()) == 30 * 5  # seven films each, the last two are asked for
    assert few == targets("tasks={next_item: {examples: 4}}", variant=1)


def test_what_is_left_out_of_a_history_differs_from_variant_to_variant() -> None:
    def learned(*overrides: str, variant: int = 0) -> list[int]:
        model = Recommender.load(config.load_recipe("films", overrides), None)
        return [choice for row in training_rows(model, variant) for choice in row.choices.tolist()]

    some, others = learned("fit.left_out=0.6"), learned("fit.left_out=0.6", variant=1)
    assert len(learned()) == 30 * 5 and 80 < len(some) < 130  # about .3 of them left out
    assert sorted(some) != sorted(others) and some == learned("fit.left_out=0.6")
    with pytest.raises(RecipeError, match="variants=1 leaves the same out"):
        learned("fit.left_out=0.6", "fit.variants=1")


def test_the_latest_row_of_every_history(world: Path) -> None:
    model = Recommender.load(config.load_recipe("films", ("fit.latest=1", "fit.window_tokens=100")), None)
    rows = training_rows(model, 0)
    assert len(rows) == 30  # one of each person
    ends = {tuple(found.items.tolist()) for found in histories(model.dataset, model.catalog, "train")}
    assert all(any(end[-len(row.choices) :] == tuple(row.choices.tolist()) for end in ends) for row in rows)
    assert 1 <= min(len(row.choices) for row in rows) < 5  # not all of it


def test_filters_prune_and_nothing_else(trained: Path) -> None:
    free = recommend("films", history=["Red Sun"], n=14)
    some = recommend("films", history=["Red Sun"], n=14, only=["year=1995..1999"], exclude=["Blue Moon"])
    kept = [item.title for item in free.items if item.title.startswith("Blue") and item.title != "Blue Moon"]
    assert [item.title for item in some.items] == kept


def test_the_suite_ranks_with_it(trained: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "domain: films\nsplits: [{method: leave_one_out}]\nrankers: [popular, llm, llm+prior]\n"
        "compare: [[llm, popular]]\nsamples: 100\n"
    )
    results = json.loads((evaluate(str(suite), out=tmp_path) / "results.json").read_text())
    text = json.dumps(results)
    assert "ndcg@10" in text and "llm+prior" in text
    with pytest.raises(AdapterError):  # its training data holds the answers of another split
        evaluate(str(suite), ("splits=[{method: time}]",), out=tmp_path / "other")


def test_new_items_get_their_share_and_reorder_nobody(trained: Path, world: Path, tmp_path: Path) -> None:
    items = (world / "items.csv").read_text() + "i15,Green Sun,2024\ni16,Green Moon,2024\n"
    (tmp_path / "items.csv").write_text(items)
    recipe = config.load_recipe("films", (f"data.items={tmp_path / 'items.csv'}", "new_share=0.2"))
    before = Recommender.load(config.load_recipe("films"), "films").rank([[0, 2]], 15, prior=False)[0]
    after = Recommender.load(recipe, "films").rank([[0, 2]], 17, prior=False)[0]
    assert [item for item in after.items.tolist() if item < 15] == before.items.tolist()
    new = [float(np.exp(p)) for item, p in zip(after.items, after.log_p, strict=True) if item >= 15]
    assert sum(new) == pytest.approx(0.2, abs=1e-4)


def test_the_base_model_places_new_items(trained: Path, world: Path, tmp_path: Path) -> None:
    """An adapter never learned what becomes of their titles."""
    items = (world / "items.csv").read_text() + "i15,Green Sun,2024\ni16,Green Moon,2024\n"
    (tmp_path / "items.csv").write_text(items)
    recipe = config.load_recipe("films", (f"data.items={tmp_path / 'items.csv'}", "new_share=0.2"))
    model = Recommender.load(recipe, "films")
    [(log_p, _)] = model.score([[0, 2]], [[16, 1, 15]], prior=False)
    choices, [prompt] = model.listing.choices, model.prompts([[0, 2]])
    [of_adapter] = log_p_of(model.engine, [prompt], choices, [[16, 1, 15]])
    [of_base] = log_p_of(model.engine, [replace(prompt, adapter=None)], choices, [[16, 1, 15]])
    assert log_p.tolist() == pytest.approx([of_base[0], of_adapter[1], of_base[2]], abs=1e-5)
    assert abs(of_base[0] - of_adapter[0]) > 1e-3
    [found] = model.rank([[0, 2]], 17, prior=False)
    assert dict(zip(found.items.tolist(), found.log_p.tolist(), strict=True))[16] == pytest.approx(log_p[0], abs=1e-5)
    [few] = model.rank([[0, 2]], 3, prior=False)
    assert few.items.tolist() == found.items.tolist()[:3]
    [only] = model.rank([[0, 2]], 17, candidates=[[15, 1, 16]], prior=False)
    assert {*only.items.tolist()} == {15, 1, 16}
    model.prior_weight = 3.0  # and the prior, which knows nothing of them, does not hide them
    [(log_p, score)] = model.score([[0, 2]], [range(17)])
    p = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
    assert 0.02 < p[15:].sum() < 0.6 and len({*(score - log_p)[15:].round(4)}) == 1


def test_what_does_not_belong_together_is_refused(trained: Path, world: Path, tmp_path: Path) -> None:
    def spoiled(name: str) -> Path:
        folder = world / "adapters" / name
        shutil.copytree(trained, folder)
        return folder

    recipe = config.load_recipe("films")
    weights = spoiled("weights") / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights)
    with pytest.raises(AdapterError, match="not what card.json describes"):
        Recommender.load(recipe, "weights")

    (spoiled("wording") / "prompts" / "next_item.yaml").write_text(
        (world / "prompts" / "next_item.yaml").read_text().replace("Continue the list", "Go on")
    )
    with pytest.raises(AdapterError, match="not the wording it was trained on"):
        Recommender.load(recipe, "wording")

    (spoiled("card") / "card.json").unlink()
    with pytest.raises(AdapterError, match="llmrec train card"):
        Recommender.load(recipe, "card")

    other = tmp_path / "other"
    tiny.base(other, seed=1)
    with pytest.raises(AdapterError, match="trained on other weights"):
        Recommender.load(config.load_recipe("films", (f"base_model={other}",)), "films")

    short = "\n".join((world / "items.csv").read_text().splitlines()[:-1]).replace("Red Sun", "Crimson Sun")
    (tmp_path / "items.csv").write_text(short + f"\ni14,{FILMS[14]},2004\n")
    with pytest.raises(AdapterError, match="1 of 15 items"):
        Recommender.load(config.load_recipe("films", (f"data.items={tmp_path / 'items.csv'}",)), "films")


def test_what_cannot_be_asked_does_not_decide_the_prior(
    world: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Recommender.load(config.load_recipe("films"), "films")
    asked = queries(model.dataset, model.catalog, "valid", baskets=True, max_targets=1)
    again = replace(asked[0], history=(*asked[0].history, asked[0].target))  # repeats: exclude hides its target
    assert fit_prior_weight(model, [*asked, again]) == fit_prior_weight(model, asked)
    assert fit_prior_weight(model, [again]) == (0.0, [])

    weight, whole = fit_prior_weight(model, asked)
    monkeypatch.setattr("llmrec.learning.next_item.WHOLE", 0)  # as in a large catalog
    monkeypatch.setattr("llmrec.learning.next_item.TOGETHER", 4)
    for best in (20, 3):  # what both find best is everything here; or the rest is drawn whole
        monkeypatch.setattr("llmrec.learning.next_item.BEST", best)
        few_weight, few = fit_prior_weight(model, asked)
        assert few_weight == weight
        for a, b in zip(whole, few, strict=True):
            assert a == pytest.approx(b, abs=1e-5)
    for query, items, _, _ in next_item_learner._weighed(model, asked):  # what both find best, and may be listed
        assert len({*items} - {*query.history}) >= 3
    monkeypatch.setattr("llmrec.learning.next_item.DRAWN", 3)  # an estimate, and no systematic one
    _, few = fit_prior_weight(model, asked)
    assert few[0]["nats"] == pytest.approx(whole[0]["nats"], abs=0.3) and few != whole


def test_tasks_without_anything_to_learn_and_wordings_that_change_are_no_adapters(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("review,rating\n" + "".join(f"Good {i},{1 + i % 5}\n" for i in range(60)))
    tasks = f"tasks={{next_item: {{}}, review_sentiment: {{data: {{path: {texts}}}}}}}"
    with monkeypatch.context() as patch:
        patch.setattr("llmrec.learning.reviews.ReviewSentiment.rows", lambda self, variant: [])
        with pytest.raises(RecipeError, match="review_sentiment: nothing to train on"):
            train(config.load_recipe("films", (tasks,)), out=tmp_path / "out")
    edited = tmp_path / "project"
    shutil.copytree(world, edited, ignore=shutil.ignore_patterns("base"))
    monkeypatch.setenv("LLMREC_PROJECT", str(edited))
    wording = edited / "prompts" / "next_item.yaml"

    def edits(*given: Any) -> dict[str, Learner]:
        wording.write_text(wording.read_text() + "# another comment\n")
        return learners(*given)

    monkeypatch.setattr("llmrec.train.learners", edits)
    with pytest.raises(RecipeError, match=r"prompts/next_item\.yaml was edited meanwhile"):
        train(config.load_recipe("films"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_card_says_which_choices_were_learned(world: Path) -> None:
    by_time = config.load_recipe("films", ("split.method=time",))
    start: Any = SimpleNamespace(card={"learned_until": 7, "held_out": "abc"})
    seen = training._seen(by_time, None)
    assert seen["learned_until"] > 7 and training._seen(by_time, start) == seen
    texts = config.load_recipe("films", ("split.method=time", "tasks={review_sentiment: {data: {path: x.csv}}}"))
    assert training._seen(texts, start) == {"learned_until": 7} and training._seen(texts, None) == {}
    one_out = config.load_recipe("films")
    held_out = prepare.load(one_out).held_out
    assert training._seen(one_out, None) == training._seen(one_out, start) == {"held_out": held_out}
    same: Any = SimpleNamespace(card={"held_out": "abc", "recipe": {"data": {"path": one_out.data.path}}})
    assert training._seen(one_out, same) == {"held_out": "abc"}  # it may have learned what is held out today
    anew = config.load_recipe("films", ("fit.epochs=0", "init_from=films"))
    assert training._seen(anew, start) == {"held_out": "abc"}  # nothing was learned since


def test_measuring_says_where_other_choices_are_held_out(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, asked = prepare.load(config.load_recipe("films")), config.Asked(method="leave_one_out")
    assert json.loads((trained / "card.json").read_text())["held_out"] == dataset.held_out
    suites.check_cut(trained, dataset, asked)
    events = dataset.interactions
    order = np.random.default_rng(0).permutation(len(events))
    assert replace(dataset, interactions=events.iloc[order]).held_out == dataset.held_out
    assert not caplog.records
    later = events.assign(split=events["split"].where(events.index > 9, "train"))
    suites.check_cut(trained, replace(dataset, interactions=later), asked)
    assert "trained when other choices were held out than today" in caplog.text


def test_measuring_notices_another_adapter_and_a_moved_cut(trained: Path, tmp_path: Path) -> None:
    recipe = config.load_recipe("films")
    weights = json.loads((trained / "card.json").read_text())["weights"]
    model = suites.model_of(recipe, trained, "fake", {}, weights)
    with pytest.raises(AdapterError, match="another version took its place"):
        suites.model_of(recipe, trained, "fake", {}, "0" * 12)
    first = int(model.dataset.interactions.query("split != 'train'")["timestamp"].min())
    for until in (first - 1, first):
        (tmp_path / "card.json").write_text(json.dumps({"learned_until": until}))
        suites.check_cut(tmp_path, model.dataset, config.Asked(method="leave_one_out"))
        with pytest.raises(AdapterError, match="later than the cut") if until == first else nullcontext():
            suites.check_cut(tmp_path, model.dataset, config.Asked(method="time"))


def test_an_edited_wording_is_told_and_not_used(
    trained: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = recommend("films", history=["Red Sun"], n=5)
    assert not caplog.records
    edited = tmp_path / "project"
    shutil.copytree(world, edited, ignore=shutil.ignore_patterns("base"))
    monkeypatch.setenv("LLMREC_PROJECT", str(edited))
    wording = edited / "prompts" / "next_item.yaml"
    wording.write_text(wording.read_text().replace("Continue the list.", "What else?"))
    assert recommend("films", history=["Red Sun"], n=5) == before
    [record] = caplog.records
    assert "next_item" in record.getMessage() and "`llmrec prompts diff films`" in record.getMessage()
    base, catalog = SimpleNamespace(digest="b"), SimpleNamespace(digest="c")
    recipe = config.load_recipe("films")
    new_run = run_folder(recipe, base, catalog)  # type: ignore[arg-type]
    monkeypatch.setenv("LLMREC_PROJECT", str(world))
    assert run_folder(recipe, base, catalog) != new_run  # type: ignore[arg-type]


def test_another_recipe_is_another_run(world: Path) -> None:
    from llmrec import prepare
    from llmrec.data.catalog import Catalog

    recipe = config.load_recipe("films")
    base, catalog = base_model(recipe.base_model), Catalog.of(prepare.load(recipe))
    same = config.load_recipe("films", ("fit.checkpoint_minutes=1",))
    other = config.load_recipe("films", ("lora.rank=16",))
    smaller = ("fit.micro_batch_tokens=128", "fit.cache=none", "fit.gradient_checkpointing=true", "serve.requests=4")
    undropped = config.load_recipe("films", ("lora.dropout=0",))
    fits = config.load_recipe("films", ("lora.dropout=0", *smaller))  # as after an end by lack of memory
    assert run_folder(fits, base, catalog) == run_folder(undropped, base, catalog)
    dropped = [config.load_recipe("films", ("lora.dropout=0.1", *more)) for more in ((), smaller)]
    assert run_folder(dropped[0], base, catalog) != run_folder(dropped[1], base, catalog)
    assert run_folder(recipe, base, catalog) == run_folder(same, base, catalog) != run_folder(other, base, catalog)
    half = run_folder(recipe, base, catalog, dtype=torch.bfloat16)  # `precision: auto` on another machine
    assert half != run_folder(recipe, base, catalog)


def test_events_that_are_new_are_another_run(world: Path) -> None:
    recipe = config.load_recipe("films")
    source = Path(recipe.interactions.path)
    encoder = Encoder(load_tokenizer(world / "base"))
    before, first = source.read_text(), NextItem(recipe, encoder, None)
    source.write_text(f"{before}u0,i7,999999\n")
    try:
        second = NextItem(recipe, encoder, None)
        assert second.recommender.catalog.digest == first.recommender.catalog.digest and second.digest != first.digest
    finally:
        source.write_text(before)


def test_a_base_in_four_bits_learns_and_its_adapter_is_a_plain_one(world: Path, tmp_path: Path) -> None:
    recipe = config.load_recipe("films", ("fit.quantize=4bit", "fit.epochs=4", "tasks={next_item: {}}"))
    base = base_model(recipe.base_model)
    model = load_model(base, dtype=torch.float32, quantize="4bit")
    assert {type(layer.mlp.up_proj).__name__ for layer in model.model.layers} == {"Linear4bit"}
    whole, ids = load_model(base, dtype=torch.float32), torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():  # as validation does, in the middle of a training
        drift = model(ids).logits.log_softmax(-1) - whole(ids).logits.log_softmax(-1)
    assert 0 < drift.abs().mean() < 0.5
    states = torch.randn(1, 4, model.config.hidden_size, requires_grad=True)
    model.train().model.layers[0].mlp(states).sum().backward()
    assert states.grad is not None and states.grad.any()
    folder = train(recipe, out=tmp_path / "quantised")
    adapter.check(folder)
    card = json.loads((folder / "card.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0] and card["base_digest"] == base.digest  # of the whole weights


def test_bases_that_cannot_be_loaded_say_what_to_do(tmp_path: Path) -> None:
    for name in ("nowhere/at-all", "no such", str(tmp_path)):
        with pytest.raises(AssetError, match="safetensors|hub|folder"):
            Recommender.load(config.load_recipe("films", (f"base_model={name}",)), None)


def test_a_base_whose_head_adds_a_bias_is_refused(tmp_path: Path) -> None:
    """Scores are taken from the head's rows; transformers and vLLM would add it."""
    PhiForCausalLM(
        PhiConfig(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="phi adds a bias to its scores"):
        load_model(base_model(str(tmp_path)), dtype=torch.float32)


@pytest.mark.parametrize(("half", "says"), [(900.0, "10.0 × as fast in bf16"), (100.0, ""), (9.0, "")])
def test_a_faster_precision_is_said_before_hours_of_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, half: float, says: str
) -> None:
    monkeypatch.setattr(training, "gflops", lambda dtype: 90.0 if dtype == torch.float32 else half)
    training.hint("cuda", torch.float32)
    assert not caplog.text
    training.hint("cpu", torch.float32)
    assert says in caplog.text and bool(caplog.text) == bool(says)


def test_the_seed_alone_decides_the_first_weights(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def stop(*_: Any, **__: Any) -> None:
        drawn.append(torch.rand(3).tolist())
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "load_model", stop)
    for precision in ("auto", "float32"):
        with pytest.raises(KeyboardInterrupt):
            train(config.load_recipe("films", (f"fit.precision={precision}",)))
    assert drawn[0] == drawn[1]


def test_weights_that_take_the_place_of_others_meanwhile_are_not_loaded_under_their_card(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened.of(config.load_recipe("films"), "films")
    monkeypatch.setattr("llmrec.engine.start.start", lambda *_, **__: SimpleNamespace())
    assert opened.start("cpu")
    other = replace(opened, card=opened.card | {"weights": "of others"})
    with pytest.raises(AdapterError, match="another version took its place while it was being loaded"):
        other.start("cpu")


def test_one_model_is_in_memory_at_a_time() -> None:
    class Model:
        engine = SimpleNamespace(close=lambda: None)

    loaded: dict[str | None, Model] = {None: Model()}
    before = weakref.ref(loaded[None])

    def load() -> Model:
        assert before() is None
        return Model()

    assert alone(loaded, "films", load) is alone(loaded, "films", load)


def test_one_process_trains_in_one_precision_after_another(world: Path) -> None:
    recipe = config.load_recipe("films")
    for precision, mixed in (("bf16", "bf16"), ("float32", "no")):
        changed = recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"precision": precision})})
        assert training.accelerator_for(changed).mixed_precision == mixed


def test_a_tenth_more_of_any_task_counts_alike() -> None:
    def validated(**values: float) -> float:
        tasks = {name: SimpleNamespace(metric=name, validate=lambda name=name: {name: values[name]}) for name in values}
        return validation(tasks)["mean"]

    before = validated(ndcg=0.05, p=0.7)
    assert validated(ndcg=0.055, p=0.7) == pytest.approx(1.1**0.5 * before)
    assert validated(ndcg=0.05, p=0.77) == pytest.approx(1.1**0.5 * before)
    assert validated(ndcg=0.0, p=0.7) < validated(ndcg=0.0, p=0.8)
    assert "mean" not in validation({"ndcg": SimpleNamespace(metric="ndcg", validate=lambda: {"ndcg": 0.5})})


def test_titles_are_cut_as_the_adapter_has_learned_them(
    trained: Path, world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the recipe says by now; a longer window is its own affair, and is said."""
    recipe = config.load_recipe("films", ("identifier.max_tokens=2", "fit.window_tokens=90"))
    model = Recommender.load(recipe, "films")
    assert "identifier.max_tokens=2 waits for the next training" in caplog.text
    assert "trained with fit.window_tokens=120 and reads 90 here" in caplog.text
    before = Recommender.load(config.load_recipe("films"), "films")
    assert model.listing.identifiers == before.listing.identifiers
    assert model.recipe.identifier == before.recipe.identifier
