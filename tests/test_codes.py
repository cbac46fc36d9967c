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

from llmrec import codes, config
from llmrec.data.catalog import Catalog
from llmrec.errors import AdapterError
from llmrec.insight import Insight
from llmrec.model.adapter import item_digest
from llmrec.prepare import load
from llmrec.recommender import Recommender
from llmrec.train import train

ALPHABETS = ["ABCDE", "012"]


def catalog(*kinds: tuple[str, ...]) -> Catalog:
    count = len(kinds)
    return Catalog([f"i{i}" for i in range(count)], [f"Film {i}" for i in range(count)], [None] * count, [*kinds])


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
    from llmrec import prepare

    prepare.prepare(recipe)
    dataset = load(recipe)
    items = Catalog.of(dataset)
    found = codes.of_items(codes.learned(dataset, items, 2), items)
    letters = [{code[0] for code in found[5 * colour : 5 * colour + 5]} for colour in range(3)]
    assert not letters[0] & letters[1] and not letters[1] & letters[2] and not letters[0] & letters[2]
    assert found == codes.of_items(codes.learned(dataset, items, 2), items)
    assert {len(code) for code in codes.learned(dataset, items, 5).values()} == {5}


def test_new_items_stand_with_those_of_their_kind() -> None:
    items = catalog(("Drama",), ("Drama",), ("Comedy", "Crime"), ("Drama",), ("Comedy",), (), ("Western",))
    known = {item_digest("i0"): "A1", item_digest("i1"): "B2", item_digest("i2"): "C3", item_digest("i3"): "B2"}
    assert codes.of_items(known, items) == ["A1", "B2", "C3", "B2", "C3", "B2", "B2"]
    assert codes.of_items({}, catalog((), ())) == ["", ""]


@pytest.mark.parametrize("found", [["A1"], {"x": "a1"}, {"x": ""}, {"x": "A1<|im_end|>"}, {"x": 3}, {"x": "A" * 7}])
def test_codes_of_another_kind_are_refused(found: object) -> None:
    with pytest.raises(AdapterError, match="codes: up to 6 capital letters and digits"):
        codes.read({"codes": found})


def test_no_codes_are_none() -> None:
    assert codes.read({}) is None


@pytest.fixture
def project(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path / "project"))
    return tiny.films(tmp_path / "project")


def test_an_adapter_reads_and_chooses_with_its_codes_and_says_titles_alone(project: Path, tmp_path: Path) -> None:
    settings = ("identifier.codes=2", "fit.epochs=4", "fit.valid_every=4")
    folder = train(config.load_recipe("films", settings))
    card = json.loads((folder / "card.json").read_text())
    assert len(card["codes"]) == 15 and not any(f"i{i}" in card["codes"] for i in range(15))

    recipe = config.load_recipe("films")  # which has none: what an adapter has learned is its own
    model = Recommender.load(recipe, "films")
    tokenizer, listing = model.encoder.tokenizer, model.listing
    own = codes.of_items(card["codes"], model.catalog)
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
    assert plain.listing.lines is plain.listing.names  # the base model knows no codes

    more = (project / "items.csv").read_text() + "i15,Blue Hour,Blue\ni16,Green Hour,Green\n"
    (tmp_path / "items.csv").write_text(more)
    grown = config.load_recipe("films", (f"data.items={tmp_path / 'items.csv'}", "new_share=0.2"))
    model = Recommender.load(grown, "films")
    blue = own[5:10]
    assert tokenizer.decode(model.listing.lines[15]).split(" ")[0] in blue
    [found] = model.rank([[0, 1]], 17)
    assert {15, 16} <= {*found.items.tolist()}

    again = train(config.load_recipe("films", (*settings, "init_from=films", "fit.epochs=1")), out=tmp_path / "again")
    assert json.loads((again / "card.json").read_text())["codes"] == card["codes"]

    bad = project / "adapters" / "bad"
    shutil.copytree(folder, bad)
    card["codes"] = dict.fromkeys(card["codes"], "<|im_end|>")
    (bad / "card.json").write_text(json.dumps(card))
    with pytest.raises(AdapterError, match="capital letters and digits"):
        Recommender.load(recipe, "bad")
