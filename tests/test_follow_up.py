"""Tasks after a history list on a small domain and a random model: what they are taught, what they answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml
from tiny import COLOURS

from llmrec import config
from llmrec.baselines.together import Together
from llmrec.data.catalog import Catalog
from llmrec.data.split import History, histories
from llmrec.engine import Prompt
from llmrec.errors import AdapterError, DataError, PromptError
from llmrec.explain import explain, print_explanation
from llmrec.follow_up import FollowUp
from llmrec.insight import Insight
from llmrec.learning import learners
from llmrec.learning.follow_up import Moments
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model, load_tokenizer
from llmrec.prepare import load
from llmrec.prompts import attempt_task, measure, print_said
from llmrec.recommend import recommend
from llmrec.recommender import Recommender
from llmrec.score import job, score
from llmrec.summarize import print_summary, summarize
from llmrec.tasks import explanation, interest, interest_summary, next_item
from llmrec.tasks.follow_up import shares
from llmrec.tasks.saved import outdated, saved_prompts
from llmrec.tasks.template import Message, Name, Template
from llmrec.train import run_folder, train
from llmrec.writing import Allowed

ROOT = Path(__file__).parent.parent


@pytest.fixture
def world(films: Path) -> Path:
    return films


@pytest.fixture
def trained(films_adapter: Path) -> Path:
    return films_adapter


@pytest.fixture(autouse=True)
def here(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(world))


def test_one_adapter_learns_all_of_them(trained: Path) -> None:
    card = json.loads((trained / "card.json").read_text())
    tasks = {"next_item", "interest", "interest_summary", "explanation"}
    assert set(card["loss"]) == set(card["prompts"]) == tasks
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = {task: [entry[f"loss/{task}"] for entry in log if "loss" in entry] for task in tasks}
    assert losses["interest"][-1] < 0.5 * np.log(3)  # three colours, guessed: ln 3 nats
    assert all(found[-1] < 0.95 * found[0] for task, found in losses.items() if task.endswith(("summary", "tion")))
    assert {"ndcg@10", "interest_p", "interest_summary_p", "explanation_p", "mean"} <= set(card["validation"])
    assert card["validation"]["interest_p"] > 0.5


def test_interests_follow_the_history(trained: Path) -> None:
    model = Recommender.load(config.load_recipe("films"), "films")
    people = histories(model.dataset, model.catalog, "train")[:12]
    right = 0
    said = Insight(model).summaries([one.items.tolist() for one in people])
    for person, (text, interests) in zip(people, said, strict=True):
        own = COLOURS[int(person.user_id[1:]) % 3]
        assert sum(row.p for row in interests) == pytest.approx(1, abs=1e-4)
        assert {row.category: row.share for row in interests} == {colour: float(colour == own) for colour in COLOURS}
        assert not {*COLOURS} - {own} & {*text.split()}
        right += interests[0].category == own
    assert right >= 8  # of 12; guessing finds 4


def test_a_summary_is_printed_and_is_json(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = summarize("films", user="u2")
    print_summary(found)
    shown = capsys.readouterr().out
    assert "history of user u2" in shown and "Black" in shown and "100%" in shown
    assert json.loads(json.dumps(found.as_dict()))["interests"][0]["p"] == found.interests[0].p


def test_an_explanation_names_what_is_true(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = explain("films", "Blue Rain", history=["Blue Sun", "Blue Moon", "Red Sun"])
    assert found.shared == ("Blue",) and set(found.near) <= {"Blue Sun", "Blue Moon"} and found.near
    assert "Red" not in found.text and "Black" not in found.text
    print_explanation(found)
    assert "Blue Rain" in capsys.readouterr().out
    assert explain("films", "Red Sun", user="u4", base=True).title == "Red Sun"


def test_training_asks_at_moments_that_validation_could_ask_at() -> None:
    """Between baskets; what was chosen at one time is no context for the rest of it."""
    times = np.array([0, 1, 2, 3, 4, 4, 4, 5, 6, 6])
    history = History("u", np.arange(10), times)
    for baskets, wanted in ((True, [7, 8]), (False, [5, 6, 7, 8, 9])):
        recipe = config.load_recipe("films", (f"split.baskets={str(baskets).lower()}",))
        moments = Moments("interest", recipe, Encoder(load_tokenizer(base_model(recipe.base_model).folder)), None)
        assert moments._cuts(history).tolist() == wanted
        moments._able = [(history.items.tolist(), moments._cuts(history))] * 50
        assert {10 - len(moment.after) for moment, _ in moments.train(0)} == {*wanted}
    assert moments._cuts(History("v", np.arange(5), times[:5])).tolist() == []


def test_nobody_and_nothing_are_refused_with_the_way_out(trained: Path, world: Path) -> None:
    with pytest.raises(DataError, match="--history"):
        summarize("films")
    with pytest.raises(DataError, match="--history"):
        explain("films", "Red Sun")
    with pytest.raises(DataError, match="no title"):
        explain("films", "zzzzzz", user="u1")
    other = world / "adapters" / "narrow"
    shutil.copytree(trained, other)
    card = json.loads((other / "card.json").read_text())
    del card["prompts"]["interest"]
    (other / "card.json").write_text(json.dumps(card))
    with pytest.raises(AdapterError, match="not trained on interest"):
        summarize("films", user="u1", adapter="narrow")


def test_a_category_that_training_never_saw_is_not_named(
    trained: Path, world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else the one new item changes."""
    items = tmp_path / "items.csv"
    items.write_text((world / "items.csv").read_text() + "i99,Silver Boat,Silver\n")
    recipe = (f"data.items={items}",)
    before = explain("films", "Red Sun", user="u1")
    assert explain("films", "Red Sun", user="u1", overrides=recipe) == before
    assert "films: explanation does not name what training never saw: Silver" in caplog.text
    listed = recommend("films", user="u1", n=20, overrides=recipe)
    assert "Silver Boat" in [entry.title for entry in listed.items]
    new = explain("films", "Silver Boat", user="u1", overrides=recipe)
    assert new.title == "Silver Boat" and new.shared == () and "Silver" not in new.text.replace("Silver Boat", "")
    assert summarize("films", user="u1", overrides=recipe) == summarize("films", user="u1")
    model = Recommender.load(config.load_recipe("films", recipe), "films")
    with pytest.raises(AdapterError, match="before there was a category 'Silver'"):  # it might be the right answer
        FollowUp.load(model, "interest", measured=True)
    items.write_text((world / "items.csv").read_text().replace(",Red\n", ",Crimson\n"))
    with pytest.raises(AdapterError, match="the category 'Red', which no item has any more"):
        summarize("films", user="u1", overrides=recipe)


