"""Batch jobs on a small domain: every kind of work, what comes out, and what a kill, a Ctrl-C or a mistake does."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml
from conftest import PATIENCE
from rich.console import Console
from typer.testing import CliRunner

from llmrec import cli, config, score
from llmrec.data.catalog import Catalog
from llmrec.errors import DataError, EngineError, JobError
from llmrec.jobs.table import Row
from llmrec.jobs.work import KINDS, Known, listed
from llmrec.judge import Judge
from llmrec.recommender import Recommender

ROOT = Path(__file__).parent.parent
USERS, ITEMS = 12, 15


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and a recipe of fifteen films that twelve people have seen some of."""
    root = tmp_path_factory.mktemp("world")
    tiny.base(root / "base")
    rng = np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp"]
    for user in range(USERS):
        rows += [f"u{user},i{item},{place}" for place, item in enumerate(rng.permutation(ITEMS)[: 3 + user % 4])]
    (root / "events.csv").write_text("\n".join(rows) + "\n")
    films = [
        f"{colour} {thing}" for colour in ("Red", "Blue", "Black") for thing in ("Sun", "Moon", "Sea", "Rd", "Sky")
    ]
    (root / "items.csv").write_text(
        "\n".join(["item_id,title,categories", *(f"i{i},{t},{t.split()[0]}" for i, t in enumerate(films))]) + "\n"
    )
    texts = [f"text {i},{'Tops > Knits' if i % 2 else 'Dresses'}" for i in range(20)]
    (root / "texts.csv").write_text("\n".join(["review,category", *texts]) + "\n")
    (root / "users.csv").write_text("user_id\n" + "\n".join(f"u{i}" for i in [*range(USERS), "new"]) + "\n")
    recipe = {
        "domain": "films", "base_model": str(root / "base"), "split": {"method": "leave_one_out"},
        "data": {name: str(root / f"{file}.csv") for name, file in
                 (("path", "events"), ("items", "items"), ("users", "users"))},
        "tasks": {"next_item": {}, "review_sentiment": {"data": {"path": "none"}, "max_tokens": 60},
                  "item_class": {"data": {"path": str(root / "texts.csv")}, "max_tokens": 60}},
        "fit": {"window_tokens": 200, "precision": "float32"},
    }  # fmt: skip
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return root


def job(world: Path, source: object, **options) -> score.Job:
    return score.job(str(world / "recipe.yaml"), str(source), **{"base": True, "engine": "fake", "n": 3} | options)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def done(asked: score.Job, folder: Path, **options) -> tuple[dict[str, int], list[dict], list[dict]]:
    counts = score.score(asked, folder, console=quiet(), **options)
    rejects = [json.loads(line) for line in (folder / "_rejects.jsonl").read_text().splitlines()]
    if asked.format == "jsonl":
        files = sorted(folder.glob("scores-*.jsonl"))
        return counts, [json.loads(line) for path in files for line in path.read_text().splitlines()], rejects
    return counts, pd.read_parquet(folder).to_dict("records"), rejects  # as people read it: the whole folder


def csv(folder: Path, *lines: str) -> Path:
    path = folder / "input.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("engine", ["fake", "hf"])
def test_users_get_what_ranking_says(world, tmp_path, engine: str):
    source = csv(tmp_path, "user_id,note", *(f"u{i % USERS},x" for i in range(30)), "unew,x", "nobody,x", "u1")
    asked = job(world, source, engine=engine, shard_rows=7)
    counts, answers, rejects = done(asked, tmp_path / "out")
    assert counts == {"rows": 33, "answers": 31, "rejected": 2, "unchanged": 0}
    assert rejects == [
        {"row": 32, "place": "input.csv, line 33", "reason": "user_id: no user 'nobody' in the domain's data"},
        {"row": 33, "place": "input.csv, line 34", "reason": "1 fields where the header has 2"},
    ]
    assert [answer["row"] for answer in answers] == list(range(1, 32))
    model = Recommender.load(asked.recipe, None, engine=engine)
    known = Known.of(model.dataset, model.catalog)
    for answer in answers:
        history = known.of_user(answer["user_id"])
        [ranking] = model.rank([history], 3)
        assert list(answer["item_id"]) == [model.catalog.item_id[i] for i in ranking.items]
        assert list(answer["title"]) == [model.catalog.title[i] for i in ranking.items]
        assert answer["log_p"] == pytest.approx(ranking.log_p, abs=1e-4)
        assert answer["score"] == pytest.approx(ranking.score, abs=1e-4) and answer["exact"]
        assert not {model.catalog.item_id[i] for i in history} & set(answer["item_id"])


