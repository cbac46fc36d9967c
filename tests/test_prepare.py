"""From a recipe to a prepared folder, made once, made again only when something changed."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE
from typer.testing import CliRunner

from llmrec import cli, config
from llmrec.data import sources
from llmrec.data.dataset import Dataset
from llmrec.errors import DataError, RecipeError
from llmrec.prepare import data_folder, load, prepare, texts


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "events.csv"
    rows = [f"{user},{item},{10 * time},{1 + time % 5}" for user in "uvw" for time, item in enumerate("abcdef")]
    path.write_text("user_id,item_id,timestamp,rating\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def recipe(source) -> config.Recipe:
    return config.Recipe(domain="films", licence="ours", data=config.DataSource(path=str(source)))


def changed(recipe: config.Recipe, **settings: dict) -> config.Recipe:
    """The recipe with single settings replaced, e.g. data={"k_core": 2}."""
    values = recipe.model_dump()
    for section, pairs in settings.items():
        values[section].update(pairs)
    return config.Recipe.model_validate(values)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Grows by one whenever a source is read."""
    calls: list[str] = []
    read = sources.read

    def counted(source, resolve):
        calls.append(source.path)
        return read(source, resolve)

    monkeypatch.setattr(sources, "read", counted)
    return calls


def test_prepares_a_whole_split_folder(recipe):
    folder = prepare(recipe)
    assert folder == data_folder(recipe) == config.home() / "data" / "films"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == {
        "users": 3,
        "items": 6,
        "categories": 0,
        "interactions": 18,
        "train": 12,
        "valid": 3,
        "test": 3,
    }
    assert manifest["domain"] == "films" and manifest["licence"] == "ours"
    assert manifest["data"]["path"] == recipe.data.path and manifest["split"]["method"] == "time"
    assert load(recipe).counts() == manifest["counts"]


def test_who_asks_for_it_is_left_out_and_nobody_else_moves(recipe, tmp_path, caplog):
    def told() -> dict[tuple[str, str], str]:
        found = load(asked).interactions
        return dict(zip(zip(found["user_id"], found["item_id"], strict=True), found["split"], strict=True))

    asked, gone = recipe, tmp_path / "gone.csv"
    before = told()
    gone.write_text("user_id\n")  # nobody yet
    asked = changed(recipe, data={"leave_out": str(gone)})
    assert told() == before
    gone.write_text("user_id\nv\nnobody\n")  # the next command notices
    assert told() == {pair: side for pair, side in before.items() if pair[0] != "v"}
    assert load(asked).users["user_id"].tolist() == ["u", "w"]
    assert "1 of 2 people are not in the data, such as nobody" in caplog.text
    for text, problem in {"user_id\nu\nv\nw\n": "nobody is left", "email\nx\n": "no column 'user_id'"}.items():
        gone.write_text(text)
        with pytest.raises(DataError, match=problem):
            load(asked)
    gone.unlink()
    with pytest.raises(DataError, match="gone.csv"):
        prepare(asked, force=True)


def test_leaving_out_beside_other_formats(tmp_path):
    folder, gone = tmp_path / "films", tmp_path / "gone.csv"
    folder.mkdir()
    rows = [f"{user}\t{item}\t{10 * time}" for user in "uvw" for time, item in enumerate("abcdef")]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / "films.inter").write_text("\n".join([header, *rows]) + "\n")
    gone.write_text("user_id\nu\n")
    source = config.DataSource(format="recbole", path=str(folder / "films.inter"), leave_out=str(gone))
    recipe = config.Recipe(domain="films", data=source)
    assert load(recipe).users["user_id"].tolist() == ["v", "w"]
    gone.write_text("user_id\nu\nv\n")
    assert load(recipe).users["user_id"].tolist() == ["w"]


