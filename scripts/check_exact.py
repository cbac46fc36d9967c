"""Exact search against scoring every item: the top 20 of real users, with and without mask and prior.

    python scripts/check_exact.py movies --users 100

What is compared with shares no code with the engine or the search: transformers and PEFT load base and adapter by
themselves, every place where titles part is a padded row of its own behind a copy of the history's keys and values,
and log p of a title is the sum over its decisions, each a softmax over all tokens that any title has there, taken from
the head's whole vocabulary.  For the first users the titles of the list are also run whole, without any kept keys.

Besides real users: an empty history, one longer than the context, a catalog of which one item or nothing may be
offered.  A line is printed and kept for every user; the same command goes on after the last one.  Ends with status 1 on
a score that is off by more than 1e-3 nats, or an order that differs where scores lie further apart than that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, DynamicCache

import llmrec
from llmrec import config
from llmrec.choices import bonus as terms
from llmrec.choices.search import Ranking, rank
from llmrec.model.load import base_model
from llmrec.recommender import Recommender

PACKAGE = Path(llmrec.__file__).parent
GAP = 1e-3  # nats
N = 20
ROWS = 32  # copies of a history's keys and values at once
TOGETHER = 4  # users whose searches share the engine's waves


class Plain:
    """log p of every title, by transformers and PEFT alone."""

    def __init__(self, base: Path, adapter: Path | None, lines: Sequence[Sequence[int]]):
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.model = (PeftModel.from_pretrained(model, str(adapter)).get_base_model() if adapter else model).eval()
        self.lines = lines
        following: dict[tuple[int, ...], set[int]] = {}
        for line in lines:
            for depth in range(len(line)):
                following.setdefault(tuple(line[:depth]), set()).add(line[depth])
        self.children = {path: sorted(found) for path, found in following.items() if len(found) > 1}
        before = {path[:depth] for path in self.children for depth in range(len(path))}
        self.rows = sorted((path for path in self.children if path and path not in before), key=len)

    @torch.no_grad()
    def every_item(self, tokens: Sequence[int]) -> np.ndarray:
        """(items,) float64 nats."""
        first = self.model.model(input_ids=torch.tensor([list(tokens)]), use_cache=True)
        states = {(): first.last_hidden_state[0, -1]}
        kept = [(layer.keys, layer.values) for layer in first.past_key_values.layers]
        for start in range(0, len(self.rows), ROWS):
            part = self.rows[start : start + ROWS]
            copies = DynamicCache([(k.expand(len(part), -1, -1, -1), v.expand(len(part), -1, -1, -1)) for k, v in kept])
            out = self.model.model(input_ids=padded(part), past_key_values=copies, use_cache=True).last_hidden_state
            for row, path in zip(out, part, strict=True):
                states |= {path[:depth]: row[depth - 1] for depth in range(1, len(path) + 1)}
        paths = list(self.children)
        logits = self.model.get_output_embeddings()(torch.stack([states[path] for path in paths]))
        log_p = {path: self._log_p(path, row) for path, row in zip(paths, logits, strict=True)}
        return np.array([self._sum(line, log_p) for line in self.lines])

    @torch.no_grad()
    def whole(self, tokens: Sequence[int], items: Sequence[int]) -> np.ndarray:
        """The same for some items: history and title as one row, nothing kept, logits at every place."""
        found = []
        for item in items:
            line = self.lines[item]
            out = self.model(input_ids=torch.tensor([[*tokens, *line]]), use_cache=False).logits[0, len(tokens) - 1 :]
            paths = [(depth, tuple(line[:depth])) for depth in range(len(line)) if tuple(line[:depth]) in self.children]
            found.append(self._sum(line, {path: self._log_p(path, out[depth]) for depth, path in paths}))
        return np.array(found)

    def _log_p(self, path: tuple[int, ...], logits: torch.Tensor) -> dict[int, float]:
        children = self.children[path]
        return dict(zip(children, torch.log_softmax(logits[children].double(), 0).tolist(), strict=True))

    def _sum(self, line: Sequence[int], log_p: dict[tuple[int, ...], dict[int, float]]) -> float:
        steps = ((tuple(line[:depth]), token) for depth, token in enumerate(line))
        return sum(log_p[path][token] for path, token in steps if path in self.children)


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """(rows, time) token ids, filled on the right, where a causal model never looks."""
    ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids


@dataclass(frozen=True)
class Asked:
    """One history to check."""

    name: str
    history: tuple[int, ...]


def special(model: Recommender, wanted: Sequence[Asked]) -> list[Asked]:
    """Histories that real users do not have."""
    longest = max((one.history for one in wanted), key=len)
    many = (longest * (1 + model.recipe.fit.window_tokens // len(longest)))[: model.recipe.fit.window_tokens]
    return [Asked("(no history)", ()), Asked(f"({len(many)} films, more than fit)", many)]


def bonuses(model: Recommender, history: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    """What is added to log p in each of the lists."""
    items = len(model.catalog)
    nothing, mask = np.zeros(items, np.float32), terms.mask(items, history)
    weight = model.prior_weight or 1.0
    prior = terms.mix(model.prior.p(history), model.prior.popularity, weight, model.recipe.prior.floor)
    yield "alone", nothing
    yield "mask", mask
    yield "prior", prior
    yield "mask+prior", terms.combine(mask, prior)
    yield "one item", terms.only(items, [items // 2])
    yield "no item", terms.only(items, [])


def compare(found: Ranking, log_p: np.ndarray, bonus: np.ndarray) -> tuple[int, float]:
    """(places that differ, largest difference of score or log p in nats) between a list and sorting everything."""
    total = log_p + bonus
    order = np.lexsort((np.arange(len(total)), -total))
    order = order[np.isfinite(total[order])][:N]
    if len(found.items) != len(order) or len(set(found.items.tolist())) != len(order):
        return N, np.inf
    differ = (found.items != order) & (np.abs(total[found.items] - total[order]) > GAP)
    off = np.abs(np.concatenate([found.score - total[found.items], found.log_p - log_p[found.items]]))
    return int(differ.sum()), float(off.max(initial=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--whole", type=int, default=2, help="users whose top titles are also run without kept keys")
    parser.add_argument("--base", action="store_true", help="the base model without an adapter")
    parser.add_argument(
        "--kept", type=Path, help="JSON lines of users done (default: in LLMREC_HOME, by weights and code)"
    )
    args = parser.parse_args()
    recipe = config.load_recipe(args.domain, ("fit.precision=float32",))
    model = Recommender.load(recipe, None if args.base else args.domain, device="cpu")
    base = base_model(recipe.base_model)
    folder = None if args.base else config.adapter_folder(args.domain)
    parts = ("choices", "engine", "model", "baselines", "tasks", "data")
    code = [Path(__file__), PACKAGE / "recommender.py", *(f for part in parts for f in (PACKAGE / part).glob("*.py"))]
    state = {key: model.card.get(key) for key in ("teacher", "prior_weight", "prompts")}
    state |= {"catalog": model.catalog.digest, "recipe": recipe.model_dump(mode="json")}
    of = b"".join(path.read_bytes() for path in sorted(code)) + json.dumps(state, sort_keys=True).encode()
    digest = hashlib.sha256(of).hexdigest()[:12]
    weights = f"{base.digest}-{model.card.get('weights', 'base')}"
    kept = args.kept or config.home() / "checks" / f"exact-{args.domain}-{weights}-{digest}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = {one["user"]: one for one in map(json.loads, kept.read_text().splitlines())} if kept.is_file() else {}
    plain = Plain(base.folder, folder, [line.tolist() for line in model.listing.lines])
    asked = model.queries("test", 1)
    chosen = np.random.default_rng(0).permutation(len(asked))[: args.users]
    users = [Asked(asked[i].user_id, asked[i].history) for i in chosen]
    users = [*special(model, users), *users]
    print(f"{len(plain.lines)} titles part at {len(plain.children)} places: {len(plain.rows)} rows a user; {kept}")
    left = [one for one in users if one.name not in done]
    whole = {one.name for one in users[: args.whole]}
    with kept.open("a", encoding="utf-8") as stream:
        for start in range(0, len(left), TOGETHER):
            for record in check(model, plain, left[start : start + TOGETHER], whole):
                stream.write(json.dumps(record) + "\n")
                stream.flush()
                done[record["user"]] = record
                print(f"{len(done):4} {shown(record)}", flush=True)
    sys.exit(not summary([done[one.name] for one in users]))


def check(model: Recommender, plain: Plain, group: Sequence[Asked], whole: set[str]) -> Iterator[dict[str, Any]]:
    """One record per history: all lists of the group are searched first, in waves that they share."""
    started = time.perf_counter()
    prompts = model.prompts([one.history for one in group])
    added = [dict(bonuses(model, one.history)) for one in group]
    lists = {}
    for name in added[0]:
        own = [bonus[name] for bonus in added]
        lists[name] = rank(model.engine, prompts, model.listing.choices, own.__getitem__, N)
    searched = (time.perf_counter() - started) / len(group)
    for k, one in enumerate(group):
        started = time.perf_counter()
        log_p = plain.every_item(prompts[k].tokens)
        record: dict[str, Any] = {"user": one.name, "history": len(one.history), "lists": {}}
        for name, rankings in lists.items():
            wrong, off = compare(rankings[k], log_p, added[k][name])
            record["lists"][name] = {"length": len(rankings[k].items), "wrong": wrong, "off": off}
        record["sum"] = float(np.exp(log_p).sum())
        if one.name in whole:
            top = lists["alone"][k].items
            record["whole"] = float(np.abs(plain.whole(prompts[k].tokens, top) - log_p[top]).max())
        record["seconds"] = [round(searched, 2), round(time.perf_counter() - started, 2)]
        yield record


def shown(record: dict[str, Any]) -> str:
    lists = record["lists"].values()
    whole = f", run whole {record['whole']:.1e}" if "whole" in record else ""
    return (
        f"{record['user']:>28}: {len(lists)} lists, {sum(one['wrong'] for one in lists)} places differ, largest "
        f"difference {max(one['off'] for one in lists):.1e} nats{whole}; p sums to {record['sum']:.6f}; "
        f"{record['seconds'][0]:.1f} s searched, {record['seconds'][1]:.1f} s checked"
    )


def summary(records: Sequence[dict[str, Any]]) -> bool:
    """Prints a table; whether everything agrees."""
    good = True
    print(f"\n{len(records)} histories\n\n| bonus | lists | places | differ | largest difference, nats |")
    print("| --- | --- | --- | --- | --- |")
    for name in records[0]["lists"]:
        lists = [record["lists"][name] for record in records]
        wrong, off = sum(one["wrong"] for one in lists), max(one["off"] for one in lists)
        print(f"| {name} | {len(lists)} | {sum(one['length'] for one in lists)} | {wrong} | {off:.1e} |")
        good &= wrong == 0 and off <= GAP
    whole = [record["whole"] for record in records if "whole" in record]
    if whole:
        print(f"\n{len(whole)} of them with {N} titles run whole: largest difference {max(whole):.1e} nats")
        good &= max(whole) <= GAP
    return good


if __name__ == "__main__":
    main()
