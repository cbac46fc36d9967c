"""Each task alone, jointly, and the balance between them: adapters trained on different tasks, on the same examples.

    llmrec train movies 'tasks={interest: {weight: 0.5, tokens: 40000}}' --out /data/joint/interest   # and each other
    python scripts/joint.py movies joint=adapters/movies interest=/data/joint/interest --out /data/joint/table

What is given for `tasks` takes the place of the recipe's: repeat the settings of the task there, `data` of reviews
among them.  Equal budgets are equal tokens of each task; the joint adapter then sees as many as all others together.

Every adapter is measured on every task of the recipe, also on those that it did not learn (marked *), so that the table
says who helps whom, too; with --learned only on those that it did, for more examples in the same time.  What is
measured, higher is better:

- next_item: NDCG@10 over the whole catalog, of each user; and the probability of what each user chose next, as the
  geometric mean over users, exp(mean log p), which tells far smaller differences apart;
- interest: the probability of what each user chose next, exp(sum of true shares times log p);
- interest_summary, explanation: the probability of a token of the reply that the data gives, exp(mean log p), of each
  user, with the reply worded at random, the same for all adapters;
- review_sentiment: macro-F1 over the reviews; and the geometric mean of the probabilities of the true labels;
  with all of what `balance` has shifted put back, the same for all adapters.

An adapter of several tasks is compared with every adapter of one: differences paired by user or review, also relative
to the single one, with 95% bootstrap intervals.  A name that is given several times stands for trainings with several
seeds: `joint=A joint=B next_item=C next_item=D` compares their means, the same users drawn for all.  Writes joint.md
and, last, joint.json; what is measured of an adapter on a task is kept in a file of its own, so that the same command
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from llmrec import config, prepare
from llmrec.choices.search import listed
from llmrec.choices.search import score as log_p_of
from llmrec.data.sample import at_most
from llmrec.data.split import Person, Query, of_users, people
from llmrec.engine.hf import HFEngine
from llmrec.errors import AdapterError, DataError, LlmrecError
from llmrec.follow_up import FollowUp
from llmrec.judge import SENTIMENT, ReviewTask, source
from llmrec.learning import reviews
from llmrec.learning.next_item import as_learned, recommender
from llmrec.measuring.after_list import World, in_blocks
from llmrec.measuring.suites import depends_on
from llmrec.measuring.texts import KINDS, Explanations
from llmrec.metrics.classification import macro_f1, tempered
from llmrec.metrics.ranking import by_user, ndcg, ranks
from llmrec.metrics.significance import FEWEST
from llmrec.model import adapter as adapters
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model, compute_dtype, load_model, load_tokenizer
from llmrec.parts import Parts, Seconds, write_text
from llmrec.recommender import Recommender
from llmrec.tasks.interest import HORIZON, expected
from llmrec.tasks.next_item import named
from llmrec.tasks.saved import outdated, read_card, saved_prompts
from llmrec.tasks.template import Template
from llmrec.writing import log_p_of as token_log_p

FORMAT = 2
METRIC = {  # what each measure says
    "next_item": "ndcg@10",
    "next_item_p": "next_item_p",
    "interest": "interest_p",
    "interest_summary": "interest_summary_p",
    "explanation": "explanation_p",
    "review_sentiment": "macro_f1",
    "review_sentiment_p": "review_sentiment_p",
}


@dataclass(frozen=True)
class Asked:
    """What is asked of every adapter alike."""

    recipe: config.Recipe
    split: str
    users: int
    seed: int
    precision: str = "auto"

    def sample(self, some: Sequence[Any]) -> list[Any]:
        return at_most(some, self.users, self.seed)


@dataclass(frozen=True)
class Loaded:
    """One adapter in memory, with today's wordings."""

    recipe: config.Recipe
    encoder: Encoder
    engine: HFEngine

    @classmethod
    def load(cls, asked: Asked, folder: Path) -> Loaded:
        recipe = asked.recipe
        base = base_model(recipe.base_model)
        adapters.check_base(read_card(folder), folder, base.digest, base.name)
        recipe = as_learned(recipe, str(folder.resolve()))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_model(base, dtype=compute_dtype(asked.precision, device), device=torch.device(device))
        encoder = Encoder(load_tokenizer(base.folder))
        return cls(recipe, encoder, HFEngine(adapters.load(model, {"default": folder}), encoder.tokenizer))

    def follow_up(self, task: str) -> FollowUp:
        return FollowUp.build(recommender(self.recipe, self.encoder, self.engine), Template.today(task))