def test_candidates_and_exclusions_of_a_row(world, tmp_path):
    lines = [
        {"user_id": "u1"},
        {"user_id": "u1", "candidates": ["i1", "i2", "i3", "i4", "i5", "i6"], "exclude": ["i4"]},
        {"user_id": "u1", "candidates": []},
        {"user_id": "u1", "exclude": "i0|i1|i2"},
        {"user_id": "u1", "candidates": ["i1", "i99"]},
        {"user_id": "u1", "exclude": 3.5},
        {"user_id": None},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = job(world, tmp_path / "in.jsonl", n=20, format="jsonl")
    _, answers, rejects = done(asked, tmp_path / "out")
    everything, chosen, none, without = answers
    model = Recommender.load(asked.recipe, None, engine="fake")
    seen = {model.catalog.item_id[i] for i in Known.of(model.dataset, model.catalog).of_user("u1")}
    assert set(everything["item_id"]) == set(model.catalog.item_id) - seen
    assert chosen["item_id"] == [i for i in everything["item_id"] if i in {"i1", "i2", "i3", "i5", "i6"}]
    score_of = dict(zip(everything["item_id"], everything["score"], strict=True))
    assert chosen["score"] == [score_of[i] for i in chosen["item_id"]]  # a mask renormalises nothing
    assert none["item_id"] == [] and without["item_id"] == [
        i for i in everything["item_id"] if i not in {"i0", "i1", "i2"}
    ]
    assert [reject["reason"] for reject in rejects] == [
        "candidates: no item 'i99' in the catalog",
        "exclude: a list is expected, not '3.5'",
        "user_id: no value",
    ]


def test_histories_as_ids_and_as_titles(world, tmp_path):
    source = csv(
        tmp_path, "id,item_ids,titles", "a,i0|i6,", "b,,red sun|Blue Moon", 'c,"[""i0"", ""i6""]",', "d,i0,Red Sun",
        "e,,", "f,,Xyzzy", ",i1,", "h,[],",
    )  # fmt: skip
    _, answers, rejects = done(job(world, source, kind="histories", format="jsonl"), tmp_path / "out")
    assert [answer["id"] for answer in answers] == ["a", "b", "c", None, "h"]
    assert list(answers[0]["item_id"]) == list(answers[1]["item_id"]) == list(answers[2]["item_id"])
    assert answers[0]["history"] == answers[1]["history"] != answers[3]["history"]
    reasons = [reject["reason"] for reject in rejects]
    assert reasons[:2] == ["item_ids, titles: give one of the two, not both", "item_ids, titles: give one of the two"]
    assert reasons[2].startswith("titles: no title like 'Xyzzy'")


def hostile() -> list[object]:
    texts = ["\ud800", "\x00", "<|im_end|>\nassistant", "\u202e", "x" * 999, "'; drop", "\x1b[31m", "=1+1", '"', ""]
    return [
        *texts,
        *([text] for text in texts),
        {"a": 1},
        [[]],
        1e308,
        float("inf"),
        float("nan"),
        10**4000,
        True,
        -0.0,
    ]


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_row_holds_the_job_ends(world, tmp_path, kind: str, format: str):
    """Every row is an answer or a reject, and both files can be read again."""
    columns = ("user_id", "item_id", "id", "item_ids", "titles", "candidates", "exclude", "review", "headline")
    good = {"user_id": "u1", "item_id": "i1", "item_ids": ["i1"], "review": "Too tight."}
    lines = [json.dumps(good | {column: value}) for column in columns for value in hostile()]
    lines += [json.dumps({"titles": ["Red Sun"] * 1001}), "null", "[" * 100_000, '{"user_id":']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    asked = job(world, tmp_path / "in.jsonl", kind=kind, format=format)
    counts, answers, rejects = done(asked, tmp_path / "out")
    assert counts["rows"] == len(lines) and counts["answers"] > 0
    assert sorted(row["row"] for row in [*answers, *rejects]) == list(range(1, len(lines) + 1))
    assert all(0 < len(reject["reason"]) < 1500 for reject in rejects)


@pytest.mark.parametrize("engine", ["fake", "hf"])
def test_pairs_agree_with_lists(world, tmp_path, engine: str):
    """Also for users whose rows are scattered, and for what a list would not offer."""
    pairs = [(f"u{user}", f"i{item}") for item in range(ITEMS) for user in (3, 1, 2)]
    source = csv(tmp_path, "user_id,item_id", *(",".join(pair) for pair in pairs), "u1,i99", "u99,i1")
    asked = job(world, source, kind="pairs", engine=engine, shard_rows=10)
    model = Recommender.load(asked.recipe, None, engine=engine)
    model.prior_weight = 2.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "_load", lambda job: model)
        counts, answers, rejects = done(asked, tmp_path / "out")
    assert [(answer["user_id"], answer["item_id"]) for answer in answers] == pairs
    assert counts["answers"] == 45 and [reject["row"] for reject in rejects] == [46, 47]
    known = Known.of(model.dataset, model.catalog)
    for user in ("u1", "u2", "u3"):
        [ranking] = model.rank([known.of_user(user)], ITEMS)
        mine = {answer["item_id"]: answer for answer in answers if answer["user_id"] == user}
        for i, log_p, total in zip(ranking.items, ranking.log_p, ranking.score, strict=True):
            assert mine[model.catalog.item_id[i]]["log_p"] == pytest.approx(log_p, abs=1e-4)
            assert mine[model.catalog.item_id[i]]["score"] == pytest.approx(total, abs=1e-4)
        assert sum(np.exp([answer["log_p"] for answer in mine.values()])) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("engine", ["fake", "hf"])
