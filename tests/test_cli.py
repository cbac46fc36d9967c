"""The command line: exit statuses, one-line errors, and what it hands to the verbs."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import PATIENCE
from typer.testing import CliRunner

from llmrec import __version__, cli, config
from llmrec import prompts as prompts_module
from llmrec import recommend as recommend_module
from llmrec import review as review_module
from llmrec.errors import DataError, RecipeError

ROOT = Path(__file__).parent.parent
VERBS = ("prepare", "show", "train", "evaluate", "recommend", "score", "review", "prompts", "chat")


def run(*args: str):
    return CliRunner().invoke(cli.app, list(args))


def shell(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m llmrec` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "llmrec", *args], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **env}
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Calls of `recommend.recommend`, which then answers with an empty list."""
    calls: list[dict] = []

    def fake(domain: str, **arguments):
        calls.append({"domain": domain, **arguments})
        return recommend_module.Recommendation(domain, None, None, (), True, ())

    monkeypatch.setattr(recommend_module, "recommend", fake)
    return calls


def test_version_and_help():
    assert run("--version").output == f"llmrec {__version__}\n"
    listed = run("--help")
    assert listed.exit_code == 0 and all(f"\n  {verb} " in listed.output for verb in VERBS)
    for verb in VERBS:
        shown = run(verb, "-h")
        assert shown.exit_code == 0 and f"Example: llmrec {verb} " in shown.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["recomend"], "recomend"),
        (["recommend"], "DOMAIN"),
        (["recommend", "movies", "-n", "0"], "-n"),
        (["recommend", "movies", "--usr", "3"], "--usr"),
    ],
)
def test_wrong_arguments_exit_with_2(args: list[str], message: str):
    result = run(*args)
    assert result.exit_code == 2 and message.lower() in result.output.lower()


def test_lists_of_values(asked: list[dict]):
    result = run(
        "recommend", "movies", "fit.precision=float32", "--history", "Fargo", "Heat", "-n", "5",
        "--only", "category=Comedy", "year=1990..1995", "--exclude=Alien", "--history", "Brazil", "--json",
    )  # fmt: skip
    assert result.exit_code == 0 and '"items": []' in result.output
    [call] = asked
    assert call["domain"] == "movies" and call["overrides"] == ("fit.precision=float32",)
    assert list(call["history"]) == ["Fargo", "Heat", "Brazil"]
    assert list(call["only"]) == ["category=Comedy", "year=1990..1995"] and list(call["exclude"]) == ["Alien"]
    assert call["n"] == 5 and call["prior"] and not call["base"]


def test_spread():
    many = {"--history"}
    assert cli.spread(["a", "--history", "b", "c", "-n", "d"], many) == [
        "a",
        *["--history", "b"],
        *["--history", "c"],
        "-n",
        "d",
    ]
    assert cli.spread(["--history=b", "c"], many) == ["--history=b", "c"]
    assert cli.spread(["--history", "b", "--", "c"], many) == ["--history", "b", "--", "c"]
    assert cli.spread(["--history", "b", "fit.epochs=2", "c=d"], many) == ["--history", "b", "fit.epochs=2", "c=d"]
    assert cli.spread(["--history"], many) == ["--history"]  # the parser says what is missing


@pytest.mark.parametrize(
    "word", ["window_step=64", "fit.epochs=2", "data.columns.user_id=who", "tasks={next_item: {}}"]
)
def test_settings_follow_lists(asked: list[dict], word: str):
    assert run("recommend", "movies", "--history", "Fargo", word, "--only", "year=1990..1999", word).exit_code == 0
    [call] = asked
    assert call["overrides"] == (word, word)
    assert list(call["history"]) == ["Fargo"] and list(call["only"]) == ["year=1990..1999"]


@pytest.mark.parametrize("title", ["E=mc2", "users=50", "fits.all=1", "Dr. No=1", "fit. So size=8 it is", "=", "fit"])
def test_titles_may_have_equals_signs(asked: list[dict], title: str):
    assert run("recommend", "movies", "--history", "Fargo", title).exit_code == 0
    assert list(asked[0]["history"]) == ["Fargo", title] and asked[0]["overrides"] == ()


