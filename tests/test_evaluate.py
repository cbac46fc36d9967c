"""From a suite to its folder: the same queries for all, nothing ranked twice, no adapter on what it has learned."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from llmrec import config, prepare
from llmrec.baselines import ScoreRanker
from llmrec.baselines.popular import Popular
from llmrec.cli import app
from llmrec.data.catalog import Catalog
from llmrec.data.split import Query, of_users, queries
from llmrec.errors import AdapterError, DataError, RecipeError
from llmrec.evaluate import MEASURES, evaluate, task_of
from llmrec.measuring import ranking
from llmrec.measuring.ranking import RANKERS, LanguageModel, World
from llmrec.measuring.suites import adapter_of, load_suite_as, results_folder, under

ROOT = Path(__file__).parent.parent
USERS, ITEMS = 12, 9


class Oracle:
    """Knows every answer, and counts what it is asked."""

    def __init__(self, asked: list[Query], place: int = 0) -> None:
        self.asked, self.place = asked, place

    def rank(self, queries: Sequence[Query], n: int) -> np.ndarray:
        self.asked += queries
        lists = np.full((len(queries), n), -1, np.int32)
        for line, query in zip(lists, queries, strict=True):
            others = [item for item in range(ITEMS) if item != query.target][: self.place]
            line[: self.place + 1] = [*others, query.target][:n]
        return lists


@pytest.fixture
def asked() -> dict[str, list[Query]]:
    return {"first": [], "third": []}


@pytest.fixture
def rankers(asked, monkeypatch):
    """What the names of rankers stand for here."""

    def popular(world: World) -> ScoreRanker:
        world.tick(1, 2)
        return ScoreRanker(Popular(world.catalog.popularity(world.dataset.interactions)))

    found = {
        "popular": popular,
        "first": lambda world: Oracle(asked["first"]),
        "third": lambda world: Oracle(asked["third"], place=2),
        "llm": lambda world: Oracle(asked["first"]) if world.adapter else None,
    }
    monkeypatch.setattr(ranking, "RANKERS", found)
    return found


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with one domain, `films`, and one suite, `small`."""
    rng = np.random.default_rng(0)
    lines = [
        f"u{user},i{item},{100 * user + 3 * place}"
        for user in range(USERS)
        for place, item in enumerate(rng.permutation(ITEMS)[:5])
    ]
    source = tmp_path / "events.csv"
    source.write_text("user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "eval").mkdir()
    (tmp_path / "adapters" / "films").mkdir(parents=True)
    (tmp_path / "adapters" / "films" / "recipe.yaml").write_text(
        f"domain: films\ndata: {{path: {source}}}\nsplit: {{method: leave_one_out}}\n"
    )
    (tmp_path / "eval" / "small.yaml").write_text(
        "domain: films\nsplits: [{method: leave_one_out}]\nrankers: [popular, first, third]\n"
        "compare: [[first, third]]\ncutoffs: [1, 2, 5]\nsamples: 50\n"
    )
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path))
    return tmp_path


def card(project: Path, name: str = "films", **split: object) -> None:
    folder = project / "adapters" / name
    folder.mkdir(exist_ok=True)
    trained = config.Split.model_validate({"method": "leave_one_out", **split}).model_dump(mode="json")
    (folder / "card.json").write_text(json.dumps({"weights": f"digest-{name}", "recipe": {"split": trained}}))


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_a_suite_becomes_a_folder(project, rankers, tmp_path, home):
    folder = evaluate("small")
    assert folder.parent == home / "evaluations" and folder == results_folder(*load_suite_as(config.Suite, "small"))
    assert {path.name for path in folder.iterdir()} == {
        "records.parquet", "results.json", "table.md", "chart.png", "parts",
    }  # fmt: skip
    assert (folder / "chart.png").read_bytes().startswith(b"\x89PNG")

    assert results(folder)["task"] == "next_item"
    found = results(folder)["splits"]["test-leave_one_out"]
    first, third = (found["rankers"][name]["metrics"] for name in ("first", "third"))
    assert found["users"] == found["queries"] == USERS
    assert first["ndcg@5"] == {"mean": 1, "low": 1, "high": 1} and third["ndcg@5"]["mean"] == 1 / 2
    assert third["hr@2"]["mean"] == 0 and third["mrr@5"]["mean"] == pytest.approx(1 / 3)
    gap = next(d for d in found["differences"] if d["metric"] == "ndcg@5")
    assert (gap["a"], gap["b"], gap["mean"], gap["excludes_zero"]) == ("first", "third", 1 / 2, True)
    table = (folder / "table.md").read_text()
    assert "| first - third | ndcg@5 | +0.5000 [+0.5000, +0.5000] | yes |" in table

    parts = found["slices"]
    assert parts["short"]["queries"] == USERS and "long" not in parts  # histories of four
    assert sum(parts[part]["queries"] for part in ("head", "tail", "new") if part in parts) == USERS
    for part in parts.values():
        assert part["metrics"]["third"]["ndcg@5"]["mean"] == 1 / 2
        [gap] = part["differences"]
        assert (gap["a"], gap["mean"]) == ("first", 1 / 2)
    assert "By part, ndcg@5" in table and f"short ({USERS})" in table and "+0.5000 [+0.5000, +0.5000] *" in table


