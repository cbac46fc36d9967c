"""The grounded tasks: hostile texts on token ids, and the whole way on a small model, two tasks in one adapter."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml
from test_judge import HOSTILE
from typer.testing import CliRunner

from llmrec import cli, config, prompts
from llmrec.baselines.sentences import nearest
from llmrec.data.pairs import Example, Item, of_split
from llmrec.engine import Prompt
from llmrec.errors import AdapterError, PromptError, RecipeError
from llmrec.evaluate import evaluate
from llmrec.grounded import GroundedTask, Writer, examples, facts, most_alike, source
from llmrec.learning import learners
from llmrec.model.encode import Encoder
from llmrec.tasks.grounded import EXPLANATION, SUMMARY, TASKS
from llmrec.tasks.template import Template
from llmrec.train import train

ROOT = Path(__file__).parent.parent
DATA = {"data": {"path": "none"}, "max_tokens": 40}
RECIPE = config.Recipe(domain="shop", tasks={name: DATA for name in TASKS})


def asking(task: str, kind: str = "gpt2") -> GroundedTask:
    return GroundedTask(RECIPE, Template.load(ROOT / "prompts" / f"{task}.yaml"), Encoder(tiny.tokenizer(kind)))


def example(text: str = "x") -> Example:
    return Example("u", "i", "test", text, (Item(text, text),), Item(text, text), text)


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "sentencepiece"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("task", TASKS)
def test_no_text_ends_a_turn_or_opens_a_role(kind: str, text: str, task: str) -> None:
    asked = asking(task, kind)

    def control(tokens: tuple[int, ...] | list[int]) -> list[int]:
        return [token for token in tokens if token in asked.encoder.control]

    for wording in asked.template.wordings():
        plain, header = asked.header(example(), wording), asked.header(example(text), wording)
        assert control(header) == control(plain)
        assert len(header) <= len(plain) + 4 * 40 + 2 * 16 + 8  # the limits, and joints between parts
    reply = asked.reply(text)
    assert control(reply) == [asked.encoder.end] == reply[-1:] and len(reply) <= 42


def test_a_person_without_a_text_is_known_by_the_history() -> None:
    asked = asking(EXPLANATION)
    history = (Item("Heat", ""), Item("Fargo", ""))

    def told(person: str) -> str:
        one = Example("u", "i", "test", person, history, Item("Seven", "a film"), "")
        return asked.encoder.tokenizer.decode(asked.header(one))

    assert "Heat; Fargo" in told("") and "Seven: a film" in told("")
    assert "Likes crime" in told("Likes crime") and "Heat" not in told("Likes crime")


def test_a_prompt_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    whole = yaml.safe_load((ROOT / "prompts" / f"{SUMMARY}.yaml").read_text())
    (tmp_path / f"{SUMMARY}.yaml").write_text(yaml.safe_dump(whole | {"reply": "list"}))
    wrong = GroundedTask(RECIPE, Template.load(tmp_path / f"{SUMMARY}.yaml"), Encoder(tiny.tokenizer("gpt2")))
    with pytest.raises(PromptError, match="reply: text"):
        wrong.header(example())


def test_the_reply_most_like_the_others() -> None:
    assert most_alike(["a b c", "a b d", "x y z"]) == "a b c"
    assert most_alike(["x", "b a", "a b c d", "a b c"]) == "a b c"  # F1: length is no merit
    assert most_alike(["", ""]) == "" and most_alike(["one"]) == "one"


def test_the_nearest_text() -> None:
    assert nearest(["thai food", "live music", "music"], ["some live music", "food", "…"]).tolist() == [1, 0, 0]


def letters(number: int) -> str:
    """Of a number: what no rule takes for a fact."""
    return chr(ord("a") + number % 26) * (1 + number // 26)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose texts say the colour of an item, and of what a person chose."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "prompts", root / "prompts")
    tokenizer = tiny.tokenizer("gpt2")
    tiny.model(len(tokenizer), positions=512).save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    words = ["Heat", "Fargo", "Seven"]
    rows = [
        {"user_id": f"u{u}", "item_id": f"i{(7 * u + 3 * k) % 30}", "title": f"{words[u % 3]} {(7 * u + 3 * k) % 30}",
         "about": words[u % 3], "person": f"Toy {words[u % 3]} {letters(u)}.",
         "review": f"{words[u % 3]} Story {letters(u)} {letters(k)}."}
        for u in range(90)
        for k in range(2)
    ]  # fmt: skip
    (root / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"data": {"path": str(root / "texts.jsonl"), "valid": 0.1, "test": 0.2}, "max_tokens": 16}
    recipe = {
        "domain": "shop", "noun": "things", "unit": "thing", "base_model": str(root / "base"),
        "tasks": {name: task for name in TASKS},
        "lora": {"rank": 8, "alpha": 16, "first_layer": 1},
        "fit": {"batch_tokens": 800, "micro_batch_tokens": 800, "epochs": 12, "cache": "memory",
                "learning_rate": 0.01, "valid_users": 8, "valid_every": 12, "precision": "float32"},
    }  # fmt: skip
    (root / "adapters" / "shop").mkdir(parents=True)
    (root / "adapters" / "shop" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (root / "eval").mkdir()
    for name in TASKS:
        suite = {"task": name, "domain": "shop", "writers": ["template", "typical", "copy", "nearest", "base", "llm",
                 "llm+consensus"], "compare": [["llm", "base"]], "examples": 12, "samples": 50}  # fmt: skip
        (root / "eval" / f"{name.replace('_', '-')}.yaml").write_text(yaml.safe_dump(suite))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_PROJECT", str(root))
        patch.setenv("LLMREC_HOME", str(tmp_path_factory.mktemp("training")))
        train(config.load_recipe("shop"))
    return root


@pytest.fixture
def here(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMREC_PROJECT", str(shop))
    return shop


def test_the_card_says_from_which_texts_it_learned_and_holds_none(here: Path) -> None:
    card = json.loads((here / "adapters" / "shop" / "card.json").read_text())
    recipe = config.load_recipe("shop")
    for name in TASKS:
        assert card[name]["texts"] == source(recipe, name).digest and card[name]["learned_from"] > 50
    assert "Story" not in json.dumps(card)


@pytest.mark.parametrize("task", TASKS)
def test_it_writes_like_the_texts_and_unlike_its_base(here: Path, task: str, tmp_path: Path) -> None:
    found = json.loads((evaluate(task.replace("_", "-"), out=tmp_path) / "results.json").read_text())
    rouge = {name: one["metrics"]["rougeL"]["mean"] for name, one in found["writers"].items()}
    assert rouge["llm"] > rouge["base"] + 0.1 and rouge["llm+consensus"] > rouge["base"] + 0.1
    assert found["data"]["asked"] == 12 and found["adapter"]["name"] == "shop"
    table = (tmp_path / "table.md").read_text()
    assert "llm - base" in table and "Whole people are asked" in table and "backed" in table


def test_a_reply_does_not_depend_on_what_is_asked_together(here: Path) -> None:
    recipe = config.load_recipe("shop")
    some = of_split(examples(source(recipe, EXPLANATION), EXPLANATION), "test", 4, seed=0)
    writer = Writer.load(recipe, EXPLANATION, "shop")
    together = writer.write(some)
    assert together == [writer.write([one])[0] for one in some]
    assert all(text == "" or text.endswith(".") for text in together)
    assert writer.consensus(some)[0] in {writer.write(some[:1], wording)[0] for wording in (0, 1, 2)}


def test_no_reply_names_what_it_was_not_told(here: Path) -> None:
    recipe = config.load_recipe("shop")
    pairs = source(recipe, EXPLANATION)
    some = of_split(examples(pairs, EXPLANATION), "test", 3, seed=0)
    mine = some[0].item.title
    other = next(one.title for one in pairs.items.values() if one.title not in facts(pairs).facts(some[0].told))
    rounds = [[f"Fine. {other} is next.", f"It is {other}.", "It is for you."], ["All 77 like it."], ["Others do."]]

    class Fixed:
        def generate(self, prompts: Sequence[Prompt], **_: object) -> list[str]:
            texts = rounds.pop(0)
            assert len(prompts) == len(texts)
            return texts

    writer = dataclasses.replace(Writer.load(recipe, EXPLANATION, "shop"), engine=Fixed())
    assert writer.write(some) == ["Fine.", "Others do.", "It is for you."] and not rounds
    assert writer.held(f"Like {mine}. Unlike {other}!  So be it.", some[0].told) == f"Like {mine}. So be it."
    assert writer.held(f"As {mine} did, in  its way", some[0].told) == f"As {mine} did, in  its way"
    long = "word " * 80 + "end."
    assert writer.held(f"{long} It is {other}.", some[0].told) == long  # no sentence is cut


def test_people_of_the_texts_are_explained_to_and_summed_up(here: Path) -> None:
    run = CliRunner().invoke
    explained = run(cli.app, ["explain", "shop", "i7", "--user", "u1", "--json"])
    assert explained.exit_code == 0, explained.output
    found = json.loads(explained.output)
    assert found["title"].endswith(" 7") and found["task"] == EXPLANATION and "Toy Fargo b." in found["known"]
    beside = run(cli.app, ["explain", "shop", "i7", "data={path: events.csv}", "--user", "u1", "--json"])
    assert beside.stdout == explained.stdout  # interactions beside the texts change nothing
    summed = run(cli.app, ["summarize", "shop", "--user", "u1"])
    assert summed.exit_code == 0 and "Fargo" in summed.output, summed.output
    for wrong, says in (
        (["explain", "shop", "i7"], "name one with --user"),
        (["explain", "shop", "i7", "--user", "u1", "--history", "Heat 3"], "without --history"),
        (["explain", "shop", "Haet 3", "--user", "u1"], "no item 'Haet 3'"),
        (["summarize", "shop", "--user", "nobody"], "no user 'nobody'"),
    ):
        refused = run(cli.app, wrong)
        assert refused.exit_code == 2 and says in " ".join(refused.output.split()), refused.output


def test_wordings_of_both_tasks_are_tried_and_measured(here: Path) -> None:
    run = CliRunner().invoke
    tried = run(cli.app, ["prompts", "try", "shop", "--task", EXPLANATION, "--user", "u1", "--item", "i7"])
    assert tried.exit_code == 0, tried.output
    shown = " ".join(tried.output.split())
    assert "wording trained" in shown and "wording 0" in shown and "The answers are the same." in shown
    other = run(cli.app, ["prompts", "try", "shop", "--task", SUMMARY, "--user", "u1", "--wording", "1"])
    assert other.exit_code == 0 and "wording 1" in other.output, other.output
    nobody = run(cli.app, ["prompts", "try", "shop", "--task", SUMMARY])
    assert nobody.exit_code == 2 and "name one with --user" in " ".join(nobody.output.split())

    found = prompts.measure("shop", ("users=5",), tasks=[EXPLANATION, SUMMARY], wordings=[0, 1])
    by_name = {(one.task, one.name): one for one in found}
    assert len(by_name) == 6 and all(0 < one.mean.mean < 1 for one in found)
    for task in (EXPLANATION, SUMMARY):
        same, other = by_name[task, "0"].difference, by_name[task, "1"].difference
        assert same is not None and same.low == same.high == 0 and other is not None and other.mean != 0
    with pytest.raises(AdapterError, match="may have seen the answers"):
        prompts.measure("shop", (f"tasks.{SUMMARY}.data.seed=9",), tasks=[SUMMARY])


def test_rows_are_seeded_and_end_their_reply(here: Path) -> None:
    recipe = config.load_recipe("shop", (f"tasks.{EXPLANATION}.examples=9",))
    encoder = Encoder(tiny.tokenizer("gpt2"))
    one, two = (learners(recipe, encoder)[EXPLANATION].rows(0) for _ in range(2))
    assert len(one) == 9 and all(np.array_equal(a.tokens, b.tokens) for a, b in zip(one, two, strict=True))
    assert all(row.tokens[-1] == encoder.end and row.starts[-1] == len(row.tokens) - 1 for row in one)


def test_what_would_lie_is_refused(here: Path, tmp_path: Path) -> None:
    reseeded = yaml.safe_load((here / "adapters" / "shop" / "recipe.yaml").read_text())
    reseeded["tasks"][EXPLANATION]["data"]["seed"] = 9
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(reseeded))
    suite = yaml.safe_load((here / "eval" / "grounded-explanation.yaml").read_text())
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite | {"domain": str(tmp_path / "shop.yaml")}))
    with pytest.raises(AdapterError, match="may have seen the answers"):
        evaluate(str(tmp_path / "suite.yaml"), out=tmp_path / "out")
    recipe = config.load_recipe("shop")
    with pytest.raises(RecipeError, match="does not list"):
        Writer.load(recipe.model_copy(update={"tasks": {}}), SUMMARY, "shop")
    with pytest.raises(RecipeError, match="say where the texts are"):
        source(recipe.model_copy(update={"tasks": {SUMMARY: config.Task()}}), SUMMARY)