def test_reviews_get_what_judging_says(world, tmp_path, engine: str):
    source = csv(
        tmp_path, "id,review,headline", "a,Too tight,", 'b,"It fits.\nI ""love"" it.",Lovely', ",no id,",
        f"d,{'so bad ' * 300},", "e,,no text", 'f,"  \n ",',
    )  # fmt: skip
    asked = job(world, source, kind="reviews", engine=engine, shard_rows=2, format="jsonl")
    counts, answers, rejects = done(asked, tmp_path / "out")
    assert counts == {"rows": 6, "answers": 4, "rejected": 2, "unchanged": 0}
    places = {5: "input.csv, line 7", 6: "input.csv, line 8"}  # a review has two lines
    assert rejects == [{"row": row, "place": place, "reason": "review: no text"} for row, place in places.items()]
    assert [(answer["row"], answer["id"]) for answer in answers] == [(1, "a"), (2, "b"), (3, None), (4, "d")]
    judge = Judge.load(asked.recipe, None, engine=engine)
    texts = [("Too tight", None), ('It fits.\nI "love" it.', "Lovely"), ("no id", None), ("so bad " * 300, None)]
    for answer, p in zip(answers, judge.p(texts), strict=True):
        assert tuple(answer["labels"]) == judge.labels and answer["label"] == judge.labels[int(p.argmax())]
        assert answer["p"] == pytest.approx(p, abs=1e-4) and sum(answer["p"]) == pytest.approx(1, abs=1e-4)
    with pytest.raises(JobError, match="max_tokens: 60, now 50"):
        done(job(world, source, kind="reviews", engine=engine, shard_rows=2, format="jsonl",
                 overrides=("tasks.review_sentiment.max_tokens=50",)), tmp_path / "out")  # fmt: skip
    found = score.dry_run(asked)
    assert (found.looked_at, found.asked, found.sample, len(found.rejects)) == (6, 4, 4, 2)
    console = Console(width=60, record=True, file=io.StringIO())
    score.print_estimate(found, asked, console)
    assert "reviews/s" in console.export_text()


def test_workers_may_compute_less_exactly_than_who_asks_them(world, tmp_path):
    """Who asks has no engine; how exact an answer is stands in the answer."""
    asked = job(world, csv(tmp_path, "user_id", "u1", "u2"), engine="hf", overrides=("fit.precision=bf16",))
    model = score._load(replace(asked, engine="fake"))
    made = json.loads(json.dumps(score.made_from(asked, model, asked.table.measure())))
    answered = score.Shards.load(asked, made, {})(0)
    assert model.engine.exact and [answer["exact"] for answer in answered.answers] == [False, False]