def test_all_rankers_answer_the_same_queries(project, rankers, asked, tmp_path):
    records = pd.read_parquet(evaluate("small", out=tmp_path / "out") / "records.parquet")
    assert asked["first"] == asked["third"]
    assert list(records) == ["user_id", "split", "ranker", "target", "rank", "items"]
    by_ranker = {name: part.reset_index(drop=True) for name, part in records.groupby("ranker")}
    for name in ("popular", "third"):
        assert (by_ranker[name][["user_id", "target"]] == by_ranker["first"][["user_id", "target"]]).all(axis=None)
    third = by_ranker["third"]
    assert set(third["rank"]) == {3} and (third["items"].str[2] == third["target"]).all()
    popular = by_ranker["popular"]
    last = pd.read_csv(project / "events.csv").groupby("user_id", sort=False)["item_id"].last()
    assert (popular.set_index("user_id")["target"] == last).all()
    for row in popular.to_dict("records"):
        place = list(row["items"]).index(row["target"]) + 1 if row["target"] in row["items"] else 0
        assert row["rank"] == place


def test_no_ranker_runs_twice(project, rankers, asked, tmp_path, monkeypatch):
    evaluate("small", out=tmp_path / "out")
    before = results(tmp_path / "out")
    asked["first"].clear()
    asked["third"].clear()

    def fails(world: World) -> None:
        raise AssertionError("ranked again")

    monkeypatch.setattr(ranking, "RANKERS", again := dict.fromkeys(rankers, fails))
    evaluate("small", out=tmp_path / "out")
    after = results(tmp_path / "out")
    assert {**after, "finished": ""} == {**before, "finished": ""}

    evaluate("small", ("samples=20",), out=tmp_path / "out")  # intervals need no lists
    (tmp_path / "out" / "parts" / "test-leave_one_out" / "third.parquet").write_bytes(b"half written")
    again["third"] = rankers["third"]
    evaluate("small", out=tmp_path / "out")
    assert len(asked["third"]) == USERS and not asked["first"]
    assert results(tmp_path / "out")["splits"] == {
        label: {**split, "rankers": {**split["rankers"], "third": {**split["rankers"]["third"], "seconds": seconds}}}
        for label, split in before["splits"].items()
        for seconds in [results(tmp_path / "out")["splits"][label]["rankers"]["third"]["seconds"]]
    }

    monkeypatch.setattr(ranking, "RANKERS", rankers)
    evaluate("small", out=tmp_path / "out", force=True)
    assert len(asked["first"]) == USERS


@pytest.mark.parametrize("override", ["users=5", "cutoffs=[1, 7]", "seed=1"])
def test_other_questions_are_asked_anew(project, rankers, asked, tmp_path, override):
    evaluate("small", out=tmp_path / "out")
    asked["first"].clear()
    evaluate("small", (override,), out=tmp_path / "out")
    assert asked["first"]


