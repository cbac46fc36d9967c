"""prompts: edit the wording of tasks with open eyes: check, diff, try, measure, roll back."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmrec import config, prepare
from llmrec.data.catalog import Catalog
from llmrec.data.names import match_titles, readable
from llmrec.errors import AssetError, DataError, PromptError, RecipeError, did_you_mean
from llmrec.files import whole
from llmrec.metrics.significance import Interval, Statistic, resampled
from llmrec.recommend import Question, question
from llmrec.screen import screen
from llmrec.tasks import OF_REVIEWS, TASKS, grounded
from llmrec.tasks.lint import Finding, Length, lengths, lint
from llmrec.tasks.saved import Change, changes, read_card, saved_prompts
from llmrec.tasks.template import Template

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.model.encode import Encoder
    from llmrec.recommender import Recommender

LOG = logging.getLogger("llmrec")
TASK = "next_item"  # what `try` asks unless another task is named
TRAINED = "trained"  # the wording that an adapter serves with
CUTOFF = 10
SHARES = 6  # choices of an answer that are shown


@dataclass(frozen=True)
class Checked:
    """One prompt file: its problems, and per domain that trains on it the lengths of its wordings."""

    task: str
    template: Template | None
    """None where the file cannot be loaded."""
    findings: list[Finding]
    lengths: dict[str, list[Length]]


def check(tasks: Sequence[str] = (), *, domain: str | None = None) -> list[Checked]:
    """Every prompt file (or those of `tasks`), looked at with the tokenizer of each domain that trains on it.

    Args:
        domain: measure lengths for this domain only, whether or not it trains on the task.  Of all domains, one whose
            recipe or base model cannot be read is said and left out.
    Raises: PromptError for a task without a file; of `domain` RecipeError, AssetError.
    """
    folder = config.project() / "prompts"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if unknown := [task for task in tasks if task not in known]:
        raise PromptError(f"no prompt file '{unknown[0]}' in {folder}{did_you_mean(unknown[0], known)}")
    recipes = _recipes() if domain is None else [config.load_recipe(domain)]
    unread: set[str] = set()
    found = []
    for task in tasks or sorted({*known, *(name for recipe in recipes for name in recipe.tasks)}):
        try:
            template = Template.load(folder / f"{task}.yaml")
        except PromptError as error:
            found.append(Checked(task, None, [Finding("file", str(error), grave=True)], {}))
            continue
        findings = lint(template)
        if task not in TASKS:
            findings.append(Finding("task", f"nothing reads it: tasks are {', '.join(TASKS)}"))
        measured: dict[str, list[Length]] = {}
        for recipe in recipes:
            if recipe.domain not in unread and (domain is not None or task in recipe.tasks):
                try:
                    measured[recipe.domain], more = _lengths(template, recipe)
                except AssetError as error:
                    if domain is not None:
                        raise
                    LOG.warning("%s: its lengths are not measured: %s", recipe.domain, error)
                    unread.add(recipe.domain)
                    continue
                findings += [one for one in dict.fromkeys(more) if one not in findings]
        found.append(Checked(task, template, findings, measured))
    return found


@dataclass(frozen=True)
class Diff:
    """How today's file of one task differs from the one saved with an adapter."""

    task: str
    lines: list[str]
    """A unified diff; empty where the files are the same."""
    changes: list[Change]
    """What that means; empty where only comments or layout differ."""


def diff(adapter: str) -> list[Diff]:
    """Per task of an adapter, what changed in prompts/ since it was trained.

    Raises: AdapterError, PromptError (a file that is gone or cannot be read).
    """
    folder = config.adapter_folder(adapter)
    found = []
    for task, old in saved_prompts(folder, read_card(folder)).items():
        path = config.prompt_file(task)
        new = Template.load(path)
        before, after = (source.read_text(encoding="utf-8").splitlines() for source in (old.path, path))
        lines = difflib.unified_diff(before, after, f"{adapter}, as trained", f"prompts/{task}.yaml", lineterm="")
        found.append(Diff(task, list(lines), changes(old, new)))
    return found