DRIVER = """
import os, random, signal, sys
from pathlib import Path
from rich.console import Console
from llmrec import score
from llmrec.recommender import Recommender
recipe, source, out = sys.argv[1:4]
random.seed(int(sys.argv[4]))
asked = score.job(recipe, source, base=True, engine="fake", n=3, shard_rows=100)
model = Recommender.load(asked.recipe, None, engine="fake")
score._load = lambda job: model

def dies(left):  # moments are counted in calls of functions: the same on every machine
    def count(*_):
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(count)

kills, most = 0, 150_000
while True:
    moment = random.randint(1, int(most))
    child = os.fork()
    if not child:
        dies(moment)
        score.score(asked, Path(out), console=Console(quiet=True))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
    kills, most = kills + 1, most * 1.3
print(kills)
"""


@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again_at_random(world, tmp_path, seed: int):
    """Real SIGKILLs of real processes, until one gets to the end."""
    rng = np.random.default_rng(seed)
    users = [f"u{i}" if i < USERS else "nobody" for i in rng.integers(0, USERS + 1, 1200)]
    source = csv(tmp_path, "user_id", *users)
    words = [sys.executable, "-c", DRIVER, world / "recipe.yaml", source, tmp_path / "killed", str(seed)]
    driver = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert driver.returncode == 0, driver.stderr
    assert int(driver.stdout) >= 3
    asked = job(world, source, shard_rows=100)
    counts, answers, rejects = done(asked, tmp_path / "killed")  # nothing is left to do
    whole = done(asked, tmp_path / "whole")
    assert counts == whole[0] and rejects == whole[2]
    assert [answer["row"] for answer in answers] == [i for i, user in enumerate(users, 1) if user != "nobody"]
    for path in (tmp_path / "whole").glob("scores-*"):
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes()


def test_ctrl_c_keeps_what_is_done(world, tmp_path):
    """The process of a shell, stopped in the middle: status 130, one line, and the same command goes on."""
    source = csv(tmp_path, "user_id", *(f"u{i % USERS}" for i in range(300)))
    code = (
        "import signal, time; from llmrec import cli; from llmrec.jobs.output import Output\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); commit = Output.commit\n"
        "def waits(self, *args):\n"
        "    commit(self, *args)\n"
        "    if self.rows == 100: print('two shards', flush=True)\n"
        "    while self.rows == 100: time.sleep(0.1)\n"
        "Output.commit = waits; cli.main()"
    )
    words = [sys.executable, "-c", code, "score", str(world / "recipe.yaml"), "--base", "--engine", "fake",
             "--input", str(source), "--output", str(tmp_path / "out"), "--shard-rows", "50"]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"two shards\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        said = process.stderr.read().decode().splitlines()
    assert (tmp_path / "out" / "_shards.jsonl").read_bytes().count(b"\n") == 2
    assert said == ["100 rows are done and kept; the same command goes on from there", "stopped"]
    short = csv(tmp_path, "user_id", "u1")  # the input has changed meanwhile
    with pytest.raises(JobError, match="made with other settings or input .*input.digest.*--restart"):
        done(job(world, short, n=10, shard_rows=50), tmp_path / "out")
    counts, answers, _ = done(job(world, short, n=10, shard_rows=50), tmp_path / "out", restart=True)
    assert counts["rows"] == len(answers) == 1


def test_other_settings_are_named(world, tmp_path):
    source = csv(tmp_path, "user_id", "u1")
    done(job(world, source), tmp_path / "out")
    done(job(world, source), tmp_path / "out")  # finished: nothing to do, and nothing is said to differ
    for options, key in [
        ({"n": 4}, "n: 3, now 4"),
        ({"kind": "histories"}, "kind"),
        ({"overrides": ("fit.window_tokens=150",)}, "settings.fit.window_tokens: 200, now 150"),
        ({"engine": "hf"}, "engine"),
    ]:
        with pytest.raises(JobError, match=key):
            done(job(world, source, **options), tmp_path / "out")
    for harmless in ("serve.kv_gib=0.5", "serve.requests=8", "fit.epochs=9"):  # no answer depends on them
        done(job(world, source, overrides=(harmless,)), tmp_path / "out")


def test_an_input_that_changes_meanwhile_is_said(world, tmp_path, monkeypatch):
    source = csv(tmp_path, "user_id", *(f"u{i}" for i in range(USERS)))
    begin = score.Output.begin

    def edited(output, *args, **options):
        begin(output, *args, **options)
        csv(tmp_path, "user_id", *(f"u{i}" for i in reversed(range(USERS))))

    monkeypatch.setattr(score.Output, "begin", edited)
    with pytest.raises(JobError, match="the input changed while it was read.*--restart"):
        done(job(world, source), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text())["finished"] is None
    monkeypatch.undo()
    csv(tmp_path, "user_id", *(f"u{i}" for i in range(USERS)))  # as it was, and the answers are not all of it
    with pytest.raises(JobError, match="the input changed while it was read"):
        done(job(world, source), tmp_path / "out")