def _queries(ranker: Recommender, asked: Asked) -> list[Query]:
    return of_users(ranker.queries(asked.split), asked.users, asked.seed)


def next_item(model: Loaded, asked: Asked) -> pd.DataFrame:
    ranker = recommender(model.recipe, model.encoder, model.engine)
    found = _queries(ranker, asked)
    lists = in_blocks(
        lambda some: list(listed(ranker.rank([query.history for query in some], 10, prior=False), 10)),
        found,
        "next_item",
    )
    values = ndcg(ranks(np.stack(lists), [query.target for query in found]), 10)
    users = [query.user_id for query in found]
    return pd.DataFrame({"unit": list(dict.fromkeys(users)), "value": by_user(values, users)})


def next_item_p(model: Loaded, asked: Asked) -> pd.DataFrame:
    ranker = recommender(model.recipe, model.encoder, model.engine)
    choices = ranker.listing.choices

    def log_p(some: Sequence[Query]) -> list[float]:
        prompts = ranker.prompts([query.history for query in some])
        return [float(found[0]) for found in log_p_of(ranker.engine, prompts, choices, [[q.target] for q in some])]

    found = _queries(ranker, asked)
    values = by_user(np.array(in_blocks(log_p, found, "next_item_p")), users := [query.user_id for query in found])
    return pd.DataFrame({"unit": list(dict.fromkeys(users)), "log_p": values})


def interest(model: Loaded, asked: Asked) -> pd.DataFrame:
    task = model.follow_up("interest")
    able = [
        (person, p) for person in _people(task, asked)
        if (p := expected(task.categories_of(person.after[:HORIZON]), task.categories)).any()
    ]  # fmt: skip
    chosen = asked.sample(able)
    log_p = np.stack(in_blocks(lambda some: list(task.log_p(some)), [one.history for one, _ in chosen], "interest"))
    value = np.exp((np.stack([p for _, p in chosen]) * log_p).sum(1))
    return pd.DataFrame({"unit": [one.user_id for one, _ in chosen], "value": value})


def text(name: str) -> Callable[[Loaded, Asked], pd.DataFrame]:
    def measure(model: Loaded, asked: Asked) -> pd.DataFrame:
        task = model.follow_up(name)
        ranker = task.recommender
        settings = config.Written(task=name, domain=model.recipe.domain)
        kind = KINDS[name](
            World(settings, model.recipe, ranker.dataset, ranker.catalog, None), ranker.listing.identifiers
        )
        able = [(person, facts) for person in _people(task, asked) if (facts := kind.facts(person)) is not None]
        rng = np.random.default_rng(asked.seed)
        units, values = [], []
        for person, facts in asked.sample(able):
            wording = int(rng.integers(len(task.template.replies)))
            reply = task.encoded(task.template.reply_parts(facts | {"domain": named(model.recipe)}, wording))
            slots = [{"item": task.item_slot(person.after[0])}] if isinstance(kind, Explanations) else None
            [log_p] = token_log_p(model.engine, model.encoder, task.prompts([person.history], slots), [reply])
            units.append(person.user_id)
            values.append(float(np.exp(log_p.mean())))
        return pd.DataFrame({"unit": units, "value": values})

    return measure


