"""prompts: lint, differences in words, two wordings side by side, what a wording costs, and the way back."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml
from rich.console import Console
from typer.testing import CliRunner

from llmrec import cli, config, prepare, prompts
from llmrec.data.catalog import Catalog
from llmrec.engine.fake import FakeEngine
from llmrec.errors import AdapterError, AssetError, PromptError, RecipeError
from llmrec.metrics.significance import Interval
from llmrec.model.encode import Encoder
from llmrec.recommender import Listing, Recommender
from llmrec.tasks.lint import lengths, lint
from llmrec.tasks.saved import Change, changes, outdated, read_card, saved_prompts
from llmrec.tasks.template import Template

ROOT = Path(__file__).parent.parent
PROMPTS = sorted((ROOT / "prompts").rglob("*.yaml"))
TITLES = ["Fargo", "Heat", "Alien", "Brazil", "Casino", "Dune", "Elf", "Frozen", "Gattaca", "Hook", "Iris", "Jaws"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def project(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one domain and a card that says what its adapter was trained on (no weights: none are needed)."""
    (tmp_path / "prompts").mkdir()
    shutil.copy(ROOT / "prompts" / "next_item.yaml", tmp_path / "prompts")
    adapter = tmp_path / "adapters" / "films"
    shutil.copytree(tmp_path / "prompts", adapter / "prompts")
    rng = np.random.default_rng(0)
    events = [f"u{u},i{i},{t}" for u in range(12) for t, i in enumerate(rng.permutation(len(TITLES))[:6])]
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(events) + "\n")
    items = [f"i{i},{title},{1980 + i}" for i, title in enumerate(TITLES)]
    (tmp_path / "items.csv").write_text("item_id,title,year\n" + "\n".join(items) + "\n")
    recipe = {
        "domain": "films", "noun": "films", "unit": "film", "base_model": str(base),
        "data": {"path": str(tmp_path / "events.csv"), "items": str(tmp_path / "items.csv")},
        "split": {"method": "leave_one_out"}, "fit": {"window_tokens": 120},
    }  # fmt: skip
    (adapter / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    digest = Template.load(adapter / "prompts" / "next_item.yaml").digest
    (adapter / "card.json").write_text(
        json.dumps({"prompts": {"next_item": digest}, "recipe": {"split": {"method": "leave_one_out"}}})
    )
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path))
    return tmp_path


@pytest.fixture
def model(project: Path, monkeypatch: pytest.MonkeyPatch) -> Recommender:
    """The domain on an engine whose answers depend on every token of the prompt; `Recommender.load` gives it."""
    recipe = config.load_recipe("films")
    dataset = prepare.load(recipe)
    catalog, encoder = Catalog.of(dataset), Encoder(tiny.tokenizer("gpt2"))
    template = Template.load(project / "adapters" / "films" / "prompts" / "next_item.yaml")
    made = Recommender(
        recipe=recipe, dataset=dataset, catalog=catalog, encoder=encoder, template=template, adapter="films",
        listing=Listing.build(catalog, template, encoder, 12), engine=FakeEngine(),
    )  # fmt: skip
    monkeypatch.setattr(Recommender, "load", classmethod(lambda cls, *_, **__: made))
    return made


def edit(project: Path, old: str, new: str, task: str = "next_item") -> Path:
    path = project / "prompts" / f"{task}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def printed(print_: object, *arguments: object, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    print_(*arguments, console)  # type: ignore[operator]
    return console.export_text()


def template(folder: Path, **fields: object) -> Template:
    values = {"task": "next_item", "version": 1, "slots": ["domain"], "system": "You recommend {{ domain.noun }}.",
              "user": [{"text": "a"}, {"text": "b"}, {"text": "c"}, {"text": "d", "held_out": True}],
              "reply": "list"} | fields  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / "next_item.yaml"
    path.write_text(yaml.safe_dump(values))
    return Template.load(path)


class Films:
    domain, noun, unit = "films", "films", "film"


# --- check


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_every_prompt_file_of_the_project_is_clean(path: Path):
    loaded = Template.load(path)
    measured, findings = lengths(
        loaded, Films(), lambda turns: sum(len(turn.content.split()) for turn in turns), window_tokens=320,
        longest_line=14,
    )  # fmt: skip
    assert not [one for one in [*lint(loaded), *findings] if one.grave]
    assert [one.wording for one in measured] == loaded.wordings()