@dataclass(frozen=True)
class Answer:
    """What one wording reads like and what it recommends."""

    name: str
    prompt: str
    """The turns before the history, as text."""
    items: list[tuple[int, float]]
    """(catalog position, score in nats), best first."""


def attempt(
    domain: str,
    *,
    overrides: tuple[str, ...] = (),
    wordings: Sequence[str] = (),
    file: Path | None = None,
    user: str | None = None,
    history: Sequence[str] = (),
    n: int = CUTOFF,
    prior: bool = True,
) -> tuple[Catalog, Question, list[Answer]]:
    """The same question answered with two wordings: `trained` or numbers of today's prompts/ (or of `file`).

    One wording stands beside the trained one, none means wording 0.  Raises: PromptError, DataError, AdapterError.
    """
    names = _two(wordings)
    recipe = config.load_recipe(domain, overrides)
    edited = _edited(file, names)
    dataset = prepare.load(recipe)
    asked = question(dataset, Catalog.of(dataset), user=user, history=history)
    from llmrec.measuring.wordings import recommender

    model = recommender(recipe, edited)
    answers = []
    for name in names:
        worded, wording = _worded(model, edited, name)
        [found] = worded.rank([asked.history], n, prior=prior, wording=wording)
        prompt = model.encoder.tokenizer.decode(worded.prompts([[]], wording)[0].tokens)
        answers.append(Answer(name, prompt, list(zip(found.items.tolist(), found.score.tolist(), strict=True))))
    return model.catalog, asked, answers


@dataclass(frozen=True)
class Said:
    """What one wording of a task reads like, and its answer."""

    name: str
    prompt: str
    """The task's own turns, as text."""
    answer: str


def check_options(task: str, given: Sequence[str]) -> None:
    """Raises: PromptError for a task that there is not, or an option of `given` (names) that does nothing for it."""
    if task not in TASKS:
        raise PromptError(f"--task {task}: nothing to try{did_you_mean(task, TASKS)}")
    if task == TASK:
        reads = {"user", "history", "-n", "no-prior"}
    elif task in OF_REVIEWS:
        reads = {"text"}
    else:
        reads = {"user", "history", "item"} if task.endswith("explanation") else {"user", "history"}
    if idle := [name for name in given if name not in reads]:
        option = idle[0] if idle[0].startswith("-") else f"--{idle[0]}"
        raise PromptError(f"{option}: {task} does not read it; leave it out, or name the task that does: --task")


def attempt_task(
    domain: str,
    task: str,
    *,
    overrides: tuple[str, ...] = (),
    wordings: Sequence[str] = (),
    file: Path | None = None,
    user: str | None = None,
    history: Sequence[str] = (),
    item: str | None = None,
    text: str | None = None,
) -> list[Said]:
    """The same question of another task than next_item answered with two wordings, named as in `attempt`.

    Args:
        user, history: whom a task after a history list is about; grounded tasks take a user alone.
        item: title that explanation and grounded_explanation explain.
        text: review that review_sentiment and item_class read.
    Raises: PromptError, DataError (what a task needs is missing or unknown), AdapterError (task not learned).
    """
    names = _two(wordings)
    recipe = config.load_recipe(domain, overrides)
    edited = _edited(file, names, task)
    if task in OF_REVIEWS:
        return _judged(recipe, edited, names, text)
    if task in grounded.TASKS:
        return _grounded(recipe, edited, names, user, history, item)
    dataset = prepare.load(recipe)
    catalog = Catalog.of(dataset)
    asked = question(dataset, catalog, user=user, history=history)
    if not asked.history:
        raise DataError('nobody to ask about: name a user with a history, or titles: --history "A Title"')
    if task == "explanation" and not item:
        raise DataError('nothing to explain: name an item: --item "A Title"')
    wanted = match_titles([item], catalog) if task == "explanation" and item else []
    return _told(recipe, edited, names, asked.history, wanted)


