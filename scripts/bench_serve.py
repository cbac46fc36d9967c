"""Engines side by side, and vLLM's own beam search as the peer: one run, the same model, users and machine.

    python scripts/bench_serve.py movies --users 20 fit.precision=float32

Per engine: reading the histories and one token, a top 10 for all users together, and one user after another for
latency.  Then ten adapters in rotation (copies of the domain's with other weights) against one.  The prefix cache is
emptied before every measurement.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from bench_ranking import quality  # noqa: E402

from llmrec import config  # noqa: E402
from llmrec.choices.search import listed, rank  # noqa: E402
from llmrec.data.split import queries  # noqa: E402
from llmrec.engine import Node, Prompt  # noqa: E402
from llmrec.model import adapter as adapters  # noqa: E402
from llmrec.recommender import Recommender  # noqa: E402

N = 10
ROOT = np.array([1, 2], np.int32)  # any two children: what is measured is the reading


def timed(engine: Any, work: Callable[[], Any]) -> tuple[float, Any]:
    engine.forget()
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def read(engine: Any, prompts: list[Prompt]) -> None:
    for group in engine.batches(prompts):
        engine.branch([Node(prompts[i], (), ROOT) for i in group])


def measure(name: str, model: Recommender, histories: list[Any], asked: list[Any]) -> dict[str, Any]:
    engine: Any = model.engine
    prompts = model.prompts(histories)
    timed(engine, lambda: model.rank(histories[:1], N, prior=False))  # warm
    reading, _ = timed(engine, lambda: read(engine, prompts))
    tally = getattr(engine, "tally", None)
    before = (tally.tokens, tally.cached) if tally else (0, 0)
    together, found = timed(engine, lambda: model.rank(histories, N, prior=False))
    cached = ""
    if tally:
        history = sum(len(prompt.tokens) for prompt in prompts)
        cached = f"{(tally.cached - before[1]) / (tally.tokens - before[0] - history):.1%}"
    alone = [timed(engine, lambda h=h: model.rank([h], N, prior=False))[0] for h in histories]
    p50, p95, p99 = np.percentile(alone, [50, 95, 99])
    return {
        "engine": name,
        "users/s": f"{len(histories) / together:.2f}",
        "history tokens/s": f"{sum(len(p.tokens) for p in prompts) / reading:.0f}",
        "top 10 / reading": f"{together / reading:.2f}",
        "p50 s": f"{p50:.2f}", "p95 s": f"{p95:.2f}", "p99 s": f"{p99:.2f}",
        "expansions": f"{np.mean([f.expansions for f in found]):.1f}",
        "waves": f"{np.mean([f.waves for f in found]):.1f}",
        "cached": cached,
        "NDCG@10": f"{quality(listed(found, N), asked):.4f}",
        "valid": "100%",
        "seconds": together,
    }  # fmt: skip


def beams(model: Recommender, histories: list[Any], asked: list[Any], width: int, constrained: bool) -> dict[str, Any]:
    """vLLM's `beam_search` of `width`; `constrained` by a grammar of all titles."""
    from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams

    engine: Any = model.engine
    items = {text: i for i, text in enumerate(model.listing.identifiers)}
    longest = max(map(len, model.listing.lines)) + 1
    choice = StructuredOutputsParams(choice=[f"{text}\n" for text in items]) if constrained else None
    params = BeamSearchParams(
        beam_width=width, max_tokens=longest, temperature=0.0, length_penalty=0.0, structured_outputs=choice
    )
    prompts = model.prompts(histories)
    seconds, outputs = timed(
        engine,
        lambda: engine.llm.beam_search(
            [{"prompt_token_ids": list(p.tokens)} for p in prompts], params,
            lora_request=[engine._request(p.adapter) for p in prompts],
        ),
    )  # fmt: skip
    lists = np.full((len(prompts), width), -1)
    replies = 0
    for row, prompt, output in zip(lists, prompts, outputs, strict=True):
        said = [engine.tokenizer.decode(s.tokens[len(prompt.tokens) :]) for s in output.sequences]
        replies += len(said)
        found = [items.get(text.split("\n")[0], -1) for text in said]
        row[: len(found)] = found
    return {
        "engine": f"vllm beam_search {width}" + (", grammar" if constrained else ""),
        "users/s": f"{len(histories) / seconds:.3f}",
        "NDCG@10": f"{quality(lists, asked):.4f}",
        "valid": f"{np.sum(lists >= 0) / max(replies, 1):.0%}",
        "seconds": seconds,
    }


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
        one = [Prompt(p.tokens, names[0]) for p in prompts]
        many = [Prompt(p.tokens, names[i % count]) for i, p in enumerate(prompts)]
        speed = {}
        for label, asked in (("one", one), ("many", many)):
            seconds, _ = timed(engine, lambda asked=asked: rank(engine, asked, model.listing.choices, None, N))
            speed[label] = len(asked) / seconds
    return (
        f"{count} adapters in rotation: {speed['many']:.2f} users/s, one: {speed['one']:.2f} "
        f"({speed['many'] / speed['one']:.0%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--engines", nargs="*", default=["hf", "vllm", "vllm-merged"])
    parser.add_argument("--beams", type=int, default=20, help="width of the peer; 0 leaves it out")
    parser.add_argument("--beam-users", type=int, default=4, help="users of the peer, which is slow")
    parser.add_argument("--adapters", type=int, default=10, help="in rotation; 0 leaves it out")
    args = parser.parse_intermixed_args()
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for name in args.engines:
        kind, _, merge = name.partition("-")
        extra = [f"serve.merge={str(bool(merge)).lower()}", f"serve.max_loras={max(args.adapters, 1)}"]
        recipe = config.load_recipe(args.domain, (*args.overrides, *extra))
        model = Recommender.load(recipe, args.domain, engine=kind)
        asked = queries(model.dataset, model.catalog, "test", baskets=recipe.split.baskets, max_targets=1)
        asked = [asked[i] for i in np.random.default_rng(0).permutation(len(asked))[: args.users]]
        histories = [query.history for query in asked]
        rows.append(measure(name, model, histories, asked))
        print({key: value for key, value in rows[-1].items() if key != "seconds"}, flush=True)
        if name == "vllm" and args.adapters:
            notes.append(rotation(model, histories, config.adapter_folder(args.domain), args.adapters))
            print(notes[-1], flush=True)
        if name == "vllm" and args.beams:
            few, few_asked = histories[: args.beam_users], asked[: args.beam_users]
            mine, found = timed(model.engine, lambda model=model, few=few: model.rank(few, N, prior=False))
            for constrained in (False, True):
                rows.append(beams(model, few, few_asked, args.beams, constrained))
                notes.append(
                    f"{rows[-1]['engine']}, {len(few)} users: {rows[-1]['seconds'] / len(few):.2f} s a user, exact "
                    f"search on them {mine / len(few):.2f} s ({rows[-1]['seconds'] / mine:.1f} ×), NDCG@10 "
                    f"{quality(listed(found, N), few_asked):.4f}"
                )
                print(notes[-1], flush=True)
        if hasattr(model.engine, "close"):
            model.engine.close()
        del model
    keys = [key for key in rows[0] if key != "seconds"]
    print("\n| " + " | ".join(keys) + " |\n|" + " --- |" * len(keys))
    for row in rows:
        print("| " + " | ".join(str(row.get(key, "")) for key in keys) + " |")
    print("\n" + "\n".join(notes))
    print(f"{args.users} users, {torch.get_num_threads()} threads, overrides {' '.join(args.overrides) or 'none'}")


if __name__ == "__main__":
    main()
