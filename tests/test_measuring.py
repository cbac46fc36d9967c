"""Suites of tasks after a history list, on a small domain and a random model: right numbers, right refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file, save_file
from tiny import COLOURS, FILMS
from typer.testing import CliRunner

from llmrec import cli, config
from llmrec.data.split import Query
from llmrec.errors import AdapterError, LlmrecError, RecipeError
from llmrec.evaluate import evaluate, task_of
from llmrec.follow_up import FollowUp
from llmrec.measuring.after_list import Person, World, people
from llmrec.measuring.suites import depends_on, load_suite_as, results_folder
from llmrec.measuring.texts import Explanations, Summaries
from llmrec.metrics.llm_judge import LLMJudge, Opinions
from llmrec.tasks.template import Name

for package in ("rouge_score", "sacrebleu"):
    pytest.importorskip(package)


@pytest.fixture(autouse=True)
def here(films_adapter: Path, films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(films))


def suite(folder: Path, **settings: Any) -> str:
    path = folder / "asked.yaml"
    path.write_text(yaml.safe_dump({"domain": "films", "method": "leave_one_out", "samples": 50} | settings))
    return str(path)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_one_person_a_user_with_what_was_known_first() -> None:
    asked = [Query("u", (), 1), Query("u", (1,), 2), Query("v", (3,), 4), Query("v", (3, 4), 5)]
    assert people(asked) == [Person("v", (3,), (4, 5))]


def test_answers_of_another_base_are_others(films: Path, tmp_path: Path) -> None:
    """Under one name: parts of a suite that were kept would pass for the new one's."""
    recipe = config.load_recipe("films")
    base = tmp_path / "base"
    shutil.copytree(recipe.base_model, base)
    recipe = recipe.model_copy(update={"base_model": str(base)})
    before = depends_on(recipe)
    file = base / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, file, {"format": "pt"})
    assert depends_on(recipe) != before
    assert "base_digest" not in depends_on(recipe.model_copy(update={"base_model": "smollm2-135m"}))  # pinned


# What no answer depends on: it teaches, fits what stands in the card, or says how fast and on what answers are made.
HARMLESS = {
    config.Recipe: {"init_from", "licence", "tasks", "mixture", "data", "lora", "prior", "teacher", "sasrec"},
    config.Identifier: {"codes"},
    config.Fit: {*config.Fit.model_fields} - {"window_tokens", "precision"},
    config.Serve: {"max_loras", "max_cpu_loras", "max_rank", "context", "block_size", "step_tokens", "requests",
                   "kv_gib", "gpu_share", "tensor_parallel", "data_parallel"},
}  # fmt: skip


@pytest.mark.parametrize("kind", HARMLESS)
def test_each_setting_is_known_to_change_answers_or_not_to(kind: type[config.Section]) -> None:
    """One that is added later must be put on one side: what is kept would else pass for what it would answer."""
    section = {config.Identifier: "identifier", config.Fit: "fit", config.Serve: "serve"}.get(kind)
    counts = {*(config.ANSWERS[section] if section else config.ANSWERS)}
    assert counts.isdisjoint(HARMLESS[kind]) and counts | HARMLESS[kind] == {*kind.model_fields}


def test_answers_depend_on_these_settings(films: Path) -> None:
    before = depends_on(config.load_recipe("films"))
    for setting in ("serve.quantization=fp8", "serve.merge=true", "serve.head_float32=false", "new_share=0.5",
                    "new_trust=0.5", "window_block=16", "window_step=64", "fit.precision=bf16", "fit.window_tokens=99",
                    "identifier.max_tokens=20", "split.baskets=false", "noun=movies", "unit=movie"):  # fmt: skip
        assert depends_on(config.load_recipe("films", (setting,))) != before, setting


