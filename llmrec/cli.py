"""Arguments → one function per verb.  What a verb needs is imported when it runs, so that help is immediate."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from llmrec import __version__, config
from llmrec.errors import AdapterError, EngineError, LlmrecError, RecipeError

SETTING = re.compile(r"(\w+)(\.[^\s=]+)?=")  # the beginning of what may be one
MISTAKE = 2  # exit status of what the user can mend
SHOWN = 8  # counts of a line
LONGEST = 1000  # list
FULL = (
    "the GPU's memory is full: end what else fills it, or ask a server that holds the model (--engine http://…); in "
    "training, halve fit.micro_batch_tokens or set fit.gradient_checkpointing=true"
)
INTERRUPTED = 130  # as a shell reports Ctrl-C
DISK = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ELOOP, errno.ENOTDIR, errno.EISDIR,
        errno.EEXIST, errno.ENAMETOOLONG}  # fmt: skip


class Verbs(TyperGroup):
    """A mistake of the user ends in one line; a bug of ours shows where it happened."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (LlmrecError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in DISK:
                raise
            if ctx.params.get("verbose"):
                traceback.print_exc()
            typer.echo(f"error: {_line(error)}", err=True)
            raise typer.Exit(MISTAKE) from None
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for it
                raise
            typer.echo(f"error: {FULL} ({_line(error)})", err=True)
            raise typer.Exit(MISTAKE) from None