def _judged(recipe: config.Recipe, edited: Template, names: Sequence[str], text: str | None) -> list[Said]:
    if not text or not text.strip():
        raise DataError('no review to read: give one: --text "Too tight, and it itches."')
    from llmrec.judge import Judge, edited_task

    judge = Judge.load(recipe, recipe.domain, task=edited.task)
    today = edited_task(judge, edited)
    said = []
    for name in names:
        task = judge.task if name == TRAINED else today
        wording = 0 if name == TRAINED else int(name)
        [p] = replace(judge, task=task).p([(text, None)], wording)
        prompt = task.encoder.tokenizer.decode(task.header(text, None, wording))
        said.append(Said(name, prompt, _shares(judge.labels, p)))
    return said


def _grounded(
    recipe: config.Recipe,
    edited: Template,
    names: Sequence[str],
    user: str | None,
    history: Sequence[str],
    item: str | None,
) -> list[Said]:
    from llmrec.grounded import Writer, asked

    one = asked(recipe, edited.task, user, item or "", history=history)
    trained = Writer.load(recipe, edited.task, recipe.domain)
    said = []
    for name in names:
        wording = 0 if name == TRAINED else int(name)
        asking = trained.asking if name == TRAINED else replace(trained.asking, template=edited)
        [answer] = replace(trained, asking=asking).write([one], wording, alone=True)
        said.append(Said(name, asking.encoder.tokenizer.decode(asking.header(one, wording)), answer))
    return said


def _told(
    recipe: config.Recipe, edited: Template, names: Sequence[str], history: list[int], wanted: list[int]
) -> list[Said]:
    from llmrec.baselines.together import Together
    from llmrec.follow_up import FollowUp
    from llmrec.insight import explanation_replies, nearest, summary_replies
    from llmrec.recommender import Recommender
    from llmrec.writing import plain

    model = Recommender.load(recipe, recipe.domain)
    trained = FollowUp.load(model, edited.task)
    said = []
    for name in names:
        wording = 0 if name == TRAINED else int(name)
        task = trained if name == TRAINED else replace(trained, template=edited)
        slots = [{"item": task.item_slot(item)} for item in wanted] or None
        [listed], [prompt] = model.prompts([history]), task.prompts([history], slots, wording)
        if edited.task == "interest":
            answer = _shares(task.categories, np.exp(task.log_p([history], wording)[0]))
        elif edited.task == "interest_summary":
            answer = plain(summary_replies(task, [history], wording)[0])
        else:
            near = nearest(Together.fit(model.dataset, model.catalog), history, wanted[0])
            answer = plain(explanation_replies(task, [history], wanted, [near], wording)[0])
        said.append(Said(name, model.encoder.tokenizer.decode(prompt.tokens[len(listed.tokens) :]), answer))
    return said


def _shares(names: Sequence[str], p: np.ndarray) -> str:
    best = np.argsort(-p, kind="stable")[:SHARES]
    return ", ".join(f"{names[i]} {p[i]:.0%}" for i in best)


@dataclass(frozen=True)
class Measured:
    """The measure of a task under one wording, and how it differs from the trained one's (None: it is that)."""

    task: str
    metric: str
    asked: str
    """How many of what: "100 users"."""
    name: str
    text: str
    mean: Interval
    difference: Interval | None


