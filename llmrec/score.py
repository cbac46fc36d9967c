"""score: answers for a whole file of users, histories, pairs or reviews, in shards that survive a crash."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from llmrec import __version__, config, prepare
from llmrec.data.dataset import read_manifest as prepared_manifest
from llmrec.data.names import readable
from llmrec.errors import DataError, JobError, did_you_mean
from llmrec.jobs import cluster
from llmrec.jobs.output import FORMATS, REJECTS, Output, answers, differences, read_manifest
from llmrec.jobs.table import Measured, Row, Table
from llmrec.jobs.work import KINDS, Kind, Question
from llmrec.progress import Bar, duration, per_second
from llmrec.screen import screen
from llmrec.tasks import OF_REVIEWS
from llmrec.tasks.template import Template

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.judge import Judge
    from llmrec.recommender import Recommender

LOG = logging.getLogger("llmrec")
LOOKED_AT = 10_000  # rows that a dry run reads
SAMPLE = 16  # rows that a dry run answers
LISTS = ("users", "histories")  # kinds whose answers have a length
TEXTS = 2  # goes up where the same settings give other sentences
# What an earlier output may differ in and still say which users' lists are out of date.
MAY_CHANGE = ("input", "since", "format", "shard_rows", "histories", "catalog")
PLACES = ("LLMREC_HOME", "LLMREC_PROJECT", "LLMREC_ASSETS")  # what workers take over from this environment


@dataclass(frozen=True)
class Job:
    """What is asked for."""

    recipe: config.Recipe
    table: Table
    kind: str = "users"
    n: int = 10
    adapter: str | None = None
    """None: the base model."""
    prior: bool = True
    engine: str = "hf"
    format: str = "parquet"
    shard_rows: int = 256
    """Input rows answered together and kept together: what a kill may cost."""
    since: tuple[Path, ...] = ()

    def work(self) -> Kind:
        return KINDS[self.kind]()


@dataclass(frozen=True)
class Done:
    """What became of a shard."""

    rows: int
    answers: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    unchanged: int


class Shards:
    """Answers a job's shards by number; each is a fixed range of input rows."""

    def __init__(self, asked: Job, model: Any, before: Mapping[str, str]) -> None:
        self.asked, self.model, self.before = asked, model, before
        self.work = asked.work()
        self.known = self.work.known(model)
        self._next = 0  # number of the shard that `_rows` comes to next
        self._rows: Iterator[Row] | None = None

    @classmethod
    def load(cls, asked: Job, made: Mapping[str, Any], places: Mapping[str, str]) -> Callable[[int], Done]:
        """For a process elsewhere.  Raises: JobError where it would not answer what `made` says."""
        os.environ |= places
        model = _load(asked)
        here = json.loads(json.dumps(made_from(asked, model, asked.table.measure())))
        if differs := list(differences(made, here)):
            raise JobError(f"{platform.node()} has other weights, data or input: {'; '.join(differs[:4])}")
        return cls(asked, model, _earlier(asked, made)).answer

    def answer(self, number: int, tick: Callable[[int], None] | None = None) -> Done:
        """One shard; behind the last one nothing is done.  Asked in order, the input is read once."""
        size = self.asked.shard_rows
        if self._rows is None or number < self._next:
            columns = [*self.work.needs, *self.work.takes]
            self._rows, self._next = self.asked.table.rows(columns, skip=number * size), number
        chunk = list(islice(self._rows, (number - self._next) * size, (number - self._next + 1) * size))
        self._next = number + 1
        questions, rejects, unchanged = sort_out(chunk, self.work, self.known, self.before)
        if tick:
            tick(len(rejects) + unchanged)
        found = self.work.answer(self.model, questions, self.asked.n, self.asked.prior, tick) if questions else []
        return Done(len(chunk), found, rejects, unchanged)