def test_whose_choices_are_left_out_has_no_texts_either(recipe):
    values = recipe.model_dump()
    values["data"]["leave_out"] = "/data/gone.csv"
    values["tasks"] = {"next_item": {}, "review_sentiment": {"data": {"path": values["data"]["path"]}}}
    with pytest.raises(ValueError, match="tasks.review_sentiment.data.leave_out: .*set it here, too"):
        config.Recipe.model_validate(values)
    values["tasks"]["review_sentiment"]["data"]["leave_out"] = "/data/gone.csv"
    config.Recipe.model_validate(values)


def test_made_once(recipe, reads):
    prepare(recipe)
    prepare(recipe)
    load(recipe)
    assert len(reads) == 1
    prepare(recipe, force=True)
    assert len(reads) == 2


@pytest.mark.parametrize(
    "change, train", [({"split": {"test": 0.3}}, 9), ({"data": {"min_rating": 2}}, 6), ({"data": {"k_core": 1}}, 12)]
)
def test_other_settings_make_it_again(recipe, reads, change, train):
    prepare(recipe)
    other = changed(recipe, **change)
    assert load(other).counts()["train"] == load(other).counts()["train"] == train
    assert len(reads) == 2


def test_another_process_with_other_settings_is_noticed(recipe, monkeypatch):
    """What it would test could be trained on."""
    module = sys.modules["llmrec.prepare"]

    def overtaken(asked):
        folder = prepare(asked)
        prepare(changed(asked, split={"test": 0.3}))
        return folder

    monkeypatch.setattr(module, "prepare", overtaken)
    with pytest.raises(DataError, match="prepared with other settings by another process"):
        load(recipe)


def test_settings_of_training_do_not(recipe, reads):
    prepare(recipe)
    prepare(changed(recipe, fit={"epochs": 9}, lora={"rank": 8}))
    assert len(reads) == 1


def test_what_is_asked_of_the_files_does_not(recipe, reads):
    prepare(recipe)
    load(changed(recipe, split={"baskets": False, "max_targets": 3, "repeats": "allow"}))
    load(recipe)
    assert len(reads) == 1


def test_an_edited_source_makes_it_again_and_a_lost_one_does_not(recipe, source, reads):
    assert load(recipe).counts()["interactions"] == 18
    source.write_text(source.read_text() + "u,g,70,5\n")
    assert load(recipe).counts()["interactions"] == 19
    source.unlink()
    assert load(recipe).counts()["interactions"] == 19
    assert len(reads) == 2


def test_an_interrupted_folder_is_made_again(recipe, reads):
    (prepare(recipe) / "manifest.json").unlink()
    assert load(recipe).counts()["users"] == 3
    assert len(reads) == 2


def test_low_ratings_are_left_out_before_the_split(recipe):
    data = load(changed(recipe, data={"min_rating": 2}))  # times 0 and 50 of every user are rated 1
    assert data.counts() == {
        "users": 3,
        "items": 6,
        "categories": 0,
        "interactions": 12,
        "train": 6,
        "valid": 3,
        "test": 3,
    }
    assert sorted(data.interactions["timestamp"].unique()) == [10, 20, 30, 40]


def test_k_core_looks_at_training_only(recipe):
    # e and f are chosen three times each, after the cut only: no training events
    data = load(changed(recipe, data={"k_core": 3}))
    assert data.items["item_id"].tolist() == ["a", "b", "c", "d"]
    assert data.counts() == {
        "users": 3,
        "items": 4,
        "categories": 0,
        "interactions": 12,
        "train": 12,
        "valid": 0,
        "test": 0,
    }


def test_filters_that_leave_nothing_say_so(recipe, source):
    with pytest.raises(DataError, match=r"min_rating=6 leaves no interactions \(highest rating 5\)"):
        prepare(changed(recipe, data={"min_rating": 6}))
    with pytest.raises(DataError, match="k_core=100 leaves no interactions"):
        prepare(changed(recipe, data={"k_core": 100}))
    source.write_text("user_id,item_id\nu,a\n")
    with pytest.raises(DataError, match="min_rating=3: the source has no ratings"):
        prepare(changed(recipe, data={"min_rating": 3}))
    assert not (data_folder(recipe) / "manifest.json").exists()