def test_interest_beside_its_baselines(tmp_path: Path) -> None:
    names = ["popular", "history", "base", "llm"]
    asked = suite(tmp_path, task="interest", predictors=names, compare=[["llm", "popular"]], users=24)
    folder = evaluate(asked, out=tmp_path / "out")
    found = results(folder)
    assert list(found["predictors"]) == names and found["data"]["users"] == 24 and found["task"] == "interest"
    value = {name: {m: v["mean"] for m, v in one["metrics"].items()} for name, one in found["predictors"].items()}
    # a person stays with one of three colours, each a third of what all chose
    assert value["popular"]["cross_entropy"] == pytest.approx(np.log(3), abs=0.01)
    assert value["history"]["ndcg@1"] == 1 and value["history"]["cross_entropy"] < 0.02
    assert value["llm"]["ndcg@1"] > 0.6 and value["llm"]["cross_entropy"] < value["base"]["cross_entropy"]
    gap = next(d for d in found["differences"] if d["metric"] == "cross_entropy")
    assert gap["mean"] < 0 and gap["excludes_zero"]
    records = pd.read_parquet(folder / "records.parquet")
    assert len(records) == 4 * 24
    for row in records[records["predictor"] == "llm"].to_dict("records"):
        assert sum(row["p"]) == pytest.approx(1) and row["true"].tolist() == [
            float(name == COLOURS[int(row["user_id"][1:]) % 3]) for name in sorted(COLOURS)
        ]
    assert "| llm - popular | cross_entropy |" in (folder / "table.md").read_text()


def test_a_smoothed_history_leaves_no_category_at_zero(tmp_path: Path) -> None:
    asked = suite(tmp_path, task="interest", predictors=["history"], split="valid")
    folder = evaluate(asked, out=tmp_path / "out")
    records = pd.read_parquet(folder / "records.parquet")
    assert len(records) == 30 and all(min(p) > 0 for p in records["p"])
    assert results(folder)["adapter"] is None


def test_results_lie_where_the_settings_say(tmp_path: Path) -> None:
    asked = suite(tmp_path, task="interest", predictors=["history"], users=4)
    folder = evaluate(asked)
    assert folder == results_folder(*load_suite_as(config.Predicted, asked))
    assert evaluate(asked, ("predictors=[popular]", "samples=20")) == folder
    assert evaluate(asked, ("users=5",)) != folder and results(folder)["data"]["users"] == 4


@pytest.mark.parametrize("task", ["interest_summary", "explanation"])
def test_texts_beside_what_the_data_says(tmp_path: Path, task: str) -> None:
    asked = suite(
        tmp_path, task=task, writers=["template", "copy", "base", "llm"],
        compare=[["llm", "base"], ["llm", "copy"]], users=12,
    )  # fmt: skip
    folder = evaluate(asked, out=tmp_path / "out")
    found = results(folder)
    assert list(found["writers"]) == ["template", "base", "llm"] and found["data"]["asked"] == 12  # no reviews to copy
    value = {name: {m: v["mean"] for m, v in one["metrics"].items()} for name, one in found["writers"].items()}
    assert value["template"]["exact"] == value["template"]["faithful"] == 1 and value["template"]["rougeL"] > 0.3
    assert value["llm"]["rougeL"] >= value["base"]["rougeL"]  # so small a model spells no sentence
    assert {d["b"] for d in found["differences"]} == {"base"}
    table = (folder / "table.md").read_text()
    assert "by construction" in table and "`copy` is left out" in table and "match" not in table
    records = pd.read_parquet(folder / "records.parquet")
    assert len(records) == 3 * 12 and ("item_id" in records) == (task == "explanation")
    for row in records[records["writer"] == "template"].to_dict("records"):
        own = COLOURS[int(row["user_id"][1:]) % 3]
        assert own in row["reply"] and not ({*COLOURS} - {own}) & {*row["reply"].split()}