@dataclass(frozen=True)
class Estimate:
    """What a dry run found."""

    measured: Measured
    looked_at: int
    asked: int
    """Of the rows looked at, those that need an answer."""
    rejects: list[dict[str, Any]]
    """The others that have a reason."""
    sample: int
    load_seconds: float
    seconds: float
    """For the sample."""

    @property
    def seconds_each(self) -> float | None:
        return self.seconds / self.sample if self.sample else None

    @property
    def total_seconds(self) -> float | None:
        """For all rows, if those further down are like the ones looked at."""
        if self.seconds_each is None or not self.looked_at:
            return None
        return self.seconds_each * self.measured.rows * self.asked / self.looked_at


def job(
    domain: str,
    source: str,
    *,
    overrides: tuple[str, ...] = (),
    kind: str = "users",
    n: int = 10,
    adapter: str | None = None,
    base: bool = False,
    prior: bool = True,
    engine: str = "hf",
    format: str = "parquet",
    shard_rows: int = 256,
    since: Sequence[Path] = (),
) -> Job:
    """The words of the command line, checked before anything heavy is loaded.

    Args:
        source: file, folder or pattern of CSV, JSON lines or Parquet; local, or a URL that fsspec reads.
        since: finished outputs; users whose history has not changed since the latest that has them are left out.
    Raises: JobError, RecipeError.
    """
    for what, word, known in (("kind", kind, KINDS), ("format", format, FORMATS)):
        if word not in known:
            raise JobError(f"--{what} {word}: unknown{did_you_mean(word, known)}")
    if since and kind != "users":
        raise JobError("--since: only for --kind users, whose histories the domain's data has")
    recipe = config.load_recipe(domain, overrides)
    name = config.adapter_asked(recipe, adapter, base)
    for folder in since:
        _finished(folder)
    table = Table.find(source)
    work = KINDS[kind]()
    table.require(work.needs)
    for said in table.misspelt([*work.needs, *work.takes]):
        LOG.warning(said)
    return Job(recipe, table, kind, n, name, prior, engine, format, shard_rows, tuple(since))


def score(
    asked: Job,
    folder: Path,
    *,
    restart: bool = False,
    workers: int = 0,
    worker_cpus: float = 1,
    console: Console | None = None,
) -> dict[str, int]:
    """Do the job, or what is left of it.

    Args:
        workers: processes of a Ray cluster that answer (0: this process does).  The answers are the same, and either
            goes on with what the other began.
        worker_cpus: cores of each.
    Returns: counts of rows, answers, rejected and unchanged.
    Raises: JobError, AdapterError, EngineError.  Whatever ends it, the same call goes on.
    """
    if folder.resolve() in {before.resolve() for before in asked.since}:
        raise JobError(
            f"{folder}: --since names the folder that would be written, and the lists of whoever has not changed stand "
            "only there; name another --output"
        )
    console = console or Console(stderr=True)
    work = asked.work()
    with Output(folder, work.schema(), asked.format) as output:
        measured = asked.table.measure()
        model = _load(replace(asked, engine="fake") if workers else asked)  # workers have the engine
        made = made_from(asked, model, measured)
        before = _earlier(asked, made)  # it may refuse: nothing has been begun then
        names = asked.table.names()[:100]
        output.begin(made, {"llmrec": __version__, "input_files": names}, restart=restart)
        if output.rows and not output.finished:
            console.print(Text(f"going on after {output.rows:,} rows"))
        with Bar(
            total=measured.rows, start=output.rows, things="rows", unit=work.unit, console=console
        ) as shown:  # fmt: skip
            if output.finished:
                answered: Iterator[Done] = iter(())
            elif workers:
                answered = _elsewhere(asked, output, measured, workers, worker_cpus, shown.done)
            else:
                shards = Shards(asked, model, before)
                answered = (shards.answer(number, shown.done) for number in count(len(output.shards)))
            try:
                for done in answered:
                    if done.rows:
                        output.commit(done.rows, done.answers, done.rejects, done.unchanged)
                    if done.rows < asked.shard_rows:
                        if asked.table.measure().digest != measured.digest:
                            raise output.spoilt("the input changed while it was read, so these may answer either")
                        output.finish()
                        break
            except KeyboardInterrupt:
                shown.stop()
                console.print(Text(f"{output.rows:,} rows are done and kept; the same command goes on from there"))
                raise
        return output.counts()