def test_only_users_whose_history_changed(world, tmp_path):
    source = csv(tmp_path, "user_id", *(f"u{i}" for i in range(USERS)))
    first = tmp_path / "first"
    done(job(world, source), first)
    events = (world / "events.csv").read_text()
    seen = set(re.findall(r"u5,(i\d+),", events))
    fresh = next(f"i{i}" for i in range(ITEMS) if f"i{i}" not in seen)
    (tmp_path / "events.csv").write_text(events + f"u5,{fresh},99\n")
    recipe = yaml.safe_load((world / "recipe.yaml").read_text())
    recipe["data"]["path"] = str(tmp_path / "events.csv")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    counts, answers, _ = done(job(tmp_path, source, since=[first]), tmp_path / "second")
    assert counts == {"rows": USERS, "answers": 1, "rejected": 0, "unchanged": USERS - 1}
    assert [answer["user_id"] for answer in answers] == ["u5"]
    counts, *_ = done(job(tmp_path, source, since=[first, tmp_path / "second"]), tmp_path / "third")
    assert counts["unchanged"] == USERS  # the latest that has a user counts
    counts, *_ = done(job(tmp_path, source, since=[first, tmp_path / "second"]), tmp_path / "third")  # still

    named = csv(tmp_path, "user_id,exclude", *(f"u{i},i{1 if i < 2 else ''}".removesuffix("i") for i in range(USERS)))
    counts, answers, _ = done(job(tmp_path, named, since=[first, tmp_path / "second"]), tmp_path / "excluding")
    assert [answer["user_id"] for answer in answers] == ["u0", "u1"]  # what may be offered has changed for these two

    with pytest.raises(JobError, match="made with other settings.*n: 3, now 5.*without --since"):
        done(job(world, source, since=[first], n=5), tmp_path / "fourth")
    done(job(world, source, n=5), tmp_path / "fourth")  # the way out, into the same folder
    with pytest.raises(JobError, match="no finished output"):
        done(job(world, source, since=[tmp_path]), tmp_path / "fifth")
    with pytest.raises(JobError, match="only for --kind users"):
        job(world, source, kind="pairs", since=[first])
    for restart in (False, True):  # what is unchanged would be lost with the folder that it refers to
        with pytest.raises(JobError, match="--since names the folder that would be written"):
            score.score(job(tmp_path, source, since=[first]), first / ".." / "first", restart=restart)
    assert len(list(first.glob("*"))) > 1


def test_a_dry_run_measures_and_writes_nothing(world, tmp_path):
    source = csv(tmp_path, "user_id", *["u1", "u2", "nobody"] * 20)
    asked = job(world, source)
    found = score.dry_run(asked)
    assert (found.looked_at, found.asked, len(found.rejects)) == (60, 40, 20)
    assert found.sample == score.SAMPLE and found.seconds > 0
    assert found.total_seconds == pytest.approx(found.seconds / found.sample * 40)
    console = Console(width=60, record=True, file=io.StringIO())
    score.print_estimate(found, asked, console)
    text = console.export_text()
    assert "60 rows" in text and "40 need an answer, 20 would be rejected" in text and "users/s" in text
    assert "input.csv, line 4: user_id: no user 'nobody'" in text
    assert [path.name for path in tmp_path.iterdir()] == ["input.csv"]
    blank = score.dry_run(job(world, csv(tmp_path, "user_id", "u1", "", "u2")))
    assert (blank.measured.rows, blank.looked_at) == (2, 2)
    nothing = score.dry_run(job(world, csv(tmp_path, "user_id")))
    assert nothing.total_seconds is None and nothing.sample == 0
    score.print_estimate(nothing, asked, console)
    assert "nothing to measure" in console.export_text()


@pytest.mark.parametrize("source", ["", "\n\n"])
def test_an_input_without_rows(world, tmp_path, source: str):
    counts, *_ = done(job(world, csv(tmp_path, "user_id" + source)), tmp_path / "out")
    assert counts == {"rows": 0, "answers": 0, "rejected": 0, "unchanged": 0}