@pytest.mark.parametrize(
    ("fields", "says", "grave"),
    [
        ({"user": [{"text": "Go on."}, {"text": "b"}, {"text": "go ON"}]}, "says the same as wording 0", True),
        ({"user": [{"text": " "}, {"text": "b"}]}, "an empty wording", True),
        ({"user": [{"text": "a", "held_out": True}, {"text": "b"}]}, "it is the one that answers", True),
        ({"user": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}, "no wording is held out", False),
        ({"user": [{"text": "a"}, {"text": "b", "held_out": True}]}, "1 to train on", False),
        ({"slots": ["domain", "user"]}, "'user' is never used", False),
        ({"line": "a film"}, "does not print the item", True),
    ],
    ids=lambda value: str(value)[:30],
)
def test_lint(tmp_path: Path, fields: dict, says: str, grave: bool):
    found = lint(template(tmp_path, **fields))
    assert [one.grave for one in found if says in one.says] == [grave]


def test_a_sound_file_has_nothing_to_mend(tmp_path: Path):
    assert lint(template(tmp_path)) == []


def test_slots_of_any_task_are_filled_with_placeholders(tmp_path: Path):
    text = (
        "{{ review }} {{ item.title }} {{ history | join(', ') }} "
        "{% for h in history %}{{ h.title | upper }}{% endfor %}"
        "{% if user.age > 30 %}old{% endif %} {{ domain.noun }}"
    )
    loaded = template(tmp_path, slots=["domain", "review", "item", "history", "user"], user=[{"text": text}])
    seen: list[str] = []
    lengths(loaded, Films(), lambda t: seen.append(t[-1].content) or 9, window_tokens=99, longest_line=1)
    assert seen == ["… … … … films"]


def test_length_against_the_window(tmp_path: Path):
    loaded = template(tmp_path)
    words = {"a": 10, "b": 51, "c": 89, "d": 100}
    measured, findings = lengths(
        loaded, Films(), lambda turns: words[turns[-1].content], window_tokens=100, longest_line=12
    )
    assert [(one.tokens, one.room) for one in measured] == [(10, 90), (51, 49), (89, 11), (100, 0)]
    assert [(one.where, one.grave) for one in findings] == [("user.1", False), ("user.2", True), ("user.3", True)]
    unknown = template(tmp_path, user=[{"text": "{{ domain.nuon }}"}])
    [finding] = lengths(unknown, Films(), lambda turns: 1, window_tokens=100, longest_line=12)[1]
    assert finding.grave and "unknown 'nuon'; did you mean 'noun'?" in finding.says


def test_check_counts_with_the_tokenizer_of_the_domain(project: Path):
    [checked] = prompts.check()
    encoder = Encoder(tiny.tokenizer("gpt2"))
    turns = Template.load(project / "prompts" / "next_item.yaml").render({"domain": {"noun": "films", "unit": "film"}})
    assert checked.lengths["films"][0].tokens == len(encoder.header(turns))
    text = printed(prompts.print_check, [checked])
    assert "for films" in text and "held out" in text and "error" not in text


def test_one_domain_that_cannot_be_read_does_not_end_the_check(project: Path, caplog: pytest.LogCaptureFixture):
    good = (project / "adapters" / "films" / "recipe.yaml").read_text()
    for name, text in {
        "away": re.sub(
            "base_model: .*", "base_model: /no/such/base.gguf", good.replace("domain: films", "domain: away")
        ),
        "torn": "domain: [",
    }.items():
        (project / "adapters" / name).mkdir()
        (project / "adapters" / name / "recipe.yaml").write_text(text)
    [checked] = prompts.check()
    assert list(checked.lengths) == ["films"]
    assert "away: its lengths are not measured: /no/such/base.gguf" in caplog.text and "left out: " in caplog.text
    with pytest.raises(AssetError):
        prompts.check(domain="away")


def test_tables_fit_a_terminal_of_80_columns(project: Path):
    edit(project, "this person chose, oldest first. Continue", "this person chose.\\nContinue")
    [checked] = prompts.check()
    text = printed(prompts.print_check, [checked], width=80)
    assert "chose.⏎Continue" in text and "\ufffd" not in text and "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("note "))
    found = [
        prompts.Measured(
            task, "interest ndcg@3", "100 reviews", name, "Is it\ngood?", Interval(0.1, 0.1, 0.2, 100), gap
        )
        for task in ("grounded_explanation", "interest")
        for name, gap in (
            ("trained", None),
            ("11", Interval(0.0, -0.1, 0.1, 100)),
            ("2", Interval(-0.2, -0.3, -0.1, 100)),
        )
    ]
    text = printed(prompts.print_measure, found, width=80)
    assert "Is it⏎good?" in text and "\ufffd" not in text and "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    for words in ("+0.000 [-0.100, +0.100]  no difference shown", "interest, 100 reviews", "interest ndcg@3", "worse"):
        assert words in text


