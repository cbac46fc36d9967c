"""Arguments → one function per verb.  What a verb needs is imported when it runs, so that help is immediate."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from llmrec import __version__, config
from llmrec.errors import LlmrecError

MISTAKE = 2  # exit status of what the user can mend
INTERRUPTED = 130  # as a shell reports Ctrl-C
DISK = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


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


class ManyValues(TyperCommand):
    """A command whose repeatable options take several values: `--history A B` is `--history A --history B`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        many = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        return super().parse_args(ctx, spread(args, many))


def spread(args: Sequence[str], options: set[str]) -> list[str]:
    """Repeats each of `options` before every value that follows it, up to the next word that begins with a dash."""
    result: list[str] = []
    current = ""
    for place, word in enumerate(args):
        if word == "--":
            return [*result, *args[place:]]
        if word.startswith("-"):
            current = word if word in options else ""
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

Domain = Annotated[str, typer.Argument(help="Name of a folder in adapters/, or path of a recipe.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that differ, e.g. lora.rank=32.", metavar="KEY=VALUE", show_default=False),
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
    """Fetch what a domain needs and prepare its data.

    Example: llmrec prepare movies
    """
    from llmrec import assets
    from llmrec.data.dataset import read_manifest
    from llmrec.prepare import prepare as run

    recipe = _recipe(domain, overrides)
    folder = run(recipe, force=force)
    counts = (read_manifest(folder) or {}).get("counts", {})
    typer.echo(f"{folder}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    if recipe.base_model in assets.ASSETS:
        typer.echo(f"{assets.fetch(recipe.base_model)}: base model")


@app.command()
def show(
    domain: Domain,
    overrides: Overrides = None,
    user: Annotated[
        str | None, typer.Option(help="Whose history; default: the first user.", show_default=False)
    ] = None,
    wording: Annotated[int, typer.Option(min=0, help="Which phrasing of the prompt file.")] = 0,
    n: Annotated[int, typer.Option("-n", min=1, help="How many training rows.")] = 1,
    ids: Annotated[bool, typer.Option("--ids", help="Print token ids, too.")] = False,
) -> None:
    """Print training rows as the model sees them.

    Learned tokens are green, forced ones dim, context plain.

    Example: llmrec show movies --user 42 --wording 1
    """
    recipe = _recipe(domain, overrides)  # a mistake in it shows before the seconds that torch takes to load
    from llmrec.show import show as run

    run(recipe, user=user, wording=wording, n=n, ids=ids)


@app.command()
def train(
    domain: Domain,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the adapter; default: beside the recipe.", show_default=False)
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Do not go on from the last checkpoint.")] = False,
) -> None:
    """Train a domain's adapter.

    An interrupted run goes on from its last checkpoint.

    Example: llmrec train movies fit.epochs=1 lora.rank=32 --out /tmp/movies
    """
    recipe = _recipe(domain, overrides)
    from llmrec.train import train as run

    typer.echo(run(recipe, out=out, resume=not restart))


@app.command()
def evaluate(
    suite: Annotated[str, typer.Argument(help="Name of a file in eval/, or its path.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, e.g. users=100.", metavar="KEY=VALUE", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default: in LLMREC_HOME.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Rank everything again.")] = False,
) -> None:
    """Measure the rankers of a suite, or what judges reviews.

    All rank the whole catalog for the same queries; all judge the same reviews.

    Example: llmrec evaluate smoke
    """
    from llmrec.evaluate import evaluate as run
    from llmrec.judge import judge, judges

    if judges(suite):
        folder = judge(suite, tuple(overrides or ()), out=out)
    else:
        folder = run(suite, tuple(overrides or ()), out=out, force=force)
    typer.echo((folder / "table.md").read_text(encoding="utf-8"))
    typer.echo(folder)


@app.command(cls=ManyValues)
def recommend(
    domain: Domain,
    overrides: Overrides = None,
    user: Annotated[str | None, typer.Option(help="A user of the domain's data.", show_default=False)] = None,
    history: Annotated[
        list[str] | None, typer.Option(help="Titles, oldest first; after the user's own.", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Length of the list.")] = 10,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Titles, category=NAME or year=FROM..TO to leave out.", show_default=False)
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="category=NAME,NAME or year=FROM..TO to stay within.", show_default=False)
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="Another adapter than the domain's.", show_default=False)] = None,
    base: Annotated[bool, typer.Option("--base", help="The base model without an adapter.")] = False,
    prior: Annotated[bool, typer.Option(help="Add the weighted item-item transitions of the card.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank the whole catalog for one person.

    Example: llmrec recommend movies --user 42

    Example: llmrec recommend movies --history "Fargo" "Heat" --only category=Comedy year=1990..1995 -n 5
    """
    from llmrec import recommend as verb

    found = verb.recommend(
        domain, overrides=tuple(overrides or ()), user=user, history=history or (), n=n, exclude=exclude or (),
        only=only or (), adapter=adapter, base=base, prior=prior,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, allow_nan=False, indent=2))
    else:
        verb.print_table(found)


@app.command()
def review(
    domain: Domain,
    text: Annotated[
        list[str] | None, typer.Argument(help="Reviews, each in quotes.", metavar="TEXT", show_default=False)
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file with one review a line.", show_default=False)] = None,
    base: Annotated[bool, typer.Option("--base", help="The base model without an adapter.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Say whether a review is negative, neutral or positive, with calibrated probabilities.

    Example: llmrec review fashion "Too tight, and it itches."
    """
    from llmrec import review as verb

    texts = [*(text or ()), *(verb.read_lines(file) if file else ())]
    if not texts:
        raise LlmrecError("no review: give a text in quotes, or --file with one a line")
    found = verb.review(domain, texts, base=base)
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
    adapter: Annotated[str | None, typer.Option(help="Another adapter than the domain's.", show_default=False)] = None,
    base: Annotated[bool, typer.Option("--base", help="The base model without an adapter.")] = False,
    prior: Annotated[bool, typer.Option(help="Add the weighted item-item transitions of the card.")] = True,
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
        domain, overrides=tuple(overrides or ()), user=user, session=session, adapter=adapter, base=base, prior=prior
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
    file: Annotated[
        Path | None, typer.Option(help="Another prompt file than prompts/next_item.yaml.", show_default=False)
    ] = None,
    user: Annotated[str | None, typer.Option(help="A user of the domain's data.", show_default=False)] = None,
    history: Annotated[
        list[str] | None, typer.Option(help="Titles, oldest first; after the user's own.", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Length of the lists.")] = 10,
    prior: Annotated[bool, typer.Option(help="Add the weighted item-item transitions of the card.")] = True,
) -> None:
    """Render and answer with two wordings side by side.

    Example: llmrec prompts try movies --user 42 --wording 0 4
    """
    from llmrec import prompts as verb

    verb.print_attempt(
        *verb.attempt(
            domain, overrides=tuple(overrides or ()), wordings=wording or (), file=file, user=user,
            history=history or (), n=n, prior=prior,
        )
    )  # fmt: skip


@prompts.command("measure", cls=ManyValues)
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
    file: Annotated[
        Path | None, typer.Option(help="Another prompt file than prompts/next_item.yaml.", show_default=False)
    ] = None,
    prior: Annotated[bool, typer.Option(help="Add the weighted item-item transitions of the card.")] = True,
) -> None:
    """Say what wordings cost or gain without training again.

    NDCG@10 on validation users, with the paired interval against the wording that was trained on.  About a second a
    user and wording on two cores.

    Example: llmrec prompts measure movies users=50 --wordings 0 4
    """
    from llmrec import prompts as verb

    users, found = verb.measure(domain, tuple(overrides or ()), wordings=wordings or (), file=file, prior=prior)
    verb.print_measure(users, found)


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


def main() -> None:
    """The `llmrec` of a shell."""
    try:
        app(prog_name="llmrec")
    except KeyboardInterrupt:  # while arguments are read
        sys.exit(INTERRUPTED)


def _recipe(domain: str, overrides: list[str] | None) -> config.Recipe:
    return config.load_recipe(domain, tuple(overrides or ()))


def _line(error: LlmrecError | OSError) -> str:
    if isinstance(error, LlmrecError):
        return " ".join(str(error).split())
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}; free space, or choose a folder that can be written (--out, LLMREC_HOME)"