def measure(
    domain: str,
    overrides: tuple[str, ...] = (),
    *,
    tasks: Sequence[str] = (),
    wordings: Sequence[int] = (),
    file: Path | None = None,
    prior: bool = True,
) -> list[Measured]:
    """What wordings of today's prompts/ (or of `file`) cost or gain without training again, on validation data.

    Args:
        overrides: `users=…`, `samples=…`, `seed=…` of this measurement; anything else is a setting of the recipe.
        tasks: of the recipe; default: its first.
        wordings: numbers in the file; default: all of it.
        prior: of next_item with the card's weight of its prior, as people are served.

    Returns: of each task its wordings, the trained one first.
    Raises: RecipeError, PromptError, AdapterError, DataError.
    """
    known = {*config.Wordings.model_fields, *config.Recipe.model_fields}
    for text in overrides:
        if (key := text.partition("=")[0].partition(".")[0]) not in known:
            raise RecipeError(f"{text} (command line): unknown key '{key}'{did_you_mean(key, known)}")
    own = tuple(text for text in overrides if text.partition("=")[0] in config.Wordings.model_fields)
    settings = config.section(config.Wordings, {}, own, "measure")
    recipe = config.load_recipe(domain, tuple(text for text in overrides if text not in own))
    for task in tasks:
        if task not in recipe.tasks:
            raise PromptError(f"--task {task}: not a task of {recipe.domain}{did_you_mean(task, recipe.tasks)}")
    if file and len(tasks) > 1:
        raise PromptError("--file: holds the wordings of one task; name one --task")
    chosen = {task: _edited(file, [str(one) for one in wordings], task) for task in tasks or [next(iter(recipe.tasks))]}
    from llmrec.measuring.wordings import trial

    found: list[Measured] = []
    for task, edited in chosen.items():
        trying = trial(task, recipe, edited, settings, prior=prior)
        names = {TRAINED: (trying.trained, 0)} | {str(i): (edited, i) for i in wordings or edited.wordings()}
        read: dict[tuple[str, str], Statistic] = {}
        statistics = {}
        for name, (template, wording) in names.items():
            key = template.system, template.user[wording].text  # all that a prompt may differ in
            if key not in read:
                read[key] = trying.ask(template, wording)
            statistics[name] = read[key]
        pairs = [(name, TRAINED) for name in names if name != TRAINED]
        means, gaps = resampled(statistics, pairs, trying.count, seed=settings.seed, samples=settings.samples)
        found += [
            Measured(
                task, trying.metric, f"{trying.count:,} {trying.units}", name, template.user[wording].text,
                means[name], gaps.get((name, TRAINED)),
            )
            for name, (template, wording) in names.items()
        ]  # fmt: skip
    return found


def rollback(adapter: str, tasks: Sequence[str] = ()) -> list[tuple[Path, Path | None]]:
    """Puts the wordings saved with an adapter back into prompts/.

    Each file is replaced whole or not at all, after what was there has been kept beside it as `<file>.<digest>.bak`;
    one that differs in comments or layout alone stays as it is.
    Returns: per changed file its path and its backup (None: there was no file).
    Raises: AdapterError, PromptError for a task that the adapter does not have.
    """
    folder = config.adapter_folder(adapter)
    saved = saved_prompts(folder, read_card(folder))
    if unknown := [task for task in tasks if task not in saved]:
        raise PromptError(f"{folder}: not trained on '{unknown[0]}'{did_you_mean(unknown[0], saved)}")
    done: list[tuple[Path, Path | None]] = []
    for task in tasks or saved:
        path, old = config.prompt_file(task), saved[task].path.read_bytes()
        now = path.read_bytes() if path.is_file() else None
        if now == old or _means(path, saved[task]):
            continue
        backup = None if now is None else path.with_name(f"{path.name}.{hashlib.sha256(now).hexdigest()[:12]}.bak")
        if backup is not None and now is not None:
            _write(backup, now)
        _write(path, old)
        done.append((path, backup))
    return done


def _means(path: Path, saved: Template) -> bool:
    """Whether the file says what `saved` says; one that cannot be read does not."""
    try:
        return Template.load(path).meaning == saved.meaning
    except PromptError:
        return False