def test_check_of_files_that_are_broken_missing_or_read_by_nothing(project: Path):
    edit(project, "domain.noun", "domian.noun")
    shutil.copy(ROOT / "prompts" / "next_item.yaml", project / "prompts" / "other.yaml")
    edit(project, "task: next_item", "task: other", task="other")
    recipe = project / "adapters" / "films" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "tasks: [next_item, gone]\n")
    found = {checked.task: checked for checked in prompts.check()}
    assert set(found) == {"next_item", "other", "gone"}
    assert found["next_item"].findings[0].grave and "did you mean 'domain'?" in found["next_item"].findings[0].says
    assert any("nothing reads it" in one.says for one in found["other"].findings)
    assert "no such prompt file" in found["gone"].findings[0].says
    result = CliRunner().invoke(cli.app, ["prompts", "check"])
    assert result.exit_code == 2 and "error" in result.stdout
    with pytest.raises(PromptError, match="no prompt file 'nxt_item'.*did you mean 'next_item'?"):
        prompts.check(["nxt_item"])


# --- diff


def test_changes_in_words(tmp_path: Path):
    old = template(tmp_path / "old")
    new = template(
        tmp_path / "new", version=2, system="Hello.", slots=[], line="{{ item.title }}!",
        user=[{"text": "b"}, {"text": "A"}, {"text": "c", "held_out": True}, {"text": "d"}, {"text": "e"}],
    )  # fmt: skip
    found = {change.what: change.behaves for change in changes(old, new)}
    assert found == {
        "line": True, "system": True, "wording 1 is now wording 0": True, "wording 1 added": True,
        "wording 0 removed": True, "wording 4 added": True, "wording 2 is held out": True,
        "wording 3 is no longer held out": True, "version: 1 → 2": False, "slots: domain → none": False,
    }  # fmt: skip
    assert changes(old, old) == []


def test_rewording_and_a_version_that_was_forgotten(tmp_path: Path):
    found = changes(template(tmp_path / "old"), template(tmp_path / "new", system="x"))
    assert [change.what for change in found] == ["system", "version is still 1"]
    users = [{"text": "z"}, {"text": "b"}, {"text": "c"}, {"text": "d", "held_out": True}]
    [first, *_] = changes(template(tmp_path / "old"), template(tmp_path / "new", user=users))
    assert (first.what, first.effect) == ("wording 0 reworded", "it is the one that answers")
    assert changes(template(tmp_path / "old"), template(tmp_path / "new", user=users[1:]))[0].what.startswith(
        "wording 1"
    )


def test_nothing_that_means_something_else_is_called_harmless(tmp_path: Path):
    def summary(name: str, **changed: object) -> Template:
        values = yaml.safe_load((ROOT / "prompts" / "interest_summary.yaml").read_text()) | changed
        (tmp_path / name).mkdir()
        (tmp_path / name / "interest_summary.yaml").write_text(yaml.safe_dump(values))
        return Template.load(tmp_path / name / "interest_summary.yaml")

    old = summary("old")
    for name, changed, what in [
        ("reworded", {"replies": ["You like {{ top }}.", *old.replies[1:]]}, "replies: 1 new, 1 gone"),
        ("order", {"replies": [*old.replies[::-1]]}, "replies: in another order"),
        ("alone", {"follows": "", "system": old.system or "You sum up."}, "follows"),
    ]:
        new = summary(name, **changed)
        found = [change.what for change in changes(old, new) if change.behaves]
        assert old.meaning != new.meaning and what in found
    assert changes(old, summary("facts", facts=[*old.facts, "latest" if "latest" not in old.facts else "place"])) == [
        Change(f"facts: {', '.join(old.facts)} → {', '.join([*old.facts, 'place'])}", "no model reads it", False)
    ]


def test_replies_are_read_before_a_training(tmp_path: Path):
    values = yaml.safe_load((ROOT / "prompts" / "interest_summary.yaml").read_text())
    values["replies"] = [values["replies"][0], "[really] {{ top }}.", values["replies"][0], "So <b>{{ top }}</b>."]
    (tmp_path / "interest_summary.yaml").write_text(yaml.safe_dump(values))
    found = {finding.where: finding.says for finding in lint(Template.load(tmp_path / "interest_summary.yaml"))}
    assert "'[' opens a name" in found["replies.1"] and "'<' opens a name" in found["replies.3"]
    assert found["replies.2"] == "says the same as reply 0"
    assert not [one for one in lint(Template.load(ROOT / "prompts" / "interest_summary.yaml")) if one.grave]