class ManyValues(TyperCommand):
    """A command whose repeatable options take several values: `--history A B` is `--history A --history B`."""

    sections: tuple[type[config.Section], ...] = (config.Recipe,)
    """What its settings belong to."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        many = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        return super().parse_args(ctx, spread(args, many, self.sections))


class ManyWordings(ManyValues):
    """The same where a measurement of wordings has settings of its own."""

    sections = (config.Wordings, config.Recipe)


def is_setting(word: str, sections: Sequence[type[config.Section]] = (config.Recipe,)) -> bool:
    """Whether a word sets something that one of `sections` has: `window_step=64` and `fit.epochs=1` do for a recipe, a
    filter (`category=Comedy`) or a title with an equals sign does not."""
    found = SETTING.match(word)
    if not found:
        return False
    whole = found[2] is None and " " in word and word[found.end()] not in "[{"  # a sentence, or what takes no section
    return any(
        found[1] in section.model_fields and not (whole and config.is_section(section, found[1]))
        for section in sections
    )


def spread(
    args: Sequence[str], options: set[str], sections: Sequence[type[config.Section]] = (config.Recipe,)
) -> list[str]:
    """Repeats each of `options` before every value that follows it, up to the next word that begins with a dash, or is
    a setting of `sections`."""
    result: list[str] = []
    current = ""
    for place, word in enumerate(args):
        if word == "--":
            return [*result, *args[place:]]
        if word.startswith("-"):
            current = word if word in options else ""
        elif is_setting(word, sections):
            current = ""
        elif current and result[-1] != current:
            result.append(current)
        result.append(word)
    return result


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _engine(name: str) -> str:
    """A mistake in it shows before the seconds that an engine takes to load."""
    if not config.is_engine(name):
        raise EngineError(f"--engine {name}: use {config.ENGINES}")
    return name


def _named(name: str) -> str:
    """The same of a domain, or domain@version."""
    config.adapter_folder(name)
    return name


def _placed(text: str) -> str:
    """The same of an adapter wherever it lies."""
    config.adapter_place(text)
    return text


def _there(path: Path) -> Path:
    """The same of a folder or archive."""
    if not path.exists():
        raise AdapterError(f"{path}: no such folder or archive")
    return path


def _parts(shares: list[str]) -> list[str]:
    """The same of the adapters in NAME=SHARE."""
    for text in shares:
        if name := text.rpartition("=")[0]:
            _placed(name)
    return shares


def _adapter_or_none(name: str | None) -> str | None:
    """The same of an adapter wherever it lies, which may be left out."""
    return name and _placed(name)


def _other_domain(name: str | None) -> str | None:
    """The same of a domain that may be left out."""
    return name and _domain(name)


def _domain(name: str) -> str:
    """The same of a domain alone."""
    if "@" in name:
        raise RecipeError(f"{name}: a version, and a domain is asked for, as '{config.domain_of(name)}'")
    return _named(name)


Domain = Annotated[str, typer.Argument(help="Name of a folder in adapters/, or path of a recipe.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that differ, e.g. lora.rank=32.", metavar="KEY=VALUE", show_default=False),
]

User = Annotated[str | None, typer.Option(help="A user of the domain's data.", show_default=False)]
History = Annotated[
    list[str] | None, typer.Option(help="Titles or item:ID, oldest first; after the user's own.", show_default=False)
]
OtherAdapter = Annotated[str | None, typer.Option(help="Another adapter than the domain's.", show_default=False)]
Base = Annotated[bool, typer.Option("--base", help="The base model without an adapter.")]
Prior = Annotated[bool, typer.Option(help="Add the prior at the weight of the card.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Engine = Annotated[
    str,
    typer.Option(help="What computes: hf, vllm, the address of a vLLM server, or fake (no model).", callback=_engine),
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"llmrec {__version__}")
        raise typer.Exit


@app.callback()
def llmrec(
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more, and where an error arose.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One language model, fine-tuned with LoRA, that ranks a whole catalog exactly.

    Usual order: prepare, show, train, evaluate, recommend.  Downloads, prepared data and runs lie in LLMREC_HOME
    (default ~/.cache/llmrec).
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it gives advice of its own


@app.command()
def prepare(
    domain: Domain,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Prepare again, whatever is there.")] = False,
) -> None:
    """Fetch what a domain needs, prepare its data, and read and check the texts of its tasks.

    Example: llmrec prepare movies
    """
    from llmrec import assets
    from llmrec.data.dataset import read_manifest
    from llmrec.data.names import readable
    from llmrec.prepare import prepare as run
    from llmrec.prepare import texts

    recipe = _recipe(domain, overrides)
    if recipe.data is not None:
        folder = run(recipe, force=force)
        counts = (read_manifest(folder) or {}).get("counts", {})
        typer.echo(f"{folder}: {_listed(counts)}")
    for task, settings in recipe.tasks.items():
        if settings.data is not None:
            splits, labels = texts(recipe, task)
            line = f"{assets.resolve(settings.data.path)}: {task}: {_listed(splits)}"
            typer.echo(readable(f"{line}; {_listed(labels)}" if labels else line))
    if recipe.base_model in assets.ASSETS:
        typer.echo(f"{assets.fetch(recipe.base_model)}: base model")
    else:
        from llmrec.model.load import base_model

        typer.echo(f"{base_model(recipe.base_model).folder}: base model")


@app.command()
def show(
    domain: Domain,
    overrides: Overrides = None,
    task: Annotated[str | None, typer.Option(help="Rows of this task; default: the first.", show_default=False)] = None,
    user: Annotated[
        str | None, typer.Option(help="Whose history (next_item); default: the first user.", show_default=False)
    ] = None,
    wording: Annotated[int, typer.Option(min=0, help="Which phrasing of the prompt file.")] = 0,
    n: Annotated[int, typer.Option("-n", min=1, help="How many training rows.")] = 1,
    ids: Annotated[bool, typer.Option("--ids", help="Print token ids, too.")] = False,
) -> None:
    """Print training rows as the model sees them.

    Learned tokens are green, forced ones dim, context plain.

    Example: llmrec show movies --user 42 --wording 1

    Example: llmrec show movies --task interest_summary -n 3
    """
    recipe = _recipe(domain, overrides)  # a mistake in it shows before the seconds that torch takes to load
    if task is not None:
        recipe.task(task)
    from llmrec.show import show as run

    run(recipe, task=task, user=user, wording=wording, n=n, ids=ids)


@app.command()
def train(
    domain: Domain,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the adapter; default: adapters/DOMAIN, which must be there.", show_default=False),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Do not go on from the last checkpoint.")] = False,
) -> None:
    """Train a domain's adapter.

    An interrupted run goes on from its last checkpoint.

    Example: llmrec train movies-lists fit.epochs=1 lora.rank=32 --out /tmp/lists
    """
    recipe = _recipe(domain, overrides)
    from llmrec.train import train as run

    folder = run(recipe, out=out, resume=not restart)
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        from llmrec.tasks.saved import read_card

        if read_card(folder).get("prior_weights_tried") == []:
            typer.echo("no validation users, so the prior got no weight: lists are the model's alone", err=True)
        typer.echo(folder)


@app.command()
def conflicts(
    domain: Domain,
    overrides: Overrides = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            help="Domain, domain@version or folder to measure; default: a fresh adapter.",
            show_default=False,
            callback=_adapter_or_none,
        ),
    ] = None,
    batches: Annotated[int, typer.Option(min=1, max=256, help="Batches of every task that are looked at.")] = 8,
    out: Annotated[
        Path | None, typer.Option(help="Folder of JSON and picture; default: in LLMREC_HOME.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure whether the tasks of a recipe pull its adapter the same way: cosines of their gradients by layer.

    A task beside itself, on two batches, says how much of the rest is noise.

    Example: llmrec conflicts movies --adapter movies --batches 16
    """
    recipe = _recipe(domain, overrides)
    from llmrec import conflicts as verb

    folder = out or config.home() / "conflicts" / recipe.domain
    report = verb.conflicts(recipe, adapter=adapter, batches=batches, out=folder)
    if as_json:
        typer.echo((folder / verb.RESULT).read_text(encoding="utf-8"))
    else:
        verb.print_table(report)
        typer.echo(folder)


