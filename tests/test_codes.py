"""Codes before titles: neighbours share symbols, the adapter keeps them, nobody is shown them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from llmrec import codes, config, prepare
from llmrec.adapters import add
from llmrec.conflicts import conflicts
from llmrec.data.catalog import Catalog
from llmrec.errors import AdapterError, RecipeError
from llmrec.insight import Insight
from llmrec.model.adapter import item_digest
from llmrec.model.merge import Part, merged_card
from llmrec.recommender import Recommender
from llmrec.show import show
from llmrec.tasks.saved import misshapen
from llmrec.train import train

ALPHABETS = ["ABCDE", "012"]


def test_neighbours_share_symbols_and_every_symbol_has_its_share() -> None:
    line = np.random.default_rng(0).permutation(150)
    points, mass = line[:, None] * np.array([[1.0, 0.5]]), np.ones(150)
    made = codes.divided(points, mass, ALPHABETS)
    assert Counter(code[0] for code in made) == dict.fromkeys("ABCDE", 30)
    assert set(Counter(made).values()) == {10}
    along = [made[i] for i in np.argsort(line)]
    assert sum(a != b for a, b in zip(along, along[1:], strict=False)) == 14  # each group is one stretch
    heavy = np.where(line < 30, 4.0, 1.0)  # 120 of 240
    first = {code[0] for code, place in zip(codes.divided(points, heavy, ALPHABETS), line, strict=True) if place < 28}
    assert len(first) == 3


@given(arrays(np.float64, st.tuples(st.integers(1, 40), st.integers(1, 3)), elements=st.floats(-1, 1)))
def test_any_points_get_whole_codes(points: np.ndarray) -> None:
    made = codes.divided(points, np.ones(len(points)), ALPHABETS)
    assert len(made) == len(points) and all(code[0] in "ABCDE" and code[1] in "012" for code in made)


def test_what_the_same_people_choose_shares_a_letter(films: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(films))
    recipe = config.load_recipe("films")
    prepare.prepare(recipe)
    dataset = prepare.load(recipe)
    items = Catalog.of(dataset)
    found = codes.learned(dataset, items, 2)
    letters = [{code[0] for code in found[5 * colour : 5 * colour + 5]} for colour in range(3)]
    assert not letters[0] & letters[1] and not letters[1] & letters[2] and not letters[0] & letters[2]
    assert found == codes.learned(dataset, items, 2)
    assert {len(code) for code in codes.learned(dataset, items, 5)} == {5}


def test_a_large_catalog_of_which_nothing_is_chosen_together_has_codes() -> None:
    apart = sparse.csr_array((200, 200), dtype=np.float64)
    assert not codes.vectors(apart).any()
    assert len(codes.divided(codes.vectors(apart), np.ones(200), ALPHABETS)) == 200


def test_new_items_stand_with_those_of_their_kind() -> None:
    kinds = [("Drama",), ("Drama",), ("Comedy", "Crime"), ("Drama",), ("Comedy",), (), ("Western",), ()]
    titles = [f"Film {i}" for i in range(len(kinds))]
    known = dict(zip(map(item_digest, titles), ["A1", "B2", "C3", "B2"], strict=False))
    assert codes.of_items(known, titles, kinds) == ["A1", "B2", "C3", "B2", "C3", "B2", "B2", "B2"]
    with pytest.raises(AdapterError, match="codes: of no item in the catalog"):
        codes.of_items(known, ["Another"], [()])
    known[item_digest("Film 5")] = "Z9"
    assert codes.of_items(known, titles, kinds)[7] == "Z9"  # has no categories either


@pytest.mark.parametrize("found", [["A1"], {"x": "a1"}, {"x": ""}, {"x": "A1<|im_end|>"}, {"x": 3}, {"x": "A" * 7}])
def test_codes_of_another_kind_are_refused_wherever_a_card_is_read(found: object) -> None:
    assert "codes" in str(misshapen({"codes": found}))


def test_codes_of_some_items_only_are_refused() -> None:
    items = Catalog(["1"], ["Heat"], [None], [()])
    assert codes.of_adapter({"items": [item_digest("Heat")]}, items) is None
    with pytest.raises(AdapterError, match="codes: missing of 1 items"):
        codes.of_adapter({"items": [item_digest("Heat")], "codes": {"0": "A1"}}, items)


def test_an_identifier_with_its_code_fits_a_choice() -> None:
    with pytest.raises(RecipeError, match="max_tokens: 59 at most with identifier.codes=2"):
        config.section(config.Identifier, {"max_tokens": 62, "codes": 2})


@pytest.fixture
def project(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path / "project"))
    return tiny.films(tmp_path / "project")


def test_an_adapter_reads_and_chooses_with_its_codes_and_says_titles_alone(project: Path, tmp_path: Path) -> None:
    settings = ("identifier.codes=2", "fit.epochs=4", "fit.valid_every=4")
    folder = train(config.load_recipe("films", settings))
    card = json.loads((folder / "card.json").read_text())
    assert sorted(card["codes"]) == card["items"] and len(card["codes"]) == 15

    recipe = config.load_recipe("films")  # which has none: what an adapter has learned is its own
    model = Recommender.load(recipe, "films")
    tokenizer, listing = model.encoder.tokenizer, model.listing
    own = [card["codes"][item_digest(title)] for title in tiny.FILMS]
    assert [tokenizer.decode(line) for line in listing.lines] == [
        f"{code} {title}\n" for code, title in zip(own, tiny.FILMS, strict=True)
    ]
    assert listing.identifiers == tiny.FILMS
    assert [tokenizer.decode(name) for name in listing.names] == [f"{title}\n" for title in tiny.FILMS]
    assert f"{own[3]} {tiny.FILMS[3]}\n" in tokenizer.decode(model.prompts([[3]])[0].tokens)
    [found] = model.rank([[0, 1]], 15)
    colours = [int(item) // 5 for item in found.items[:5]]
    assert np.exp(found.log_p).sum() == pytest.approx(1, abs=1e-4) and Counter(colours).most_common(1)[0][0] == 0
    for text, _ in Insight(model).summaries([[0, 1, 2]]):
        assert not any(code in text.split() for code in own)

    plain = Recommender.load(recipe, None)
    assert plain.listing.lines is plain.listing.names and not plain.listing.codes  # the base model knows none

    more = (project / "items.csv").read_text() + "i15,Blue Hour,Blue\ni16,Green Hour,Green\n"
    (tmp_path / "items.csv").write_text(more)
    grown = config.load_recipe("films", (f"data.items={tmp_path / 'items.csv'}", "new_share=0.2"))
    model = Recommender.load(grown, "films")
    blue = own[5:10]
    assert tokenizer.decode(model.listing.lines[15]).split(" ")[0] in blue
    [found] = model.rank([[0, 1]], 17)
    assert {15, 16} <= {*found.items.tolist()}

    assert np.exp([model.listing.named.parts()[1][2]]) == pytest.approx(0.2)  # in texts, too, they are newcomers

    again = train(config.load_recipe("films", ("init_from=films", "fit.epochs=1")), out=tmp_path / "again")
    assert json.loads((again / "card.json").read_text())["codes"] == card["codes"]  # what it has learned to read
    assert conflicts(recipe, adapter="films", batches=1, out=tmp_path / "cosines").norms

    bad = project / "adapters" / "bad"
    shutil.copytree(folder, bad)
    card["codes"] = dict.fromkeys(card["codes"], "<|im_end|>")
    (bad / "card.json").write_text(json.dumps(card))
    with pytest.raises(AdapterError, match="codes"):
        Recommender.load(recipe, "bad")
    with pytest.raises(AdapterError, match="codes"):
        add("films", bad)


def test_a_sum_keeps_the_codes_and_no_two_kinds_are_added(project: Path, tmp_path: Path) -> None:
    short = ("tasks={next_item: {}}", "fit.epochs=1", "fit.valid_users=0")
    coded = train(config.load_recipe("films", (*short, "identifier.codes=2")))
    other = train(config.load_recipe("films", (*short, "init_from=films", "fit.seed=1")), out=tmp_path / "other")
    plain = train(config.load_recipe("films", short), out=tmp_path / "plain")
    cards = {folder: json.loads((folder / "card.json").read_text()) for folder in (coded, other, plain)}
    known = merged_card([Part(coded, cards[coded], 0.5), Part(other, cards[other], 0.5)])
    assert known["codes"] == cards[coded]["codes"]
    with pytest.raises(AdapterError, match="other codes before titles, or one without"):
        merged_card([Part(coded, cards[coded], 0.5), Part(plain, cards[plain], 0.5)])


def test_lists_are_shown_before_the_adapter_they_start_from_is_trained(project: Path) -> None:
    shutil.copytree(project / "adapters" / "films", project / "adapters" / "later")
    show(config.load_recipe("films", ("identifier.codes=2", "init_from=later")))