def test_diff(project: Path):
    [same] = prompts.diff("films")
    assert same.lines == [] and "next_item: as trained" in printed(prompts.print_diff, [same], "films")
    edit(project, "# A person's", "# Somebody's")
    [comment] = prompts.diff("films")
    assert comment.lines and comment.changes == []
    assert "behaviour is the same" in printed(prompts.print_diff, [comment], "films")
    edit(project, "Continue the list.", "And then?")
    [changed] = prompts.diff("films")
    text = printed(prompts.print_diff, [changed], "films")
    assert "+  - text:" in text and "wording 0 reworded: behaves otherwise" in text
    assert "llmrec prompts rollback films" in text


def test_what_was_saved_is_what_the_card_names(project: Path):
    folder = project / "adapters" / "films"
    card = json.loads((folder / "card.json").read_text())
    saved = saved_prompts(folder, card)
    assert list(saved) == ["next_item"] and outdated(saved, project / "prompts") == []
    edit(project, "# A person's", "# Somebody's")
    assert outdated(saved, project / "prompts") == []  # comments are no wording
    edit(project, "Continue", "Go on with")
    assert outdated(saved, project / "prompts") == ["next_item"]
    (project / "prompts" / "next_item.yaml").unlink()
    assert outdated(saved, project / "prompts") == ["next_item"]
    for digests, message in [({}, "names no prompts"), ({"next_item": "0" * 12}, "not the wording it was trained on")]:
        with pytest.raises(AdapterError, match=message):
            saved_prompts(folder, {"prompts": digests})
    with pytest.raises(AdapterError, match="no trained adapter here .*`llmrec train films`"):
        saved_prompts(folder, {})
    with pytest.raises(RecipeError, match="task '../../x'"):
        saved_prompts(folder, {"prompts": {"../../x": "0"}})


# --- try and measure


def test_two_wordings_side_by_side(model: Recommender, project: Path):
    edit(project, "Continue the list.", "What else?")
    catalog, asked, answers = prompts.attempt("films", history=["Fargo"], n=5)
    assert [answer.name for answer in answers] == ["trained", "0"]
    assert "Continue the list." in answers[0].prompt and "What else?" in answers[1].prompt
    assert all(len(answer.items) == 5 for answer in answers)
    assert answers[0].items != answers[1].items  # the engine reads every token
    [direct] = model.rank([[TITLES.index("Fargo")]], 5)
    assert [item for item, _ in answers[0].items] == direct.items.tolist()
    text = printed(prompts.print_attempt, catalog, asked, answers)
    assert "wording trained" in text and "of 5 in both lists" in text
    same = prompts.attempt("films", history=["Fargo"], wordings=["4", "4"])[2]
    assert same[0].items == same[1].items


def test_agreement():
    assert prompts.agreement([1, 2, 3], [1, 3, 4]) == "2 of 3 in both lists; 1 at the same rank, largest move 1"
    assert prompts.agreement([1], [2]) == "0 of 1 in both lists"


def test_measure(model: Recommender, project: Path):
    edit(project, "Continue the list.", "What else?")
    found = prompts.measure("films", ("users=7", "samples=50"), wordings=[0, 1])
    assert [one.asked for one in found] == ["7 users"] * 3 and [one.name for one in found] == ["trained", "0", "1"]
    assert found[0].difference is None
    for one in found[1:]:
        assert one.difference is not None
        assert one.difference.mean == pytest.approx(one.mean.mean - found[0].mean.mean)
    text = printed(prompts.print_measure, found)
    assert "7 users" in text and "What else?" in text


def test_measure_asks_nothing_that_the_adapter_may_have_seen(model: Recommender, project: Path):
    with pytest.raises(AdapterError, match=r"trained with split\.method=leave_one_out, .* 'valid-time'"):
        prompts.measure("films", ("users=7", "split.method=time"), wordings=[0, 1])


def test_measure_of_an_unchanged_wording_is_nothing(model: Recommender, project: Path, tmp_path: Path):
    file = tmp_path / "edited.yaml"  # its name is not the task's
    shutil.copy(project / "prompts" / "next_item.yaml", file)
    found = prompts.measure("films", ("users=5",), wordings=[0], file=file)
    assert found[1].difference is not None and found[1].difference.mean == 0
    assert "the same" in printed(prompts.print_measure, found)