@pytest.mark.parametrize(
    ("task", "names"),
    [("interest", "predictors"), ("interest_summary", "writers"), ("explanation", "writers")],
)  # fmt: skip
def test_an_interrupted_suite_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, names: str) -> None:
    """The model is asked last; what stood before it is kept, and then all of it."""
    first = "popular" if task == "interest" else "template"
    asked = suite(tmp_path, task=task, **{names: [first, "llm"]}, users=4)
    loaded: list[str | None] = []
    load = FollowUp.write if task != "interest" else FollowUp.log_p

    def counted(self: FollowUp, *args: Any, **options: Any) -> Any:
        loaded.append(self.recommender.adapter)
        if len(loaded) == 1:
            raise KeyboardInterrupt
        return load(self, *args, **options)

    monkeypatch.setattr(FollowUp, load.__name__, counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(asked, out=tmp_path / "out")
    assert [path.stem for path in (tmp_path / "out" / "parts").iterdir()] == [first]
    begun = (tmp_path / "out" / "parts" / f"{first}.parquet").stat().st_mtime_ns
    whole = results(evaluate(asked, out=tmp_path / "out"))
    assert (tmp_path / "out" / "parts" / f"{first}.parquet").stat().st_mtime_ns == begun and len(loaded) == 2
    again = results(evaluate(asked, ("samples=60",), out=tmp_path / "out"))  # intervals need no answers
    assert len(loaded) == 2 and again[names]["llm"]["seconds"] == whole[names]["llm"]["seconds"]
    anew = results(evaluate(asked, out=tmp_path / "new"))
    assert strip(anew) == strip(whole) and len(loaded) == 3
    evaluate(asked, ("users=3",), out=tmp_path / "out")
    evaluate(asked, out=tmp_path / "new", force=True)
    assert len(loaded) == 5


def strip(found: dict[str, Any]) -> dict[str, Any]:
    """Results without the time."""
    if not isinstance(found, dict):
        return found
    return {key: strip(value) for key, value in found.items() if key not in ("finished", "seconds")}


def test_reviews_can_be_copied(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(films, tmp_path / "films")
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path / "films"))
    recipe = tmp_path / "films" / "adapters" / "films" / "recipe.yaml"
    events = pd.read_csv(films / "events.csv")
    events["review"] = [f"A {FILMS[int(item[1:])]} to remember always." for item in events["item_id"]]
    events.to_csv(tmp_path / "films" / "events.csv", index=False)
    values = yaml.safe_load(recipe.read_text())
    values["data"]["path"] = str(tmp_path / "films" / "events.csv")
    recipe.write_text(yaml.safe_dump(values))
    asked = suite(tmp_path, task="explanation", writers=["copy"], users=5)
    folder = evaluate(asked, out=tmp_path / "out")
    titles = {f"i{i}": title for i, title in enumerate(FILMS)}
    for row in pd.read_parquet(folder / "records.parquet").to_dict("records"):
        assert row["reply"] == f"A {titles[row['item_id']]} to remember always."
    assert results(folder)["writers"]["copy"]["corpus"]["silent"] == 1  # plain words are not names


def test_a_judge_marks_every_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def rate(self: LLMJudge, given: list[str], replies: list[str], references: list[str]) -> Opinions:
        seen.append((self.url, self.model, given, replies, references))
        return Opinions(np.array([5.0, np.nan, 3.0]), np.ones(3, bool))

    monkeypatch.setattr(LLMJudge, "rate", rate)
    asked = suite(tmp_path, task="explanation", writers=["template"], users=3)
    with pytest.raises(RecipeError, match="judge_url and judge_model belong together"):
        evaluate(asked, ("judge_model=m",))
    with pytest.raises(LlmrecError, match="no address"):
        evaluate(asked, ("judge_model=m", "judge_url=nowhere"))
    folder = evaluate(asked, ("judge_model=m", "judge_url=http://127.0.0.1:1"), out=tmp_path / "out")
    [(url, model, given, replies, references)] = seen
    assert (url, model) == ("http://127.0.0.1:1", "m") and len(replies) == len(references) == 3
    records = pd.read_parquet(folder / "records.parquet")
    titles = {f"i{i}": title for i, title in enumerate(FILMS)}
    for text, row in zip(given, records.to_dict("records"), strict=True):
        assert text.startswith("films chosen, oldest first: ")
        assert text.splitlines()[1].startswith(f"film asked about: {titles[row['item_id']]} (")
    found = results(folder)
    assert found["writers"]["template"]["metrics"]["mark"]["mean"] == 4 and found["judge"]["model"] == "m"
    assert "one opinion among measures" in (folder / "table.md").read_text()


def world() -> World:
    settings = config.Written(task="explanation", domain="films", method="leave_one_out")
    return World.of(settings, "explanation", adapter=False)


