"""Engines side by side, and vLLM's own beam search as the peer: one run, the same model, users and machine.

    python scripts/bench_serve.py movies --users 12 fit.precision=float32

Per engine: reading the histories and one token each, then a top 10 in batches of each size asked for (with one user at
a time, percentiles are those of a lone request), of the model alone and, as it is served, with its prior, whose lists
are sharper and take fewer expansions; then a top 10 of invented catalogs of growing size.  Then ten adapters in
rotation (copies of the domain's with other weights) against one.  The prefix cache is emptied before every
measurement.  Processor seconds stand beside wall time: only they compare where the machine does other work as well.
With `window_block` the peer is asked twice, about whole histories, as others ask it, and about the same prompts.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from bench_ranking import gains, quality  # noqa: E402

from llmrec import config  # noqa: E402
from llmrec.choices.search import Choices, Ranking, listed, rank  # noqa: E402
from llmrec.choices.trie import ChoiceTrie  # noqa: E402
from llmrec.engine import Node, Prompt  # noqa: E402
from llmrec.metrics.significance import paired  # noqa: E402
from llmrec.model import adapter as adapters  # noqa: E402
from llmrec.recommender import Recommender  # noqa: E402

N = 10
ROUNDS = 5  # of adapters in rotation
Row = dict[str, Any]
ROOT = np.array([1, 2], np.int32)  # any two children: what is measured is the reading


@dataclass(frozen=True)
class Took:
    """What a piece of work took."""

    seconds: float
    processor: float
    """Seconds of this process on all its threads; where another process computes, they are not in it."""


def timed(engine: Any, work: Callable[[], Any]) -> tuple[Took, Any]:
    engine.forget()
    start, processor = time.perf_counter(), time.process_time()
    result = work()
    return Took(time.perf_counter() - start, time.process_time() - processor), result


def read(engine: Any, prompts: list[Prompt]) -> None:
    for group in engine.batches(prompts):
        engine.branch([Node(prompts[i], (), ROOT) for i in group])


def percentiles(waiting: list[float], busy: list[float]) -> Row:
    """What people wait, and the processor seconds of it."""
    rows = {"p50 p95 p99 s": waiting, "in processor s": busy}
    return {name: " ".join(f"{x:.2f}" for x in np.percentile(values, [50, 95, 99])) for name, values in rows.items()}


def measure(name: str, model: Recommender, histories: list[Any], asked: list[Any], sizes: list[int]) -> list[Row]:
    """One row per size of batch, of the model alone and with its prior."""
    engine: Any = model.engine
    prompts = model.prompts(histories)
    history = sum(len(prompt.tokens) for prompt in prompts)
    timed(engine, lambda: model.rank(histories[:1], N))  # warm
    rows = []
    for size, prior in product(sorted({min(size, len(histories)) for size in sizes}), terms(model)):
        parts = [slice(at, at + size) for at in range(0, len(histories), size)]
        reading, _ = timed(engine, lambda parts=parts: [read(engine, prompts[part]) for part in parts])
        tally = getattr(engine, "tally", None)
        before = (tally.tokens, tally.cached) if tally else (0, 0)
        engine.forget()
        took, waiting, busy, found = Took(0, 0), [], [], []
        for part in parts:
            start, processor = time.perf_counter(), time.process_time()
            found += model.rank(histories[part], N, prior=prior)
            seconds, processor = time.perf_counter() - start, time.process_time() - processor
            took = Took(took.seconds + seconds, took.processor + processor)
            waiting += [seconds] * len(histories[part])
            busy += [processor] * len(histories[part])
        # Of the tokens that expansions ask about, beside the one reading of each history.
        cached = f"{(tally.cached - before[1]) / (tally.tokens - before[0] - history):.1%}" if tally else ""
        rows.append({
            "engine": f"{name}, with prior" if prior else name,
            "batch": size,
            "users/s": f"{len(histories) / took.seconds:.2f}",
            "processor s a user": f"{took.processor / len(histories):.2f}",
            "history tokens/s": f"{history / reading.seconds:.0f}",
            "top 10 / reading": f"{took.processor / reading.processor:.2f}",
            **percentiles(waiting, busy),
            "expansions": f"{np.mean([f.expansions for f in found]):.1f}",
            "waves": f"{np.mean([f.waves for f in found]):.1f}",
            "cached": cached,
            "NDCG@10": f"{quality(listed(found, N), asked):.4f}",
            "valid": valid(found, histories, len(model.catalog)),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def terms(model: Recommender) -> tuple[bool, ...]:
    """Without a prior, and with it where the adapter has one."""
    return (False, True) if model.prior_weight else (False,)


def valid(found: Sequence[Ranking], histories: Sequence[Any], items: int) -> str:
    """Of the places of all lists, the share that holds an item of the catalog that is new to the person, each once."""
    right = sum(
        len({int(i) for i in ranking.items if 0 <= i < items} - {*map(int, history)})
        for ranking, history in zip(found, histories, strict=True)
    )
    return f"{right / sum(min(N, items - len({*map(int, history)})) for history in histories):.0%}"


def gap(ours: np.ndarray, theirs: np.ndarray, asked: list[Any]) -> str:
    """NDCG@10 of two sets of lists, and the paired difference over users with its 95% interval."""
    a, b = gains(ours, asked), gains(theirs, asked)
    more = paired(a, b)
    return f"NDCG@10 {a.mean():.4f} and {b.mean():.4f} ({more.mean:+.4f} [{more.low:+.4f}, {more.high:+.4f}])"


def invented(model: Recommender, titles: int) -> Choices:
    """A catalog of titles of two to four words, each a token of the base model's own, by Zipf's law: that decides how
    many children the root has."""
    rng = np.random.default_rng(0)
    tokenizer = model.encoder.tokenizer
    decoded = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    words = sorted({word for text in decoded if len(word := text.strip()) > 2 and word.isascii() and word.isalpha()})
    rng.shuffle(words)
    share = 1 / (np.arange(len(words)) + 10)
    made: dict[str, None] = {}
    while len(made) < titles:
        drawn = rng.choice(words, size=(titles, 4), p=share / share.sum())
        made |= {" ".join(row[:count]): None for row, count in zip(drawn, rng.integers(2, 5, titles), strict=True)}
    lines = [np.asarray(ids, np.int32) for ids in model.encoder.lines(list(made)[:titles])]
    return Choices(ChoiceTrie.build(lines))


def sizes(name: str, model: Recommender, histories: list[Any], titles: list[int]) -> list[Row]:
    """One row per catalog size, one user at a time: the root alone behind a history that was read, and a top 10."""
    engine: Any = model.engine
    prompts = model.prompts(histories)
    rows = []
    for count in titles:
        choices = invented(model, count)
        trie = choices.parts()[0][0]
        timed(engine, lambda choices=choices: rank(engine, prompts[:1], choices, None, N))  # warm
        root, top = [], []
        tally = getattr(engine, "tally", None)
        requests, found = 0, []
        for prompt in prompts:
            engine.forget()
            read(engine, [prompt])
            before, start = tally.requests if tally else 0, time.process_time()
            engine.branch([Node(prompt, (), trie.children(0))])
            root.append(time.process_time() - start)
            requests += (tally.requests - before) if tally else 0
            took, ranking = timed(
                engine, lambda prompt=prompt, choices=choices: rank(engine, [prompt], choices, None, N)
            )
            top.append(took)
            found += ranking
        rows.append({
            "engine": name,
            "titles": f"{count:,}",
            "root's children": f"{len(trie.children(0)):,}",
            "root's requests": f"{requests / len(prompts):.0f}" if tally else "",
            "root, processor s": f"{np.mean(root):.3f}",
            "top 10, processor s": f"{np.mean([took.processor for took in top]):.2f}",
            **percentiles([took.seconds for took in top], [took.processor for took in top]),
            "expansions": f"{np.mean([f.expansions for f in found]):.1f}",
            "waves": f"{np.mean([f.waves for f in found]):.1f}",
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def print_table(rows: list[Row]) -> None:
    print("\n| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(row.get(key, "")) for key in rows[0]) + " |")


def beams(
    name: str, model: Recommender, histories: list[Any], asked: list[Any], width: int, grammar: bool, whole: bool
) -> tuple[Row, Took, np.ndarray]:
    """vLLM's `beam_search` of `width`; a `grammar` of all titles constrains it as far as vLLM goes: of the 2 · width
    likeliest tokens of the whole vocabulary those stay that the grammar allows, and a beam that has none ends.  With
    `whole` histories, as others ask it, it reads what `window_block` leaves out.

    Returns: a row, what it took, and its lists, (histories, width), -1 for what is no item."""
    from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams
    from vllm.v1.structured_output.utils import choice_as_grammar

    engine: Any = model.engine
    encoder = model.encoder
    items = {encoder.tokenizer.decode(line[: -len(encoder.newline)]): i for i, line in enumerate(model.listing.lines)}
    # It resolves neither `backend="auto"` nor `choice`, as requests do: named here, and said as a grammar.
    engine.llm.llm_engine.vllm_config.structured_outputs_config.backend = "xgrammar"
    titles = StructuredOutputsParams(grammar=choice_as_grammar(list(items))) if grammar else None
    params = BeamSearchParams(
        beam_width=width, max_tokens=max(map(len, model.listing.lines)), temperature=0.0, length_penalty=0.0,
        structured_outputs=titles,
    )  # fmt: skip
    # A title ends with its line: beams end there when that is the tokenizer's end, and need not write on.
    tokenizer = engine.llm.get_tokenizer()
    end = tokenizer.eos_token
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.encoder.newline[-1])
    if whole:
        model = replace(model, recipe=model.recipe.model_copy(update={"window_block": 0}))
    prompts = model.prompts(histories)
    try:
        took, outputs = timed(
            engine,
            lambda: engine.llm.beam_search(
                [{"prompt_token_ids": list(p.tokens)} for p in prompts], params,
                lora_request=[engine._request(p.adapter) for p in prompts],
            ),
        )  # fmt: skip
    finally:
        tokenizer.eos_token = end
    lists = np.full((len(prompts), width), -1)
    replies = 0
    for row, prompt, output in zip(lists, prompts, outputs, strict=True):
        said = [tokenizer.decode(s.tokens[len(prompt.tokens) :]) for s in output.sequences]
        replies += len(said)
        found = [items.get(text.removesuffix("\n"), -1) for text in said]
        row[: len(found)] = found
    return {
        "engine": f"{name} beam_search {width}{', grammar' * grammar}{', whole histories' * whole}",
        "batch": len(histories),
        "users/s": f"{len(histories) / took.seconds:.3f}",
        "processor s a user": f"{took.processor / len(histories):.2f}",
        "NDCG@10": f"{quality(lists, asked):.4f}",
        "valid": f"{np.sum(lists >= 0) / max(replies, 1):.0%} of {replies / len(prompts):.1f}",
    }, took, lists  # fmt: skip


def copies(folder: Path, into: Path, count: int) -> dict[str, Path]:
    """Adapters of the same shape with other weights."""
    made = {}
    for i in range(count):
        target = into / f"copy{i}"
        shutil.copytree(folder, target)
        weights = {name: tensor * (1 - 0.02 * i) for name, tensor in load_file(target / adapters.WEIGHTS).items()}
        save_file(weights, target / adapters.WEIGHTS)
        card = adapters.read_json(target / adapters.CARD)
        adapters.write_json(target / adapters.CARD, card | {"weights": adapters.weights_digest(target)})
        made[target.name] = target
    return made


def rotation(model: Recommender, histories: list[Any], folder: Path, count: int) -> str:
    """Users per second with `count` adapters in turn, against one."""
    engine: Any = model.engine
    with tempfile.TemporaryDirectory() as into:
        made = copies(folder, Path(into), count)
        for name, path in made.items():
            engine.load(name, path)
        names = list(made)
        prompts = model.prompts(histories)
        asked = {
            "one": [Prompt(p.tokens, names[0]) for p in prompts],
            "in turn": [Prompt(p.tokens, names[i % count]) for i, p in enumerate(prompts)],
        }
        took: dict[str, list[Took]] = {label: [] for label in asked}
        for turn in range(ROUNDS):  # in alternating order, as machines drift
            for label in [*asked][:: 1 if turn % 2 else -1]:
                mine = asked[label]
                took[label].append(
                    timed(engine, lambda mine=mine: rank(engine, mine, model.listing.choices, None, N))[0]
                )
        for name in names:
            engine.unload(name)
    both = [*zip(took["one"], took["in turn"], strict=True)]
    kept = [[one.seconds / many.seconds for one, many in both], [one.processor / many.processor for one, many in both]]
    clock, processor = (f"{np.median(x):.0%} ({min(x):.0%} to {max(x):.0%})" for x in kept)
    return (
        f"{count} adapters in rotation, {len(prompts)} users together, {ROUNDS} rounds: {clock} of the throughput of "
        f"one by the clock, {processor} in processor seconds"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8], help="users asked together")
    parser.add_argument("--titles", type=int, nargs="*", default=[1_682, 10_000, 100_000], help="of invented catalogs")
    parser.add_argument("--engines", nargs="*", default=["hf", "vllm", "vllm-merged"])
    parser.add_argument("--beams", type=int, default=20, help="width of the peer; 0 leaves it out")
    parser.add_argument("--beam-users", type=int, default=2, help="users of the peer, which is slow")
    parser.add_argument("--adapters", type=int, default=10, help="in rotation; 0 leaves it out")
    args = parser.parse_intermixed_args()
    rows: list[Row] = []
    by_size: list[Row] = []
    notes: list[str] = []
    for name in args.engines:
        kind, _, merge = name.partition("-")
        # The domain's own adapter has a place beside those in rotation.
        extra = [f"serve.merge={str(bool(merge)).lower()}"]
        extra += [f"serve.{key}={args.adapters + 1}" for key in ("max_loras", "max_cpu_loras")]
        recipe = config.load_recipe(args.domain, (*args.overrides, *extra))
        model = Recommender.load(recipe, args.domain, engine=kind)
        asked = model.queries("test", 1)
        asked = [asked[i] for i in np.random.default_rng(0).permutation(len(asked))[: args.users]]
        histories = [query.history for query in asked]
        rows += measure(name, model, histories, asked, args.batches)
        by_size += sizes(name, model, histories, args.titles)
        if name == "vllm" and args.adapters:
            notes.append(rotation(model, histories, config.adapter_folder(args.domain), args.adapters))
            print(notes[-1], flush=True)
        if kind == "vllm" and args.beams:
            few, few_asked = histories[: args.beam_users], asked[: args.beam_users]
            ours = {
                prior: timed(model.engine, lambda model=model, few=few, prior=prior: model.rank(few, N, prior=prior))
                for prior in terms(model)
            }
            for grammar, whole in product((False, True), (True, False) if recipe.window_block else (False,)):
                row, took, lists = beams(name, model, few, few_asked, args.beams, grammar, whole)
                rows.append(row)
                for prior, (mine, found) in ours.items():
                    notes.append(
                        f"{row['engine']}, {len(few)} users together: {took.seconds / len(few):.2f} s a user, exact "
                        f"search{' with prior' if prior else ''} {mine.seconds / len(few):.2f} s "
                        f"({took.seconds / mine.seconds:.1f} ×; in processor seconds "
                        f"{took.processor / mine.processor:.1f} ×), "
                        f"{gap(listed(found, N), lists, few_asked)}, valid "
                        f"{valid(found, few, len(model.catalog))} and {row['valid']}"
                    )
                    print(notes[-1], flush=True)
        if hasattr(model.engine, "close"):
            model.engine.close()
        del model
    for table in filter(None, (rows, by_size)):
        print_table(table)
    print("\n" + "\n".join(notes))
    print(f"{args.users} users, {torch.get_num_threads()} threads, overrides {' '.join(args.overrides) or 'none'}")


if __name__ == "__main__":
    main()