def test_settings_of_a_measurement_follow_its_wordings(monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple] = []
    monkeypatch.setattr(prompts_module, "measure", lambda *args, **options: calls.append((args, options)) or [])
    monkeypatch.setattr(prompts_module, "print_measure", lambda found: None)
    result = run("prompts", "measure", "movies", "--wordings", "0", "4", "users=50", "window_step=64")
    assert result.exit_code == 0, result.output
    [(args, options)] = calls
    assert args == ("movies", ("users=50", "window_step=64")) and list(options["wordings"]) == [0, 4]


def test_review_takes_settings(monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple] = []
    monkeypatch.setattr(review_module, "review", lambda *args, **options: calls.append((args, options)) or [])
    result = run("review", "fashion", "Too tight", "fit.precision=float32", "size=8 runs small", "--json")
    assert result.exit_code == 0, result.output
    [(args, options)] = calls
    assert args == ("fashion", ["Too tight", "size=8 runs small"])
    assert options["overrides"] == ("fit.precision=float32",)
    result = run("review", "fashion", "fit.precision=float32")
    assert result.exit_code == 2 and "no review" in result.output


@pytest.mark.parametrize(
    "words",
    [
        ["recommend", "movies"],
        ["summarize", "movies"],
        ["summarize", "places"],
        ["explain", "movies", "Heat"],
        ["explain", "places", "Heat"],
        ["review", "fashion", "Too tight"],
        ["score", "movies", "--input", "users.csv", "--dry-run"],
        ["chat", "movies", "--say", "Heat"],
    ],
    ids=" ".join,
)
def test_an_adapter_or_the_base(words: list[str]):
    result = run(*words, "--base", "--adapter", "movies-lists")
    assert result.exit_code == 2
    assert result.stderr == "error: --base and --adapter movies-lists: give one of the two\n"


def raising(error: BaseException):
    def fake(*_, **__):
        raise error

    return fake


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("a\n b"), 2, "error: a b\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "error: /x/y: No space left on device; free"),
        (PermissionError(errno.EROFS, "Read-only file system", "/x"), 2, "error: /x: Read-only file system; free"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 2, "error: the GPU's memory is full: "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str):
    monkeypatch.setattr(recommend_module, "recommend", raising(error))
    result = run("recommend", "movies")
    assert result.exit_code == status
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1 and not result.stdout


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError(errno.ENOENT, "No such file", "x")])
def test_bugs_are_shown_as_such(monkeypatch: pytest.MonkeyPatch, error: Exception):
    monkeypatch.setattr(recommend_module, "recommend", raising(error))
    result = run("recommend", "movies")
    assert result.exit_code == 1 and result.exception is error