def test_an_interrupted_run_goes_on(project, rankers, asked, tmp_path, monkeypatch):
    def stopped(world: World) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(rankers, "third", stopped)
        evaluate("small", out=tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()
    evaluate("small", out=tmp_path / "out")
    assert len(asked["first"]) == len(asked["third"]) == USERS


def test_the_same_settings_share_a_folder_on_any_day(project, rankers, asked, monkeypatch):
    monkeypatch.setattr(time, "gmtime", lambda *_: time.struct_time((2026, 11, 28, 23, 59, 0, 5, 332, 0)))
    folder = evaluate("small")
    monkeypatch.setattr(time, "gmtime", lambda *_: time.struct_time((2026, 11, 29, 0, 1, 0, 6, 333, 0)))
    assert evaluate("small") == folder and results(folder)["finished"].startswith("2026-11-29")
    few = ("samples=20", "compare=[]", "rankers=[first]")  # what is said of the parts, and of which
    assert evaluate("small", few) == folder and len(asked["first"]) == USERS


@pytest.mark.parametrize("override", ["users=5", "seed=1", "cutoffs=[3]", "splits=[{method: time}]", "sasrec.epochs=1"])
def test_other_questions_leave_results_alone(project, rankers, override):
    folder = evaluate("small")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert evaluate("small", (override,)) != folder
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_suite_asks_under_its_domains_split_and_drops_pairs_of_what_is_left_out(project, rankers, tmp_path):
    (project / "eval" / "plain.yaml").write_text(
        "domain: films\nrankers: [popular, first, third]\ncompare: [[first, third], [first, popular]]\ncutoffs: [3]\n"
    )
    found = results(evaluate("plain", ("rankers=[popular, first]",), out=tmp_path / "out"))
    assert [*found["splits"]] == ["test-leave_one_out"]
    part = results(evaluate("plain", ("rankers=[popular]", "splits=[{split: valid}]"), out=tmp_path / "part"))
    assert [*part["splits"]] == ["valid-leave_one_out"]
    with pytest.raises(RecipeError, match="'thrid' is compared but not among"):
        (project / "eval" / "plain.yaml").write_text("domain: films\nrankers: [first]\ncompare: [[first, thrid]]\n")
        evaluate("plain", ("rankers=[popular]",), out=tmp_path / "other")
    assert {(d["a"], d["b"]) for d in found["splits"]["test-leave_one_out"]["differences"]} == {("first", "popular")}


def test_protocols_stand_side_by_side(project, rankers, tmp_path):
    suite = (
        "domain: films\nrankers: [popular, first]\ncutoffs: [3]\nsplits:\n"
        "  - {method: leave_one_out}\n  - {method: time, baskets: false}\n  - {method: time, split: valid}\n"
    )
    (project / "eval" / "both.yaml").write_text(suite)
    folder = evaluate("both", out=tmp_path / "out")
    found = results(folder)["splits"]
    assert list(found) == ["test-leave_one_out", "test-time-no_baskets", "valid-time"]
    assert found["test-time-no_baskets"]["data"]["test"] == 6  # a tenth of 60 interactions
    assert found["test-leave_one_out"]["data"]["test"] == USERS
    assert set(pd.read_parquet(folder / "records.parquet")["split"]) == set(found)
    assert "ndcg@3" in (folder / "table.md").read_text()


def test_users_drawn_keep_all_their_queries():
    questions = [Query(user, (), i) for i, user in enumerate("aabcccd")]
    assert of_users(questions, 0, 0) == of_users(questions, 4, 0) == questions
    few = of_users(questions, 2, 0)
    users = {query.user_id for query in few}
    assert len(users) == 2 and few == [query for query in questions if query.user_id in users]
    assert few == of_users(questions, 2, 0)
    assert {query.user_id for seed in range(30) for query in of_users(questions, 1, seed)} == set("abcd")


def test_an_adapter_is_measured_only_under_its_own_cut(project):
    recipe = config.load_recipe("films")
    loo, by_time = config.Asked(method="leave_one_out"), config.Asked(method="time", adapter="films-time")
    with pytest.raises(AdapterError, match="no trained adapter .* run `llmrec train films`"):
        adapter_of(recipe, loo)
    card(project)
    assert adapter_of(recipe, loo) == project / "adapters" / "films"
    assert adapter_of(recipe, config.Asked(method="leave_one_out", baskets=False)) == project / "adapters" / "films"
    card(project, "films-time", method="leave_one_out")
    with pytest.raises(
        AdapterError, match="split.method=leave_one_out, so it may have seen the answers of 'test-time'"
    ):
        adapter_of(recipe, by_time)
    card(project, "films-time", method="time", test=0.05)
    with pytest.raises(AdapterError, match="split.test=0.05"):
        adapter_of(recipe, by_time)
    card(project, "films-time", method="time")
    assert adapter_of(recipe, by_time).name == "films-time"


def test_a_damaged_card_is_no_missing_one(project):
    card(project)
    (project / "adapters" / "films" / "card.json").write_text('{"weights": "dig')
    with pytest.raises(AdapterError, match=r"films/card.json: cannot be read: .*; restore it, .*rollback"):
        adapter_of(config.load_recipe("films"), config.Asked(method="leave_one_out"))


def test_the_adapter_is_checked_before_anything_is_ranked(project, rankers, asked, tmp_path):
    with pytest.raises(AdapterError, match="films: no trained adapter"):
        evaluate("small", ("rankers=[first, llm]", "compare=[]"), out=tmp_path / "out")
    assert not asked["first"]
    card(project)
    evaluate("small", ("rankers=[llm]", "compare=[]"), out=tmp_path / "out")
    assert results(tmp_path / "out")["splits"]["test-leave_one_out"]["adapter"] == {
        "name": "films", "weights": "digest-films",
    }  # fmt: skip


def test_another_method_is_prepared_in_a_folder_of_its_own(project):
    recipe = config.load_recipe("films")
    assert under(recipe, config.Asked(method="leave_one_out", baskets=False)).domain == "films"
    other = under(recipe, config.Asked(method="time"))
    assert (other.domain, other.split.method) == ("films-time", "time")
    long = under(recipe.model_copy(update={"domain": "x" * 64}), config.Asked(method="time"))
    assert config.checked_name(long.domain) == "x" * 59 + "-time"


@pytest.mark.parametrize(
    ("suite", "overrides", "message"),
    [
        ("smal", (), "no suite 'smal' in .*did you mean 'small'"),
        ("small", ("rankers=[populr]", "compare=[]"), "unknown ranker 'populr'; did you mean 'popular'"),
        ("small", ("rankers=[first]", "compare=[[first, third]]"), "'third' is compared but not among the rankers"),
        ("small", ("rankes=[first]",), "unknown key 'rankes'; did you mean 'rankers'"),
        ("small", ("splits=[]",), "splits"),
        ("small", ("cutoffs=[0]",), "cutoffs"),
        ("small", ("splits=[{method: time}, {method: time}]",), "listed twice"),
        ("../small", (), "suite '../small': use"),
    ],
)
def test_mistakes_are_one_line(project, rankers, suite, overrides, message):
    with pytest.raises(RecipeError, match=message):
        evaluate(suite, overrides)


@pytest.fixture
def theirs(project, tmp_path) -> Path:
    """The folder of a suite's questions, answered by a ranker `mine`: the target, which it knows, in second place."""
    folder = tmp_path / "theirs"
    runner = CliRunner().invoke(app, ["evaluate", "small", "--questions", str(folder)])
    assert runner.exit_code == 0, runner.output
    assert runner.stdout.split() == [str(folder / "test-leave_one_out")]
    answer(folder, [["seen", query.target, query.history[0]] for query in world_queries()])
    return folder


def world_queries() -> list[SimpleNamespace]:
    """What the suite asks, as item ids."""
    recipe = config.load_recipe("films")
    dataset = prepare.load(recipe)
    catalog = Catalog.of(dataset)
    ids = catalog.item_id
    return [
        SimpleNamespace(user_id=query.user_id, target=ids[query.target], history=[ids[i] for i in query.history])
        for query in queries(dataset, catalog, "test", baskets=True, max_targets=20)
    ]


def answer(folder: Path, lists: list, query: list | None = None) -> None:
    """`seen` in a list stands for an item of the person's own history."""
    asked = world_queries()
    lists = [[asked[i].history[-1] if item == "seen" else item for item in row] for i, row in enumerate(lists)]
    number = list(range(len(lists))) if query is None else query
    pd.DataFrame({"query": number, "items": lists}).to_parquet(folder / "test-leave_one_out" / "mine.parquet")


def test_questions_go_out_without_their_answers(project, theirs):
    folder = theirs / "test-leave_one_out"
    asked, valid, train = (pd.read_parquet(folder / f"{name}.parquet") for name in ("questions", "valid", "train"))
    assert list(asked) == ["query", "user_id", "history"] and list(valid) == [*asked, "target"]
    assert list(train) == ["user_id", "item_id", "timestamp"] and len(train) == 3 * USERS
    wanted = world_queries()
    assert asked["query"].tolist() == list(range(USERS))
    assert asked["user_id"].tolist() == [query.user_id for query in wanted]
    assert [list(history) for history in asked["history"]] == [query.history for query in wanted]
    learned = train.groupby("user_id")["item_id"].agg(set)
    for row in valid.to_dict("records"):
        assert set(row["history"]) == learned[row["user_id"]] and row["target"] not in row["history"]
    for query in wanted:
        assert query.target not in learned[query.user_id]


def test_lists_of_another_program_stand_beside_the_others(project, rankers, theirs, tmp_path, caplog):
    compared = "compare=[[first, mine]]"
    folder = evaluate("small", (f"lists.mine={theirs}", compared), out=tmp_path / "out")
    found = results(folder)["splits"]["test-leave_one_out"]
    assert list(found["rankers"]) == ["popular", "first", "third", "mine"]
    mine = found["rankers"]["mine"]
    assert mine["metrics"]["hr@1"]["mean"] == 1  # what they have chosen already stood before it, and is left out
    assert mine["seconds"] == {} and "| elsewhere |" in (folder / "table.md").read_text()
    records = pd.read_parquet(folder / "records.parquet")
    assert {len(items) for items in records[records["ranker"] == "mine"]["items"]} == {1}  # the rest was seen, too
    assert f"{USERS} of {USERS} lists have fewer than" in caplog.text

    fewer = evaluate("small", (f"lists.mine={theirs}", "users=3", compared), out=tmp_path / "fewer")
    found = results(fewer)["splits"]["test-leave_one_out"]
    assert found["queries"] == 3 and found["rankers"]["mine"]["metrics"]["hr@1"]["mean"] == 1

    answer(theirs, [[]] * USERS)  # other lists are no part that was measured before
    again = evaluate("small", (f"lists.mine={theirs}", compared), out=tmp_path / "out")
    assert results(again)["splits"]["test-leave_one_out"]["rankers"]["mine"]["metrics"]["hr@5"]["mean"] == 0


def test_other_lists_leave_the_folder_of_results_as_it_is():
    alone, beside = (
        config.Suite.model_validate({"domain": "films", **more}) for more in ({}, {"lists": {"mine": "x"}})
    )
    assert results_folder("small", alone) == results_folder("small", beside)
    assert beside.rankers == (*alone.rankers, "mine")


@pytest.mark.parametrize(
    ("lists", "query", "message"),
    [
        ([["i1"]] * (USERS - 2), None, f"2 of {USERS} queries have no row, the first {USERS - 2}"),
        ([["i1", "i1"]] * USERS, None, "query 0: item 'i1' is listed twice"),
        ([["i1", "i99"]] * USERS, None, "query 0: no item 'i99' in the catalog"),
        ([["i1"]] * USERS, [0] * USERS, "row 1: query 0 is empty or answered twice"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(project, rankers, theirs, tmp_path, lists, query, message):
    rankers["popular"] = lambda *_: pytest.fail("ranked before the lists were read")
    answer(theirs, lists, query)
    with pytest.raises(DataError, match=message):
        evaluate("small", (f"lists.mine={theirs}",), out=tmp_path / "out")


def test_lists_of_yesterdays_questions_are_refused(project, rankers, theirs, tmp_path):
    source = tmp_path / "events.csv"
    source.write_text(source.read_text().replace("u0,", "u77,"))
    prepare.prepare(config.load_recipe("films"), force=True)
    with pytest.raises(DataError, match="answers other questions than the data of today ask.*--questions FOLDER"):
        evaluate("small", (f"lists.mine={theirs}",), out=tmp_path / "out")
    found = CliRunner().invoke(app, ["evaluate", "small", "--questions", str(theirs)])
    assert found.exit_code == 2 and "mine.parquet answer other questions" in found.stderr  # else they would pass now


def test_lists_that_say_of_other_questions_that_they_answer_them(project, rankers, theirs, tmp_path):
    folder = theirs / "test-leave_one_out"
    table, of = pq.read_table(folder / "mine.parquet"), pq.read_schema(folder / "questions.parquet").metadata
    pq.write_table(table.replace_schema_metadata(of), folder / "mine.parquet")
    evaluate("small", (f"lists.mine={theirs}",), out=tmp_path / "out")
    pq.write_table(table.replace_schema_metadata({"of": "yesterday"}), folder / "mine.parquet")
    with pytest.raises(DataError, match="answers other questions than the data of today ask"):
        evaluate("small", (f"lists.mine={theirs}",), out=tmp_path / "again")
    (folder / "questions.parquet").write_bytes(b"torn")
    with pytest.raises(DataError, match="questions.parquet: cannot be read"):
        evaluate("small", (f"lists.mine={theirs}",), out=tmp_path / "again")
    found = CliRunner().invoke(app, ["evaluate", "small", "--questions", str(theirs)])
    assert found.exit_code == 2 and "questions.parquet: cannot be read" in found.stderr


@pytest.mark.parametrize("content", [None, b"no parquet", "columns", "types"])
def test_a_file_that_holds_no_lists(project, rankers, theirs, tmp_path, content):
    file = theirs / "test-leave_one_out" / "mine.parquet"
    file.unlink()
    if content == "columns":
        pd.DataFrame({"query": [0]}).to_parquet(file)
    elif content == "types":
        pd.DataFrame({"query": [0], "items": ["i1"]}).to_parquet(file)
    elif content:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.parquet: (is not there|cannot be read).*--questions FOLDER"):
        evaluate("small", (f"lists.mine={theirs}",), out=tmp_path / "out")


def test_questions_that_nobody_can_answer(project, rankers, tmp_path):
    (project / "eval" / "told.yaml").write_text("task: interest\ndomain: films\n")
    for words, message in (
        (["told", "--questions", str(tmp_path / "q")], "asks for no lists of items"),
        (["small", "--questions", str(tmp_path / "q"), "--force"], "measures nothing"),
        (["small", "lists.popular=x"], "'popular' is a ranker of every suite"),
        (["small", "lists.a/b=x"], "lists"),
    ):
        found = CliRunner().invoke(app, ["evaluate", *words])
        assert found.exit_code == 2 and message in found.stderr, found.output


def test_a_folder_that_cannot_be_written(project, rankers, tmp_path):
    (tmp_path / "file").write_text("")
    rankers["popular"] = lambda *_: pytest.fail("asked before the folder was")
    with pytest.raises(DataError, match="cannot be written.*another folder"):
        evaluate("small", out=tmp_path / "file" / "out")


def test_the_real_baselines_run(project, tmp_path):
    names = ["popular", "transitions", "sasrec"]
    overrides = (
        f"rankers=[{', '.join(names)}]",
        "compare=[[sasrec, popular]]",
        "sasrec.epochs=2",
        "sasrec.dimension=8",
    )
    folder = evaluate("small", overrides, out=tmp_path / "out")
    found = results(folder)["splits"]["test-leave_one_out"]["rankers"]
    assert list(found) == names
    records = pd.read_parquet(folder / "records.parquet")
    for row in records.to_dict("records"):
        assert len(row["items"]) == len(set(row["items"])) == 5  # nine items, four of them in the history


@pytest.mark.parametrize("path", sorted((ROOT / "eval").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_suite_loads(path):
    how = MEASURES[task_of(str(path))]
    name, suite = load_suite_as(how.settings, str(path))
    measured = getattr(suite, how.names)
    assert name == path.stem and {one for pair in suite.compare for one in pair} <= set(measured)
    assert how.names != "rankers" or set(measured) <= set(RANKERS)


def test_the_language_model_ranks_with_and_without_prior():
    class Recommender:
        def rank(self, histories: list, n: int, *, prior: bool) -> list[SimpleNamespace]:
            return [SimpleNamespace(items=[len(history), int(prior)][:n]) for history in histories]

    questions = [Query("u", (), 0), Query("v", (4, 4), 0)]
    assert LanguageModel(Recommender(), True).rank(questions, 3).tolist() == [[0, 1, -1], [2, 1, -1]]
    assert LanguageModel(Recommender(), False).rank(questions, 1).tolist() == [[0], [2]]