def review_sentiment(model: Loaded, asked: Asked) -> pd.DataFrame:
    task = ReviewTask.build(model.recipe, Template.today(SENTIMENT), model.encoder)
    read = source(model.recipe, SENTIMENT)
    train, part = (reviews.labelled(read.part(split), task.template, task.labels) for split in ("train", asked.split))
    part = reviews.sampled_rows(part, asked.users, asked.seed)
    shift = reviews.shift(train["label"].to_numpy(), len(task.labels), model.recipe.tasks[SENTIMENT].balance)
    found = in_blocks(lambda some: list(task.log_p(model.engine, some, "default")), reviews.pairs(part), SENTIMENT)
    log_p = np.stack(found) + shift
    columns = {f"p{i}": column for i, column in enumerate(tempered(log_p, 1.0).T)}
    return pd.DataFrame({"unit": [str(i) for i in part.index], "true": part["label"], **columns})


MEASURES: dict[str, Callable[[Loaded, Asked], pd.DataFrame]] = {
    "next_item": next_item,
    "next_item_p": next_item_p,
    "interest": interest,
    "interest_summary": text("interest_summary"),
    "explanation": text("explanation"),
    "review_sentiment": review_sentiment,
    "review_sentiment_p": lambda model, asked: of_the_true(review_sentiment(model, asked)),
}


def task_of(measure: str) -> str:
    """The task that a measure is of."""
    return measure.removesuffix("_p")


def of_the_true(labels: pd.DataFrame) -> pd.DataFrame:
    """What is measured of labels → the log p of the true ones."""
    p = labels.filter(regex=r"^p\d+$").to_numpy()[np.arange(len(labels)), labels["true"]]
    return pd.DataFrame({"unit": labels["unit"], "log_p": np.log(np.maximum(p, 1e-12))})


def statistic(records: pd.DataFrame) -> Callable[[np.ndarray], float]:
    """Rows drawn → the metric over them."""
    if "value" in records:
        value = records["value"].to_numpy()
        return lambda draw: float(value[draw].mean())
    if "log_p" in records:
        log_p = records["log_p"].to_numpy()
        return lambda draw: float(np.exp(log_p[draw].mean()))
    p, true = records.filter(regex=r"^p\d+$").to_numpy(), records["true"].to_numpy()
    return lambda draw: macro_f1(p[draw], true[draw])