def test_verbose_shows_where(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recommend_module, "recommend", raising(DataError("oh")))
    result = run("-v", "recommend", "movies")
    assert result.exit_code == 2 and "Traceback" in result.stderr and result.stderr.endswith("error: oh\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["recommend", "moveis"], "no domain 'moveis'"),
        (["prepare", "../etc"], "../etc: no recipe there"),
        (["train", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["show", "movies", "lora.rnak=3"], "did you mean 'rank'?"),
        (["evaluate", "smoek"], "smoek"),
        (["show", "movies", "fit.epochs=[1"], "fit.epochs=[1: not a YAML value"),
        (["show", "movies", "licence=2024-13-01"], "licence=2024-13-01: not a YAML value"),
        (["evaluate", "smoke", "splits=[{metod: time}]"], "unknown key 'metod'; did you mean 'method'?"),
        (["adapters", "verify", "x" * 300], "x" * 300),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_shell_sees_status_2_and_one_line(args: list[str], message: str, home: Path):
    done = shell(*args, LLMREC_HOME=str(home))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_mistakes_show_before_the_seconds_that_torch_takes():
    mistakes = {
        "recommend movies --adapter moveis": "did you mean 'movies'?",
        "recommend movies --engine vlm": "--engine vlm: use hf, vllm",
        "review fashion text --adapter moveis": "did you mean 'movies'?",
        "score movies --input none.csv --output x": "none.csv: no such file",
        "evaluate smoek": "did you mean 'smoke'?",
        "evaluate smoke userz=3": "did you mean 'users'?",
        "evaluate smoke engine=vlm": "engine=vlm (command line): engine: use hf, vllm",
        "evaluate smoke compare=[[llm,populer]]": "did you mean 'popular'? (llm, llm+prior, popular, transitions)",
        "prompts measure movies user=3": "user=3 (command line): unknown key 'user'; did you mean 'users'?",
        "prompts measure movies fit.epoch=3": "did you mean 'epochs'?",
        "prompts measure movies --task intrest": "did you mean 'interest'?",
        "prompts try movies --task intrest": "did you mean 'interest'?",
        "prompts try movies --item Heat": "--item: next_item does not read it; leave it out, or name the task",
        "prompts try movies --task interest -n 3": "-n: interest does not read it",
        "prompts try movies --task interest --no-prior": "--no-prior: interest does not read it",
        "prompts try fashion --task review_sentiment --user 42": "--user: review_sentiment does not read it",
        "recommend places": "what it has are texts: `llmrec explain places`, `llmrec summarize places`",
        "recommend fashion": "no catalog to rank; what it has are texts: `llmrec review fashion`",
        "serve moveis": "did you mean 'movies'?",
        "adapters promote moveis 3f2a": "did you mean 'movies'?",
        "adapters remove movies@3f2a 3f2a": "movies@3f2a: a version, and a domain is asked for, as 'movies'",
        "adapters verify moveis": "did you mean 'movies'?",
        "adapters verify movies@3f2a": "movies: no version '3f2a'",
        "adapters verify /nowhere/at/all": "/nowhere/at/all: no such folder or archive",
        "adapters verify none.tar.gz": "none.tar.gz: no such folder or archive",
        "adapters verify movies --domain moveis": "did you mean 'movies'?",
        "adapters export movies@3f2a x.tar.gz": "movies: no version '3f2a'",
        "adapters import none.tar.gz": "none.tar.gz: no such folder or archive",
        "adapters add movies none": "none: no such folder or archive",
        "adapters merge moveis=1 fashion=1 --out x": "did you mean 'movies'?",
        "adapters promote movies 3f2a": "movies: no version '3f2a'",
        "adapters remove movies 3f2a": "movies: no version '3f2a'",
        "serve movies@3f2a": "movies: no version '3f2a'",
        "show movies --task intrest": "did you mean 'interest'?",
        "conflicts movies --adapter moveis": "did you mean 'movies'?",
        "explain places X": "--user",
        "review moveis text": "did you mean 'movies'?",
        "chat movies --say hi --session none/me.json": "none/me.json: no folder none",
    }
    code = (
        "import json, sys; from typer.testing import CliRunner; from llmrec import cli\n"
        f"said = [CliRunner().invoke(cli.app, line.split()).stderr for line in {[*mistakes]!r}]\n"
        "print(json.dumps([said, 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    found, loaded = json.loads(done.stdout)
    for (line, message), said in zip(mistakes.items(), found, strict=True):
        assert said.startswith("error: ") and said.count("\n") == 1 and message in said, (line, said)
    assert not loaded


def test_interrupted_ends_with_130(tmp_path: Path):
    """Ctrl-C while a verb runs."""
    code = (
        "import signal, sys, time; from llmrec import cli, recommend\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs of a shell ignore it
        "def slow(*_, **__):\n"
        "    print('ready', flush=True)\n"
        "    while True: time.sleep(0.1)\n"
        "recommend.recommend = slow; sys.argv = ['llmrec', 'recommend', 'movies']; cli.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b"stopped\n"


def test_a_lock_that_is_a_link_is_one_line(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text("domain: films\ndata: {path: none.csv}\n")
    (tmp_path / "home" / "data").mkdir(parents=True)
    (tmp_path / "home" / "data" / ".films.lock").symlink_to("nowhere")
    done = shell("prepare", str(tmp_path / "recipe.yaml"), LLMREC_HOME=str(tmp_path / "home"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert ".films.lock: a lock is a plain file, and this is a symbolic link; delete it" in done.stderr


def test_a_task_that_is_none_and_a_base_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.csv").write_text("user_id,item_id,title\nu,1,A\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"domain: r\ndata: {{path: {tmp_path}/x.csv}}\nsplit: {{method: leave_one_out}}\n")
    for verb in ("show", "prepare", "train"):
        result = run(verb, str(recipe), "tasks=[next_itm]")
        assert result.exit_code == 2 and "there is no 'next_itm'; did you mean 'next_item'?" in result.output
    result = run("prepare", str(recipe), "base_model=smollm3 x")
    assert result.exit_code == 2 and "base_model 'smollm3 x': no such folder" in result.output


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_recipe():
    result = run("prepare", "movies", "lora.rnk=32")
    assert result.exit_code == 2
    assert "error: lora.rnk=32 (command line): unknown key 'rnk'; did you mean 'rank'?" in result.output
    result = run("prepare", "movies", "lora.alpha=many")
    assert result.output.startswith("error: lora.alpha=many (command line): lora.alpha: Input should be")


def test_dots_cost_no_time_and_no_mistake_of_a_number_gets_past_its_name():
    began = time.monotonic()
    assert not cli.is_setting("Sooo" + "." * 5000 + " good") and cli.is_setting("fit.epochs=1")
    assert time.monotonic() - began < 1
    assert not cli.is_setting("fit=perfect, love it") and cli.is_setting("data={path: a b}")
    assert cli.is_setting("data.path=/my data/r.csv") and cli.is_setting("noun=science books")
    for word, message in [
        ("fit.seed=-1", "greater than or equal to 0"),
        ("fit.epochs=.inf", "finite number"),
        ("domain=../x", "use 1 to 64 of a-z"),
        ("fit.window_tokens=5000", "less than or equal to 4096"),
    ]:
        result = run("prepare", "movies", word)
        assert result.exit_code == 2 and f"error: {word} (command line): " in result.output and message in result.output


def test_a_setting_of_a_task_is_added_to_what_is_trained():
    data = {"path": "x.csv"}
    for tasks in ({}, {"tasks": ["next_item"]}, {"tasks": {"next_item": {}}}):
        found = config.section(config.Recipe, {"domain": "a", "data": data, **tasks}, ("tasks.interest.weight=2",))
        assert [*found.tasks] == ["next_item", "interest"] and found.tasks["interest"].weight == 2
    with pytest.raises(RecipeError, match="'targets' is a value, not a section"):
        config.load_recipe("movies", ("lora.targets.foo=1",))


def test_a_setting_changes_one_section_where_two_are_one_by_an_anchor():
    text = "domain: a\ntasks:\n  review_sentiment: {data: &texts {path: x.csv}}\n  item_class: {data: *texts}\n"
    found = config.section(config.Recipe, yaml.safe_load(text), ("tasks.item_class.data.seed=5",))
    assert [found.tasks[task].data.seed for task in ("review_sentiment", "item_class")] == [0, 5]


def test_a_setting_without_its_section_is_recognised():
    said = run("prepare", "movies", "epochs=1").output
    assert "error: epochs=1 (command line): unknown key 'epochs'; did you mean 'fit.epochs' or 'sasrec.epochs'?" in said


def test_paths_are_no_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    result = run("prepare", f"{tmp_path}/books")
    assert result.exit_code == 2 and "no recipe there" in result.output
    result = run("adapters", "verify", f"{tmp_path}/gone.tar.gz")
    assert result.exit_code == 2 and "no such folder or archive" in result.output
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path / "nowhere"))
    result = run("prepare", "movies")
    assert result.exit_code == 2 and "name it with LLMREC_PROJECT" in result.output


def test_a_folder_is_no_name_of_an_adapter_and_says_how_it_gets_one():
    with pytest.raises(RecipeError, match="`llmrec adapters add DOMAIN /tmp/new` keeps it as a version"):
        config.adapter_folder("/tmp/new")