def test_a_failed_attempt_keeps_what_was_there(recipe, source):
    prepare(recipe)
    source.write_text("user_id,item_id,timestamp\nu,a,soon\n")
    with pytest.raises(DataError, match="line 2: timestamp 'soon'"):
        prepare(recipe)
    assert Dataset.load(data_folder(recipe)).counts()["interactions"] == 18


def of_texts(path: Path, task: str, **columns: str) -> config.Recipe:
    tasks = {task: {"data": {"path": str(path), "columns": columns, "valid": 0.2, "test": 0.2}}}
    return config.Recipe.model_validate({"domain": "shop", "tasks": tasks})


def test_texts_are_read_and_counted(tmp_path):
    rows = [f"It is {i},{rating},{about}" for i, (rating, about) in enumerate([(1, "Hat"), (5, "Bag"), (5, "Bag")] * 5)]
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join(["review,rating,category", *rows, "No rating,,Bag"]) + "\n")
    splits = {"train": 10, "valid": 3, "test": 3}
    assert texts(of_texts(path, "review_sentiment"), "review_sentiment") == (
        splits,
        {"positive": 10, "negative": 5, "neutral": 0},
    )
    assert texts(of_texts(path, "item_class"), "item_class") == (splits, {"Bag": 11, "Hat": 5})
    path.write_text("review,rating\nGood,5\nBad,one\n")
    with pytest.raises(DataError, match="reviews.csv: line 3: rating 'one' is not a number"):
        texts(of_texts(path, "review_sentiment"), "review_sentiment")
    with pytest.raises(DataError, match="item_class: 0 categories"):
        path.write_text("\n".join(["review,rating", *(f"It is {i},5" for i in range(9))]) + "\n")
        texts(of_texts(path, "item_class"), "item_class")


def test_texts_of_people_are_counted(tmp_path):
    path = tmp_path / "said.csv"
    path.write_text("user_id,item_id,review\n" + "".join(f"u{i % 10},i{i},Text number {i}.\n" for i in range(30)))
    splits, labels = texts(of_texts(path, "grounded_explanation"), "grounded_explanation")
    assert sum(splits.values()) == 30 and min(splits.values()) > 0 and labels == {}


def test_the_command_says_what_it_read(tmp_path):
    import tiny

    rows = [f"It is {i},{rating}" for i, rating in enumerate([1, 5, 5] * 5)]
    (tmp_path / "reviews.csv").write_text("\n".join(["review,rating", *rows]) + "\n")
    recipe = of_texts(tmp_path / "reviews.csv", "review_sentiment").model_dump(mode="json", exclude_defaults=True)
    base = tiny.base(tmp_path / "base")
    (tmp_path / "shop.yaml").write_text(json.dumps({**recipe, "base_model": str(base)}))
    said = CliRunner().invoke(cli.app, ["prepare", str(tmp_path / "shop.yaml")]).output
    assert said.splitlines() == [
        f"{tmp_path}/reviews.csv: review_sentiment: 9 train, 3 valid, 3 test; 10 positive, 5 negative, 0 neutral",
        f"{base}: base model",
    ]


def test_names_never_become_paths(recipe):
    with pytest.raises(RecipeError, match="domain '../x'"):
        prepare(recipe.model_copy(update={"domain": "../x"}))


def test_a_home_that_cannot_be_written_is_named(recipe, source, monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", str(source / "home"))
    with pytest.raises(DataError, match="cannot be written: Not a directory.*LLMREC_HOME"):
        prepare(recipe)


def test_two_processes_prepare_together(recipe):
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=load, args=(recipe,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(PATIENCE)
    assert [process.exitcode for process in both] == [0, 0]
    assert Dataset.load(data_folder(recipe)).counts()["users"] == 3