def print_check(found: Sequence[Checked], console: Console | None = None) -> None:
    """A table per file: tokens of every wording, for whom, and the room they leave; then what to mend."""
    console = console or screen()
    for checked in found:
        title = Text(checked.task, style="bold")
        if checked.template is None:
            console.print(title)
        else:
            readers: dict[tuple[Length, ...], list[str]] = {}
            for domain, measured in checked.lengths.items():
                readers.setdefault(tuple(measured), []).append(domain)
            names = [", ".join(domains) for domains in readers.values()]
            if readers:
                title.append(f": tokens, and what they leave of the window, for {'; for '.join(names)}", "not bold")
            table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
            table.add_column("", justify="right")
            table.add_column("wording")
            for _ in readers:
                table.add_column("tokens", justify="right", no_wrap=True)
                table.add_column("left", justify="right", no_wrap=True)
            for i, wording in enumerate(checked.template.user):
                cells = []
                for measured in readers:
                    length = next((one for one in measured if one.wording == i), None)
                    cells += [str(length.tokens), str(length.room)] if length else ["", ""]
                note = Text(" held out", style="cyan") if wording.held_out else Text()
                table.add_row(str(i), Text(_on_one_line(wording.text)) + note, *cells)
            console.print(table)
        for finding in sorted(checked.findings, key=lambda finding: not finding.grave):
            word, style = ("error", "bold red") if finding.grave else ("note", "yellow")
            console.print(Text.assemble((word, style), f" {finding.where}: {readable(finding.says)}"), soft_wrap=True)
        console.print()


def print_diff(found: Sequence[Diff], adapter: str, console: Console | None = None) -> None:
    """The unified diffs in colour, then in words what they change."""
    console = console or screen()
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for one in found:
        if not one.lines:
            console.print(Text(f"{one.task}: as trained"))
            continue
        for line in one.lines:
            style = "bold" if line.startswith(("+++", "---")) else styles.get(line[:1], "")
            console.print(Text(readable(line), style=style), soft_wrap=True)
        console.print()
        if not one.changes:
            console.print(Text(f"{one.task}: comments or layout only; behaviour is the same"))
        for change in one.changes:
            word, style = ("behaves otherwise", "bold yellow") if change.behaves else ("no effect", "dim")
            text = Text.assemble(f"{one.task}: {readable(change.what)}: ", (word, style), f": {change.effect}")
            console.print(text, soft_wrap=True)
        if any(change.behaves for change in one.changes):
            console.print(
                Text(
                    f"{adapter} goes on answering with the wording it was trained on.  See the effect: llmrec prompts "
                    f"measure {adapter}; undo: llmrec prompts rollback {adapter}; adopt: train again"
                )
            )


def print_attempt(catalog: Catalog, asked: Question, answers: Sequence[Answer], console: Console | None = None) -> None:
    """Both prompts, both lists side by side, and how far they agree."""
    console = console or screen()
    for answer in answers:
        console.print(Text(f"wording {answer.name}", style="bold"))
        console.print(Text("\n".join(map(readable, answer.prompt.splitlines())), style="dim"))
        console.print()
    first, second = ([item for item, _ in answer.items] for answer in answers)
    who = f"user {asked.user}" if asked.user is not None else f"{len(asked.history)} in the history"
    table = Table(title=Text(who), title_justify="left", box=None, pad_edge=False)
    table.add_column("", justify="right")
    for answer in answers:
        table.add_column(f"wording {answer.name}")
        table.add_column("nats", justify="right", no_wrap=True)
    table.add_column(f"under {answers[0].name}", justify="right")
    for place in range(max(len(first), len(second))):
        cells: list[Text | str] = []
        for answer in answers:
            item, score = answer.items[place] if place < len(answer.items) else (None, 0.0)
            cells += ["", ""] if item is None else [Text(readable(catalog.title[item])), f"{score:.2f}"]
        table.add_row(str(place + 1), *cells, _moved(second[place], place, first) if place < len(second) else "")
    console.print(table)
    console.print(Text(agreement(first, second)))


def print_said(said: Sequence[Said], console: Console | None = None) -> None:
    """Both wordings with their answers."""
    console = console or screen(highlight=False)
    for one in said:
        console.print(Text(f"wording {one.name}", style="bold"))
        console.print(Text("\n".join(map(readable, one.prompt.splitlines())), style="dim"))
        console.print(Text(readable(one.answer) or "(no whole sentence)"))
        console.print()
    same = len({one.answer for one in said}) == 1
    console.print(Text("The answers are the same." if same else "The answers differ."))


def agreement(first: Sequence[int], second: Sequence[int]) -> str:
    """Overlap of two lists and the largest move within it, in words."""
    shared = [(first.index(item), place) for place, item in enumerate(second) if item in first]
    moves = [abs(a - b) for a, b in shared]
    text = f"{len(shared)} of {max(len(first), len(second))} in both lists"
    if moves:
        text += f"; {sum(move == 0 for move in moves)} at the same rank, largest move {max(moves)}"
    return text