def interval(values: np.ndarray) -> dict[str, float]:
    """Of a metric over the whole, then over samples of it: the former between quantiles of the latter."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"mean": float(values[0]), "low": float(low), "high": float(high)}


def joint(
    asked: Asked, folders: Mapping[str, Sequence[Path]], out: Path, *, samples: int = 2000, learned: bool = False,
    measures: Sequence[str] = tuple(METRIC), users: Mapping[str, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measures the adapters in `folders`, by name, on every task of the recipe, or that they have learned; see this
    file's docstring.

    Args:
        folders: by name, those of trainings that differ in the seed alone.
        users: of measures that ask another number than `asked`.

    Raises: AdapterError for a folder without an adapter, of another base, split or wording; DataError.
    """
    recipe = asked.recipe
    checked([*recipe.tasks])
    measures = [measure for measure in measures if task_of(measure) in recipe.tasks]
    asking = {measure: replace(asked, users=(users or {}).get(measure, asked.users)) for measure in measures}
    trainings = {name: _names(name, len(some)) for name, some in folders.items()}
    apart = {one: folder for name in folders for one, folder in zip(trainings[name], folders[name], strict=True)}
    cards = {name: _card(recipe, folder) for name, folder in apart.items()}
    for name, some in trainings.items():
        _check_alike(name, [cards[one] for one in some])
    records: dict[tuple[str, str], pd.DataFrame] = {}
    for name, folder in apart.items():
        loaded: list[Loaded] = []

        def make(measure: str, folder: Path = folder, loaded: list[Loaded] = loaded) -> tuple[pa.Table, Seconds]:
            if not loaded:
                loaded.append(Loaded.load(asked, folder))
            return pa.Table.from_pandas(MEASURES[measure](loaded[0], asking[measure]), preserve_index=False), {}

        for measure in measures:
            task = task_of(measure)
            if learned and task not in cards[name]["loss"]:
                continue
            same = measure == "review_sentiment_p" and asking[measure] == asking.get("review_sentiment")
            if same and (name, "review_sentiment") in records:
                records[name, measure] = of_the_true(records[name, "review_sentiment"])
                continue
            made_from = {
                "format": FORMAT, "weights": cards[name]["weights"], "task": measure, "split": asked.split,
                "users": asking[measure].users, "seed": asked.seed, "precision": asked.precision,
                "wording": Template.today(task).digest, "data": _digest(recipe, task), "recipe": depends_on(recipe),
                "settings": recipe.tasks[task].model_dump(mode="json"),
            }  # fmt: skip
            records[name, measure], _ = Parts(out).get(
                f"{name}-{measure}", made_from, lambda measure=measure: make(measure), pa.Table.to_pandas
            )
    measured: dict[str, Any] = {name: {} for some in trainings.values() for name in some}
    means: dict[str, Any] = {name: {} for name, some in trainings.items() if len(some) > 1}
    differences = []
    examples: dict[str, int] = {}
    for measure in measures:
        task = task_of(measure)
        asked_of = [name for name in apart if (name, measure) in records]
        units = {tuple(records[name, measure]["unit"]) for name in asked_of}
        if not units:
            continue
        assert len(units) == 1, f"{measure}: adapters were asked about different examples"
        examples[measure] = size = len(units.pop())
        rng = np.random.default_rng(asked.seed)
        draws = [np.arange(size), *(rng.integers(size, size=size) for _ in range(samples))]  # the whole, then samples
        metric = {name: statistic(records[name, measure]) for name in asked_of}
        found = {name: np.array([metric[name](draw) for draw in draws]) for name in asked_of}
        of = {
            name: np.mean([found[one] for one in some], axis=0)
            for name, some in trainings.items() if some[0] in found
        }  # fmt: skip
        for name in asked_of:
            measured[name][measure] = interval(found[name]) | {"learned": task in cards[name]["loss"]}
        for name in {*means} & {*of}:
            means[name][measure] = interval(of[name]) | {"learned": task in cards[trainings[name][0]]["loss"]}
        learns = {name: [*cards[some[0]]["loss"]] for name, some in trainings.items()}
        for single in [name for name, tasks in learns.items() if tasks == [task]]:
            for several in [name for name, tasks in learns.items() if len(tasks) > 1 and task in tasks]:
                gap = interval(of[several] - of[single])
                differences.append({
                    "task": measure, "a": several, "b": single, "metric": METRIC[measure], **gap,
                    "excludes_zero": size >= FEWEST and (gap["low"] > 0 or gap["high"] < 0),
                    "relative": interval(of[several] / np.maximum(of[single], 1e-12) - 1),
                })  # fmt: skip
    results = {
        "format": FORMAT, "domain": recipe.domain, "split": asked.split, "seed": asked.seed,
        "adapters": {
            name: {
                "weights": card["weights"], "tasks": list(card["loss"]), "steps": card.get("steps"),
                "trained": trained(card, recipe),
            }
            for name, card in cards.items()
        },
        "precision": asked.precision, "examples": examples, "measured": measured, "means": means,
        "differences": differences,
    }  # fmt: skip
    write_text(markdown(results), out / "joint.md")
    write_text(json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n", out / "joint.json")
    return results


def trained(card: dict[str, Any], recipe: config.Recipe) -> str:
    """The command that trained an adapter, by what its recipe sets otherwise than `recipe`; a start is named by its
    weights."""
    made, usual = card.get("recipe", {}), recipe.model_dump(mode="json")
    made = {**made, "mixture": {"step": "shared"} | made.get("mixture", {})}  # as it was before there were others
    words = [f"llmrec train {recipe.domain}"]
    if (start := card.get("init_from") or {}).get("weights"):
        words.append(f"init_from={start['weights']}")
    if {*card["loss"]} != {*usual["tasks"]}:
        words.append(f"'tasks=[{', '.join(card['loss'])}]'")
    sections = {key: (made.get(key, {}), usual[key]) for key in ("mixture", "lora", "teacher", "prior", "fit")}
    for task in card["loss"]:
        sections[f"tasks.{task}"] = (made.get("tasks", {}).get(task, {}), usual["tasks"].get(task, {}))
    for key, (mine, theirs) in sections.items():
        words += [
            f"{key}.{name}={json.dumps(value)}"
            for name, value in mine.items()
            if name in theirs and value != theirs[name]
        ]
    return " ".join(words)


def checked(tasks: Sequence[str]) -> None:
    """Raises: DataError for a task that is not measured here."""
    known = [*dict.fromkeys(map(task_of, MEASURES))]
    if unknown := [task for task in tasks if task not in known]:
        raise DataError(f"{unknown[0]}: not among the tasks measured here ({', '.join(known)}); leave it out")


def markdown(results: dict[str, Any]) -> str:
    """One line per adapter, then joint against single."""
    tasks = list(results["examples"])  # or rather measures of them
    head = ["adapter", *(f"{task}: {METRIC[task]}" for task in tasks)]
    lines = [
        [name, *(f"{_three(found[task])}{'' if found[task]['learned'] else ' *'}" if task in found else ""
                 for task in tasks)]
        for name, found in [*results["measured"].items(), *((f"{n} (mean)", m) for n, m in results["means"].items())]
    ]  # fmt: skip
    asked = ", ".join(f"{count:,} of {task}" for task, count in results["examples"].items())
    blocks = [
        f"# {results['domain']}: each task alone and jointly\n\nSplit {results['split']}; examples: {asked}; with 95% "
        "bootstrap intervals over them, not over seeds; * not learned by this adapter.",
        _grid(head, lines),
    ]
    if results["differences"]:
        lines = [
            [f"{d['a']} - {d['b']}", f"{d['task']}: {d['metric']}", _three(d, "+"), _percent(d["relative"]),
             "yes" if d["excludes_zero"] else "no"]
            for d in results["differences"]
        ]  # fmt: skip
        blocks.append(_grid(["jointly - alone", "metric", "difference", "relative", "excludes 0"], lines))
        worst = min(results["differences"], key=lambda d: d["relative"]["mean"])
        blocks.append(f"Least gained, or most lost: {worst['task']}, {_percent(worst['relative'])} of {worst['b']}.")
    made = "; ".join(f"{name} {one['steps']} of {', '.join(one['tasks'])}" for name, one in results["adapters"].items())
    blocks.append(f"Steps of training: {made}.  How, beside the recipe of today:")
    blocks.append("\n".join(f"    {name}: {one['trained']}" for name, one in results["adapters"].items()))
    return "\n\n".join(blocks) + "\n"


def _three(value: dict[str, float], sign: str = "") -> str:
    return f"{value['mean']:{sign}.4f} [{value['low']:{sign}.4f}, {value['high']:{sign}.4f}]"


def _percent(value: dict[str, float]) -> str:
    return f"{value['mean']:+.1%} [{value['low']:+.1%}, {value['high']:+.1%}]"


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


def _names(name: str, trainings: int) -> list[str]:
    """What trainings are called in tables and files."""
    return [name] if trainings == 1 else [f"{name}.{number}" for number in range(1, trainings + 1)]


def _check_alike(name: str, cards: Sequence[Mapping[str, Any]]) -> None:
    """Raises: DataError for trainings under one name that differ in more than the seed."""

    def besides(card: Mapping[str, Any]) -> dict[str, Any]:
        recipe = card.get("recipe", {})
        start = (card.get("init_from") or {}).get("weights")
        return {**recipe, "fit": {**recipe.get("fit", {}), "seed": None}, "init_from": start}

    if any(besides(card) != besides(cards[0]) for card in cards):
        raise DataError(f"{name}: trainings of one name differ in the seed alone; give others names of their own")
    if len({card["weights"] for card in cards}) < len(cards):
        raise DataError(f"{name}: the same weights twice; name each training once")


def _people(task: FollowUp, asked: Asked) -> list[Person]:
    return people(task.recommender.queries(asked.split))


def _digest(recipe: config.Recipe, task: str) -> Any:
    return source(recipe, SENTIMENT).digest if task == SENTIMENT else prepare.digests(recipe)


def _card(recipe: config.Recipe, folder: Path) -> dict[str, Any]:
    """The card of an adapter whose answers it has not seen and that knows today's wordings."""
    card = read_card(folder)
    saved = saved_prompts(folder, card)
    if changed := outdated(saved, config.project() / "prompts"):
        raise AdapterError(
            f"{folder}: prompts/ says something else than when it was trained ({', '.join(changed)}); restore it with "
            "`llmrec prompts rollback`, or train again"
        )
    trained = card.get("recipe", {})
    if {"next_item", *KINDS, "interest"} & {*saved} and trained.get("split") != recipe.split.model_dump(mode="json"):
        raise AdapterError(f"{folder}: trained under another split, so it may have seen the answers; train it again")
    rated = recipe.data.min_rating if recipe.data else None
    if trained.get("data") and trained["data"].get("min_rating") != rated:  # it moves the cut
        raise AdapterError(
            f"{folder}: trained with another data.min_rating, so it may have seen the answers; train again"
        )
    if SENTIMENT in saved and card[SENTIMENT].get("reviews") != source(recipe, SENTIMENT).digest:
        raise AdapterError(f"{folder}: learned from another split of the reviews; train it again")
    return card


def how_many(word: str) -> tuple[str, int]:
    """`400` or `next_item_p=0`: of which measure ("" of all), and how many.  Raises: ArgumentTypeError, ValueError."""
    measure, equals, number = word.rpartition("=")
    if equals and measure not in METRIC:
        raise argparse.ArgumentTypeError(f"{measure}: none of {', '.join(METRIC)}")
    return measure, int(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("adapters", nargs="+", metavar="NAME=FOLDER", help="a name again: a training with another seed")
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument(
        "--users",
        nargs="+",
        type=how_many,
        default=[],
        metavar="N",
        help="or reviews, of each measure (200); 0 asks all; MEASURE=N for one alone: --users 400 next_item_p=0",
    )
    parser.add_argument("--learned", action="store_true", help="only tasks that an adapter has learned")
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=METRIC,
        default=[*METRIC],
        metavar="MEASURE",
        help=f"of {', '.join(METRIC)}; default: all (a list's NDCG takes longest, its probability tells more)",
    )
    parser.add_argument(
        "--precision", choices=get_args(config.Fit.model_fields["precision"].annotation), help="default: the recipe's"
    )
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of what is measured; goes on where it is begun")
    args = parser.parse_args()
    try:
        folders: dict[str, list[Path]] = {}
        for word in args.adapters:
            name, equals, folder = word.partition("=")
            if not equals:
                raise DataError(f"{word}: write adapters as name=folder")
            folders.setdefault(config.checked_name(name, "adapter"), []).append(Path(folder))
        number = {"": 200} | dict(args.users)
        recipe = config.load_recipe(args.domain)
        precision = args.precision or recipe.fit.precision
        asked = Asked(recipe, args.split, number.pop(""), args.seed, precision)
        joint(
            asked, folders, args.out, samples=args.samples, learned=args.learned, measures=args.measures, users=number
        )
    except LlmrecError as error:
        raise SystemExit(f"error: {error}") from None
    print((args.out / "joint.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