def _elsewhere(
    asked: Job, output: Output, measured: Measured, workers: int, cpus: float, tick: Callable[[int], None]
) -> Iterator[Done]:
    """The shards that are left, in order, from the workers of a cluster."""
    # As many as there can be: a file's last line may lack its end, and the last shard of all is empty or short.
    total = (measured.rows + len(asked.table.files)) // asked.shard_rows + 1
    asked = replace(asked, since=tuple(folder.resolve() for folder in asked.since))
    places = {name: os.path.abspath(os.path.expanduser(os.environ[name])) for name in PLACES if os.environ.get(name)}
    places["LLMREC_PROJECT"] = str(config.project().absolute())  # which may be the working directory here
    load = partial(Shards.load, asked, output.manifest["made_from"], places)
    numbers = range(len(output.shards), max(total, len(output.shards) + 1))
    gpus = {"hf": 1, "vllm": asked.recipe.serve.tensor_parallel}.get(asked.engine, 0)
    for done in cluster.in_order(load, numbers, workers=workers, cpus=cpus, gpus=gpus):
        tick(done.rows)
        yield done


def dry_run(asked: Job) -> Estimate:
    """What a job would cost, measured on a few rows from the first ten thousand; nothing is written."""
    measured = asked.table.measure()
    began = time.monotonic()
    model = _load(asked)
    work = asked.work()
    known = work.known(model)
    if work.task == "next_item" and asked.prior and model.prior_weight:
        _ = model.prior  # fitted once; not what a row costs
    load_seconds = time.monotonic() - began
    before = _earlier(asked, made_from(asked, model, measured))
    rows = list(islice(asked.table.rows([*work.needs, *work.takes]), LOOKED_AT))
    if len(rows) < LOOKED_AT:
        measured = measured._replace(rows=len(rows))  # it counts lines, of which some are blank
    questions, rejects, _ = sort_out(rows, work, known, before)
    sample = questions[:: max(len(questions) // SAMPLE, 1)][:SAMPLE]
    began = time.monotonic()
    if sample:
        work.answer(model, sample, asked.n, asked.prior, None)
    return Estimate(
        measured, len(rows), len(questions), rejects, len(sample), load_seconds, time.monotonic() - began
    )  # fmt: skip


def sort_out(
    rows: Sequence[Row], work: Kind, known: Any, before: Mapping[str, str]
) -> tuple[list[Any], list[dict[str, Any]], int]:
    """Rows as questions, reasons for having none, and how many users need no answer as nothing changed."""
    questions, rejects, unchanged = [], [], 0
    for row in rows:
        try:
            if row.problem:
                raise DataError(row.problem)
            question = work.read(row.number, row.values, known)
        except DataError as error:
            rejects.append({"row": row.number, "place": row.place, "reason": " ".join(str(error).split())})
            continue
        if isinstance(question, Question) and question.key is not None and before.get(question.key) == question.digest:
            unchanged += 1
        else:
            questions.append(question)
    return questions, rejects, unchanged


def made_from(asked: Job, model: Any, measured: Measured) -> dict[str, Any]:
    """Everything that answers depend on, as digests and plain values."""
    from llmrec.model.load import base_model

    trained = {task: model.card.get("prompts", {}).get(task) for task in asked.work().wordings}
    worded = {task: known or Template.today(task).digest for task, known in trained.items()}
    return {
        "kind": asked.kind,
        **(_label_from(asked, model) if asked.work().task in OF_REVIEWS else _list_from(asked, model)),
        **({"texts": TEXTS} if asked.kind in ("summaries", "explanations") else {}),
        "format": asked.format,
        "shard_rows": asked.shard_rows,
        "engine": "server" if "://" in asked.engine else asked.engine,  # an address may move, or hold a key
        "domain": asked.recipe.domain,
        "adapter": asked.adapter,
        "weights": model.card.get("weights"),
        "teacher": model.card.get("teacher"),
        "base": base_model(asked.recipe.base_model).digest,
        "prompts": worded | {model.template.task: model.template.digest},
        "settings": asked.recipe.model_dump(mode="json", include=config.ANSWERS),
        "input": {"digest": measured.digest, "bytes": measured.size},
        "since": [(read_manifest(folder) or {}).get("job") for folder in asked.since],
    }


def _list_from(asked: Job, model: Recommender) -> dict[str, Any]:
    """What only lists and their scores depend on."""
    prepared = prepared_manifest(prepare.data_folder(asked.recipe)) or {}
    return {
        "n": asked.n if asked.kind in LISTS else None,
        "prior": model.prior_weight if asked.prior and asked.work().task == "next_item" else 0.0,
        "catalog": model.catalog.digest,
        "histories": prepared.get("files", {}).get("interactions.parquet"),
    }


def _label_from(asked: Job, model: Judge) -> dict[str, Any]:
    """What only labels depend on."""
    clipped = asked.recipe.tasks[model.template.task].max_tokens
    calibration = {"temperature": model.temperature, "shift": list(model.shift)}
    return {"labels": list(model.labels), **calibration, "max_tokens": clipped}


def print_estimate(found: Estimate, asked: Job, console: Console | None = None) -> None:
    """For people."""
    console = console or screen()
    unit = asked.work().unit
    lines = [
        f"input     {found.measured.rows:,} rows, {found.measured.size / 1e6:,.1f} MB, digest {found.measured.digest}",
        f"looked at {found.looked_at:,} rows: {found.asked:,} need an answer, {len(found.rejects):,} would be rejected",
        *(f"          {readable(reject['place'])}: {readable(reject['reason'])}" for reject in found.rejects[:5]),
    ]
    if found.seconds_each is None or found.total_seconds is None:
        lines.append("nothing to measure")
    else:
        shards = -(-found.measured.rows // asked.shard_rows)
        lost = duration(found.seconds_each * min(asked.shard_rows, found.measured.rows))
        lines += [
            f"measured  {found.sample} {unit} in {found.seconds:.2f} s, after {found.load_seconds:.0f} s of loading",
            f"estimate  {per_second(1 / found.seconds_each, unit)}: {duration(found.total_seconds)} for all; "
            f"{shards:,} shard{'s' * (shards != 1)}, so that a kill costs at most {lost}",
        ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def print_counts(counts: Mapping[str, int], folder: Path, console: Console | None = None) -> None:
    """For people."""
    parts = [
        f"{counts['rows']:,} rows" if counts["rows"] else "0 rows: the input has none",
        f"{counts['answers']:,} answered",
    ]
    parts += [f"{counts[key]:,} {key}" for key in ("rejected", "unchanged") if counts[key]]
    where = f"; reasons in {REJECTS}" if counts["rejected"] else ""
    (console or screen()).print(Text(f"{folder}: {', '.join(parts)}{where}"), soft_wrap=True)


def _load(asked: Job) -> Any:
    """Whoever answers this kind of work."""
    from llmrec.judge import Judge
    from llmrec.recommender import Recommender

    if (task := asked.work().task) in OF_REVIEWS:
        return Judge.load(asked.recipe, asked.adapter, task=task, engine=asked.engine)
    return Recommender.load(asked.recipe, asked.adapter, engine=asked.engine)


def _earlier(asked: Job, now: Mapping[str, Any]) -> dict[str, str]:
    """User → digest of the history that was answered last.  Raises: JobError where answers would differ anyway."""
    found: dict[str, str] = {}
    for folder in asked.since:
        then = _finished(folder)["made_from"]
        if differs := list(differences(_lasting(then), _lasting(now))):
            raise JobError(
                f"--since {folder}: made with other settings, so every list may change ({'; '.join(differs[:4])}); "
                "score everybody, without --since"
            )
        if then["catalog"] != now["catalog"]:
            LOG.warning("the catalog has changed since %s: unchanged users keep lists of the old one", folder)
        found |= {row["user_id"]: row["history"] for row in answers(folder, ("user_id", "history"))}
    return found


def _finished(folder: Path) -> dict[str, Any]:
    """The manifest of an earlier output.  Raises: JobError where there is none that is finished."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest.get("finished"):
        raise JobError(f"--since {folder}: no finished output of `llmrec score`; finish it, or name another")
    return manifest


def _lasting(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in MAY_CHANGE}