@app.command()
def evaluate(
    suite: Annotated[str, typer.Argument(help="Name of a file in eval/, or its path.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, e.g. users=100.", metavar="KEY=VALUE", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results; default: evaluations/SUITE-DIGEST in LLMREC_HOME, one for the same settings.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Measure everything again, also what is kept of an earlier run.")
    ] = False,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="Only write what is asked, and what may be learned from, to this folder, for a ranker of your own; "
            "lists.NAME=FOLDER then sets its lists beside the others.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure what a suite sets side by side, all on the same users or reviews.

    Its task says what: rankings of the whole catalog, interests, summaries, explanations, or labels of reviews.
    Killed at any moment, the same command goes on.

    Example: llmrec evaluate smoke

    Example: llmrec evaluate movies-interest users=100
    """
    from llmrec import evaluate as verb

    if questions is not None:
        if out or force:
            raise RecipeError("--questions measures nothing: leave out --out and --force")
        for folder in verb.write_questions(suite, tuple(overrides or ()), questions):
            typer.echo(folder)
        return
    folder = verb.evaluate(suite, tuple(overrides or ()), out=out, force=force)
    verb.print_page(folder)
    typer.echo(folder)


@app.command(cls=ManyValues)
def recommend(
    domain: Domain,
    overrides: Overrides = None,
    user: User = None,
    history: History = None,
    n: Annotated[int, typer.Option("-n", min=1, max=LONGEST, help="Length of the list.")] = 10,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Titles, item:ID, category=NAME or year=FROM..TO to leave out.", show_default=False),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="category=NAME,NAME or year=FROM..TO to stay within.", show_default=False)
    ] = None,
    adapter: OtherAdapter = None,
    base: Base = False,
    prior: Prior = True,
    engine: Engine = "hf",
    as_json: AsJson = False,
) -> None:
    """Rank the whole catalog for one person.

    Example: llmrec recommend movies --user 42

    Example: llmrec recommend movies --history "Fargo" "Heat" --only category=Comedy year=1990..1995 -n 5
    """
    from llmrec import recommend as verb

    found = verb.recommend(
        domain, overrides=tuple(overrides or ()), user=user, history=history or (), n=n, exclude=exclude or (),
        only=only or (), adapter=adapter, base=base, prior=prior, engine=engine,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        verb.print_table(found)


@app.command(cls=ManyValues)
def score(
    domain: Domain,
    overrides: Overrides = None,
    input: Annotated[
        str,
        typer.Option(
            "--input",
            help="CSV, JSON lines or Parquet: file, folder or pattern, also s3://, gs://, https:// …",
            show_default=False,
        ),
    ] = ...,  # type: ignore[assignment]
    output: Annotated[
        Path | None, typer.Option(help="Folder of the answers; goes on where they are begun.", show_default=False)
    ] = None,
    kind: Annotated[
        str, typer.Option(help="What a row asks: users, histories, pairs, summaries, explanations, reviews or classes.")
    ] = "users",
    n: Annotated[int, typer.Option("-n", min=1, max=LONGEST, help="Length of the lists.")] = 10,
    since: Annotated[
        list[Path] | None,
        typer.Option(help="Finished outputs: leave out users whose history has not changed.", show_default=False),
    ] = None,
    format: Annotated[str, typer.Option(help="Of the answers: parquet or jsonl.")] = "parquet",
    shard_rows: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Rows in a shard: what a crash may cost.")
    ] = 256,
    restart: Annotated[bool, typer.Option("--restart", help="Replace what the folder holds.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, max=10_000, help="Processes of a Ray cluster that answer; 0: this one does.")
    ] = 0,
    worker_cpus: Annotated[float, typer.Option(min=0.1, help="Cores of each worker.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure a few rows and say what all would cost.")] = False,
    adapter: OtherAdapter = None,
    base: Base = False,
    prior: Prior = True,
    engine: Engine = "hf",
) -> None:
    """Answer a whole file: lists, scores of pairs, summaries, explanations, or labels of reviews.

    Killed at any moment, the same command goes on: nothing is lost, nothing answered twice.  Columns and rules:
    docs/batch.md.

    Example: llmrec score movies --input users.csv --output /tmp/lists --dry-run
    """
    from llmrec import score as verb

    asked = verb.job(
        domain, input, overrides=tuple(overrides or ()), kind=kind, n=n, adapter=adapter, base=base, prior=prior,
        engine=engine, format=format, shard_rows=shard_rows, since=since or (),
    )  # fmt: skip
    if dry_run:
        verb.print_estimate(verb.dry_run(asked), asked)
        return
    if output is None:
        raise LlmrecError("--output: name a folder for the answers, or give --dry-run")
    counts = verb.score(asked, output, restart=restart, workers=workers, worker_cpus=worker_cpus)
    verb.print_counts(counts, output)


@app.command(cls=ManyValues)
def summarize(
    domain: Domain,
    overrides: Overrides = None,
    user: User = None,
    history: History = None,
    adapter: OtherAdapter = None,
    base: Base = False,
    engine: Engine = "hf",
    as_json: AsJson = False,
) -> None:
    """Say what a person is interested in: a few sentences, and how likely each category comes next.

    Example: llmrec summarize movies --user 42

    Example: llmrec summarize movies --history "Fargo" "Heat" --json
    """
    from llmrec import summarize as verb
    from llmrec.explain import print_explanation

    found = verb.summarize(
        domain, overrides=tuple(overrides or ()), user=user, history=history or (), adapter=adapter, base=base,
        engine=engine,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        verb.print_summary(found) if isinstance(found, verb.Summary) else print_explanation(found)


@app.command(cls=ManyValues)
def explain(
    domain: Domain,
    item: Annotated[str, typer.Argument(help="Its title, or item:ID.", show_default=False)],
    overrides: Overrides = None,
    user: User = None,
    history: History = None,
    adapter: OtherAdapter = None,
    base: Base = False,
    engine: Engine = "hf",
    as_json: AsJson = False,
) -> None:
    """Say why an item fits a person, and the facts behind it.

    Example: llmrec explain movies "Heat" --user 42
    """
    from llmrec import explain as verb

    found = verb.explain(
        domain, item, overrides=tuple(overrides or ()), user=user, history=history or (), adapter=adapter, base=base,
        engine=engine,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        verb.print_explanation(found)


@app.command()
def review(
    domain: Domain,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Reviews, each in quotes, and settings that differ.",
            metavar="TEXT... KEY=VALUE...",
            show_default=False,
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file with one review a line.", show_default=False)] = None,
    task: Annotated[str, typer.Option(help="What is asked: review_sentiment or item_class.")] = "review_sentiment",
    adapter: OtherAdapter = None,
    base: Base = False,
    engine: Engine = "hf",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Say whether a review is negative, neutral or positive, or what it is about, with calibrated probabilities.

    Example: llmrec review fashion "Too tight, and it itches."

    Example: llmrec review fashion "The hem drags on the floor." --task item_class
    """
    from llmrec import review as verb

    overrides = tuple(word for word in words or () if is_setting(word))
    texts = [word for word in words or () if not is_setting(word)] + (verb.read_lines(file) if file else [])
    if not texts:
        raise LlmrecError("no review: give a text in quotes, or --file with one a line")
    found = verb.review(domain, texts, task=task, overrides=overrides, adapter=adapter, base=base, engine=engine)
    if as_json:
        for one in found:
            typer.echo(json.dumps(one.as_dict(), ensure_ascii=False, allow_nan=False))
    else:
        verb.print_table(found)


@app.command()
def chat(
    domain: Domain,
    overrides: Overrides = None,
    say: Annotated[
        list[str] | None,
        typer.Option(help="A message; repeat it for several. Without it, you are asked.", show_default=False),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Start with the history of a user of the data.", show_default=False)
    ] = None,
    session: Annotated[
        Path | None,
        typer.Option(help="File that keeps the conversation; goes on where it is there.", show_default=False),
    ] = None,
    adapter: OtherAdapter = None,
    base: Base = False,
    prior: Prior = True,
    engine: Engine = "hf",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; needs --say.")] = False,
) -> None:
    """Talk about what to choose next.

    Titles you liked, categories, years, a length, "not this", "more", "more like the second", "why the third?",
    "forget that one", "undo", "show my history": `help` within the conversation lists it.  Messages are read by a
    grammar, lists come from the exact ranking: every title in a reply is the catalog's.

    Example: llmrec chat movies

    Example: llmrec chat movies --say "I liked Fargo and Heat" --say "only before 1980, -n 5" --session /tmp/me.json
    """
    from llmrec import chat as verb

    if as_json and not say:
        raise LlmrecError('--json needs a message: --say "something like Fargo"')
    talk = verb.chat(
        domain,
        overrides=tuple(overrides or ()),
        user=user,
        session=session,
        adapter=adapter,
        base=base,
        prior=prior,
        engine=engine,
    )
    if not say:
        verb.talk(talk)
        return
    if as_json:
        turns = [(message, talk.say(message)) for message in say]
        typer.echo(json.dumps(verb.as_dict(talk, turns), ensure_ascii=False, allow_nan=False, indent=2))
        return
    for message in say:
        verb.print_message(message)
        verb.print_reply(talk.say(message))


prompts = typer.Typer(cls=TyperGroup, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(prompts, name="prompts")


@prompts.callback()
def prompts_group() -> None:
    """Edit the wording of tasks: check, diff, try, measure, roll back.

    An adapter keeps the wording that it was trained on and answers with that one, whatever prompts/ says today.

    Example: llmrec prompts check
    """


@prompts.command("check")
def prompts_check(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(help="Names of prompt files; default: all.", metavar="TASK", show_default=False),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(help="Count tokens for this domain; default: all that train on the task.", show_default=False),
    ] = None,
) -> None:
    """Look for mistakes: slots, syntax, length in tokens, doubled wordings, nothing held out.

    Exit status 2 where something must be mended.

    Example: llmrec prompts check next_item
    """
    from llmrec import prompts as verb

    found = verb.check(tasks or (), domain=domain)
    verb.print_check(found)
    if any(finding.grave for checked in found for finding in checked.findings):
        raise typer.Exit(MISTAKE)


@prompts.command("diff")
def prompts_diff(
    adapter: Annotated[str, typer.Argument(help="Name of a folder in adapters/.", show_default=False)],
) -> None:
    """Show what changed in prompts/ since an adapter was trained, and which of it changes behaviour.

    Example: llmrec prompts diff movies
    """
    from llmrec import prompts as verb

    verb.print_diff(verb.diff(adapter), adapter)


@prompts.command("try", cls=ManyValues)
def prompts_try(
    domain: Domain,
    overrides: Overrides = None,
    wording: Annotated[
        list[str] | None,
        typer.Option(help="Two numbers in the prompt file, or 'trained'; default: trained 0.", show_default=False),
    ] = None,
    task: Annotated[str, typer.Option(help="Which task's wordings.")] = "next_item",
    file: Annotated[
        Path | None, typer.Option(help="Another prompt file than the task's in prompts/.", show_default=False)
    ] = None,
    user: User = None,
    history: History = None,
    item: Annotated[
        str | None, typer.Option(help="Title to explain (explanation, grounded_explanation).", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Review to read (review_sentiment, item_class).", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=LONGEST, help="Length of the lists (next_item).")] = 10,
    prior: Prior = True,
) -> None:
    """Render and answer with two wordings side by side.

    Example: llmrec prompts try movies --user 42 --wording 0 4

    Example: llmrec prompts try movies --task explanation --user 42 --item "Heat" --wording 3
    """
    from llmrec import prompts as verb

    given = {"user": user, "history": history, "item": item, "text": text}
    given |= {"-n": n if n != verb.CUTOFF else None, "no-prior": None if prior else True}
    verb.check_options(task, [name for name, value in given.items() if value is not None])
    if task != verb.TASK:
        said = verb.attempt_task(
            domain, task, overrides=tuple(overrides or ()), wordings=wording or (), file=file, user=user,
            history=history or (), item=item, text=text,
        )  # fmt: skip
        verb.print_said(said)
        return

    verb.print_attempt(
        *verb.attempt(
            domain, overrides=tuple(overrides or ()), wordings=wording or (), file=file, user=user,
            history=history or (), n=n, prior=prior,
        )
    )  # fmt: skip


@prompts.command("measure", cls=ManyWordings)
def prompts_measure(
    domain: Domain,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="users=100, samples=2000, seed=0, or the recipe's.", metavar="KEY=VALUE", show_default=False
        ),
    ] = None,
    wordings: Annotated[
        list[int] | None, typer.Option(min=0, help="Numbers in the prompt file; default: all.", show_default=False)
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Which tasks' wordings; default: the recipe's first task.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Another prompt file than the task's in prompts/.", show_default=False)
    ] = None,
    prior: Prior = True,
) -> None:
    """Say what wordings cost or gain without training again.

    Each task's measure on validation users or reviews, with the paired interval against the wording that was trained
    on: NDCG@10 of lists, NDCG@3 of interests, macro-F1 of sentiment, accuracy of classes, and of summaries and
    explanations the mean probability of a token of what the data says.  About a second a user and wording on two cores.

    Example: llmrec prompts measure movies users=50 --wordings 0 4

    Example: llmrec prompts measure movies users=50 --task interest explanation review_sentiment --wordings 0 3
    """
    from llmrec import prompts as verb

    verb.print_measure(
        verb.measure(
            domain, tuple(overrides or ()), tasks=task or (), wordings=wordings or (), file=file, prior=prior
        )
    )  # fmt: skip


@prompts.command("rollback")
def prompts_rollback(
    adapter: Annotated[str, typer.Argument(help="Name of a folder in adapters/.", show_default=False)],
    tasks: Annotated[
        list[str] | None,
        typer.Argument(help="Names of prompt files; default: all.", metavar="TASK", show_default=False),
    ] = None,
) -> None:
    """Put the wording saved with an adapter back into prompts/, and keep what was there as a backup.

    Example: llmrec prompts rollback movies
    """
    from llmrec import prompts as verb

    done = verb.rollback(adapter, tasks or ())
    for path, backup in done:
        typer.echo(f"{path}: as {adapter} was trained" + (f"; what was there: {backup.name}" if backup else ""))
    if not done:
        typer.echo(f"nothing to do: prompts/ is as {adapter} was trained")


@app.command()
def serve(
    domains: Annotated[
        list[str],
        typer.Argument(help="Domains, or versions as domain@digest, then settings.", metavar="DOMAIN... KEY=VALUE..."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; set VLLM_API_KEY before opening it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and do not run it.")] = False,
) -> None:
    """Start vLLM's OpenAI-compatible server with the adapters of domains.

    Then: llmrec recommend movies --user 42 --engine http://127.0.0.1:8000

    Example: llmrec serve movies fashion serve.context=2048
    """
    import shlex

    names = [word for word in domains if "=" not in word]
    overrides = tuple(word for word in domains if "=" in word)
    if not names:
        raise RecipeError("name a domain to serve, e.g. llmrec serve movies")
    for name in names:  # a mistake in one shows before the seconds that torch takes to load
        config.load_recipe(name if os.sep in name else config.domain_of(name), overrides)
        if "@" in name:
            config.adapter_folder(name)
    from llmrec import serve as verb

    words, environment = verb.command(names, overrides, host=host, port=port)
    typer.echo(" ".join([*(f"{name}={value}" for name, value in environment.items()), shlex.join(words)]))
    if not dry_run:
        os.execve(words[0], words, os.environ | environment)


@app.command()
def web(
    domain: Domain,
    overrides: Overrides = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Whoever reaches it can ask; nobody is asked who they are.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 8080,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Other names or addresses under which it may be asked, for --host 0.0.0.0.", show_default=False
        ),
    ] = None,
    users: Annotated[
        bool, typer.Option("--users", help="Answer for users of the data by id, to whoever asks.")
    ] = False,
    adapter: OtherAdapter = None,
    base: Base = False,
    prior: Prior = True,
    engine: Engine = "hf",
) -> None:
    """Answer lists and conversations over HTTP, as JSON and as a page.

    Questions that come at the same time are ranked together.  Nothing is stored: a conversation travels with its
    messages.

    Then: curl 127.0.0.1:8080/recommend -H 'Content-Type: application/json' -d '{"history": ["Fargo", "Heat"], "n": 5}'

    Example: llmrec web movies

    Example: llmrec web movies --engine http://127.0.0.1:8000 window_step=64
    """
    from llmrec.web import start

    start(
        domain, tuple(overrides or ()), host=host, port=port, names=name or (), users=users, adapter=adapter, base=base,
        prior=prior, engine=engine,
    )  # fmt: skip


@app.command()
def doctor() -> None:
    """Say what this machine can run, what is missing, and the command that fixes it.

    Example: llmrec doctor
    """
    from llmrec import doctor as verb

    verb.print_report(verb.doctor())


adapters = typer.Typer(cls=TyperGroup, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(adapters, name="adapters")

Adapter = Annotated[
    str,
    typer.Argument(
        help="A domain (what it serves) or domain@version.", metavar="ADAPTER", show_default=False, callback=_named
    ),
]
Named = Annotated[
    str,
    typer.Argument(help="Name of a folder in adapters/.", metavar="DOMAIN", show_default=False, callback=_domain),
]
Digest = Annotated[str, typer.Argument(help="A version's digest, or its first digits.", show_default=False)]
Server = Annotated[str, typer.Option(help="Address of a running vLLM server.")]
LOCAL = "http://127.0.0.1:8000"


@adapters.callback()
def adapters_group() -> None:
    """Versions of adapters: check, keep, promote on evidence, roll back, exchange.

    adapters/<domain>/ is served; adapters/.versions/ keeps the versions.

    Example: llmrec adapters list
    """


@adapters.command("list")
def adapters_list(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every domain's versions, and which one is served.

    Example: llmrec adapters list
    """
    from llmrec import adapters as verb

    rows = verb.listed()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))  # in ASCII: what cards say may be no text that a terminal takes
        return
    from rich import box
    from rich.table import Table

    from llmrec.data.names import readable
    from llmrec.screen import screen

    table = Table(box=box.SIMPLE)
    for name in ("domain", "version", "served", "MB", "trained", "validation"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        metrics = {name: value for name, value in row["metrics"].items() if isinstance(value, float)}
        # A mean over tasks compares with none over others; all are in --json.
        main = next((name for name in ("ndcg@10", *metrics) if name in metrics), "")
        shown = f"{main} {metrics[main]:.3f}" if main else ""
        shown = "damaged: adapters rollback, or remove" if "problem" in row else shown
        cells = (row["domain"], row["digest"], "yes" if row["served"] else "", f"{row['bytes'] / 1e6:.1f}")
        table.add_row(*map(readable, (*cells, row["trained"][:10], shown)))
    screen(markup=False).print(table)


@adapters.command("verify")
def adapters_verify(
    source: Annotated[
        str,
        typer.Argument(
            help="A domain, domain@version, folder or archive.", metavar="ADAPTER", show_default=False, callback=_placed
        ),
    ],
    domain: Annotated[
        str | None,
        typer.Option(
            help="Whose base model and catalog; default: the card's.", show_default=False, callback=_other_domain
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for everything that is wrong with an adapter; exit status 2 where something is.

    Example: llmrec adapters verify movies
    """
    from llmrec import adapters as verb
    from llmrec.data.names import readable

    found = verb.checked(source, domain)
    if as_json:
        values = {"adapter": str(found.folder), "problems": found.problems, "notes": found.notes}
        typer.echo(json.dumps(values, indent=1))
    else:
        for line in [*found.problems, *(f"note: {note}" for note in found.notes)]:
            typer.echo(readable(" ".join(line.split())))
        if not found.problems:
            typer.echo(f"{found.folder}: fits and can be served")
    if found.problems:
        raise typer.Exit(MISTAKE)


@adapters.command("add")
def adapters_add(
    domain: Named,
    source: Annotated[
        Path, typer.Argument(help="A trained adapter's folder or archive.", show_default=False, callback=_there)
    ],
) -> None:
    """Check an adapter and keep it as a version; nothing else is served yet.

    Example: llmrec adapters add movies /tmp/movies
    """
    from llmrec import adapters as verb

    typer.echo(f"{domain}@{verb.add(domain, source)}")


@adapters.command("promote", cls=ManyValues)
def adapters_promote(
    domain: Named,
    version: Digest,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folders of `llmrec evaluate`: of this version and of the one served.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Serve it without that proof.")] = False,
) -> None:
    """Serve a version that was measured to be better than the one served (paired 95% interval above 0).

    Example: llmrec adapters promote movies 3f2a --results /tmp/candidate /tmp/current
    """
    config.adapter_folder(f"{domain}@{version}")
    from llmrec import adapters as verb

    digest, evidence = verb.promote(domain, version, results or (), force=force)
    typer.echo(f"{domain}@{digest} is served" + (f": {evidence}" if evidence else ""))


@adapters.command("rollback")
def adapters_rollback(domain: Named) -> None:
    """Serve again what was served before.

    Example: llmrec adapters rollback movies
    """
    from llmrec.model import store

    typer.echo(f"{domain}@{store.back(domain)} is served")


@adapters.command("remove")
def adapters_remove(domain: Named, version: Digest) -> None:
    """Delete a version that is not served.

    Example: llmrec adapters remove movies 3f2a
    """
    config.adapter_folder(f"{domain}@{version}")
    from llmrec.model import store

    typer.echo(f"{domain}@{store.remove(domain, version)}: removed")


@adapters.command("export")
def adapters_export(
    adapter: Adapter,
    out: Annotated[Path, typer.Argument(help="A .tar.gz, or a folder to be made.", show_default=False)],
) -> None:
    """Write an adapter with a model card, the same bytes each time.

    Example: llmrec adapters export movies /tmp/movies.tar.gz
    """
    from llmrec import adapters as verb

    typer.echo(verb.export(adapter, out))


@adapters.command("import")
def adapters_import(
    source: Annotated[Path, typer.Argument(help="An exported folder or .tar.gz.", show_default=False, callback=_there)],
    domain: Annotated[str | None, typer.Option(help="Another domain than the card's.", show_default=False)] = None,
) -> None:
    """Check what somebody exported and keep it as a version.

    Example: llmrec adapters import /tmp/movies.tar.gz
    """
    from llmrec import adapters as verb

    typer.echo("@".join(verb.import_(source, domain)))


@adapters.command("merge")
def adapters_merge(
    shares: Annotated[
        list[str], typer.Argument(help="Adapters and what each counts.", metavar="ADAPTER=SHARE", callback=_parts)
    ],
    out: Annotated[Path, typer.Option(help="A folder to be made.", show_default=False)],
    rank: Annotated[
        int | None,
        typer.Option(
            help="Rank of the result; default: the sum of theirs or the next served, exact.", show_default=False
        ),
    ] = None,
) -> None:
    """Add adapters of one base up, weighted; the first names the domain.  Not measured: evaluate before you promote.

    Example: llmrec adapters merge movies=0.7 fashion=0.3 --rank 64 --out /tmp/both
    """
    from llmrec import adapters as verb

    typer.echo(f"{out}: {verb.merge(shares, out, rank=rank)}")


@adapters.command("load")
def adapters_load(adapter: Adapter, url: Server = LOCAL) -> None:
    """Let a running vLLM server take an adapter in; prints the name to ask for.

    Example: llmrec adapters load movies --url http://127.0.0.1:8000
    """
    from llmrec import adapters as verb

    typer.echo(verb.load(adapter, url))


@adapters.command("unload")
def adapters_unload(adapter: Adapter, url: Server = LOCAL) -> None:
    """Let a running vLLM server forget an adapter.

    Example: llmrec adapters unload movies@3f2a
    """
    from llmrec import adapters as verb

    typer.echo(f"{verb.unload(adapter, url)}: unloaded")


def main() -> None:
    """The `llmrec` of a shell."""
    try:
        app(prog_name="llmrec")
    except KeyboardInterrupt:  # while arguments are read
        sys.exit(INTERRUPTED)


def _recipe(domain: str, overrides: list[str] | None) -> config.Recipe:
    from llmrec import tasks

    recipe = config.load_recipe(domain, tuple(overrides or ()))
    tasks.check(recipe.tasks)
    return recipe


def _listed(counts: dict[str, int]) -> str:
    """`247 negative, 282 neutral`; of many the first."""
    shown = [f"{count:,} {name}" for name, count in list(counts.items())[:SHOWN]]
    return ", ".join(shown) + (f", and {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else "")


def _line(error: LlmrecError | OSError | RuntimeError) -> str:
    from llmrec.data.names import readable

    if not isinstance(error, OSError):
        return readable(" ".join(str(error).split()))
    place = f"{error.filename}: " if error.filename else ""
    return readable(f"{place}{error.strerror}; free space, or choose a folder that can be written (--out, LLMREC_HOME)")