def test_who_learned_no_lists_still_says_what_it_learned(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(world, project, ignore=shutil.ignore_patterns("base"))
    monkeypatch.setenv("LLMREC_PROJECT", str(project))
    recipe = config.load_recipe(
        "films", ("tasks={interest: {examples: 8}, interest_summary: {examples: 8}}", "fit.epochs=1", "fit.cache=none")
    )
    base = base_model(recipe.base_model)
    run = run_folder(recipe, base)
    folder = train(recipe, out=project / "adapters" / "told")
    card = json.loads((folder / "card.json").read_text())
    assert set(card["loss"]) == {"interest", "interest_summary"} and len(card["items"]) == len(tiny.FILMS)
    assert {path.stem for path in (folder / "prompts").iterdir()} == {*card["prompts"]} == {*card["loss"], "next_item"}
    before = summarize("films", user="u1", adapter="told")
    assert sum(row.p for row in before.interests) == pytest.approx(1, abs=1e-4)
    with pytest.raises(
        AdapterError, match=r"told: not trained on next_item \(only interest, interest_summary\).*--base"
    ):
        recommend("films", user="u1", adapter="told")

    listed = project / "prompts" / "next_item.yaml"  # edited later: what stands before these tasks is another list
    listed.write_text(listed.read_text().replace("Continue the list.", "What else?"))
    assert run_folder(recipe, base) != run
    assert summarize("films", user="u1", adapter="told") == before
    assert outdated(saved_prompts(folder, card), project / "prompts") == ["next_item"]


def test_who_reads_no_lists_is_named(trained: Path, world: Path) -> None:
    other = world / "adapters" / "unlisted"
    shutil.copytree(trained, other)
    card = json.loads((other / "card.json").read_text())
    del card["prompts"]["next_item"]
    (other / "card.json").write_text(json.dumps(card))
    with pytest.raises(
        AdapterError, match="unlisted: not trained on next_item, and without its wording.*train it again"
    ):
        summarize("films", user="u1", adapter="unlisted")


def test_whole_files_are_told(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load, fit = FollowUp.load, Together.fit
    monkeypatch.setattr(FollowUp, "load", lambda model, task: loaded.append(task) or load(model, task))
    monkeypatch.setattr(Together, "fit", lambda *data: loaded.append("together") or fit(*data))
    (tmp_path / "pairs.csv").write_text("user_id,item_id\nu0,i3\nnobody,i3\nu1,i7\nu2,i99\n")
    asked = job("films", str(tmp_path / "pairs.csv"), kind="explanations", format="jsonl", shard_rows=2)
    score(asked, tmp_path / "reasons")
    shards = sorted((tmp_path / "reasons").glob("scores-*"))
    rows = [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]
    assert [(row["row"], row["user_id"], row["shared"]) for row in rows] == [(1, "u0", ["Red"]), (3, "u1", ["Blue"])]
    assert sorted(loaded) == ["explanation", "together"]  # once for both shards
    alone = explain("films", tiny.FILMS[3], user="u0")
    assert rows[0]["text"] == alone.text and tuple(rows[0]["near"]) == alone.near
    score(job("films", str(tmp_path / "pairs.csv"), kind="summaries"), tmp_path / "summaries")
    table = pd.read_parquet(tmp_path / "summaries")
    assert table["user_id"].tolist() == ["u0", "u1", "u2"]
    assert set(table["categories"][0]) == {*COLOURS} and table["p"][1].sum() == pytest.approx(1, abs=1e-3)


def test_two_wordings_stand_side_by_side(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = attempt_task("films", "interest", user="u0", wordings=["3"])
    assert [one.name for one in said] == ["trained", "3"]
    assert "kind of films" in said[0].prompt and "coming films" in said[1].prompt
    assert all(one.answer.count("%") == 3 for one in said)
    said = attempt_task("films", "explanation", history=["Red Sun", "Red Moon"], item="Red Rain", wordings=["0", "0"])
    assert "Red Rain" in said[0].prompt and said[0].answer == said[1].answer
    print_said(said)
    assert "The answers are the same." in capsys.readouterr().out
    with pytest.raises(PromptError, match="no wording '9'"):
        attempt_task("films", "interest_summary", user="u0", wordings=["9"])
    with pytest.raises(PromptError, match="'interest'"):
        attempt_task("films", "intrest", user="u0")
    with pytest.raises(DataError, match="--item"):
        attempt_task("films", "explanation", user="u0")
    with pytest.raises(DataError, match="--history"):
        attempt_task("films", "interest")
    with pytest.raises(DataError, match="--text"):
        attempt_task("films", "review_sentiment")


def test_wordings_of_every_task_are_measured(trained: Path) -> None:
    tasks = {"next_item": "ndcg@10", "interest": "interest ndcg@3", "interest_summary": "p of a token",
             "explanation": "p of a token"}  # fmt: skip
    found = measure("films", ("users=6", "samples=20"), tasks=list(tasks), wordings=[0, 3])
    assert [(one.task, one.name) for one in found] == [(task, name) for task in tasks for name in ("trained", "0", "3")]
    for one in found:
        assert one.metric == tasks[one.task] and one.asked.endswith(" users") and 0 <= one.mean.mean <= 1
        if one.name == "0":
            assert one.difference is not None and one.difference.low == one.difference.high == 0
    moved = {one.task for one in found if one.difference is not None and one.difference.mean != 0}
    assert {"interest_summary", "explanation"} <= moved  # another wording is read: probabilities are not the same


def test_prompts_share_the_lists_tokens(trained: Path) -> None:
    model = Recommender.load(config.load_recipe("films"), "films")
    history = list(range(15)) * 3  # beyond the window
    [ranked] = model.prompts([history])
    for task in ("interest", "interest_summary"):
        [asked] = FollowUp.load(model, task).prompts([history])
        assert asked.tokens[: len(ranked.tokens)] == ranked.tokens and len(asked.tokens) > len(ranked.tokens)


def test_prompts_end_with_a_block_or_where_the_root_is_asked_in_parts_behind_one(trained: Path) -> None:
    histories = [[item % 15 for item in range(many)] for many in range(10, 40)]
    different = []
    for parts, behind in ((1, 0), (2, 1)):
        model = Recommender.load(
            config.load_recipe("films", ["window_block=8", "fit.window_tokens=400"]), "films", engine="fake"
        )
        model.engine.widest = -(-len(model.listing.choices.trie.children(0)) // parts)
        room = model.recipe.fit.window_tokens - max(map(len, model.listing.lines))
        found = model.prompts(histories)
        assert found == [
            model.encoder.list_prompt(
                next_item.messages(model.template, model.recipe), [model.listing.lines[item] for item in history],
                max_tokens=room, block=8, behind=behind, adapter="films",
            )
            for history in histories
        ]  # fmt: skip
        different.append(found)
    assert different[0] != different[1]


def test_where_one_wording_says_nothing_whole_the_others_are_asked(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = FollowUp.load(Recommender.load(config.load_recipe("films"), "films"), "interest_summary")
    first, second = task.template.wordings(held_out=False)[:2]
    histories = [[0, 1], [2, 3], [4]]
    prompts = {wording: task.prompts(histories, wording=wording) for wording in (first, second)}
    said = {prompts[first][1]: ["Whole."], prompts[second][0]: ["Better."], prompts[second][2]: ["Later."]}
    asked: list[tuple[int, str]] = []

    def write(engine: object, encoder: object, some: list[Prompt], names: object, allowed: Allowed) -> list[list[str]]:
        for i in range(len(some)):
            allowed(i, "item", [])
        return [said.get(prompt, []) for prompt in some]

    monkeypatch.setattr("llmrec.writing.write", write)
    may = lambda i, kind, _: asked.append((i, kind)) or []  # noqa: E731
    holds = lambda i, claim: True  # noqa: E731
    assert task.write(histories, may, holds) == [["Better."], ["Whole."], ["Later."]]
    assert [i for i, _ in asked] == [0, 1, 2, 0, 2]  # whoever is asked again is still asked as themselves
    assert task.write(histories, may, holds, wording=first) == [[], ["Whole."], []]


def test_rows_ask_about_the_past_and_teach_the_future(world: Path) -> None:
    recipe = config.load_recipe("films")
    encoder = Encoder(load_tokenizer(world / "base"))
    made = learners(recipe, encoder, _Engine(len(encoder.tokenizer)))  # type: ignore[arg-type]
    lists = {id(getattr(one, "follow_up", one).recommender.listing) for one in made.values()}  # type: ignore[attr-defined]
    assert len(made) == 4 and len(lists) == 1  # built once
    for row in made["interest"].rows(0):
        assert row.p is not None and row.p.shape == (1, 3) and row.p.sum() == pytest.approx(1)
        assert row.p[0, row.choices[0]] > 0
    assert [row.tokens.tolist() for row in made["interest"].rows(0)] == [
        row.tokens.tolist() for row in made["interest"].rows(0)
    ]
    rows = made["interest_summary"].rows(0)
    assert len(rows) == 30
    for row in rows:  # every token of the reply is a target, the last one its end
        assert row.tokens[row.starts].tolist() == row.choices.tolist() and row.choices[-1] == encoder.end
    few = config.load_recipe("films", ("tasks.explanation.examples=7",))
    assert len(learners(few, encoder, _Engine(len(encoder.tokenizer)))["explanation"].rows(1)) == 7  # type: ignore[arg-type]


def test_facts_of_a_summary() -> None:
    kinds = [("Drama",)] * 15 + [("Drama", "War")] * 6 + [("Comedy",)] * 8
    lines = [f"film {i}" for i in range(len(kinds))]
    found = interest_summary.facts(lines, kinds)
    assert found is not None
    assert found["top"] == "Drama" and found["rising"] == "Comedy" and found["latest"] == "film 28"
    assert found["examples"] == ["film 20", "film 19"] and found["more"] == []
    assert interest_summary.facts(["a"], [()]) is None
    again = interest_summary.facts(["a", "b", "b"], [("X",), ("Y",), ("Y",)])
    assert again is not None and again["examples"] == ["b"]  # once
    assert interest_summary.facts(["a"], [("War",)])["examples"] == ["a"]  # type: ignore[index]
    assert set(interest_summary.nameable(kinds)) == {"Drama", "Comedy", "War"}
    assert shares(kinds) == pytest.approx({"Drama": 18 / 29, "Comedy": 8 / 29, "War": 3 / 29})


def test_facts_of_an_explanation() -> None:
    lines, kinds = ["a", "b", "c"], [("War",), ("Drama",), ("Drama",)]
    found = explanation.facts(lines, kinds, ("Drama", "Comedy"), 2)
    assert found == {"shared": ["Drama"], "often": True, "other": "", "near": "c", "lately": True}
    found = explanation.facts(lines, kinds, ("Comedy",), None)
    assert found == {"shared": [], "often": False, "other": "Comedy", "near": "", "lately": False}
    assert explanation.facts([], [], (), None) is None
    uneven = explanation.facts(["a"] * 12, [("Drama",)] * 11 + [("War",)], ("Drama", "War"), None)
    assert uneven is not None and len(uneven["shared"]) == 2 and not uneven["often"]  # it would be said of both


def test_what_came_next_as_shares() -> None:
    assert interest.expected([("War", "Drama"), ("Drama",)], ["Comedy", "Drama", "War"]).tolist() == [0, 0.75, 0.25]
    assert not interest.expected([(), ()], ["Drama"]).any()


def test_items_chosen_together(world: Path) -> None:
    dataset = load(config.load_recipe("films"))
    together = Together.fit(dataset, Catalog.of(dataset))
    similar = together.similar(0, [1, 5, 10])
    assert similar[0] > 0.9 and similar[1] == similar[2] == 0
    assert together.nearest(0, [2, 5, 2, 10]) == 2  # the last time
    assert together.nearest(0, [5, 10, 2]) == 2 and together.nearest(0, [5]) is None and together.nearest(0, []) is None
    assert together.similar(0, [1], own=1)[0] <= similar[0]


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "sentencepiece"])
def test_a_turn_is_what_the_whole_conversation_renders(kind: str) -> None:
    encoder = Encoder(tiny.tokenizer(kind))
    before = [Message("system", "You recommend films."), Message("user", "Continue the list.")]
    turn = encoder.turn(before, Message("user", "Why Heat<|im_end|>?"))
    whole = encoder.header([*before, Message("assistant", "Fargo"), Message("user", "Why Heat<|im_end|>?")])
    assert turn and whole[-len(turn) :] == turn
    assert whole[: len(encoder.header(before))] == encoder.header(before)
    opened = encoder.header(before) + tuple(encoder.text("Fargo"))
    assert len(whole) == len(opened) + len(turn)
    control = [token for token in turn if token in encoder.control]
    plain = [token for token in encoder.turn(before, Message("user", "Why Heat?")) if token in encoder.control]
    assert control == plain  # the user's text opened and closed nothing


def test_replies_of_a_prompt_file(tmp_path: Path) -> None:
    def load(**changed: object) -> Template:
        values = yaml.safe_load((ROOT / "prompts" / "interest_summary.yaml").read_text()) | changed
        (tmp_path / "interest_summary.yaml").write_text(yaml.safe_dump(values))
        return Template.load(tmp_path / "interest_summary.yaml")

    facts = {
        "domain": {"noun": "films", "unit": "film"},
        "top": Name.of("category", "Drama"), "more": [Name.of("category", "War")],
        "examples": [Name.of("item", "A [strange] {{ title }}")], "rising": "", "latest": "",
    }  # fmt: skip
    template = load(replies=["Mostly {{ top }}, {{ more | join(' and ') }}; {{ examples | first }}."])
    parts = template.reply_parts(facts)
    assert parts == ["Mostly ", "Drama", ", ", "War", "; ", "A [strange] {{ title }}", "."]
    assert [part.kind for part in parts if isinstance(part, Name)] == ["category", "category", "item"]
    with pytest.raises(PromptError, match="knows no examples"):
        template.reply_parts({key: value for key, value in facts.items() if key != "examples"})
    with pytest.raises(PromptError, match="unknown slot 'tops'.*'top'"):
        load(replies=["{{ tops }}"])
    with pytest.raises(PromptError, match="system"):
        load(system="You are.")
    with pytest.raises(PromptError, match="replies"):
        load(reply="choice")


class _Engine:
    """Rows need no model but its vocabulary."""

    widest = 1024

    def __init__(self, vocabulary: int) -> None:
        import torch

        self.head = torch.nn.Linear(4, vocabulary, bias=False)

    def beside(self, task: str) -> _Engine:
        return self

    def forget(self) -> None:
        pass
