"""Parts of their own beside a shared LoRA: whose gradient goes where, exactness, and plain adapters in the end."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from test_balance import BOTH, REVIEWS
from test_fit import LORA, ROWS, SETTINGS, killed, same
from test_train import finished

from llmrec import config
from llmrec.adapters import inspect
from llmrec.choices.search import Choices, log_p_all
from llmrec.config import Lora, Mixture, Task
from llmrec.engine import Prompt
from llmrec.engine.hf import HFEngine
from llmrec.errors import AdapterError, RecipeError
from llmrec.explain import explain
from llmrec.model import adapter, own, transfer
from llmrec.model.batch import Decisions, collate
from llmrec.model.fit import Objective, fit
from llmrec.model.loss import TrieLoss
from llmrec.recommend import recommend
from llmrec.review import review
from llmrec.tasks.saved import read_card
from llmrec.train import train

ROOT = Path(__file__).parent.parent
HEAD = ("q_proj", "v_proj", "down_proj", "lm_head")
PARTS = LORA.model_copy(update={"own": 4, "targets": HEAD})
Weights = dict[str, torch.Tensor]

ENDS = SimpleNamespace(eos_token_id=0)  # what an engine asks of a tokenizer where nothing is written


def attached(lora: Lora = PARTS) -> Any:
    torch.manual_seed(0)
    model = adapter.attach(tiny.model(100), lora, base_name="tiny")
    own.add(model, lora, BOTH)
    return model


def weights(model: Any) -> Weights:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def trained(run: Path, tasks: dict[str, Task] | None = None, **settings: object) -> Weights:
    model = attached()
    state = fit(
        model, [[*ROWS, *REVIEWS]], BOTH, SETTINGS.model_copy(update=settings), run, tasks=tasks, first_layer=1,
        accelerator=Accelerator(cpu=True),
    )  # fmt: skip
    return weights(model) | {"loss": torch.tensor([entry["loss"] for entry in state.log if "loss" in entry])}


def test_without_parts_nothing_is_added() -> None:
    model = attached(LORA)
    before = weights(model)
    own.use(model, "review")
    assert [*model.peft_config] == ["default"] and model.active_adapters == ["default"]
    assert before.keys() == weights(model).keys()
    assert HFEngine(model, ENDS).beside("review").adapters == ("default",)


def test_a_gradient_reaches_what_is_shared_and_its_own_part_alone() -> None:
    model = attached()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    causal = model.get_base_model()
    learner = Objective(causal.get_decoder(), {n: TrieLoss(t, causal.get_output_embeddings()) for n, t in BOTH.items()})
    for task, rows in (("next_item", ROWS[:2]), ("review", REVIEWS[:2])):
        model.zero_grad(set_to_none=True)
        own.use(model, task)
        learner(*collate(rows, Decisions(BOTH[task])).learned)[0].backward()
        reached = {n.split(".")[-2] for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert reached == {"default", task}
        missed = [n for n, p in model.named_parameters() if f".{task}." in n and (p.grad is None or not p.grad.any())]
        assert missed == []  # the head's part among them


def test_a_part_learns_from_its_own_task_alone(tmp_path: Path) -> None:
    start = weights(attached())
    found = trained(tmp_path, {"review": Task(start=2)}, epochs=2.01)
    changed = {name.split(".")[-2] for name, tensor in start.items() if not torch.equal(found[name], tensor)}
    assert changed == {"default", "next_item", "review"}
    found = trained(tmp_path / "before", {"review": Task(start=2)}, epochs=2.0)
    still = [name for name, tensor in start.items() if torch.equal(found[name], tensor)]
    assert still == [name for name in start if ".review." in name]


def test_parts_of_a_step_and_cached_activations_change_nothing(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    assert whole["loss"][-1] < whole["loss"][0]
    assert same(whole, trained(tmp_path / "parts", micro_batch_tokens=50), atol=2e-4)
    assert same(whole, trained(tmp_path / "cached", cache="disk"), atol=2e-4)
    assert same(whole, trained(tmp_path / "again", gradient_checkpointing=True), atol=2e-4)


def test_a_killed_run_resumes_exactly(tmp_path: Path) -> None:
    """With moments that one part has and another has not yet."""
    whole = trained(tmp_path / "whole", {"review": Task(start=1)})
    killed(tmp_path / "killed", 5, "test_own", "tasks={'review': test_own.Task(start=1)}")
    assert same(whole, trained(tmp_path / "killed", {"review": Task(start=1)}))


def test_folded_answers_as_unfolded(tmp_path: Path) -> None:
    """Of ranks 8 + 4 a plain adapter of rank 16, for each task another one."""
    lora = PARTS.model_copy(update={"alpha": 24})
    model = attached(lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    engine = HFEngine(model, ENDS)
    found = {}
    for task, trie in BOTH.items():
        asked = [Prompt((1, 2, 40 + i, 50 - i), "default") for i in range(8)]
        unfolded = log_p_all(engine.beside(task), asked, Choices(trie))
        digest = own.fold(model, task, lora, tmp_path / task)
        adapter.write_json(tmp_path / task / adapter.CARD, {"weights": digest})
        assert json.loads((tmp_path / task / "adapter_config.json").read_text())["r"] == 16
        plain = HFEngine(adapter.load(tiny.model(100), {"default": tmp_path / task}), ENDS)
        assert np.abs(log_p_all(plain, asked, Choices(trie)) - unfolded).max() < 1e-3
        assert np.abs(log_p_all(engine, asked, Choices(trie)) - unfolded).max() > 0.05  # what is shared alone
        found[task] = load_file(tmp_path / task / adapter.WEIGHTS)
    assert [*model.peft_config] == ["default", *BOTH]
    assert any(not torch.equal(found["next_item"][name], found["review"][name]) for name in found["review"])


def test_what_makes_no_sense_is_refused() -> None:
    recipe: dict[str, Any] = {"domain": "films", "data": {"path": "x"}, "lora": {"own": 8}}
    both = {"tasks": ["next_item", "interest"]}
    with pytest.raises(RecipeError, match="one task shares with nobody"):
        config.section(config.Recipe, recipe)
    with pytest.raises(RecipeError, match="one LoRA of all tasks"):
        config.section(config.Recipe, recipe | both | {"mixture": {"conflict": "pcgrad"}})
    with pytest.raises(RecipeError, match="lora: own: .* rank 264, at most 256"):
        config.section(config.Recipe, recipe | both | {"lora": {"rank": 256, "own": 8}})
    long = config.section(config.Recipe, recipe | both | {"domain": "f" * 60})
    with pytest.raises(RecipeError, match="1 to 64"):
        own.folded(long, "interest")
    assert Mixture().conflict == "none"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films and reviews of them, in a project of its own."""
    root = tiny.films(tmp_path_factory.mktemp("project"))
    lines = ["review,rating", *(f"{('Sun', 'Rain')[i % 2]} {i},{(1, 5)[i % 2]}" for i in range(60))]
    (root / "reviews.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(autouse=True)
def here(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(world))


def overrides(world: Path, *more: str) -> tuple[str, ...]:
    tasks = f"{{next_item: {{}}, explanation: {{}}, review_sentiment: {{data: {{path: {world / 'reviews.csv'}}}}}}}"
    return (f"tasks={tasks}", "lora.own=8", "fit.epochs=2", "fit.valid_every=2", *more)


def test_every_task_leaves_as_a_domain_of_its_own(world: Path, tmp_path: Path) -> None:
    recipe = config.load_recipe("films", overrides(world))
    assert train(recipe) == world / "adapters"
    for task in recipe.tasks:
        folder = world / "adapters" / f"films-{task}"
        assert inspect(folder).problems == []
        card, made = read_card(folder), config.load_recipe(folder.name)
        assert made.lora.rank == made.lora.alpha == 16 and made.lora.own == 0
        assert card["part_of"]["domain"] == "films" and card["part_of"]["own"] == 8
        assert set(transfer.sources(card)) == {
            f"interactions of {world / 'events.csv'}",
            f"reviews of {world / 'reviews.csv'}",
        }
        assert ("prior_weight" in card) == (task == "next_item")  # fitted with the part that learned lists
        assert set(card["prompts"]) == {task} | ({"next_item"} if task == "explanation" else set())
    assert set(read_card(world / "adapters" / "films-review_sentiment")["validation"]) == {"users", "macro_f1"}
    assert len(recommend("films-next_item", history=["Red Sun"], n=3).items) == 3
    assert explain("films-explanation", "Red Road", history=["Red Sun", "Red Moon"])
    assert review("films-review_sentiment", ["Sun 1"])
    with pytest.raises(AdapterError, match="not trained on next_item"):
        recommend("films-review_sentiment", history=["Red Sun"], n=3)
    with pytest.raises(AdapterError, match="films-next_item, films-explanation, films-review_sentiment"):
        recommend("films", history=["Red Sun"], n=3)
    file = world / "adapters" / "films-next_item" / "recipe.yaml"
    file.write_text(f"{file.read_text()}serve: {{max_loras: 2}}\n")
    again = train(recipe, out=tmp_path / "again")  # from the checkpoint: nothing is left to train
    names = [path.name for path in sorted(again.iterdir())]
    assert names == sorted(f"films-{task}" for task in recipe.tasks)
    assert train(recipe) and "max_loras" in file.read_text()
    for task in recipe.tasks:
        shutil.rmtree(world / "adapters" / f"films-{task}")


def test_two_processes_train_what_one_does(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of several passes, of another task in each process: no process waits for parts that it does not use."""
    settings = overrides(
        world, "lora.targets=[q_proj, v_proj, down_proj, lm_head]", "fit.batch_tokens=600",
        "fit.micro_batch_tokens=150", "fit.learning_rate=0.001", "fit.cache=disk", "fit.epochs=1",
    )  # fmt: skip
    one = train(config.load_recipe("films", settings), out=tmp_path / "one")
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "llmrec", "train", "films", *settings]
    finished([*command, "--out", str(tmp_path / "two")])
    for folder in one.iterdir():
        ours, theirs = (load_file(place / folder.name / adapter.WEIGHTS) for place in (one, tmp_path / "two"))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            np.testing.assert_allclose(theirs[name].numpy(), tensor.numpy(), atol=2e-4, err_msg=name)