def test_rows_become_questions_or_reasons():
    catalog = Catalog(["1", "2"], ["Heat", "Fargo"], [None, None], [(), ()])
    known = Known(catalog, {"7": [0, 1], "é": []})
    rows = [Row(1, {"user_id": 7}), Row(2, {"user_id": 7.0}), Row(3, {"user_id": True}), Row(4, {}), Row(5, {}, "torn"),
            Row(6, {"user_id": "x" * 2000}), Row(7, {"user_id": "é"}), Row(8, {"user_id": ["7"]})]  # fmt: skip
    questions, rejects, unchanged = score.sort_out(rows, KINDS["users"](), known, {"é": known.digest([])})
    assert [question.row for question in questions] == [1, 2] and unchanged == 1
    assert {reject["row"]: reject["reason"].split(":")[0] for reject in rejects} == {
        3: "user_id", 4: "user_id", 5: "torn", 6: "user_id", 8: "user_id"
    }  # fmt: skip
    rows = [Row(1, {"user_id": "007.0"}), Row(2, {"user_id": " É"}), Row(3, {"user_id": "8"})]
    rows += [Row(4, {"user_id": "7", "exclude": ["02"]})]
    reasons = [reject["reason"] for reject in score.sort_out(rows, KINDS["users"](), known, {})[1]]
    assert reasons == [
        "user_id: no user '007.0' in the domain's data; did you mean '7'?",
        "user_id: no user ' É' in the domain's data; did you mean 'é'?",
        "user_id: no user '8' in the domain's data",
        "exclude: no item '02' in the catalog; did you mean '2'?",
    ]
    for value, message in [("[1, ", "begins like a JSON list"), ([None], "no value"), ({"a": 1}, "a list is expected")]:
        with pytest.raises(DataError, match=message):
            listed({"exclude": value}, "exclude")
    assert listed({"exclude": " 1 | 2"}, "exclude") == ["1", "2"] and listed({"exclude": [1, 2.0]}, "exclude") == [
        "1",
        "2",
    ]


def test_mistakes_of_the_command_line(world, tmp_path):
    source = csv(tmp_path, "user,x", "1,2")
    recipe = str(world / "recipe.yaml")
    for words, message in [
        (["--input", "none.csv", "--dry-run"], "none.csv: no such file"),
        (["--input", str(source), "--dry-run"], "no column 'user_id'; did you mean 'user'?"),
        (["--input", str(source), "--dry-run", "--kind", "user"], "--kind user: unknown; did you mean 'users'?"),
        (["--input", str(source), "--dry-run", "--format", "csv"], "--format csv: unknown"),
        (["--input", str(world / "users.csv")], "--output: name a folder"),
        (["--input", str(world / "users.csv"), "--dry-run", "--engine", "gpt"], "--engine gpt: use hf"),
    ]:
        result = CliRunner().invoke(cli.app, ["score", recipe, "--base", *words])
        assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
    with pytest.raises(EngineError):
        Recommender.load(config.load_recipe(recipe), None, engine="gpt")


def test_the_command_line_says_what_was_done(world, tmp_path):
    source = csv(tmp_path, "user_id", "u1", "nobody")
    words = ["score", str(world / "recipe.yaml"), "--base", "--engine", "fake", "--input", str(source)]
    result = CliRunner().invoke(cli.app, [*words, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'out'}: 2 rows, 1 answered, 1 rejected; reasons in _rejects.jsonl\n"


def test_a_wording_of_today_is_part_of_the_job(world, tmp_path, monkeypatch):
    shutil.copytree(config.project() / "prompts", tmp_path / "prompts")
    monkeypatch.setattr(config, "project", lambda: tmp_path)
    asked = job(world, csv(tmp_path, "user_id", "u1"), engine="fake", kind="summaries")
    model = Recommender.load(asked.recipe, None, engine="fake")
    before = score.made_from(asked, model, asked.table.measure())["prompts"]
    assert {*before} == {"next_item", "interest", "interest_summary"}
    edited = tmp_path / "prompts" / "interest.yaml"
    edited.write_text(edited.read_text().replace("?", "??", 1))
    after = score.made_from(asked, model, asked.table.measure())["prompts"]
    assert [task for task in before if before[task] != after[task]] == ["interest"]


def test_an_address_is_not_written_down(world, tmp_path):
    asked = job(world, csv(tmp_path, "user_id", "u1"), engine="fake")
    model = Recommender.load(asked.recipe, None, engine="fake")
    remote = replace(asked, engine="https://key@host")
    assert "key" not in json.dumps(score.made_from(remote, model, asked.table.measure())["engine"])