def category(text: str) -> Name:
    return Name.of("category", text)


def item(text: str) -> Name:
    return Name.of("item", text)


def test_what_is_true_of_a_summary() -> None:
    person = Person("u", (0, 1, 2, 5, 6, 10), (3,))  # Red, Red, Red, Blue, Blue, Black
    kind = Summaries(world(), FILMS)
    said = kind.claims(person, ["Mostly ", category("Red"), " with ", item("Red Sun"), " and ", item("Blue Sun"), "."])
    assert said == {"category Red": True, "item Red Sun": True, "item Blue Sun": False}  # Blue is not named
    said = kind.claims(person, [category("Green"), category("Blue"), item("Blue Sun"), item("Blue Rain")])
    assert said == {"category Green": False, "category Blue": True, "item Blue Sun": True, "item Blue Rain": False}
    assert kind.claims(person, ["Red Sun, they say."]) == {}


def test_the_first_category_of_a_summary_is_one_of_three() -> None:
    found = world()
    kinds = ["A", "A", "B", "B", "C", "C", "D"]
    catalog = type("Catalog", (), {"categories": [(kind,) for kind in kinds]})
    kind = Summaries(World(found.settings, found.recipe, found.dataset, catalog, None), FILMS)  # type: ignore[arg-type]
    person = Person("u", tuple(range(7)), (0,))
    assert kind.claims(person, [category("D"), category("A")]) == {"category D": False, "category A": True}
    assert kind.claims(person, [category("A"), category("D")]) == {"category A": True, "category D": True}


def test_what_is_true_of_an_explanation() -> None:
    kind = Explanations(world(), FILMS)
    person = Person("u", (0, 1, 5), (2,))  # Red, Red, Blue; asked about another Red one
    said = kind.claims(person, ["It is ", category("Red"), " like ", item("Red Sun"), " and ", item("Blue Sun"), "."])
    assert said == {"category Red": True, "item Red Sun": True, "item Blue Sun": False}  # nobody chose both
    assert kind.claims(person, [category("Blue"), item("Red River")]) == {
        "category Blue": False,
        "item Red River": False,
    }
    new = Person("u", (5, 6), (2,))  # nothing shared: the item's own category is new here
    assert kind.claims(new, [category("Red")]) == {"category Red": True}
    assert kind.facts(new) == {"shared": [], "often": False, "other": "Red", "near": "", "lately": False}
    again = Person("u", (2, 0), (2,))  # an item does not speak for itself
    assert kind.facts(again)["near"] == "Red Sun"  # type: ignore[index]


def test_a_suite_that_cannot_be_measured_says_why(films: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nothing measures 'interst'.*'interest'"):
        task_of(suite(tmp_path, task="interst"))
    with pytest.raises(RecipeError, match="'llm' is compared but not among the predictors"):
        evaluate(suite(tmp_path, task="interest", predictors=["popular"], compare=[["llm", "popular"]]))
    with pytest.raises(AdapterError, match="may have seen the answers"):
        evaluate(suite(tmp_path, task="interest", method="time"))
    shutil.copytree(films / "adapters" / "films", films / "adapters" / "listsonly")
    card = json.loads((films / "adapters" / "listsonly" / "card.json").read_text())
    del card["prompts"]["interest"]
    (films / "adapters" / "listsonly" / "card.json").write_text(json.dumps(card))
    with pytest.raises(AdapterError, match="listsonly: not trained on interest.*llmrec train films"):
        evaluate(suite(tmp_path, task="interest", adapter="listsonly"))
    (films / "adapters" / "films" / "card.json").rename(films / "card.json")
    try:
        with pytest.raises(AdapterError, match="no trained adapter.*llmrec train"):
            evaluate(suite(tmp_path, task="explanation"))
    finally:
        (films / "card.json").rename(films / "adapters" / "films" / "card.json")


def test_the_verb_chooses_by_the_suites_task(tmp_path: Path) -> None:
    asked = suite(tmp_path, task="interest", predictors=["popular"])
    done = CliRunner().invoke(cli.app, ["evaluate", asked, "users=5", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "| popular |" in done.output and "5 users" in done.output