def test_what_cannot_be_tried(model: Recommender, project: Path):
    with pytest.raises(PromptError, match="no wording '9'; there are 0 to 4, and 'trained'"):
        prompts.attempt("films", wordings=["9"])
    with pytest.raises(PromptError, match="3 wordings"):
        prompts.attempt("films", wordings=["0", "1", "2"])
    with pytest.raises(RecipeError, match=r"users=0 \(command line\): users"):
        prompts.measure("films", ("users=0",))
    edit(project, 'line: "{{ item.title }}"', 'line: "{{ item.title | upper }}"')
    with pytest.raises(PromptError, match="train again first"):
        prompts.measure("films", wordings=[0])


# --- cards


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompts": {', "cannot be read: .*"),
        (b"\xff\xfe", "cannot be read: .*utf-8.*"),
        (b"[" * 200_000, "cannot be read: .*"),
        (b"[1]", "holds no JSON object but list"),
    ],
    ids=["torn", "no text", "nested", "list"],
)
def test_a_damaged_card_is_named(project: Path, content: bytes, message: str):
    folder = project / "adapters" / "films"
    (folder / "card.json").write_bytes(content)
    with pytest.raises(AdapterError, match=f"films/card.json: {message}; restore it, .*`llmrec adapters rollback`"):
        read_card(folder)
    with pytest.raises(AdapterError, match="films/card.json: "):
        prompts.diff("films")


def test_only_a_missing_card_is_empty(project: Path):
    folder = project / "adapters" / "films"
    assert "prompts" in read_card(folder)
    (folder / "card.json").unlink()
    assert read_card(folder) == read_card(folder / "gone") == read_card(folder / "recipe.yaml") == read_card(None) == {}
    (folder / "card.json").mkdir()
    with pytest.raises(AdapterError, match="card.json: cannot be read"):
        read_card(folder)


# --- rollback


def test_rollback_keeps_what_was_there(project: Path):
    path = project / "prompts" / "next_item.yaml"
    original = path.read_bytes()
    assert prompts.rollback("films") == []
    edit(project, "Continue", "Go on with")
    edited = path.read_bytes()
    [(restored, backup)] = prompts.rollback("films")
    assert restored == path and path.read_bytes() == original
    assert backup is not None and backup.read_bytes() == edited
    assert sorted(file.name for file in path.parent.iterdir()) == ["next_item.yaml", backup.name]
    path.unlink()
    assert prompts.rollback("films") == [(path, None)] and path.read_bytes() == original
    with pytest.raises(PromptError, match="not trained on 'nxt'"):
        prompts.rollback("films", ["nxt"])


def test_rollback_leaves_what_means_the_same(project: Path):
    path = project / "prompts" / "next_item.yaml"
    path.write_text(f"# A comment.\n{path.read_text()}")
    assert prompts.rollback("films") == [] and path.read_text().startswith("# A comment.")
    path.write_text("task: [")
    [(restored, _)] = prompts.rollback("films")
    assert restored == path and Template.load(path)


def test_rollback_of_a_spoiled_adapter_changes_nothing(project: Path):
    edit(project, "Continue", "Go on with")
    saved = project / "adapters" / "films" / "prompts" / "next_item.yaml"
    saved.write_text(saved.read_text().replace("Continue", "Obey"))
    before = (project / "prompts" / "next_item.yaml").read_bytes()
    with pytest.raises(AdapterError, match="not the wording it was trained on"):
        prompts.rollback("films")
    assert (project / "prompts" / "next_item.yaml").read_bytes() == before


# --- line


def test_line_names_the_items(project: Path, tmp_path: Path):
    catalog, encoder = Catalog.of(prepare.load(config.load_recipe("films"))), Encoder(tiny.tokenizer("gpt2"))
    plain = Listing.build(catalog, Template.load(project / "prompts" / "next_item.yaml"), encoder, 12)
    assert plain.identifiers == TITLES
    dated = template(tmp_path / "dated", line="{{ item.title }} ({{ item.year }})")
    assert Listing.build(catalog, dated, encoder, 20).identifiers[:2] == ["Fargo (1980)", "Heat (1981)"]


def test_the_shipped_adapter_knows_its_items(real_home: Path):
    """The identifiers' digests on its card are those of today's code, catalog and saved `line`."""
    from llmrec.model import adapter as adapters
    from llmrec.model.load import base_model, load_tokenizer

    recipe = config.load_recipe("movies")
    card = json.loads((ROOT / "adapters" / "movies" / "card.json").read_text())
    saved = saved_prompts(ROOT / "adapters" / "movies", card)["next_item"]
    encoder = Encoder(load_tokenizer(base_model(recipe.base_model).folder))
    listing = Listing.build(Catalog.of(prepare.load(recipe)), saved, encoder, recipe.identifier.max_tokens)
    assert adapters.item_digests(listing.identifiers) == card["items"]
