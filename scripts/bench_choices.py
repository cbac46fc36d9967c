"""Tries and search at catalog scale, without a model: build time, memory, and cost per expansion.

    python scripts/bench_choices.py --titles 1000000

Titles are made from common words and numbered volumes, all distinct; tokens are one per word (as a tokenizer would give
a few per title).  The search runs on the pseudo-random engine whose own time is measured apart and left out.  Last,
what comes before a trie in practice: titles in words of a base model become lines, tokens and a trie.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from llmrec.choices.bonus import without
from llmrec.choices.search import Choices, rank
from llmrec.choices.trie import ChoiceTrie
from llmrec.data.catalog import Catalog
from llmrec.engine import Node, Prompt
from llmrec.engine.fake import FakeEngine
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model, load_tokenizer
from llmrec.recommender import Listing
from llmrec.tasks.template import Template

WORDS = 20_000  # vocabulary of the synthetic titles, drawn with Zipf's frequencies
END = WORDS


def sequences(titles: int, seed: int = 0) -> list[np.ndarray]:
    """`titles` distinct token sequences of 2 to 7 words and an end."""
    rng = np.random.default_rng(seed)
    found: dict[bytes, np.ndarray] = {}
    while len(found) < titles:
        words = np.minimum(rng.zipf(1.2, (titles, 7)) - 1, WORDS - 1).astype(np.int32)
        for row, length in zip(words, rng.integers(2, 8, titles), strict=True):
            found.setdefault(row[:length].tobytes(), np.append(row[:length], np.int32(END)))
            if len(found) == titles:
                break
    return list(found.values())


class Timed(FakeEngine):
    """Answers at once for any width, and counts its own seconds."""

    seconds = 0.0

    def branch(self, nodes: list[Node]) -> list[np.ndarray]:  # type: ignore[override]
        start = time.perf_counter()
        answers = super().branch(nodes)
        self.seconds += time.perf_counter() - start
        return answers

    def _log_p(self, node: Node) -> np.ndarray:
        scores = np.random.default_rng(len(node.path) + int(node.children[0])).normal(size=len(node.children)) * 3
        return (scores - np.logaddexp.reduce(scores)).astype(np.float32)


def measure(titles: int, users: int) -> dict[str, float]:
    """Seconds and megabytes of one catalog size."""
    made = sequences(titles)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    trie = ChoiceTrie.build(made)
    build = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    choices, engine = Choices(trie), Timed(group=32)
    rng = np.random.default_rng(1)
    prompts = [Prompt((int(i),)) for i in rng.integers(0, 1000, users)]
    bonus = rng.normal(size=titles).astype(np.float32)
    found: dict[str, float] = {"titles": titles, "build s": build, "peak MB more": grown, "nodes": len(trie.node_lo)}
    seen = [np.unique(rng.integers(0, titles, 50)) for _ in prompts]
    kinds = (
        ("shared", bonus),
        ("shared, own mask", lambda i: without(titles, seen[i], bonus)),
        ("own", lambda i: bonus),
    )
    for name, term in kinds:
        rank(engine, prompts[:2], choices, term, 10)
        engine.seconds = 0.0
        start = time.perf_counter()
        lists = rank(engine, prompts, choices, term, 10)
        spent = time.perf_counter() - start - engine.seconds
        expansions = sum(one.expansions for one in lists)
        found |= {f"{name}: ms a user": 1000 * spent / users, f"{name}: us an expansion": 1e6 * spent / expansions}
        found["expansions a user"] = expansions / users
        found["waves a user"] = sum(one.waves for one in lists) / users
    return found


def listed(titles: int, base: str) -> dict[str, float]:
    """Seconds and megabytes of a whole listing: identifiers, their tokens by the tokenizer of `base`, the trie."""
    encoder = Encoder(load_tokenizer(base_model(base).folder))
    texts = [token.lstrip("Ġ▁") for token in encoder.tokenizer.get_vocab()]  # marks of a word's beginning
    words = np.array(sorted({text for text in texts if len(text) > 2 and text.isascii() and text.isalpha()}))
    rng = np.random.default_rng(0)
    drawn = words[np.minimum(rng.zipf(1.2, (titles, 4)) - 1, len(words) - 1)]
    names = [f"{' '.join(row[: 1 + i % 4])} {i}" for i, row in enumerate(drawn)]
    catalog = Catalog([*map(str, range(titles))], names, [None] * titles, [()] * titles)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    listing = Listing.build(catalog, Template.today("next_item"), encoder, max_tokens=12)
    spent = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    tokens = float(np.mean([len(line) for line in listing.lines]))
    return {"listing: build s": spent, "listing: peak MB more": grown, "listing: tokens a title": tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=1_000_000, help="size of the large catalog")
    parser.add_argument("--small", type=int, default=1_682, help="size of the one to compare with")
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--base", default="smollm2-135m", help="whose tokenizer reads titles; '' leaves listings out")
    args = parser.parse_args()
    sizes = (args.small, args.titles)
    listings = [listed(size, args.base) if args.base else {} for size in sizes]  # first: a peak stays for good
    small, large = (measure(size, args.users) | listing for size, listing in zip(sizes, listings, strict=True))
    print("| | small | large | ratio |\n| --- | --- | --- | --- |")
    for name, value in small.items():
        ratio = f"{large[name] / value:.1f}" if value else ""
        print(f"| {name} | {value:,.3g} | {large[name]:,.6g} | {ratio} |")


if __name__ == "__main__":
    main()