def print_measure(found: Sequence[Measured], console: Console | None = None) -> None:
    """The measures with intervals, and in words what the differences mean."""
    console = console or screen()
    for one in found:
        console.print(Text.assemble((f"{one.task} {one.name}", "bold"), f": {_on_one_line(one.text)}"), soft_wrap=True)
    console.print()
    console.print(Text("On validation data, 95% bootstrap intervals"))
    for task in dict.fromkeys(one.task for one in found):
        console.print(_measured([one for one in found if one.task == task]))


def _measured(found: Sequence[Measured]) -> Table:
    """Of one task, for a terminal of 80 columns."""
    title = Text.assemble((found[0].task, "bold"), f", {found[0].asked}")
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for heading in ("wording", found[0].metric, "against trained", ""):
        table.add_column(heading, no_wrap=True)
    for one in found:
        verdict, change = "", ""
        if one.difference is not None:
            change = _interval(one.difference, "+")
            verdict = "no difference shown"
            if one.difference.low == one.difference.high == 0:
                verdict = "the same"
            elif one.difference.excludes_zero:
                verdict = "better" if one.difference.mean > 0 else "worse"
        table.add_row(one.name, _interval(one.mean), change, verdict)
    return table


def _on_one_line(text: str) -> str:
    """A wording as a table shows it: where its lines end is part of it, and must be seen."""
    return readable(text.replace("\n", "⏎"))


def _recipes() -> list[config.Recipe]:
    """Of every domain there is, in order; says which cannot be read."""
    found = []
    for path in sorted((config.project() / "adapters").glob("*/recipe.yaml")):
        try:
            found.append(config.load_recipe(str(path)))
        except RecipeError as error:
            LOG.warning("left out: %s", error)
    return found


def _lengths(template: Template, recipe: config.Recipe) -> tuple[list[Length], list[Finding]]:
    encoder = _encoder(recipe.base_model)
    return lengths(
        template, recipe, lambda messages: len(encoder.header(messages)), window_tokens=recipe.fit.window_tokens,
        longest_line=recipe.identifier.longest + len(encoder.newline),
    )  # fmt: skip


@cache
def _encoder(name: str) -> Encoder:
    from llmrec.model.encode import Encoder
    from llmrec.model.load import base_model, load_tokenizer

    return Encoder(load_tokenizer(base_model(name).folder))


def _two(wordings: Sequence[str]) -> list[str]:
    """One wording stands beside the trained one, none means wording 0.  Raises: PromptError."""
    names = list(wordings) or ["0"]
    names = [TRAINED, *names] if len(names) == 1 else names
    if len(names) != 2:
        raise PromptError(f"{len(names)} wordings: two stand side by side; `llmrec prompts measure` takes more")
    return names


def _edited(file: Path | None, names: Sequence[str], task: str = TASK) -> Template:
    """The file whose wordings are tried; every name that is a number is one of them."""
    path = file or config.prompt_file(task)
    edited = Template.load(path, task=task)
    for name in names:
        if name != TRAINED and not (name.isdecimal() and int(name) < len(edited.user)):
            raise PromptError(f"{path}: no wording '{name}'; there are 0 to {len(edited.user) - 1}, and '{TRAINED}'")
    return edited


def _worded(model: Recommender, edited: Template, name: str) -> tuple[Recommender, int]:
    """The recommender with the file that holds the wording, and the wording's number there."""
    return (model, 0) if name == TRAINED else (replace(model, template=edited), int(name))


def _moved(item: int, place: int, before: Sequence[int]) -> Text:
    if item not in before:
        return Text("new", style="cyan")
    was = before.index(item)
    return Text("=" if was == place else str(was + 1), style="dim" if was == place else "yellow")


def _interval(value: Interval, sign: str = "") -> str:
    return f"{value.mean:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    with whole(path) as partial:
        partial.write_bytes(content)
